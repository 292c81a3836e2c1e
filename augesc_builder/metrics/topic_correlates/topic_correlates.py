"""The words that tell one set of sessions from the others (Figure 4).

Offline, as a class::

    TopicCorrelates().compute(messages=dataset["messages"], sets=dataset["source"])

or by ``evaluate.load("PATH/topic_correlates", module_type="measurement")``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import datasets
import evaluate

from augesc_builder.metrics.features import FEATURES
from augesc_builder.metrics.tokenized import spoken
from augesc_builder.metrics.topic_correlates.counts import TOP, TopicCounts, correlates
from augesc_builder.metrics.topic_correlates.priors import Prior
from augesc_builder.text.prompts import Message

DESCRIPTION = """\
For each set of sessions, the words that are said more in it than in all other sets together: log
odds ratio with informative Dirichlet prior (Monroe, Colaresi, Quinn 2008), as a z-score; values
above 3 are highly significant. Seeker and supporter apart (Figure 4 of the AugESC paper).

With y the count of a word in the set and n the words of the set, y' and n' those of all other sets,
a the prior of the word and A the sum of all priors:

    delta = log((y + a) / (n + A - y - a)) - log((y' + a) / (n' + A - y' - a))
    z     = delta / sqrt(1 / (y + a) + 1 / (y' + a))

Words are NLTK's, in lowercase. Words without a letter or digit are left out, and so are stop words
(those of augesc_builder/text/lexicons/stop_words.txt), unless keep_stop_words is set.

The prior of a word is its count in all sets together ("pooled"), those counts scaled to so many
words in all ("scaled:46e6"), or the same for every word ("uninformative:0.01"). The paper does not
say which it used, nor whether stop words were left out.
"""

INPUTS_DESCRIPTION = """\
Args:
    messages: for each session its utterances, a list of {"role", "content"} in order.
    sets: for each session the name of its set.
    top: how many words are given for each set and role.
    keep_stop_words: do not leave out stop words and punctuation marks.
    prior: pooled, scaled:WORDS or uninformative:COUNT.
    sample: count so many sessions of a set at most, drawn at random (the paper: 10,000); None: all.
    seed: of that draw, which does not depend on the order of the sessions.
Returns:
    for each set, for seeker and supporter: a list of [word, z], the highest z first; words of equal
    z in the order of the alphabet. Empty where there is no other set to compare with.
"""

CITATION = """\
Monroe, Colaresi, Quinn (2008): Fightin' Words: Lexical Feature Selection and Evaluation for
Identifying the Content of Political Conflict. Political Analysis 16(4), equations 16 and 22.
"""


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
        top: int = TOP,
        keep_stop_words: bool = False,
        prior: str = "pooled",
        sample: int | None = None,
        seed: int = 0,
    ) -> dict[str, Any]:
        chosen = Prior.parse(prior)
        counts: dict[str, TopicCounts] = {}
        for session, name in zip(messages, sets, strict=True):
            counts.setdefault(name, TopicCounts(sample, seed)).add(spoken(session))
        return correlates(counts, top, keep_stop_words=keep_stop_words, prior=chosen)
