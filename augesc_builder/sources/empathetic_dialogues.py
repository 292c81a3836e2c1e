"""EmpatheticDialogues (Rashkin et al. 2019): conversations that begin with an emotional situation.

The official CSV has 8 columns and no quoting; a comma in a text is written ``_comma_``. ``context``
is the emotion label of the conversation. A trigger is a conversation's first utterance.
"""

from __future__ import annotations

import html
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

from augesc_builder import paper
from augesc_builder.errors import InputError
from augesc_builder.readers.compressed import DamagedStreamError, kind_by_content, read_blocks
from augesc_builder.readers.hub import download_dataset
from augesc_builder.readers.jsonl import Line, read_lines, text_of
from augesc_builder.readers.parquet import read_rows
from augesc_builder.readers.records import BROKEN, parse_each
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
            yield from _read_parquet(file, bad)
        elif kind := _compression(file):
            yield from _read_tarball(file, kind, bad)
        else:
            yield from _read_csv(read_lines(file, bad.limits), file, bad)


def _compression(path: Path) -> str | None:
    """Return how a tarball is compressed, ``tar`` where it is not; ``None`` for another file."""
    try:
        return kind_by_content(path) or ("tar" if tarfile.is_tarfile(path) else None)
    except OSError:  # said where it is read
        return None


def _read_tarball(path: Path, kind: str, bad: BadLines) -> Iterator[Post]:
    """Read the CSV files of a tarball, once it is known to be whole."""
    with tempfile.TemporaryDirectory() as folder:
        # Decompressed to its last byte first: a checksum stands at the end, behind all posts.
        plain = Path(folder) / "plain.tar"
        try:
            with plain.open("wb") as copy:
                for block in read_blocks(path, None if kind == "tar" else kind, bad.limits):
                    copy.write(block)
            with tarfile.open(plain, "r:") as tarball:
                members = [m for m in tarball if _is_csv(m)]
                for i, member in enumerate(members):
                    with (Path(folder) / f"{i}.csv").open("wb") as copy:
                        shutil.copyfileobj(cast("IO[bytes]", tarball.extractfile(member)), copy)
        except (DamagedStreamError, tarfile.TarError, EOFError, *BROKEN) as error:
            raise InputError(f"not a whole tarball ({error}); get it again", path) from None
        if not members:
            raise InputError("no CSV files in the tarball", path)
        for i, member in sorted(enumerate(members), key=lambda pair: pair[1].name):
            lines = read_lines(Path(folder) / f"{i}.csv", bad.limits)
            yield from _read_csv(lines, Path(f"{path}:{member.name}"), bad)


def _is_csv(member: tarfile.TarInfo) -> bool:
    """Whether a member is one to read; raises ``tarfile.ReadError`` for one that no tool writes."""
    if member.size < 0 or member.issparse():  # would be read again and again; or is made of nothing
        raise tarfile.ReadError(f"a member of {member.size:,} bytes that are not there")
    return member.isfile() and member.name.endswith(".csv")


def _read_csv(lines: Iterator[Line], path: Path, bad: BadLines) -> Iterator[Post]:
    def parse(line: bytes, number: int) -> Post | None:
        cells = text_of(line, path, number).split(",")
        if len(cells) != len(COLUMNS):
            raise InputError(
                f"expected {len(COLUMNS)} columns, found {len(cells)}; a comma in a text is "
                f"written _comma_; mend or remove the line",
                path,
                number,
            )
        return _first_utterance(dict(zip(COLUMNS, cells, strict=True)), number, path)

    header = next(lines, None)
    if header is None:
        raise InputError(f"empty; expected the header {','.join(COLUMNS)}", path)
    found = header[1] if isinstance(header[1], InputError) else text_of(header[1], path, 1)
    if isinstance(found, InputError):
        raise found
    if found.split(",") != COLUMNS:
        raise InputError(
            f"expected the header {','.join(COLUMNS)}, found {found[:80]!r}; give a CSV file "
            f"of EmpatheticDialogues",
            path,
            1,
        )
    yield from _posts(parse_each(lines, parse, path), path, bad)


def _read_parquet(path: Path, bad: BadLines) -> Iterator[Post]:
    rows = read_rows(path, _IN_TABLES, bad.limits, needed=_IN_TABLES)
    yield from _posts(parse_each(rows, partial(_first_utterance, path=path), path), path, bad)


_IN_TABLES = ("utterance_idx", "context", "utterance")


def _posts(found: Iterable[Post | InputError | None], path: Path, bad: BadLines) -> Iterator[Post]:
    """Yield the posts of a file, which must have a line that can be read."""
    usable, last = False, InputError("no line behind the header", path)
    for post in found:
        if isinstance(post, InputError):
            last = post
            bad.add(post)
            continue
        usable = True
        if post is not None:
            yield post
    if not usable:
        raise last


def _first_utterance(row: dict[str, Any], number: int, path: Path) -> Post | None:
    """Return the post of a conversation's first utterance; ``None`` for the others.

    Raises :class:`~augesc_builder.errors.InputError` where the row breaks the format.
    """
    emotion, utterance, index = row["context"], row["utterance"], row["utterance_idx"]
    if not isinstance(emotion, str) or emotion not in EMOTIONS:
        found = str(emotion)[:60]
        raise InputError(
            f"unknown emotion {found!r}; expected one of the 32 labels, such as sad", path, number
        )
    if not isinstance(utterance, str):
        raise InputError(f"utterance: expected a text, found {utterance!r:.60}", path, number)
    if not str(index).isdecimal():
        raise InputError(
            f"utterance_idx: expected a number from 1 on, found {index!r:.60}", path, number
        )
    if int(index) != 1:
        return None
    return Post(html.unescape(utterance.replace("_comma_", ",")), emotion=emotion)


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
