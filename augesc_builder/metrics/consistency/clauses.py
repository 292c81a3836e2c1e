"""Utterances as clauses of plain words that keep their places in the text.

Contractions become the words that they stand for, numbers in words or figures one spelling, and
forms of a word one stem. Every step looks at a text once, from left to right.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from augesc_builder.metrics.consistency.vocabulary import (
    BASES,
    ENDINGS,
    HAVE_IS_BEHIND,
    NEGATORS,
    NOT_WITHOUT_APOSTROPHE,
    STOP_WORDS,
    TENS,
    UNITS,
    WHOLE_OF,
    word_set,
)

LONGEST = 48
"""Words of a clause; what is longer is cut into several."""

_APOSTROPHE = "['\u2019\u02bc`]"
_TOKEN = re.compile(
    rf"\d+(?:[.,]\d+)*|[^\W\d_]+(?: ?{_APOSTROPHE} ?(?:s|t|m|re|ve|ll|d)\b)?"
    r"|[.!?;:,\n\"\u201c\u201d]",
    re.IGNORECASE,
)
_PLAIN_APOSTROPHE = re.compile(_APOSTROPHE)
_SENTENCE_ENDS = frozenset(".!?;\n")
_CLAUSE_ENDS = frozenset(",:")
_QUOTES = frozenset('"\u201c\u201d')
_OPENS_CLAUSE = word_set("and but because though although while when")
_ASKING = word_set(
    "do does did is are was were am can could would will should have has what why how when where "
    "who whose which"
)
_AUXILIARIES = frozenset(("do", "does", "did"))
_CACHED = 1 << 16
_LONGEST_WORD, _SHORTEST_WITH_E, _SHORTEST_WITH_Y = 64, 4, 3


class Word(NamedTuple):
    """A plain word: its stem, how it was written in lowercase, and its span in the utterance."""

    stem: str
    text: str
    start: int
    end: int
    capital: bool


class Clause(NamedTuple):
    """Words between two breaks. ``bare`` are those without negators and the ``do`` beside them."""

    words: tuple[Word, ...]
    bare: tuple[Word, ...]
    negators: tuple[Word, ...]
    content: frozenset[str]
    asks: bool

    @property
    def start(self) -> int:
        """Return where it begins in its utterance."""
        return self.words[0].start

    @property
    def end(self) -> int:
        """Return where it ends in its utterance."""
        return self.words[-1].end


class Said(NamedTuple):
    """An utterance as its clauses. What it quotes is left out: nobody says that of themselves."""

    clauses: tuple[Clause, ...]
    bag: Counter[str]


@functools.lru_cache(_CACHED)
def stem_of(word: str) -> str:
    """Return a lowercase word without endings: the same for most forms of a word."""
    stem = _without_ending(BASES.get(word, word.removesuffix("'s")))
    return _without_ending(BASES[stem]) if stem in BASES else stem


def _without_ending(stem: str) -> str:
    for ending, shortest in (("ing", 3), ("ed", 2), ("es", 3), ("s", 3)):
        if stem.endswith(ending) and len(stem) - len(ending) >= shortest:
            if ending == "s" and stem[-2] in "su":
                break
            stem = stem[: -len(ending)]
            if ending in ("ing", "ed") and stem[-1] == stem[-2:-1] and stem[-1] not in "lsz":
                stem = stem[:-1]
            break
    if stem.endswith("e") and len(stem) >= _SHORTEST_WITH_E:
        stem = stem[:-1]
    if stem.endswith("i") and len(stem) >= _SHORTEST_WITH_Y:
        stem = f"{stem[:-1]}y"
    return stem


def read(text: str) -> Said:
    """Read an utterance."""
    clauses = tuple(_clauses(text))
    return Said(clauses, Counter(word.stem for clause in clauses for word in clause.bare))


def _clauses(text: str) -> Iterator[Clause]:
    sentence: list[list[Word]] = [[]]
    marks = text.count('"') // 2 * 2  # a last one without its like quotes nothing
    quoted = False
    for word in _words(text):
        mark = word.text
        if mark in _QUOTES:
            if mark == '"':
                quoted, marks = (not quoted, marks - 1) if marks else (False, 0)
            else:
                quoted = mark == "\u201c"
            sentence.append([])
        elif mark in _SENTENCE_ENDS:
            yield from _finished(sentence, asks=mark == "?")
            sentence = [[]]
        elif mark in _CLAUSE_ENDS:
            sentence.append([])
        elif not quoted:
            if mark in _OPENS_CLAUSE or len(sentence[-1]) >= LONGEST:
                sentence.append([])
            sentence[-1].append(word)
    yield from _finished(sentence, asks=False)


def _finished(sentence: list[list[Word]], *, asks: bool) -> Iterator[Clause]:
    """Yield the clauses of a sentence. A question is its last one, and what begins as one does."""
    clauses = [words for words in sentence if words]
    if not clauses:
        return
    first, last = clauses[0][0], clauses[-1]
    for spoken in clauses:
        words = [word._replace(capital=word.capital and word != first) for word in spoken]
        denies = [_denies(words, i) for i in range(len(words))]
        bare = tuple(
            word
            for i, word in enumerate(words)
            if not denies[i]
            and not (word.text in _AUXILIARIES and i + 1 < len(words) and denies[i + 1])
        )
        content = frozenset(w.stem for w in bare if w.text not in STOP_WORDS and w.stem != "#1")
        negators = tuple(word for word, denied in zip(words, denies, strict=True) if denied)
        asked = asks and (spoken is last or words[0].text in _ASKING)
        yield Clause(tuple(words), bare, negators, content, asked)


def _denies(words: list[Word], i: int) -> bool:
    """Whether the word at a place is a negator; a ``no`` that answers is none."""
    if words[i].text == "no" and i == 0:
        return len(words) > 1 and words[1].text not in STOP_WORDS
    return words[i].text in NEGATORS


def _words(text: str) -> Iterator[Word]:
    """Yield words and marks; words of a number are one of them."""
    number: Word | None = None
    value = 0
    for match in _TOKEN.finditer(text):
        start, end = match.span()
        token = match[0].lower()
        digit = _value(token)
        if number is not None:
            together = _joined(value, token)
            if together is not None and start - number.end <= 1:
                value = together
                number = Word(f"#{value}", f"{number.text} {token}", number.start, end, False)
                continue
            yield number
            number = None
        if digit is not None:
            value, number = digit, Word(f"#{digit}", token, start, end, False)
        elif token[0].isdecimal():
            token = token[:_LONGEST_WORD]
            yield Word(f"#{token.replace(',', '').lstrip('0') or 0}", token, start, end, False)
        else:
            yield from _plain(token, start, end, match[0][0].isupper())
    if number is not None:
        yield number


def _value(word: str) -> int | None:
    """Return the number that a word begins."""
    if word == "dozen":
        return 12
    return UNITS.get(word, TENS.get(word))


def _joined(value: int, word: str) -> int | None:
    """Return the number that a number and the word behind it are, if they are one."""
    if value in TENS.values() and 0 < UNITS.get(word, 0) < 10:  # noqa: PLR2004  # twenty three
        return value + UNITS[word]
    if word == "hundred" and 0 < value < 100:  # noqa: PLR2004
        return value * 100
    if word == "thousand" and 0 < value < 1000:  # noqa: PLR2004
        return value * 1000
    return None


def _plain(token: str, start: int, end: int, capital: bool) -> Iterator[Word]:
    """Yield the words that a token means: ``don't`` is ``do`` and ``not``."""
    whole, ending = _parts(token[:_LONGEST_WORD])
    if whole:
        yield Word(stem_of(whole), whole, start, end, capital and whole != "i")
    if ending:
        yield Word(stem_of(ending), ending, start, end, False)


@functools.lru_cache(_CACHED)
def _parts(token: str) -> tuple[str, str]:
    if whole := NOT_WITHOUT_APOSTROPHE.get(token):
        return whole, "not"
    head, found, tail = _PLAIN_APOSTROPHE.sub("'", token).replace(" ", "").partition("'")
    if not found:
        return token, ""
    if tail == "t":
        return (WHOLE_OF.get(head[:-1], head[:-1]), "not") if head.endswith("n") else (head, "")
    if tail == "s":
        if head == "let":
            return head, "us"
        return (head, "is") if head in HAVE_IS_BEHIND else (f"{head}'s", "")
    return head, ENDINGS[tail]
