"""Distinct n-grams, and how unique bigrams grow with sessions (Figure 5).

Offline, as a class::

    LexicalDiversity().compute(messages=dataset["messages"])

or by ``evaluate.load("PATH/lexical_diversity", module_type="measurement")``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import evaluate

from augesc_builder.metrics.features import FEATURES
from augesc_builder.metrics.lexical_diversity.counts import POINTS, DiversityCounts
from augesc_builder.metrics.tokenized import spoken
from augesc_builder.text.prompts import Message

DESCRIPTION = """\
Distinct-n (Li et al. 2016), for n = 1, 2, 3: distinct n-grams of words by all n-grams, of the whole
corpus, within utterances. And the growth curve of unique bigrams over sessions in random order
(Figure 5 of the AugESC paper). Words are NLTK's, case-sensitive, punctuation marks included.

The order of sessions is that of a hash of their text and the seed, so it does not depend on the
order they come in. N-grams are counted as 64-bit hashes: among ten million, two share one with a
chance of 3 in a million. Up to four million distinct n-grams the counts are exact; beyond, they are
estimated with a standard error of 0.05%, and "exact" says so. Distinct-n falls with the size of a
corpus: compare corpora of one size.
"""

INPUTS_DESCRIPTION = """\
Args:
    messages: for each session its utterances, a list of {"role", "content"} in order.
    seed: of the order of the sessions in the curve.
    points: how many points the curve has at most.
Returns:
    distinct_1, distinct_2, distinct_3: shares from 0 to 1, None where there is no such n-gram;
    unique_unigrams, unique_bigrams, unique_trigrams: counts; exact: whether all of them are exact;
    bigram_growth: a list of [sessions, unique bigrams in them].
"""

CITATION = """\
Li, Galley, Brockett, Gao, Dolan (2016): A Diversity-Promoting Objective Function for Neural
Conversation Models. Zheng, Sabour, Wen, Huang (2022): AugESC. arXiv 2202.13047, Figure 5.
"""


class LexicalDiversity(evaluate.Measurement):  # type: ignore[misc]
    """Distinct-n and Figure 5 of the paper as an ``evaluate`` measurement."""

    def _info(self) -> evaluate.MeasurementInfo:
        return evaluate.MeasurementInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS_DESCRIPTION,
            features=FEATURES,
        )

    def _compute(
        self, messages: Iterable[Sequence[Message]], seed: int = 0, points: int = POINTS
    ) -> dict[str, Any]:
        counts = DiversityCounts(seed)
        counts.add([spoken(session) for session in messages])
        return counts.statistics(points)
