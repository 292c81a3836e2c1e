"""Seekers who support and supporters who ask for help: what one says in the other's role."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate

from augesc_builder.metrics.consistency.clauses import Clause, Said
from augesc_builder.metrics.consistency.vocabulary import word_set
from augesc_builder.metrics.scored import Finding

_HARD = "hard|difficult|tough|frustrating|painful|stressful|upsetting|scary|awful|terrible|rough"
_SUPPORTS = re.compile(
    r"\b(?:"
    r"i am (?:always |just |right )?here (?:for you|to (?:help|listen|support))|"
    r"i (?:will be|will always be) here for you|"
    r"how (?:are you (?:feeling|coping|holding up)|does (?:that|this|it) make you feel)|"
    r"i am (?:so |very |really |truly )?sorry (?:to hear|you are|you have|that you|about your)|"
    r"(?:how|what) (?:can|could|may) i (?:help you|do to help you|do for you)|"
    r"i (?:would |can only |strongly )?(?:suggest|recommend|advise) (?:that )?you|"
    r"you are not alone|it is not your fault|(?:do not|not) be so hard on yourself|"
    r"you (?:can|will) get through this|"
    r"(?:that|it|this) must (?:be|have been|feel) (?:so |very |really |quite )?"
    rf"(?:{_HARD})(?: for you)?|"
    r"i (?:understand|know|can imagine|can see) how (?:you feel|hard (?:it|this) is for you)|"
    r"would you like to talk about (?:it|that|this)|tell me more about (?:it|your|what you)|"
    r"it sounds like you (?:are|feel|have)"
    r")\b"
)
_ASKS_HELP = re.compile(
    r"\b(?:"
    r"(?:can|could|will|would) you (?:please )?help me(?! (?:to )?understand)|"
    r"(?<!when )(?<!if )i (?:really |just )?need (?:your |some )?(?:help|advice)|"
    r"what should i do|what do you think i should do|what would you do if you were me|"
    r"i (?:just |really )?do not know what (?:else )?to do|"
    r"do you have any (?:advice|suggestions|tips) for me|"
    r"thank(?:s| you) (?:so much |very much )?for (?:listening|(?:your|the) (?:advice|help|support|"
    r"suggestions?|listening))|"
    r"i (?:am|feel) (?:so |very |really |completely )?(?:hopeless|worthless|suicidal)|"
    r"i want to (?:die|end my life)"
    r")\b"
)
_FIRST_PERSON = word_set("i my me mine")
_SHORTEST_STORY, _LEAST_CONTENT = 4, 2
"""Words of a clause, and among them words of content, that tell of something of one's own."""

_TAKEN_OVER = "story taken over"

_OUT_OF_ROLE = {
    "user": ("seeker supports", _SUPPORTS, "the seeker says what a supporter says"),
    "assistant": ("supporter asks", _ASKS_HELP, "the supporter asks for help or thanks"),
}

CONFUSIONS = frozenset((_TAKEN_OVER, *(kind for kind, *_ in _OUT_OF_ROLE.values())))
"""The kinds of findings here; a contradiction is of another kind."""


def confusions(said: Sequence[Said], roles: Sequence[str]) -> Iterator[Finding]:
    """Yield what is said in the other's role, once an utterance and kind."""
    told: dict[tuple[str, ...], tuple[int, Clause]] = {}
    for i, (utterance, role) in enumerate(zip(said, roles, strict=True)):
        kind, pattern, reason = _OUT_OF_ROLE[role]
        for clause in utterance.clauses:
            if span := _place(pattern, clause):
                yield Finding(kind, i, *span, reason)
                break
        stories = [(_story(clause), clause) for clause in utterance.clauses]
        if role == "user":
            told |= {story: (i, clause) for story, clause in stories if story}
            continue
        for story, clause in stories:
            if story in told:
                other, before = told[story]
                why = "the supporter tells as their own what the seeker told"
                yield Finding(
                    _TAKEN_OVER, i, clause.start, clause.end, why,
                    other=other, other_start=before.start, other_end=before.end,
                )  # fmt: skip
                break


def _place(pattern: re.Pattern[str], clause: Clause) -> tuple[int, int] | None:
    """Return the span of what a pattern finds in the words of a clause."""
    words = clause.words
    found = pattern.search(" ".join(word.text for word in words))
    if found is None:
        return None
    begins = [0, *accumulate(len(word.text) + 1 for word in words)]
    first, last = (bisect_right(begins, place) - 1 for place in (found.start(), found.end() - 1))
    return words[first].start, words[last].end


def _story(clause: Clause) -> tuple[str, ...]:
    """Return the words of a clause that tells of the speaker, nothing of others."""
    words = tuple(word.text for word in clause.words)
    tells = len(words) >= _SHORTEST_STORY and len(clause.content) >= _LEAST_CONTENT
    return words if tells and not _FIRST_PERSON.isdisjoint(words) and not clause.asks else ()
