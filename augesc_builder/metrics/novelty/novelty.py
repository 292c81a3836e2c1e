"""How much of a corpus stands in the sessions that its model was trained on.

Offline, as a class::

    Novelty().compute(messages=dataset["messages"], trained_on=[session, ...])

or by ``evaluate.load("PATH/novelty", module_type="measurement")``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import evaluate

from augesc_builder.metrics.features import FEATURES
from augesc_builder.metrics.novelty.counts import TOP, N, NoveltyCounts, utterances_of
from augesc_builder.metrics.tokenized import spoken
from augesc_builder.text.prompts import Message

DESCRIPTION = """\
The share of a corpus's 4-grams of words that stand in the fine-tuning sessions too, and the longest
spans that stand there word for word: a model that has memorized its training data is caught here.
N-grams and spans do not cross the end of an utterance. Words are NLTK's, case-sensitive. Exact:
every utterance runs through a suffix automaton of the fine-tuning utterances.
"""

INPUTS_DESCRIPTION = """\
Args:
    messages: for each session its utterances, a list of {"role", "content"} in order.
    trained_on: the fine-tuning sessions, each a list of {"role", "content"}. The automaton takes
        about half a kilobyte of memory for each of their words.
    n: words of an n-gram.
    top: how many of the longest spans are given.
Returns:
    n; ngrams (count, all of the corpus), memorized_ngrams (count) and memorized_share (from 0 to 1,
    None where there is no n-gram); longest_spans: a list of {"words", "text"}, distinct, none
    inside another, from n words on; longest_by_session: a list of [words of a session's longest
    span, sessions], 0 included.
"""

CITATION = """\
Carlini et al. (2021): Extracting Training Data from Large Language Models. Blumer et al. (1985):
The smallest automaton recognizing the subwords of a text.
"""


class Novelty(evaluate.Measurement):  # type: ignore[misc]
    """What is memorized from the fine-tuning sessions, as an ``evaluate`` measurement."""

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
        trained_on: Sequence[Sequence[Message]],
        n: int = N,
        top: int = TOP,
    ) -> dict[str, Any]:
        counts = NoveltyCounts(utterances_of(trained_on), n, top)
        for session in messages:
            counts.add(spoken(session))
        return counts.statistics()
