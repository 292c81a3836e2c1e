"""The words that tell one set of sessions from the others (Figure 4).

Offline, as a class::

    TopicCorrelates().compute(messages=dataset["messages"], sets=dataset["source"])

or by ``evaluate.load("PATH/topic_correlates", module_type="measurement")``.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

import datasets
import evaluate

from augesc_builder.metrics.spoken import FEATURES, ROLES, Spoken, spoken
from augesc_builder.prompts import Message

DESCRIPTION = """\
For each set of sessions, the words that are said more in it than in all other sets together: log
odds ratio with informative Dirichlet prior (Monroe, Colaresi, Quinn 2008), as a z-score; values
above 3 are highly significant. Seeker and supporter apart (Figure 4 of the AugESC paper).

With y the count of a word in the set and n the words of the set, y' and n' those of all other sets,
a the prior of the word (its count in all sets together) and A the sum of all priors:

    delta = log((y + a) / (n + A - y - a)) - log((y' + a) / (n' + A - y' - a))
    z     = delta / sqrt(1 / (y + a) + 1 / (y' + a))

Words are NLTK's, in lower case. Words without a letter or digit are left out, and so are stop words
(a list of ours, augesc_builder/lexicons/stop_words.txt), unless keep_stop_words is set.
"""

INPUTS_DESCRIPTION = """\
Args:
    messages: for each session its utterances, a list of {"role", "content"} in order.
    sets: for each session the name of its set.
    top: how many words are given for each set and role.
    keep_stop_words: do not leave out stop words and punctuation marks.
Returns:
    for each set, for seeker and supporter: a list of [word, z], the highest z first; words of equal
    z in the order of the alphabet. Empty where there is no other set to compare with.
"""

CITATION = """\
Monroe, Colaresi, Quinn (2008): Fightin' Words: Lexical Feature Selection and Evaluation for
Identifying the Content of Political Conflict. Political Analysis 16(4), equations 16 and 22.
"""

_TOP = 10


class TopicCounts:
    """How often each role says each word; counts of other sessions can be merged in."""

    def __init__(self) -> None:
        self.words: dict[str, Counter[str]] = {role: Counter() for role in ROLES}

    def add(self, session: Spoken) -> None:
        """Count a session."""
        for said in session:
            self.words[said.role].update(said.words)

    def merge(self, other: TopicCounts) -> None:
        """Add the counts of other sessions."""
        for role, counter in other.words.items():
            self.words[role].update(counter)

    def lowered(self, role: str, *, keep_stop_words: bool) -> Counter[str]:
        """Give a role's counts of words in lower case."""
        counts: Counter[str] = Counter()
        for word, n in self.words[role].items():
            lower = word.lower()
            if keep_stop_words or (_WORD.search(lower) and lower not in stop_words()):
                counts[lower] += n
        return counts


_WORD = re.compile(r"[^\W_]")


def correlates(
    sets: Mapping[str, TopicCounts], top: int = _TOP, *, keep_stop_words: bool = False
) -> dict[str, dict[str, list[list[Any]]]]:
    """Give each set's words of the highest z against all other sets."""
    found: dict[str, dict[str, list[list[Any]]]] = {name: {} for name in sets}
    for role, label in ROLES.items():
        counts = {
            name: part.lowered(role, keep_stop_words=keep_stop_words) for name, part in sets.items()
        }
        pooled: Counter[str] = Counter()
        for part in counts.values():
            pooled.update(part)
        for name, part in counts.items():
            scores = z_scores(part, pooled - part, pooled) if len(sets) > 1 else {}
            ranked = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
            found[name][label] = [[word, z] for word, z in ranked[:top] if z > 0]
    return found


def z_scores(
    here: Mapping[str, int], there: Mapping[str, int], prior: Mapping[str, int]
) -> dict[str, float]:
    """Give z of every word of the prior: above 0 where it is said more here than there."""
    n_here, n_there, n_prior = sum(here.values()), sum(there.values()), sum(prior.values())
    scores = {}
    for word, a in prior.items():
        y, other = here.get(word, 0) + a, there.get(word, 0) + a
        rest, other_rest = n_here + n_prior - y, n_there + n_prior - other
        if not rest or not other_rest:  # the only word there is
            continue
        delta = math.log(y / rest) - math.log(other / other_rest)
        scores[word] = delta / math.sqrt(1 / y + 1 / other)
    return scores


@functools.cache
def stop_words() -> frozenset[str]:
    """Read our list of stop words: one a line, ``#`` begins a comment."""
    file = resources.files("augesc_builder") / "lexicons" / "stop_words.txt"
    lines = file.read_text(encoding="utf-8").splitlines()
    return frozenset(word for line in lines for word in line.partition("#")[0].split())


class TopicCorrelates(evaluate.Measurement):  # type: ignore[misc]
    """Figure 4 of the paper as an ``evaluate`` measurement."""

    def _info(self) -> evaluate.MeasurementInfo:
        return evaluate.MeasurementInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS_DESCRIPTION,
            features=datasets.Features({**FEATURES, "sets": datasets.Value("string")}),
        )

    def _compute(
        self,
        messages: Iterable[Sequence[Message]],
        sets: Iterable[str],
        top: int = _TOP,
        keep_stop_words: bool = False,
    ) -> dict[str, Any]:
        counts: dict[str, TopicCounts] = {}
        for session, name in zip(messages, sets, strict=True):
            counts.setdefault(name, TopicCounts()).add(spoken(session))
        return correlates(counts, top, keep_stop_words=keep_stop_words)
