"""Pronouns that none of the people who were spoken of can be meant by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from augesc_builder.metrics.consistency.clauses import Said, Word, stem_of
from augesc_builder.metrics.consistency.vocabulary import FEMALE, MALE, UNSAID_GENDER, word_set

_GENDER = {stem_of(word): "she" for word in FEMALE} | {stem_of(word): "he" for word in MALE}
_PRONOUN = {"she": "she", "her": "she", "hers": "she", "herself": "she"} | {
    "he": "he",
    "him": "he",
    "his": "he",
    "himself": "he",
}
_DETERMINERS = word_set("a an the my your our his her their this that one another")
_DOERS = ("er", "or", "ist", "ian", "ee", "mate", "ant", "ent", "ess", "ive")
"""Endings of words for people who may be either, behind a determiner."""


class Mistaken(NamedTuple):
    """A pronoun of one gender, and the word of the other one that alone it could stand for."""

    later: int
    pronoun: Word
    earlier: int
    person: Word


def mistaken(said: Sequence[Said], speakers: Sequence[str]) -> Iterator[Mistaken]:
    """Yield pronouns where all persons whom anybody named so far are of the other gender.

    A name, a friend or a teacher may be of either: once one is spoken of, nothing is mistaken.
    """
    named: set[str] = set()
    last: dict[tuple[str, str], tuple[int, Word]] = {}
    for i, (utterance, speaker) in enumerate(zip(said, speakers, strict=True)):
        here: dict[str, Word] = {}
        for clause in utterance.clauses:
            for before, word in zip((None, *clause.words), clause.words, strict=False):
                if gender := _GENDER.get(word.stem):
                    here.setdefault(gender, word)
                elif _may_be_either(word, before):
                    return
        named |= here.keys()
        for pronoun in (w for c in utterance.clauses for w in c.words if w.text in _PRONOUN):
            gender = _PRONOUN[pronoun.text]
            other = "he" if gender == "she" else "she"
            if other in named and gender not in named and (speaker, other) in last:
                yield Mistaken(i, pronoun, *last[speaker, other])
            named.add(gender)
        last |= {(speaker, gender): (i, word) for gender, word in here.items()}


def _may_be_either(word: Word, before: Word | None) -> bool:
    """Whether a word is or may be somebody of either gender."""
    if word.text in UNSAID_GENDER or word.capital:
        return True
    return before is not None and before.text in _DETERMINERS and word.text.endswith(_DOERS)
