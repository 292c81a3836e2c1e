"""The word tokenization behind every count in the paper (section 4.2: "NLTK tokenization").

NLTK's sentence splitter without trained parameters, then its Treebank-style word tokenizer on each
sentence. No data is downloaded. With it, ESConv without leading supporter utterances gives the
paper's Table 2: 543.8 words a session and 15,467 unique words in 1,300 sessions.

NLTK itself tokenizes some thousands of utterances a second. Two facts allow a fast path with the
same tokens. No rule of its word tokenizer looks further than one character past a blank, so the
words of a sentence are those of its chunks between blanks, each tokenized between neighbours that
change nothing, and cached. And whether a sentence ends behind a chunk depends on that chunk and the
next alone. What that does not hold for (other white space, closing marks that stand alone, marks
behind a sentence's end) goes to NLTK whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

import nltk
from nltk.tokenize import NLTKWordTokenizer, PunktSentenceTokenizer
from nltk.tokenize.punkt import PunktLanguageVars

PROVED_ON = "3.10.4"
"""The version of NLTK that the fast path was fuzzed against; others are checked before use."""

_CACHE_SIZE, _CACHED = 1 << 16, 64
"""Chunks that each cache keeps, and characters of the longest: then it is emptied, which bounds the
memory, whatever stands in a text."""


class _FoundAtOnce:
    """A pattern whose matches are all found before the first is looked at.

    NLTK stops a search after five seconds, and of a search that goes on match by match it counts
    the time that is spent on the matches too: a megabyte of question marks would be an error.
    """

    def __init__(self, pattern: Any) -> None:
        self._pattern = pattern

    def finditer(self, text: str) -> Iterator[Any]:
        return iter(list(self._pattern.finditer(text)))


class _Language(PunktLanguageVars):  # type: ignore[misc]
    def period_context_re(self) -> Any:
        return _FoundAtOnce(super().period_context_re())


class _Sentences(PunktSentenceTokenizer):  # type: ignore[misc]
    """NLTK's, with a memory: what it asks of a mark depends on the words on both sides alone."""

    def text_contains_sentbreak(self, text: str) -> bool:
        return _ENDINGS[text]


_words = NLTKWordTokenizer()
_sentences = _Sentences(lang_vars=_Language())

Words = tuple[str, ...]


# What a chunk means for the sentence it stands in; plain numbers, as they are looked at so often.
_PLAIN = 0  # it ends no sentence, but for the text's last
_BREAKS = 1  # a sentence ends behind it, whatever comes next
_MAY_BREAK = 2  # whether one ends behind it, the next chunk decides
_NOT_LAST = 4  # a mark stands behind a sentence's end: fine unless the text ends there
_ODD = 8  # only the whole text tells

_IS_ODD = re.compile(
    r"|.*\s.*"  # nothing, or white space other than blanks
    r"|[\])}>\"'\u2018\u2019\u201c\u201d\xab\xbb]+(?:--.*)?"  # belongs to the sentence before
    r"|[.?!][)\";}\]*:@'({\[\u2018\u2019\u201c\u201d\xab\xbb?!].*",  # may end two sentences
    re.DOTALL,
)
_MARK_BEHIND_END = re.compile(r"[.?!][)\";}\]*:@'({\[\u2018\u2019\u201c\u201d\xab\xbb?!]")
_ENDS_SURELY = re.compile(r".*[?!]|[A-Za-z]{2,}\.", re.DOTALL)
_SHOUTED = re.compile(r"[A-Za-z]+[?!]+")  # ends before its last mark too: the words are the same
_ENDS_QUOTED = re.compile(r"[A-Za-z]{2,}[.?!][\")\u201d]")

_SIMPLE = re.compile(r"([A-Za-z]+)([,?!]?)")
"""Chunks whose words are plain to see, unless the letters are a contraction."""
_CONTRACTIONS = re.compile(r"(?i)cannot|gimme|gonna|gotta|lemme|wanna")

_NEIGHBOUR = "a"
"""Stands in for the chunks on both sides: rules look no further than its first character."""


def _keep(cache: dict[str, Any], key: str, value: Any) -> None:
    """Put a value into a cache, if there is room for its key."""
    if len(key) > _CACHED:
        return
    if len(cache) >= _CACHE_SIZE:
        cache.clear()
    cache[key] = value


