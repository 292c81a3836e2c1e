"""Settings as they are published: what names something on a user's disk becomes a label.

A path says who somebody is and how their machine is laid out, and is of no use to anybody else. So
a file is named by its last part, a folder not at all, and both by the digest of what they hold
where it is known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic.fields import FieldInfo

from augesc_builder.config.base import Place, Section
from augesc_builder.config.paths import is_packaged

S = TypeVar("S", bound=Section)


ON_THE_HUB = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
"""A name on the Hub, with its owner or without."""


def local_places(
    section: Section, is_path: Callable[[str, str], bool | None] = lambda _, __: None
) -> dict[str, str]:
    """Return the texts that are paths on this disk, by key.

    ``is_path`` is asked first with key and text, and gives ``None`` where it does not know.
    """
    found = {}

    def note(key: str, mark: Place, text: str) -> str:
        known = is_path(key, text)
        if is_local(text, mark) if known is None else known:
            found[key] = text
        return text

    _mapped(section, note)
    return found


def relabelled(section: S, labels: Mapping[str, str]) -> S:
    """Return a section with the texts of some keys replaced by labels."""
    result: S = _mapped(section, lambda key, _, text: labels.get(key, text))
    return result


def is_local(text: str, mark: Place) -> bool:
    """Whether a text is the path of something on this disk, whether or not it is there now."""
    if mark.address:
        return text != _SOMEWHERE
    scheme, slashes, _ = text.partition("://")
    if slashes:
        return scheme == "file"
    if mark.named and is_packaged(text):
        return False
    if not mark.named or text.startswith(("/", "~", ".")) or not ON_THE_HUB.fullmatch(text):
        return True
    return _find(text) is not None


def label_of(text: str, digest: str | None = None) -> str:
    """Return what a path is called in public, or an address."""
    if text.startswith(("http://", "https://")):
        return _SOMEWHERE
    path = Path(text)
    found = _find(text)
    is_file = found.is_file() if found is not None else path.suffix != ""
    label = f"{path.name} (local file" if is_file else "(local folder"
    return f"{label}, digest {digest})" if digest else f"{label})"


_SOMEWHERE = "http://localhost"
"""An address of whoever reads it, which is one all the same."""


def without_paths(value: Any, labels: Mapping[str, str]) -> Any:
    """Return plain JSON values with every path that is a key of ``labels`` replaced, also in texts.

    A path of one short part is replaced only where it stands alone: it may be a word of any text.
    """
    spellings = {way: label for text, label in labels.items() for way in _spellings(text)}
    inside = sorted((way for way in spellings if "/" in way.strip("./~")), key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, inside))) if inside else None

    def clean(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {clean(key): clean(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [clean(inner) for inner in value]
        if not isinstance(value, str):
            return value
        if value in spellings:
            return spellings[value]
        return pattern.sub(lambda found: spellings[found[0]], value) if pattern else value

    return clean(value)


def _spellings(text: str) -> set[str]:
    """Return the ways in which code may have written a path."""
    path = Path(text.removeprefix("file://"))
    try:
        return {text, str(path), str(path.expanduser()), str(path.expanduser().resolve())}
    except (OSError, RuntimeError):  # a loop of links; a home that is nobody's
        return {text, str(path)}


def _find(text: str) -> Path | None:
    try:
        path = Path(text).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError, ValueError):
        return None


def _mark_of(field: FieldInfo) -> Place | None:
    """Return the mark of a key: with its type, with one of several, or with a mapping's values."""
    kinds = [*get_args(field.annotation)]
    kinds += [inner for kind in kinds for inner in get_args(kind)]
    groups = [getattr(kind, "__metadata__", ()) for kind in kinds]
    marks = [mark for group in (field.metadata, *groups) for mark in group]
    return next((mark for mark in marks if isinstance(mark, Place)), None)


def _mapped(value: Any, change: Callable[[str, Place, str], str], key: str = "") -> Any:
    """Return a section with ``change`` made to each of its places, those in lists included."""
    if isinstance(value, Section):
        below = f"{key}." if key else ""
        changed: dict[str, Any] = {}
        for name, field in type(value).model_fields.items():
            inner = getattr(value, name)
            mark = _mark_of(field)
            if mark is not None and isinstance(inner, str):
                changed[name] = change(below + name, mark, inner)
            elif mark is not None and isinstance(inner, Mapping):
                changed[name] = {
                    each: change(f"{below}{name}.{each}", mark, text)
                    for each, text in inner.items()
                }
            else:
                changed[name] = _mapped(inner, change, below + name)
        return value.model_copy(update=changed)
    if isinstance(value, Mapping):
        return {name: _mapped(inner, change, f"{key}.{name}") for name, inner in value.items()}
    if isinstance(value, list):
        return [_mapped(inner, change, f"{key}.{i}") for i, inner in enumerate(value)]
    return value
