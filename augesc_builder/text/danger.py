"""Signs of danger in what people write: the phrases of ``lexicons/danger.yaml``.

Two read them. The safety pass looks for *plain* phrases, in what either side of a conversation
says. The notice of ``augesc chat`` looks for *hints* as well, which often mean nothing: where a
person writes, a miss is worse than a false alarm.

A phrase is one regular expression without nested repetition over the plain words of a text
(``folding.py``), and only phrases whose words all stand in the text are looked for: the time grows
as the text does.
"""

from __future__ import annotations

import functools
import re
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from augesc_builder.text.folding import STOP, Folder, Word
from augesc_builder.text.lexicon import LEXICONS, bare_words, own_lexicon

KINDS = (
    *("suicide", "self_harm", "overdose", "harm_to_others"),
    *("abuse", "sexual_violence", "eating_disorder"),
)
"""What a sign can be a sign of."""


_Hit = tuple[str, int, int]
"""A kind, and the span of a phrase in the joined words."""


_WIDER = 2
"""Words more in every gap of a phrase where hints are looked for, too."""


class Sign(NamedTuple):
    """A sign of danger, and the span of its characters in the text."""

    kind: str
    start: int
    end: int


class _Phrase:
    """A phrase, the words that it cannot do without, and its pattern, made when first needed."""

    def __init__(self, kind: str, entry: str, forms: Mapping[str, str], wider: int) -> None:
        self.kind = kind
        self._slots = [_slot(token, forms, wider) for token in entry.split()]
        needed = (s.words for s in self._slots if s.words and not s.optional)
        self.needed = sorted(needed, key=_rarity, reverse=True)

    @functools.cached_property
    def pattern(self) -> re.Pattern[str]:
        return re.compile("(?<= )" + "".join(slot.pattern for slot in self._slots))

    def words(self) -> Iterable[str]:
        return (word for slot in self._slots for word in slot.words)


class _Slot(NamedTuple):
    words: frozenset[str]
    optional: bool
    pattern: str


def _slot(token: str, forms: Mapping[str, str], wider: int) -> _Slot:
    if token[0] in "~*":
        anything = "[^ ]+" if token[0] == "~" else "[^ .]+"
        return _Slot(frozenset(), True, f"(?:{anything} ){{0,{int(token[1:]) + wider}}}?")
    optional = token.endswith("?")
    words: set[str] = set()
    for part in token.removesuffix("?").split("|"):
        words |= set(forms[part[1:-1]].split()) if part.startswith("<") else {part}
    written = "|".join(re.escape(word) for word in sorted(words))
    pattern = f"(?:{written}) "
    return _Slot(frozenset(words), optional, f"(?:{pattern})?" if optional else pattern)


def _rarity(words: frozenset[str]) -> int:
    """Rank the alternatives of a slot by how seldom a text is likely to have one of them."""
    stop, everyday = _common_words()
    return -sum(100 if word in stop else 10 if word in everyday else 1 for word in words)


@functools.cache
def _common_words() -> tuple[frozenset[str], frozenset[str]]:
    """Return stop words, and what else people say all the time."""
    lines = (LEXICONS / "stop_words.txt").read_text(encoding="utf-8").splitlines()
    said = {word for line in lines if not line.startswith("#") for word in line.split()}
    stop = frozenset(word for word in said if not word.endswith(("self", "selves")))
    return stop | {STOP}, frozenset(own_lexicon("danger.yaml")["everyday"].split())


