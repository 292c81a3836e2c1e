"""EmpatheticDialogues (Rashkin et al. 2019): conversations that begin with an emotional situation.

The official CSV has 8 columns and no quoting; a comma in a text is written ``_comma_``. ``context``
is the emotion label of the conversation. A trigger is a conversation's first utterance.
"""

from __future__ import annotations

import html
from collections.abc import Iterator
from pathlib import Path

from augesc_builder.errors import DownloadError, InputError
from augesc_builder.sources.lines import read_lines
from augesc_builder.sources.posts import Post

REPO = "facebook/empathetic_dialogues"
REVISION = "refs/convert/parquet"
"""The Hub's own Parquet copy; the repo's main branch holds a script, which is not run any more."""

COLUMNS = [
    *("conv_id", "utterance_idx", "context", "prompt"),
    *("speaker_idx", "utterance", "selfeval", "tags"),
]

EMOTIONS = frozenset(
    {
        *("afraid", "angry", "annoyed", "anticipating", "anxious"),
        *("apprehensive", "ashamed", "caring", "confident", "content"),
        *("devastated", "disappointed", "disgusted", "embarrassed", "excited"),
        *("faithful", "furious", "grateful", "guilty", "hopeful"),
        *("impressed", "jealous", "joyful", "lonely", "nostalgic"),
        *("prepared", "proud", "sad", "sentimental", "surprised"),
        *("terrified", "trusting"),
    }
)
"""The 32 labels of a conversation's situation."""


def read_empathetic_dialogues(path: str | Path | None) -> Iterator[Post]:
    """Give the first utterance of each conversation with its emotion label.

    ``path`` is a CSV file or a folder of them; ``None`` downloads the Hub's copy. Raises
    :class:`~augesc_builder.errors.InputError` with file and line.
    """
    if path is None:
        yield from _download()
        return
    path = Path(path)
    files = sorted(path.glob("*.csv")) if path.is_dir() else [path]
    if not files:
        raise InputError("no CSV files there; expected train.csv, valid.csv, test.csv", path)
    for file in files:
        yield from _read_csv(file)


def _read_csv(path: Path) -> Iterator[Post]:
    lines = read_lines(path)
    header = next(lines, None)
    if header is None:
        raise InputError(f"empty; expected the header {','.join(COLUMNS)}", path)
    if header[1].split(",") != COLUMNS:
        raise InputError(
            f"expected the header {','.join(COLUMNS)}, found {header[1][:80]!r}; give a CSV file "
            f"of EmpatheticDialogues",
            path,
            1,
        )
    for number, line in lines:
        cells = line.split(",")
        if len(cells) != len(COLUMNS):
            raise InputError(
                f"expected {len(COLUMNS)} columns, found {len(cells)}; a comma in a text is "
                f"written _comma_; mend or remove the line",
                path,
                number,
            )
        row = dict(zip(COLUMNS, cells, strict=True))
        if row["context"] not in EMOTIONS:
            raise InputError(
                f"unknown emotion {row['context']!r}; expected one of the 32 labels, such as sad",
                path,
                number,
            )
        if row["utterance_idx"] == "1":
            yield _post(row["utterance"], row["context"])


def _post(utterance: str, emotion: str) -> Post:
    return Post(html.unescape(utterance.replace("_comma_", ",")), emotion=emotion)


def _download() -> Iterator[Post]:
    import pyarrow.parquet as pq
    from huggingface_hub import HfApi, hf_hub_download

    try:
        info = HfApi().dataset_info(REPO, revision=REVISION)
        names = sorted(s.rfilename for s in info.siblings or [] if s.rfilename.endswith(".parquet"))
        files = [
            hf_hub_download(REPO, name, repo_type="dataset", revision=info.sha) for name in names
        ]
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DownloadError(
            f"{REPO} cannot be had from the Hub ({reason}); give a local copy: "
            f"--source empathetic_dialogues=PATH"
        ) from error
    for file in files:
        for row in pq.read_table(
            file, columns=["utterance_idx", "context", "utterance"]
        ).to_pylist():
            if row["utterance_idx"] == 1:
                yield _post(row["utterance"], row["context"])
