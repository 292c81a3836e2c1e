"""What people type, as plain words that keep their places in the text.

Letters of other shapes (full-width, styled, accented, look-alikes of other alphabets) become plain
ones, characters that cannot be seen go. Then spellings are mended where a known word comes of it:
``dieeee``, ``su1cide``, ``r*pe``, ``sucide``, ``k i l l``, ``kill my self``. Every step looks at a
text once from left to right, so the time it takes grows as the text does.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

STOP = "."
"""The word that a sentence ends with."""

MANY, FEW = "many", "few"
"""The words that numbers become; "many" is more tablets than anybody is told to take."""

_MANY = 6
_NOT_SEEN = {"Mn", "Me", "Cf"}
_LOOK_ALIKE = str.maketrans(
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u043a\u043c\u0442\u043d\u0432"
    "\u0501\u051b\u051d\u03b1\u03bf\u03c1\u03b9\u03bd\u03c5\u03ba\u03c4\u03b5\u0131\u0261\u0269"
    "\u2018\u2019\u02bc\u00b4`",
    "aeopcyxijskmthbdqwaopivuktei" + "gi" + "'''''",
)
_TOKEN = re.compile(r"[^\W_]+(?:['@$*]+[^\W_]+)*|[.!?;\n]")
_SPELLED = re.compile(r"(?<![^\W_])(?:[^\W_][ .*_-]{1,2}){3,}[^\W_](?![^\W_])")
_MARKED = re.compile(r"[@$*`_!./|+~-](?:(?<=[@$*`_])|(?<=[a-zA-Z0-9].)(?=[a-zA-Z0-9]))")
_LETTERS = re.compile(
    r"[ .*_-](?<=[^a-zA-Z0-9][a-zA-Z0-9].)[ .*_-]?[a-zA-Z0-9][ .*_-]{1,2}[a-zA-Z0-9](?![a-zA-Z0-9])"
)
"""Marks within a word, and words spelled out; what they begin with is seldom, so they are fast."""

_BROKEN = re.compile(r"(?<![^\W_])[^\W_]+(?:[!./|+~_-][^\W_]+)+")
_LEET = str.maketrans("013457@$!", "oieastasi", "./|+~_-")
_RUN = re.compile(r"(.)\1{2,}")
_SHORTEST_TYPO = 6
_LONGEST_TYPO = 16
_REMEMBERED = 1 << 16
"""Tokens whose meaning is remembered: people use few words, over and over."""


class Word(NamedTuple):
    """A plain word, and the span of characters of the text that it stands for."""

    text: str
    start: int
    end: int


class Folder:
    """Folds texts, mending towards a vocabulary; what has none of its ``keys`` matters not.

    ``spellings`` gives other spellings of words and ``joins`` two words that count as one; both by
    what is typed, apostrophes left out. ``typos`` are long words that are known with a letter
    wrong, missing or too many, ``hidden`` pieces that give a word away wherever they stand, and
    ``broken`` words that are known with marks or blanks between their letters.
    """

    def __init__(
        self,
        vocabulary: Iterable[str],
        keys: Iterable[str],
        spellings: Mapping[str, str],
        joins: Mapping[str, str],
        typos: Iterable[str],
        hidden: Mapping[str, str],
        broken: Iterable[str],
    ) -> None:
        self._known, self._keys = frozenset(vocabulary), frozenset(keys)
        self._spellings = {typed: tuple(meant.split()) for typed, meant in spellings.items()}
        self._joins = {tuple(typed.split()): meant for typed, meant in joins.items()}
        self._seconds: dict[str, list[tuple[str, str]]] = {}
        for (first, other), meant in self._joins.items():
            self._seconds.setdefault(first, []).append((other, meant))
        self._hidden = dict(hidden)
        self._broken = frozenset(broken)
        self._meant = functools.lru_cache(_REMEMBERED)(self._read)
        self._may_mean = functools.lru_cache(_REMEMBERED)(self._any_meaning)
        self._heard: set[str] = set()
        self._unheard: set[str] = set()
        self._by_hole: dict[str, str] = {}
        for word in typos:
            for hole in (word, *_holes(word)):
                self._by_hole.setdefault(hole, word)

    def may_say(self, text: str, words: frozenset[str]) -> frozenset[str] | None:
        """Return words among which are all that :meth:`fold` finds, many times as fast.

        ``words`` are those of the text in lowercase without apostrophes. No words are returned
        where none of the ``keys`` is among them, and ``None`` where only folding tells:
        look-alikes, or marks within words.
        """
        if not text.isascii() or _MARKED.search(text) or _LETTERS.search(f" {text}"):
            return None
        if not self._has_key(words):
            return frozenset()
        said = {STOP}.union(*map(self._may_mean, words))
        for first in said & self._seconds.keys():
            said.update(meant for other, meant in self._seconds[first] if other in said)
        return frozenset(said)

    def fold(self, text: str, *, marked: bool = True) -> list[Word]:
        """Return the plain words of a text; a :data:`STOP` stands where a sentence ends.

        ``marked`` is whether there may be marks or blanks within its words.
        """
        plain, places = _plain(text)
        words: list[Word] = []
        tokens = self._tokens(plain) if marked else _words(plain, 0, len(plain))
        for token, start, end in tokens:
            first = places[start] if places else start
            last = places[end - 1] + 1 if places else end
            words += [Word(meant, first, last) for meant in self._meant(token)]
        return self._joined(words)

    def _tokens(self, plain: str) -> Iterator[tuple[str, int, int]]:
        """Yield tokens with their spans; a word that marks break into pieces is one of them."""
        end = 0
        for whole, start, stop in _pieces(plain):
            if start >= end and self._was_broken(whole):
                yield from _words(plain, end, start)
                yield whole, start, stop
                end = stop
        yield from _words(plain, end, len(plain))

    def _was_broken(self, word: str) -> bool:
        return word in self._broken or any(piece in word for piece in self._hidden)

    def _joined(self, words: list[Word]) -> list[Word]:
        found: list[Word] = []
        for word in words:
            if found and found[-1].text in self._seconds:
                meant = self._joins.get((found[-1].text, word.text))
                if meant is not None:
                    found[-1] = Word(meant, found[-1].start, word.end)
                    continue
            found.append(word)
        return found

    def _read(self, token: str) -> tuple[str, ...]:
        """Return the words that a token means."""
        if token[0] in ".!?;\n":
            return (STOP,)
        bare = token.replace("'", "")
        if meant := self._spellings.get(token) or self._spellings.get(bare):
            return meant
        if bare in self._known:
            return (bare,)
        if bare.isdecimal():
            return (MANY if len(bare) > 1 or int(bare) >= _MANY else FEW,)
        return (self._mended(bare),)

    def _has_key(self, words: frozenset[str]) -> bool:
        """Whether a word may mean a key, by itself or joined to one before it."""
        if not words.isdisjoint(self._heard):
            return True
        for word in words - self._unheard:
            meanings = self._may_mean(word)
            joined = (meant for pair, meant in self._joins.items() if pair[1] in meanings)
            is_key = not self._keys.isdisjoint((*meanings, *joined))
            known = self._heard if is_key else self._unheard
            if len(known) < _REMEMBERED:
                known.add(word)
            if is_key:
                return True
        return False

    def _any_meaning(self, bare: str) -> tuple[str, ...]:
        """Return the words that a token may mean of which the apostrophes are not known."""
        spelled = (m for typed, m in self._spellings.items() if typed.replace("'", "") == bare)
        return sum(spelled, self._read(bare))

    def _mended(self, word: str) -> str:
        if not word.isalpha():
            if (plain := word.translate(_LEET)) in self._known:
                return plain
            if "*" in word and (found := self._uncensored(word)):
                return found
        elif _RUN.search(word):
            for keep in (r"\1\1", r"\1"):
                if (plain := _RUN.sub(keep, word)) in self._known:
                    return plain
        if len(word) >= _SHORTEST_TYPO - 1:
            for hole in (word, *_holes(word)) if len(word) <= _LONGEST_TYPO else ():
                if (meant := self._by_hole.get(hole)) and _is_near(word, meant):
                    return meant
            for piece, meant in self._hidden.items():
                if piece in word:
                    return meant
        return word

    def _uncensored(self, word: str) -> str | None:
        """Return a known word with letters in place of the stars, if there is one."""
        fits = [known for known in self._known if len(known) == len(word)]
        if not fits:
            return None
        shape = re.compile("".join("." if c == "*" else re.escape(c) for c in word))
        return min((known for known in fits if shape.fullmatch(known)), default=None)


def _holes(word: str) -> Iterator[str]:
    """Yield a word without each of its letters: words a letter apart share one of these."""
    return (word[:i] + word[i + 1 :] for i in range(len(word)))


def _is_near(word: str, other: str) -> bool:
    """Whether one letter is wrong, missing or too many, or two have changed places."""
    if abs(len(word) - len(other)) == 1:
        short, long = sorted((word, other), key=len)
        return short in _holes(long)
    if len(word) != len(other):
        return False
    apart = [i for i, (a, b) in enumerate(zip(word, other, strict=True)) if a != b]
    if not apart[1:]:
        return True
    a, b = apart[0], apart[-1]
    return b == a + 1 and word[a] == other[b] and word[b] == other[a]


def _plain(text: str) -> tuple[str, list[int] | None]:
    """Return a text of plain lowercase letters, and where each of its characters stood."""
    if text.isascii():
        return text.lower().replace("`", "'"), None
    letters: list[str] = []
    places: list[int] = []
    for place, character in enumerate(text):
        for c in unicodedata.normalize("NFKD", character).casefold().translate(_LOOK_ALIKE):
            if unicodedata.category(c) not in _NOT_SEEN:
                letters.append(c)
                places.append(place)
    return "".join(letters), places


def _pieces(plain: str) -> list[tuple[str, int, int]]:
    """Return what letters, or pieces of words with marks between them, give when put together."""
    letters = (("".join(filter(str.isalnum, m[0])), *m.span()) for m in _SPELLED.finditer(plain))
    pieces = ((m[0].translate(_LEET), *m.span()) for m in _BROKEN.finditer(plain))
    return sorted([*letters, *pieces], key=lambda piece: piece[1])


def _words(plain: str, start: int, end: int) -> Iterator[tuple[str, int, int]]:
    return ((m[0], *m.span()) for m in _TOKEN.finditer(plain, start, end))
