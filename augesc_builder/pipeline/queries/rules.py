"""The rules that reject a post, each under a name of its own (section 4.2, appendix A).

Rules are asked in groups, cheap ones first; a post that one group rejects is not asked further.
Its reasons are all those of that group.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augesc_builder.config.base import Bounds
from augesc_builder.config.queries import RedditRules
from augesc_builder.errors import InputError
from augesc_builder.text import words
from augesc_builder.text.lexicon import _TOKEN, LEXICONS, Lexicon, load_lexicon

# Searches are fast where a pattern begins with a letter that is rare, so patterns are kept apart,
# and the costly ones are asked only where a plain test says that they may hit.
_ADDRESS = ("http:", "https:", "ftp://", "www.", "](", "<url>")
_DOT = re.compile(
    r"\.(?:com|org|net|edu|gov|io|co|me|tv|be|ly|gg|info|uk|ca|de|au|jpe?g|png|gif|gifv|webp|mp4"
    r"|mov|webm)\b"
)
_MEDIA = frozenset(("http", "https", "www", "imgur", "gfycat", "giphy"))
_BRACKETED = re.compile(r"\[(?:image|img|video|gif)\]")
_PLACE = re.compile(r"(?<!\w)/?[ru]/[\w-]+")
_EDIT = re.compile(r"\b(?:edit|update)\s*(?:\d+\s*)?:")


@dataclass(frozen=True)
class TextRules:
    """The rules of appendix A on a Reddit post's text, but for the exact number of words."""

    serious_issue: Lexicon
    medication: Lexicon
    lingo: Lexicon
    capitals: frozenset[str]

    def reasons(self, text: str) -> list[str]:
        """Name every rule of this group that puts the text out."""
        tokens = _TOKEN.findall(text)
        joined = f" {' '.join(tokens).lower()} "
        said = frozenset(joined.split())
        low = text.lower()
        found = []
        if _has_url(low, said):
            found.append("url")
        if self.serious_issue.found_in(said, joined):
            found.append("serious_issue")
        if self.medication.found_in(said, joined):
            found.append("medication")
        if (
            self.lingo.found_in(said, joined)
            or not self.capitals.isdisjoint(tokens)
            or _speaks_lingo(low)
        ):
            found.append("reddit_lingo")
        return found


def _has_url(low: str, said: frozenset[str]) -> bool:
    if not _MEDIA.isdisjoint(said) or any(sign in low for sign in _ADDRESS):
        return True
    if any(low[m.start() - 1 : m.start()].isalnum() for m in _DOT.finditer(low)):
        return True
    return "[" in low and _BRACKETED.search(low) is not None


def _speaks_lingo(low: str) -> bool:
    if ("r/" in low or "u/" in low) and _PLACE.search(low):
        return True
    return ":" in low and ("edit" in low or "update" in low) and _EDIT.search(low) is not None


def too_long_at_a_glance(text: str, bounds: Bounds) -> bool:
    """Whether blanks alone show that a text is too long: a word has no blank inside."""
    return len(text.split()) > bounds.max


def length(text: str, bounds: Bounds) -> tuple[int, bool]:
    """Count the words of a text, and say whether they are within bounds."""
    n = words.count(text)
    return n, bounds.min <= n <= bounds.max


def load_rules(settings: RedditRules) -> TextRules:
    """Load the word lists, ours or the user's."""
    lingo = _load(settings.lexicons.reddit_lingo, "reddit_lingo.yaml", _is_lingo)
    return TextRules(
        serious_issue=Lexicon(
            _load(settings.lexicons.serious_issue, "serious_issues.yaml", _is_list)
        ),
        medication=Lexicon(_load(settings.lexicons.medication, "medications.yaml", _is_list)),
        lingo=Lexicon(lingo["any_case"]),
        capitals=frozenset(lingo["capitals"]),
    )


def load_subreddits(settings: RedditRules) -> frozenset[str]:
    """Return the subreddits whose posts are taken, in lowercase; none means all."""
    given = settings.subreddits
    if isinstance(given, list):
        return frozenset(name.lower() for name in given)
    return frozenset(name.lower() for name in _load(given, "subreddits.yaml", _is_list))


def _load(path: str | None, shipped: str, fits: Callable[[Any], bool]) -> Any:
    place = Path(path) if path else LEXICONS / shipped
    value = load_lexicon(place)
    if not fits(value):
        raise InputError(f"expected the form of the shipped {shipped}, lists of texts", place)
    return value


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)


def _is_lingo(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"any_case", "capitals"}
        and all(map(_is_list, value.values()))
    )
