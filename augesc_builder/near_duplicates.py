"""Posts like an earlier one, found by MinHash (optional)."""

from __future__ import annotations

import re
from typing import Any

from augesc_builder.errors import MissingExtraError
from augesc_builder.settings import NearDuplicates

_WORD = re.compile(r"\w+")


class NearDuplicateIndex:
    """Remembers texts, and says which are like one it knows.

    Approximate, as MinHash is: the standard error of the estimated Jaccard similarity falls with
    the square root of the number of permutations.
    """

    def __init__(self, settings: NearDuplicates) -> None:
        try:
            import datasketch
        except ImportError:
            raise MissingExtraError(
                "queries.near_duplicates needs datasketch: pip install "
                "'augesc-builder[near-duplicates]'"
            ) from None
        self._datasketch = datasketch
        self._settings = settings
        self._index = datasketch.MinHashLSH(settings.threshold, settings.permutations)
        self._sketches: list[Any] = []

    def seen(self, text: str) -> bool:
        """Say whether a text is like one remembered; remember it if not."""
        sketch = self._sketch(text)
        for other in self._index.query(sketch):
            if sketch.jaccard(self._sketches[other]) >= self._settings.threshold:
                return True
        self._index.insert(len(self._sketches), sketch)
        self._sketches.append(sketch)
        return False

    def _sketch(self, text: str) -> Any:
        words, size = _WORD.findall(text.casefold()), self._settings.shingle
        shingles = {" ".join(words[i : i + size]) for i in range(max(1, len(words) - size + 1))}
        sketch = self._datasketch.MinHash(self._settings.permutations)
        sketch.update_batch([shingle.encode() for shingle in shingles])
        return sketch
