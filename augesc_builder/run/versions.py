"""The versions of what a run depends on."""

from __future__ import annotations

import functools
import platform
from importlib import metadata

from augesc_builder import __version__

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
