"""The files of ``dataset_card/``, wherever they are, and the citations among them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

_HERE = Path(__file__).parent


def card_file(name: str) -> str:
    """Read a file of ``dataset_card/``: beside the package in a clone, inside it in a wheel."""
    places = (_HERE / "dataset_card", _HERE.parent / "dataset_card")
    folder = next(place for place in places if place.is_dir())
    return (folder / name).read_text(encoding="utf-8")


def cite(keys: Sequence[str]) -> str:
    """Return the BibTeX entries of ``keys``, in that order; an entry stands for itself."""
    entries = card_file("citations.bib").strip().split("\n\n")
    return "\n\n".join(
        entry
        for key in keys
        for entry in ([key] if key.startswith("@") else entries)
        if key.startswith("@") or f"{{{key}," in entry
    )
