"""ESConv (Liu et al. 2021): 1,300 crowd-sourced emotional support sessions of 13 problem types.

One JSON object a session, with ``problem_type``, ``situation`` and ``dialog``, a list of utterances
with ``speaker`` (``usr``, ``sys``), ``text`` and, of the supporter, ``strategy``: the lines of the
Hub dataset ``thu-coai/esconv``. The names of the original release (``seeker``, ``supporter``,
``content``, ``annotation``, one JSON list) work too. The bundled sample has the same form.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from augesc_builder.errors import InputError
from augesc_builder.readers.hub import download_dataset
from augesc_builder.readers.jsonl import json_of, read_json_rows
from augesc_builder.readers.records import BadLines, parse_each
from augesc_builder.sources.base import NON_COMMERCIAL, Session, SourceInfo
from augesc_builder.text.prompts import Message, collapse

REPO = "thu-coai/esconv"
_SPLITS = {"train": "train.txt", "validation": "valid.txt", "test": "test.txt"}
_ROLES = {"usr": "user", "seeker": "user", "sys": "assistant", "supporter": "assistant"}


def read_esconv(path: str | Path) -> list[Session]:
    """Read a file in ESConv's format; leading supporter utterances are left out (table 2).

    Raises :class:`~augesc_builder.errors.InputError` with file and line.
    """
    path = Path(path)

    def parse(line: bytes, number: int) -> Session:
        value = json_of(line, path, number)
        return parse_session(value, f"{path.stem}-{number}", path, number)

    bad = BadLines(strict=True)
    sessions = list(bad.good(parse_each(read_json_rows(path, bad.limits), parse, path)))
    if not sessions:
        raise InputError("empty; expected a session a line", path)
    return sessions


def parse_session(
    value: Any, session_id: str, path: Path, line: int, *, keep_greetings: bool = False
) -> Session:
    """Check one session of ESConv's format.

    Raises :class:`~augesc_builder.errors.InputError` with file, line and what is wrong.
    """

    def fail(message: str) -> InputError:
        return InputError(message, path, line)

    if not isinstance(value, dict):
        raise fail(f"expected an object with the key 'dialog', found {_brief(value)}")
    if "dialog" not in value:
        raise fail(f"the key 'dialog' is missing, found {', '.join(map(str, value)) or 'no key'}")
    dialog = value["dialog"]
    if not isinstance(dialog, list) or not dialog:
        raise fail(f"'dialog' must be a list with utterances, found {_brief(dialog)}")
    for name in ("problem_type", "situation"):
        if not isinstance(value.get(name), str | None):
            raise fail(f"{name!r} must be a text, found {_brief(value[name])}")
    messages: list[Message] = []
    strategies: list[str | None] = []
    for i, utterance in enumerate(dialog, 1):
        message, strategy = _utterance(utterance, i, fail)
        if messages or keep_greetings or message["role"] == "user":
            messages.append(message)
            strategies.append(strategy)
    if not any(message["role"] == "user" for message in messages):
        raise fail("no utterance of the seeker (usr); remove the session")
    return Session(
        session_id,
        tuple(messages),
        problem.strip().lower() if (problem := value.get("problem_type")) else None,
        situation=collapse(value.get("situation") or "") or None,
        strategies=tuple(strategies) if any(strategies) else None,
    )


def _utterance(
    value: Any, number: int, fail: Callable[[str], InputError]
) -> tuple[Message, str | None]:
    """Check an utterance, and return it with its strategy, where the supporter's has one."""
    if not isinstance(value, dict):
        raise fail(f"utterance {number} must be an object, found {_brief(value)}")
    text = value.get("text", value.get("content"))
    if not isinstance(text, str):
        raise fail(f"utterance {number} lacks 'text', found {_brief(value)}")
    speaker = value.get("speaker")
    if not isinstance(speaker, str) or speaker not in _ROLES:
        raise fail(
            f"utterance {number} is of no known speaker: expected usr or sys, found "
            f"{_brief(speaker)}"
        )
    if not text.strip():
        raise fail(f"utterance {number} has no words; remove it")
    role, strategy = _ROLES[speaker], None
    if role == "assistant":  # in the original release it stands in the annotation
        annotation = value.get("annotation")
        strategy = (annotation if isinstance(annotation, dict) else value).get("strategy")
    if not isinstance(strategy, str | None):
        raise fail(f"utterance {number} needs a text as 'strategy', found {_brief(strategy)}")
    return {"role": role, "content": collapse(text)}, collapse(strategy or "") or None


def _sessions(revision: str | None) -> tuple[list[Session], str]:
    path, commit = download_esconv(revision or str(INFO.revision))
    return read_esconv(path), commit


def download_esconv(revision: str) -> tuple[Path, str]:
    """Download ``thu-coai/esconv``; give the path of its train split and the commit it is of.

    The other splits are for the statistics, hours later: who has one has all of them.
    """
    hint = "give a local file with --set finetune.sessions=PATH"
    folder, commit = download_dataset(REPO, revision, list(_SPLITS.values()), hint)
    return folder / "train.txt", commit


def _session_files(revision: str | None) -> list[Path]:
    hint = "give local files with --set statistics.beside.ESConv=PATH"
    return list(esconv_files(None, revision or str(INFO.revision), hint).values())


def esconv_files(
    folder: str | Path | None,
    revision: str,
    hint: str = "give a folder of local files with data_dir=FOLDER",
) -> dict[str, Path]:
    """Return ESConv's files by split: those in a local folder, or those on the Hub.

    Raises :class:`~augesc_builder.errors.InputError` for a folder that holds none of them.
    """
    if folder is None:
        place, _ = download_dataset(REPO, revision, list(_SPLITS.values()), hint)
    else:
        place = Path(folder).expanduser()
    files = {split: place / name for split, name in _SPLITS.items() if (place / name).is_file()}
    if not files:
        raise InputError(f"no files of ESConv there; expected {', '.join(_SPLITS.values())}", place)
    return files


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."  # noqa: PLR2004


INFO = SourceInfo(
    name="esconv",
    label="ESConv",
    about="on the Hub, or a local file",
    licence=NON_COMMERCIAL,
    producers="The sessions of ESConv were written by crowd workers.",
    citation="liu2021esconv",
    dataset=f"extended|{REPO}",
    repo=REPO,
    revision="main",
    read_sessions=_sessions,
    session_files=_session_files,
)
