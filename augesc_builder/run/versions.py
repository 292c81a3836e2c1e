"""The versions of what a run depends on."""

from __future__ import annotations

import functools
import hashlib
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from augesc_builder import __version__
from augesc_builder.errors import ExecutorError

_PACKAGES = (
    *("datasets", "transformers", "torch", "accelerate", "nltk", "huggingface-hub"),
    *("evaluate", "tokenizers", "pyarrow", "numpy"),
)


@functools.cache
def _versions() -> tuple[tuple[str, str], ...]:
    return (
        ("augesc-builder", __version__),
        ("python", platform.python_version()),
        *((name, metadata.version(name)) for name in _PACKAGES),
    )


def versions() -> dict[str, str]:
    """Return them by package name."""
    return dict(_versions())


CODE = "augesc-builder's code"


@functools.cache
def _code() -> str:
    root, running = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        running.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return running.hexdigest()[:16]


def fingerprint() -> dict[str, str]:
    """Return the versions, and a digest of our own code: what workers of a run have in common."""
    return {**versions(), CODE: _code()}


def check_same(there: Mapping[str, str], here: Mapping[str, str], who: str) -> None:
    """Refuse a worker whose packages or code are not those that the run was begun with.

    Raises :class:`~augesc_builder.errors.ExecutorError`, which names both.
    """
    others = [
        f"{name} {here.get(name, 'none')}, and the run {known}"
        for name, known in there.items()
        if here.get(name) != known
    ]
    if others:
        raise ExecutorError(
            f"{who} has {'; '.join(others)}: rows may differ; install the same versions there"
        )
