"""Words by which a conversation ends (section 6.1: an utterance that has the word "bye")."""

from __future__ import annotations

import re
from collections.abc import Sequence


def goodbye(words: Sequence[str]) -> re.Pattern[str] | None:
    """Return what finds one of the words, in any case, as a word of its own.

    Apostrophes and hyphens between letters are parts of a word: "bye-bye" and "goodbye" are other
    words than "bye". A word may be several, as "take care".
    """
    either = "|".join(map(re.escape, words))
    found = rf"(?<!\w)(?<!\w['\u2019-])(?:{either})(?!\w)(?!['\u2019-]\w)"
    return re.compile(found, re.IGNORECASE) if words else None


def says_goodbye(text: str, words: Sequence[str]) -> bool:
    """Whether a text has one of the words as a word of its own."""
    found = goodbye(words)
    return found is not None and found.search(text) is not None
