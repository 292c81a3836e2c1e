"""Labelled texts and pairs of texts: what classifiers learn, and are evaluated on.

Of ESConv, or a file of its format, an example is a supporter's turn behind the utterances before
it, and its label the strategy that the supporter named. A file of labelled texts has an object a
line with ``text``, ``label`` and, of pairs, ``text_pair``; or, in a ``.tsv``, columns of these
names in its first line. Its ``group``, where there is one, says which rows depend on one another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augesc_builder.config.training import Data, Examples
from augesc_builder.dialog.examples import session_files
from augesc_builder.errors import InputError
from augesc_builder.readers.jsonl import json_of, read_json_rows, read_lines, text_of
from augesc_builder.readers.records import BadLines, parse_each
from augesc_builder.sources import esconv
from augesc_builder.text.strategies import as_texts

_COLUMNS = ("text", "text_pair", "label", "group")


@dataclass(frozen=True)
class Labelled:
    """A text or a pair with its label, and what it is of.

    Examples of one ``unit`` depend on one another: those of a session, or of a group of rows.
    """

    text: str
    text_pair: str | None
    label: str
    unit: str
    problem_type: str | None = None
    of_session: bool = False


def read_labelled(path: str, data: Data, examples: Examples) -> list[Labelled]:
    """Read ``esconv:SPLIT``, a file of ESConv's format, or one of labelled texts.

    Raises :class:`~augesc_builder.errors.InputError` with file and line, also where there is no
    label.
    """
    found: list[Labelled] = []
    for file in session_files(path, data):
        if file.suffix == ".parquet":
            raise InputError("has no labels; expected JSON lines, or a .tsv file", file)
        found += _of_tsv(file) if file.suffix == ".tsv" else _of_json(file, examples)
    if not found:
        raise InputError(
            "no supporter's turn there has a strategy; expected ESConv's own files, or lines with "
            "text and label",
            path,
        )
    return found


def labels_of(examples: Sequence[Labelled], others: Sequence[Labelled], path: str) -> list[str]:
    """Return the labels of training examples, sorted, which must be those of the others too.

    Raises :class:`~augesc_builder.errors.InputError` where there are fewer than two, or where
    ``others``, which are from ``path``, have one more.
    """
    labels = sorted({example.label for example in examples})
    if len(labels) < 2:  # noqa: PLR2004 - one class is nothing to learn
        raise InputError(
            f"all {len(examples):,} training examples have the label {labels[0]!r}; a classifier "
            f"needs examples of two labels or more",
            "phases",
        )
    check_labels(others, labels, path)
    return labels


def check_labels(examples: Sequence[Labelled], labels: Sequence[str], path: str) -> None:
    """Refuse examples of a label that a classifier does not have.

    Raises :class:`~augesc_builder.errors.InputError`.
    """
    if unknown := sorted({example.label for example in examples} - set(labels)):
        raise InputError(
            f"has the label {unknown[0]!r}, which the classifier does not; it has "
            f"{', '.join(labels)}",
            path,
        )


def _of_json(file: Path, settings: Examples) -> Iterator[Labelled]:
    def parse(line: bytes, number: int) -> list[Labelled]:
        value = json_of(line, file, number)
        if isinstance(value, dict) and "text" in value:
            return [_labelled(value, file, number)]
        return _of_session(value, file, number, settings)

    bad = BadLines(strict=True)
    for some in bad.good(parse_each(read_json_rows(file, bad.limits), parse, file)):
        yield from some


def _of_session(value: Any, file: Path, number: int, settings: Examples) -> list[Labelled]:
    name = f"{file.stem}-{number}"
    session = esconv.parse_session(value, name, file, number, keep_greetings=True)
    found = []
    for turn, strategy in enumerate(session.strategies or ()):
        if strategy is None:
            continue
        first = 0 if settings.history_turns is None else max(0, turn - settings.history_turns)
        said = session.messages
        texts = as_texts(said[first:turn], said[turn]["content"])
        found.append(Labelled(*texts, strategy, name, session.problem_type, of_session=True))
    return found


def _of_tsv(file: Path) -> Iterator[Labelled]:
    header: list[str] | None = None

    def parse(line: bytes, number: int) -> Labelled | None:
        nonlocal header
        values = text_of(line, file, number).split("\t")
        if header is None:
            header = values
            if missing := {"text", "label"} - set(header):
                raise InputError(
                    f"no column {min(missing)}; the first line names the columns, and has "
                    f"{', '.join(header)[:200]}",
                    file,
                    number,
                )
            return None
        if len(values) != len(header):
            raise InputError(
                f"{len(values)} values, expected {len(header)} ({', '.join(header)[:200]}), with "
                f"tabs between",
                file,
                number,
            )
        return _labelled(dict(zip(header, values, strict=True)), file, number)

    bad = BadLines(strict=True)
    for one in bad.good(parse_each(read_lines(file, bad.limits), parse, file)):
        if one is not None:
            yield one


def _labelled(row: Mapping[str, Any], file: Path, number: int) -> Labelled:
    text, pair, label, group = (row.get(name) for name in _COLUMNS)
    for name, value in (("text", text), ("label", label)):
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"{name}: expected a text, found {value!r:.60}", file, number)
    for name, value in (("text_pair", pair), ("group", group)):
        if not isinstance(value, str | None):
            raise InputError(f"{name}: expected a text or null, found {value!r:.60}", file, number)
    unit = f"{file.stem}-{number}" if group is None else group
    return Labelled(str(text), pair, str(label).strip(), unit)
