"""Words that say what a text is about: stop words left out, forms of one word as one."""

from __future__ import annotations

import re

from nltk.stem import PorterStemmer

from augesc_builder.metrics.topic_correlates.counts import stop_words
from augesc_builder.text.words import tokenize

_LETTER = re.compile(r"[^\W\d_]")
_CURLY = str.maketrans({"\u2019": "'", "\u2018": "'"})
_CACHE_SIZE, _CACHED = 1 << 16, 32
"""Words that are remembered and characters of the longest: beyond it the memory is emptied."""


class _Stems(dict[str, str | None]):
    """The stem of each word as the tokenizer cuts it; ``None`` for one that says little."""

    def __init__(self) -> None:
        super().__init__()
        self._stemmer = PorterStemmer()

    def __missing__(self, word: str) -> str | None:
        lower = word.lower()
        stem = None
        if _LETTER.search(lower) and lower not in stop_words():
            # A "word" of thousands of letters is none, and the stemmer's time grows with it.
            stem = self._stemmer.stem(lower) if len(lower) <= _CACHED else lower
        if len(word) <= _CACHED:
            if len(self) >= _CACHE_SIZE:
                self.clear()
            self[word] = stem
        return stem


_stems = _Stems()


def content_words(text: str) -> list[str]:
    """Return the stems of a text's words in order, without stop words, numbers and marks.

    English stop words and Porter's stems; of other languages the words stay as they are written, or
    nearly so.
    """
    found = map(_stems.__getitem__, tokenize(text.translate(_CURLY)))
    return [stem for stem in found if stem is not None]
