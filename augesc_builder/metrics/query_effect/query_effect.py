"""How the length of a query shapes the conversation it triggers (Figure 3).

Offline, as a class::

    QueryEffect().compute(messages=dataset["messages"])

or by ``evaluate.load("PATH/query_effect", module_type="measurement")``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import evaluate

from augesc_builder.metrics.features import FEATURES
from augesc_builder.metrics.query_effect.counts import BIN_WORDS, QueryCounts
from augesc_builder.metrics.tokenized import spoken
from augesc_builder.text.prompts import Message

DESCRIPTION = """\
The length of a session's query (its first utterance, in words) against the mean length of the
utterances behind it, or of all (Figure 3 of the AugESC paper; there of 2,000 conversations of each
source, drawn at random before any filtering). Sessions with one utterance have no such mean and are
left out. Words are NLTK's.
"""

INPUTS_DESCRIPTION = """\
Args:
    messages: for each session its utterances, a list of {"role", "content"} in order.
    bin_words: width of the bins of query lengths, in words.
    sample: measure so many sessions at most, drawn at random (the paper: 2,000); None: all.
    seed: of that draw, which does not depend on the order of the sessions.
    with_query: whether the query is one of the utterances whose mean length is taken. The paper,
        which says "in the triggered conversation", leaves it open.
Returns:
    sessions (count of those with two utterances or more), mean_query_words,
    mean_utterance_words (the mean of the sessions' means), correlation (Pearson's r of query length
    and mean utterance length), bins: a list of {"from", "to" (words, both included), "sessions",
    "mean", "sd" (of mean utterance lengths; the sd of one session is None)}.
    Means of nothing are None; so is a correlation where one side does not vary.
"""

CITATION = "Zheng, Sabour, Wen, Huang (2022): AugESC. arXiv 2202.13047, Figure 3."


class QueryEffect(evaluate.Measurement):  # type: ignore[misc]
    """Figure 3 of the paper as an ``evaluate`` measurement."""

    def _info(self) -> evaluate.MeasurementInfo:
        return evaluate.MeasurementInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS_DESCRIPTION,
            features=FEATURES,
        )

    def _compute(
        self,
        messages: Iterable[Sequence[Message]],
        bin_words: int = BIN_WORDS,
        sample: int | None = None,
        seed: int = 0,
        with_query: bool = False,
    ) -> dict[str, Any]:
        counts = QueryCounts(sample, seed, with_query=with_query)
        for session in messages:
            counts.add(spoken(session))
        return counts.statistics(bin_words)
