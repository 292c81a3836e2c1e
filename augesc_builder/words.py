"""The word tokenization behind every count in the paper (section 4.2: "NLTK tokenization").

NLTK's sentence splitter without trained parameters, then its Treebank-style word tokenizer on each
sentence. No data is downloaded. With it, ESConv without leading supporter utterances gives the
paper's Table 2: 543.8 words a session and 15,467 unique words in 1,300 sessions.

NLTK itself tokenizes some thousands of utterances a second. No rule of its word tokenizer looks
further than one character past a blank, so the words of a sentence are those of its chunks between
blanks, each tokenized by NLTK between neighbours that change nothing, and remembered. What that
does not hold for (other white space, a last chunk of closing marks alone) goes to NLTK whole.
"""

from __future__ import annotations

import nltk
from nltk.tokenize import NLTKWordTokenizer, PunktSentenceTokenizer

PROVED_ON = "3.10.4"
"""The version of NLTK that the fast path was fuzzed against; others are checked before use."""

_REMEMBERED = 1 << 15
"""Chunks (and sentence-end contexts) that are kept; then memory starts anew."""

_CLOSING = frozenset("])}>\"' \u00bb\u201d\u2019")
"""What may stand between the last period and a sentence's end (NLTK's first punctuation rule)."""

_NEIGHBOUR = "a"


class _Sentences(PunktSentenceTokenizer):  # type: ignore[misc]
    """Punkt, which remembers the contexts of sentence ends that it has judged."""

    def __init__(self) -> None:
        super().__init__()
        self._judged: dict[str, bool] = {}

    def text_contains_sentbreak(self, text: str) -> bool:
        found = self._judged.get(text)
        if found is None:
            if len(self._judged) >= _REMEMBERED:
                self._judged.clear()
            found = self._judged[text] = bool(super().text_contains_sentbreak(text))
        return found


_sentences = _Sentences()
_words = NLTKWordTokenizer()
_first: dict[str, list[str]] = {}
_middle: dict[str, list[str]] = {}
_last: dict[str, list[str]] = {}


def tokenize(text: str) -> list[str]:
    """Split a text into words and punctuation marks, case kept."""
    split = _split if _fast_path_holds() else _words.tokenize
    return [word for sentence in _sentences.tokenize(text) for word in split(sentence)]


def count(text: str) -> int:
    """Count the words of a text; punctuation marks count as words, as in the paper."""
    return len(tokenize(text))


def tokenize_plainly(text: str) -> list[str]:
    """Do what :func:`tokenize` does with NLTK alone: the definition, and slow."""
    sentences = PunktSentenceTokenizer().tokenize(text)
    return [word for sentence in sentences for word in _words.tokenize(sentence)]


def _split(sentence: str) -> list[str]:
    """Tokenize a sentence chunk by chunk, or by NLTK where that would not be the same."""
    chunks = sentence.split(" ")
    if len(chunks) == 1 or chunks != sentence.split() or _CLOSING.issuperset(chunks[-1]):
        return _words.tokenize(sentence)  # type: ignore[no-any-return]
    words: list[str] = []
    last = len(chunks) - 1
    for i, chunk in enumerate(chunks):
        memory = _middle if 0 < i < last else _first if i == 0 else _last
        found = memory.get(chunk)
        if found is None:
            if len(memory) >= _REMEMBERED:
                memory.clear()
            before = [] if memory is _first else [_NEIGHBOUR]
            behind = [] if memory is _last else [_NEIGHBOUR]
            found = _words.tokenize(" ".join([*before, chunk, *behind]))
            found = memory[chunk] = found[len(before) : len(found) - len(behind)]
        words += found
    return words


_holds: bool | None = True if nltk.__version__ == PROVED_ON else None

_TRICKY = (
    "He said \"no way\". 'Tis fine, isn't it? I can't, I cannot; gimme 3,000.50 $ (or so...)",
    "``Quoted'' text -- with dashes, 5:30 and e.g. abbreviations etc. And so on!",
    "it's 'twas y'all's rock 'n' roll d'ye wanna gonna more'n lemme",
    "a, b:c ,d : [x] {y} <z> #tag @name 50% a&b *star* \u201ccurly\u201d \u2018o\u2019 \u00ab",
    "end .) \"She left.\" 'He stayed.' (Really?) Yes.",
    "They'LL I'VE WE'RE don'T N'T 'em '' ' a' b' ' c",
)


def _fast_path_holds() -> bool:
    """Check the fast path once, where another version of NLTK is installed."""
    global _holds  # noqa: PLW0603
    if _holds is None:
        _holds = all(
            [w for s in _sentences.tokenize(text) for w in _split(s)] == tokenize_plainly(text)
            for text in _TRICKY
        )
    return _holds
