"""EmpatheticDialogues (Rashkin et al. 2019): conversations that begin with an emotional situation.

The official CSV has 8 columns and no quoting; a comma in a text is written ``_comma_``. ``context``
is the emotion label of the conversation. A trigger is a conversation's first utterance.
"""

from __future__ import annotations

import html
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from augesc_builder import paper
from augesc_builder.errors import InputError
from augesc_builder.readers.hub import download_dataset
from augesc_builder.readers.jsonl import read_lines
from augesc_builder.readers.parquet import read_table
from augesc_builder.sources.base import NON_COMMERCIAL, BadLines, Post, SourceInfo

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


def read_empathetic_dialogues(path: str | Path, bad: BadLines) -> Iterator[Post]:
    """Yield the first utterance of each conversation with its emotion label.

    ``path`` is a CSV file, the official tarball, or a folder of CSV or Parquet files. Lines that
    break the format go to ``bad``; a file without any good line is an error.

    Raises :class:`~augesc_builder.errors.InputError` for a folder without such files and for a
    broken tarball.
    """
    path = Path(path)
    files = sorted(f for f in path.rglob("*") if f.suffix in {".csv", ".parquet"})
    if path.is_dir() and not files:
        raise InputError("no CSV files there; expected train.csv, valid.csv, test.csv", path)
    for file in files if path.is_dir() else [path]:
        if file.suffix == ".parquet":
            yield from _read_parquet(file)
        elif tarfile.is_tarfile(file) if file.is_file() else False:
            yield from _read_tarball(file, bad)
        else:
            yield from _read_csv(read_lines(file), file, bad)


def _read_tarball(path: Path, bad: BadLines) -> Iterator[Post]:
    try:
        with tarfile.open(path) as tarball, tempfile.TemporaryDirectory() as folder:
            members = [m for m in tarball.getmembers() if m.isfile() and m.name.endswith(".csv")]
            for member in sorted(members, key=lambda m: m.name):
                data = tarball.extractfile(member)
                if data is None:
                    continue
                file = Path(folder) / Path(member.name).name
                with file.open("wb") as copy:
                    shutil.copyfileobj(data, copy)
                yield from _read_csv(read_lines(file), Path(f"{path}:{member.name}"), bad)
            if not members:
                raise InputError("no CSV files in the tarball", path)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise InputError(f"not a whole tarball ({error}); get it again", path) from None


def _read_csv(lines: Iterator[tuple[int, str]], path: Path, bad: BadLines) -> Iterator[Post]:
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
    usable, last = False, None
    for number, line in lines:
        cells = line.split(",")
        error = _wrong(cells)
        if error:
            last = InputError(error, path, number)
            bad.add(last)
            continue
        usable = True
        row = dict(zip(COLUMNS, cells, strict=True))
        if row["utterance_idx"] == "1":
            yield _post(row["utterance"], row["context"])
    if not usable:
        raise last or InputError("no line behind the header", path)


def _wrong(cells: list[str]) -> str | None:
    if len(cells) != len(COLUMNS):
        return (
            f"expected {len(COLUMNS)} columns, found {len(cells)}; a comma in a text is written "
            f"_comma_; mend or remove the line"
        )
    emotion = cells[COLUMNS.index("context")]
    if emotion not in EMOTIONS:
        return f"unknown emotion {emotion!r}; expected one of the 32 labels, such as sad"
    return None


def _post(utterance: str, emotion: str) -> Post:
    return Post(html.unescape(utterance.replace("_comma_", ",")), emotion=emotion)


def _read_parquet(path: Path) -> Iterator[Post]:
    for row in read_table(path, ["utterance_idx", "context", "utterance"]).to_pylist():
        if int(row["utterance_idx"]) == 1:
            yield _post(row["utterance"], row["context"])


def download_empathetic_dialogues() -> tuple[Path, str]:
    """Download the Hub's Parquet copy; give its folder and the commit it is of."""
    hint = "give a local copy: --source empathetic_dialogues=PATH"
    return download_dataset(REPO, REVISION, ["*.parquet"], hint)


def _locate(path: str | None) -> tuple[Path | str, str | None]:
    return (path, None) if path is not None else download_empathetic_dialogues()


INFO = SourceInfo(
    name="empathetic_dialogues",
    label="ED",
    about="empathetic_dialogues=PATH, a CSV file, a folder or the tarball; no path: the Hub's copy",
    licence=NON_COMMERCIAL,
    producers="The posts of EmpatheticDialogues were written by crowd workers.",
    citation="rashkin2019empathetic",
    dataset=f"extended|{REPO}",
    paper=paper.QUERIES["empathetic_dialogues"],
    repo=REPO,
    revision=REVISION,
    locate=_locate,
    read=read_empathetic_dialogues,
)