class _Cache(dict[str, Words]):
    """Words of chunks in one place of a sentence: between ``before`` and ``behind``."""

    def __init__(self, before: str, behind: str) -> None:
        super().__init__()
        self._before, self._behind = before, behind

    def __missing__(self, chunk: str) -> Words:
        simple = _SIMPLE.fullmatch(chunk)
        if simple and not _CONTRACTIONS.fullmatch(simple[1]):
            words = (simple[1], simple[2]) if simple[2] else (simple[1],)
        else:
            found = _words.tokenize(self._before + chunk + self._behind)
            # A neighbour is one word, and its letter and blank are two characters.
            words = tuple(found[len(self._before) // 2 : len(found) - len(self._behind) // 2])
        _keep(self, chunk, words)
        return words


# No chunk that may end a sentence is in _FIRST or _MIDDLE, so what is found there ends none.
_FIRST, _MIDDLE = _Cache("", f" {_NEIGHBOUR}"), _Cache(f"{_NEIGHBOUR} ", f" {_NEIGHBOUR}")
_LAST, _ONLY = _Cache(f"{_NEIGHBOUR} ", ""), _Cache("", "")
_FIRST_WITH_MARK = _Cache("", f" {_NEIGHBOUR}")
_MIDDLE_WITH_MARK = _Cache(f"{_NEIGHBOUR} ", f" {_NEIGHBOUR}")


class _Kinds(dict[str, int]):
    """The kind of each chunk, cached."""

    def __missing__(self, chunk: str) -> int:
        if _IS_ODD.fullmatch(chunk):
            kind = _ODD
        elif _ENDS_QUOTED.fullmatch(chunk):
            kind = _BREAKS
        elif chunk[-1] not in ".?!":
            kind = _ODD if _MARK_BEHIND_END.search(chunk) else _PLAIN
        else:
            kind = _BREAKS if _ENDS_SURELY.fullmatch(chunk) else _MAY_BREAK
            if _MARK_BEHIND_END.search(chunk) and not _SHOUTED.fullmatch(chunk):
                kind |= _NOT_LAST
        _keep(self, chunk, kind)
        return kind


class _Endings(dict[str, bool]):
    """Whether a sentence ends behind a chunk that another follows: keys are ``"chunk next"``."""

    def __missing__(self, context: str) -> bool:
        found = PunktSentenceTokenizer.text_contains_sentbreak(_sentences, context)
        _keep(self, context, found)
        return bool(found)


_KINDS, _ENDINGS = _Kinds(), _Endings()


def tokenize(text: str) -> list[str]:
    """Return the words and punctuation marks of a text, case kept."""
    parts = _parts(text) if _fast_path_holds() else None
    if parts is None:
        parts = _by_sentence(text)
    words: list[str] = []
    for part in parts:
        words += part
    return words


def count(text: str) -> int:
    """Return how many words a text has; punctuation marks count as words, as in the paper."""
    parts = _parts(text) if _fast_path_holds() else None
    return sum(map(len, _by_sentence(text) if parts is None else parts))


def tokenize_with_nltk(text: str) -> list[str]:
    """Return what :func:`tokenize` does, by NLTK alone: the definition, and slow."""
    return [word for s in _sentences.tokenize(text) for word in _words.tokenize(s)]


def _by_sentence(text: str) -> list[Words]:
    """Return the words of each sentence as NLTK parts them; short sentences are remembered."""
    return [_ONLY[sentence] for sentence in _sentences.tokenize(text)]


def clear_caches() -> None:
    """Empty the caches, so that a benchmark begins as a new process does."""
    for cached in (*_CACHES, _KINDS, _ENDINGS):
        cached.clear()


_CACHES = (_FIRST, _MIDDLE, _LAST, _ONLY, _FIRST_WITH_MARK, _MIDDLE_WITH_MARK)


def _parts(text: str) -> list[Words] | None:
    """Return the words of each chunk; ``None`` where only NLTK can tell, from the whole text."""
    chunks = text.rstrip().split(" ")  # Punkt looks at no white space that nothing follows
    # Most chunks are known and stand within a sentence: those are looked up all at once.
    parts: list[Any] = list(map(_MIDDLE.get, chunks))
    final = len(chunks) - 1
    parts[final] = None  # the last one is tokenized as a sentence's end, known or not
    start = -1  # of the sentence
    ended = True
    i = 0
    while True:
        if ended:
            start, ended = i, False
            if parts[i] is not None:
                parts[i] = _FIRST[chunks[i]]
        i = parts.index(None, i)  # over all that are known; the last one always stops it
        chunk = chunks[i]
        kind = _KINDS[chunk]
        if i == final:
            if kind & (_ODD | _NOT_LAST):
                return None
            parts[i] = (_ONLY if i == start else _LAST)[chunk]
            return parts
        if kind & _ODD:
            return None
        if kind == _PLAIN:
            parts[i] = _MIDDLE[chunk]
            if i == start:
                parts[i] = _FIRST[chunk]
        elif kind & _BREAKS or _ENDINGS[f"{chunk} {chunks[i + 1]}"]:
            parts[i] = (_ONLY if i == start else _LAST)[chunk]
            ended = True
        else:
            parts[i] = (_FIRST_WITH_MARK if i == start else _MIDDLE_WITH_MARK)[chunk]
        i += 1


_holds: bool | None = True if nltk.__version__ == PROVED_ON else None

_TRICKY = (
    "He said \"no way\". 'Tis fine, isn't it? I can't, I cannot; gimme 3,000.50 $ (or so...)",
    "``Quoted'' text -- with dashes, 5:30 and e.g. abbreviations etc. And so on!",
    "it's 'twas y'all's rock 'n' roll d'ye wanna gonna more'n lemme",
    "a, b:c ,d : [x] {y} <z> #tag @name 50% a&b *star* \u201ccurly\u201d \u2018o\u2019 \u00ab",
    "end .) \"She left.\" 'He stayed.' (Really?) Yes.",
    "They'LL I'VE WE'RE don'T N'T 'em '' ' a' b' ' c",
    "So... I went. at 5. Then J. Smith came?! Why!! no.. ok . ? x",
)


def _fast_path_holds() -> bool:
    """Whether the fast path agrees with NLTK: tried once, where another version is installed."""
    global _holds  # noqa: PLW0603
    if _holds is None:
        found = ((text, _parts(text)) for text in _TRICKY)
        _holds = all(
            parts is None or list(chain.from_iterable(parts)) == tokenize_with_nltk(text)
            for text, parts in found
        )
    return _holds
