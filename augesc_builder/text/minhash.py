"""Near duplicates among texts, found by MinHash over shingles of words (optional).

Approximate, as MinHash is: the standard error of the estimated Jaccard similarity falls with the
square root of the number of permutations.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from augesc_builder.config.queries import NearDuplicates
from augesc_builder.errors import MissingExtraError, install_extra

Values = NDArray[np.uint32]
"""Sketches as arrays, (texts, permutations)."""

_WORD = re.compile(r"\w+")


def shingles(text: str, size: int) -> set[str]:
    """Return what ``size`` words in a row there are in a text, of a shorter one all it has."""
    words = _WORD.findall(text.casefold())
    if not words:
        return set()
    return {" ".join(words[i : i + size]) for i in range(max(1, len(words) - size + 1))}


class _Sketcher:
    """MinHash sketches as the settings want them."""

    def __init__(self, settings: NearDuplicates) -> None:
        try:
            import datasketch
        except ImportError:
            raise MissingExtraError(
                f"near-duplicates need datasketch: {install_extra('near-duplicates')}"
            ) from None
        self._datasketch = datasketch
        self.settings = settings

    def __reduce__(self) -> tuple[type[_Sketcher], tuple[NearDuplicates]]:
        return _Sketcher, (self.settings,)  # a module cannot be pickled

    def index(self) -> Any:
        return self._datasketch.MinHashLSH(self.settings.threshold, self.settings.permutations)

    def sketch(self, text: str) -> Any:
        found = shingles(text, self.settings.shingle) or {""}
        sketch = self._datasketch.MinHash(self.settings.permutations)
        sketch.update_batch([shingle.encode("utf-8", "surrogatepass") for shingle in found])
        return sketch

    def lean(self, text: str) -> Any:
        """Return the sketch of a text for good: without what is needed to add to it."""
        return self._datasketch.LeanMinHash(self.sketch(text))


def bands_of(settings: NearDuplicates) -> list[tuple[int, int]]:
    """Return the bands of a sketch, from which value to which: those alike in one are compared.

    Raises :class:`~augesc_builder.errors.MissingExtraError` without datasketch.
    """
    index = _Sketcher(settings).index()
    return [(start, end) for start, end in index.hashranges]


class NearDuplicateIndex:
    """Remembers texts, and finds those that are near duplicates of one it knows.

    Raises :class:`~augesc_builder.errors.MissingExtraError` without datasketch.
    """

    def __init__(self, settings: NearDuplicates) -> None:
        self._sketcher = _Sketcher(settings)
        self._index = self._sketcher.index()
        self._sketches: list[Any] = []

    def seen(self, text: str) -> bool:
        """Whether a text is a near duplicate of one remembered; remember it if not."""
        sketch = self._sketcher.sketch(text)
        for other in self._index.query(sketch):
            if sketch.jaccard(self._sketches[other]) >= self._sketcher.settings.threshold:
                return True
        self._index.insert(len(self._sketches), sketch)
        self._sketches.append(sketch)
        return False


class Sketches:
    """Sketches of many texts, made chunk by chunk; near duplicates are counted at the end.

    Raises :class:`~augesc_builder.errors.MissingExtraError` without datasketch.
    """

    def __init__(self, settings: NearDuplicates) -> None:
        self._sketcher = _Sketcher(settings)
        self._sketches: list[Any] = []

    def add(self, text: str) -> None:
        """Sketch a text."""
        self._sketches.append(self._sketcher.lean(text))

    def merge(self, other: Sketches) -> None:
        """Add the sketches of other texts."""
        self._sketches += other._sketches

    def take(self) -> Values:
        """Give away the sketches, (texts, permutations)."""
        taken, self._sketches = self._sketches, []
        found = np.empty((len(taken), self._sketcher.settings.permutations), np.uint32)
        for i, sketch in enumerate(taken):
            found[i] = sketch.hashvalues  # 32 bits in every version, in whatever type
        return found

    def n_alike(self) -> int:
        """Return how many texts have a near duplicate."""
        index, sketches = self._sketcher.index(), self._sketches
        with index.insertion_session() as session:
            for i, sketch in enumerate(sketches):
                session.insert(i, sketch)
        threshold = self._sketcher.settings.threshold
        return sum(
            any(i != j and sketch.jaccard(sketches[j]) >= threshold for j in index.query(sketch))
            for i, sketch in enumerate(sketches)
        )
