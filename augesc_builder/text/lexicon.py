"""Phrases and words of the lexicons, and how they are found in a text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from augesc_builder.errors import InputError

_BARE_WORD = re.compile(r"\w+")
_TO_BARE_WORDS = str.maketrans(
    {c: " " for c in map(chr, range(128)) if not (c.isalnum() or c == "_")} | {"'": None}
)


class PhraseMatcher:
    """All phrases of a lexicon as one pattern; the longest that fits is found.

    ``forms`` are word forms by name: ``<name>`` in an entry stands for any of them.
    """

    def __init__(self, entries: Iterable[str], forms: Mapping[str, str]) -> None:
        entries = list(entries)
        self._needed: dict[str, list[list[frozenset[str]]]] = {}
        for entry in entries:
            words = [frozenset(bare_words(f)) for f in _forms_of(entry, forms)]
            for word in max(words, key=lambda alternatives: min(map(len, alternatives))):
                self._needed.setdefault(word, []).append(words)
        self._keys = frozenset(self._needed)
        written = sorted({_pattern(entry, forms) for entry in entries}, key=len, reverse=True)
        self._pattern = re.compile(rf"(?<![\w'])(?:{'|'.join(written)})(?![\w'])")

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield the spans of phrases in a lowercase text."""
        return (m.span() for m in self._pattern.finditer(text))

    def may_stand_in(self, words: frozenset[str]) -> bool:
        """Whether all words of a phrase are there: many times as fast as the pattern."""
        if words.isdisjoint(self._keys):
            return False
        return any(
            all(not words.isdisjoint(alternatives) for alternatives in needed)
            for word in words & self._keys
            for needed in self._needed[word]
        )

    def found_in(self, text: str) -> bool:
        """Whether a phrase stands in a lowercase text."""
        return self._pattern.search(text) is not None

    def begins(self, text: str) -> bool:
        """Whether a lowercase text begins with a phrase."""
        return self._pattern.match(text) is not None


def _forms_of(entry: str, forms: Mapping[str, str]) -> list[str]:
    """Return for each word of an entry, hyphens parting words, all forms that it may have."""
    return [
        forms[token[1:-1]] if token.startswith("<") else part
        for token in entry.split()
        for part in (token.split("-") if not token.startswith("<") else [token])
    ]


def bare_words(text: str) -> list[str]:
    """Return the words of a lowercase text, apostrophes left out as writers do."""
    if text.isascii():
        return text.translate(_TO_BARE_WORDS).split()
    return _BARE_WORD.findall(text.replace("'", ""))


def _pattern(entry: str, forms: Mapping[str, str]) -> str:
    def word(token: str) -> str:
        if token.startswith("<"):
            return f"(?:{'|'.join(map(re.escape, forms[token[1:-1]].split()))})"
        return re.escape(token).replace("'", "'?")

    return r"[\s,-]{1,3}".join(word(token) for token in entry.split())


LEXICONS = Path(__file__).parent / "lexicons"


_TOKEN = re.compile(r"[A-Za-z0-9]+")


class Lexicon:
    """Whole words and phrases, found without regard to case or to what stands between words."""

    def __init__(self, entries: Iterable[str]) -> None:
        tokens = [_TOKEN.findall(entry.lower()) for entry in entries]
        self._words = frozenset(phrase[0] for phrase in tokens if len(phrase) == 1)
        # A phrase is looked for only where its longest word stands in the text.
        self._phrases: dict[str, list[str]] = {}
        for phrase in tokens:
            if len(phrase) > 1:
                key = max(phrase, key=len)
                self._phrases.setdefault(key, []).append(f" {' '.join(phrase)} ")

    def found_in(self, said: frozenset[str], joined: str) -> bool:
        """Whether an entry stands in a text, given as its set of words and the words joined."""
        if not self._words.isdisjoint(said):
            return True
        return any(
            phrase in joined for key in self._phrases.keys() & said for phrase in self._phrases[key]
        )


@cache
def own_lexicon(name: str) -> Any:
    """Return one of the package's own lists, as YAML has it; read once, and not to be changed.

    It is read by libyaml where that is there: in a tenth of the time, and with no limit of depth,
    so that it is for no file of others.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return loader((LEXICONS / name).read_text(encoding="utf-8")).get_single_data()


def load_lexicon(place: Path) -> Any:
    """Read a YAML file of words.

    Raises :class:`~augesc_builder.errors.InputError` where it cannot be read or is not YAML.
    """
    try:
        return yaml.safe_load(place.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}; check the path", place) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"not a YAML file in UTF-8: {reason}", place) from None