class _Phrases:
    """Phrases by the rarest of the words that they need; ``wider`` are words more in each gap."""

    def __init__(
        self, entries: Iterable[tuple[str, str]], forms: Mapping[str, str], wider: int = 0
    ) -> None:
        self._by_word: dict[str, list[_Phrase]] = {}
        self.words: set[str] = set()
        for kind, entry in entries:
            phrase = _Phrase(kind, entry, forms, wider)
            self.words.update(phrase.words())
            for word in phrase.needed[0]:
                self._by_word.setdefault(word, []).append(phrase)
        self.keys = frozenset(self._by_word)

    def can_stand(self, said: frozenset[str]) -> bool:
        """Whether all words that a phrase needs were said."""
        return next(self._candidates(said), None) is not None

    def find(self, joined: str, said: frozenset[str]) -> list[_Hit]:
        """Return kind and span of every phrase in words that are joined by blanks."""
        found = {
            (phrase.kind, *m.span())
            for phrase in self._candidates(said)
            for m in phrase.pattern.finditer(joined)
        }
        return sorted(found, key=_by_place)

    def _candidates(self, said: frozenset[str]) -> Iterator[_Phrase]:
        for word in said & self.keys:
            for phrase in self._by_word[word]:
                for words in phrase.needed:
                    if said.isdisjoint(words):
                        break
                else:
                    yield phrase


class DangerLexicon:
    """Finds signs of danger; with ``hints`` also those that are often none."""

    def __init__(self, *, hints: bool) -> None:
        lists = own_lexicon("danger.yaml")
        forms = lists["forms"]
        by_kind = [lists, lists["hints"]] if hints else [lists]
        covers = [lists["harmless"], [*lists["harmless"], *lists["harmless_hints"]]]
        self._signs = [
            (
                _Phrases(
                    [(kind, entry) for kind in KINDS for entry in entries[kind]],
                    forms,
                    _WIDER if hints else 0,
                ),
                _Phrases([("", entry) for entry in harmless], forms),
            )
            for entries, harmless in zip(by_kind, covers, strict=False)
        ]
        self._folder = Folder(
            set().union(*(phrases.words for pair in self._signs for phrases in pair)),
            set().union(*(signs_of.keys for signs_of, _ in self._signs)),
            *(lists[name] for name in ("spellings", "joins", "typos", "hidden", "broken")),
        )

    def find(self, text: str, bare: frozenset[str] | None = None) -> list[Sign]:
        """Return the signs in a text that nothing harmless covers, in order.

        Of signs of a kind that overlap, the first and longest is given. ``bare`` are the
        :func:`~augesc_builder.text.lexicon.bare_words` of the text, where they are known.
        """
        maybe = self._folder.may_say(
            text, frozenset(bare_words(text.lower())) if bare is None else bare
        )
        if maybe is not None and not any(signs_of.can_stand(maybe) for signs_of, _ in self._signs):
            return []
        words = self._folder.fold(text, marked=maybe is None)
        said = frozenset([STOP, *(word.text for word in words)])
        joined = "".join([" ", *(f"{word.text} " for word in words), f"{STOP} "])
        hits: list[_Hit] = []
        for signs_of, harmless in self._signs:
            if found := signs_of.find(joined, said):
                hits += _uncovered(found, harmless.find(joined, said))
        if not hits:
            return []
        starts = _starts(words)
        signs: list[Sign] = []
        reached: dict[str, int] = {}
        for kind, start, end in sorted(hits, key=_by_place):
            if start >= reached.get(kind, 0):
                reached[kind] = end
                first = words[bisect_right(starts, start) - 1]
                last = words[min(bisect_right(starts, end - 1), len(words)) - 1]
                signs.append(Sign(kind, first.start, last.end))
        return signs


def _by_place(hit: _Hit) -> tuple[int, int]:
    return hit[1], -hit[2]


def _uncovered(hits: Iterable[_Hit], covers: Iterable[_Hit]) -> Iterator[_Hit]:
    """Yield the hits whose last word lies in no cover: "want to die" in "want to die my hair"."""
    waiting, safe_until = deque(covers), 0
    for hit in sorted(hits, key=lambda hit: hit[2]):
        while waiting and waiting[0][1] < hit[2]:
            safe_until = max(safe_until, waiting.popleft()[2])
        if hit[2] > safe_until:
            yield hit


def _starts(words: Iterable[Word]) -> list[int]:
    """Return where each word begins when all are joined by blanks, one in front."""
    starts, at = [], 1
    for word in words:
        starts.append(at)
        at += len(word.text) + 1
    return starts
