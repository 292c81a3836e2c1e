"""How much of a corpus stands in the sessions that models trained on it are tested on.

Offline, as a class::

    Overlap().compute(messages=dataset["messages"], tested_on=[session, ...])

or by ``evaluate.load("PATH/overlap", module_type="measurement")``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import evaluate

from augesc_builder.metrics.features import FEATURES
from augesc_builder.metrics.overlap.counts import SIMILARITY, SPAN, OverlapCounts, said_in
from augesc_builder.metrics.tokenized import spoken
from augesc_builder.text.prompts import Message

DESCRIPTION = """\
What a test of models that are trained on a corpus would know already: sessions that are near
duplicates of a test session (by the Jaccard similarity of their shingles of 5 words, in lowercase
and without punctuation), sessions that share many words in a row with one, and the share of 4-grams
that stand in test sessions too. Spans and n-grams do not cross the end of an utterance; their words
are NLTK's, case-sensitive. Exact, without sketches.
"""

INPUTS_DESCRIPTION = """\
Args:
    messages: for each session its utterances, a list of {"role", "content"} in order.
    tested_on: the test sessions, each a list of {"role", "content"}. They take about a kilobyte of
        memory for each of their words.
    similarity: from which two sessions are near duplicates, over 0 to 1.
    span: words in a row from which a session shares a span.
Returns:
    sessions and test_sessions (counts), similarity, near_duplicate_sessions (count of those that
    are of a test session) and near_duplicate_share, near_duplicated_test_sessions (count of test
    sessions that have one); span, span_sessions, span_share and span_test_sessions, the same of
    shared spans; n, ngrams (count), shared_ngrams (count of those that stand in test sessions) and
    shared_share; longest_spans: a list of {"words", "text"}; longest_by_session: a list of [words
    of a session's longest shared span, sessions]. Shares are from 0 to 1, and of nothing None.
"""

CITATION = """\
Brown et al. (2020): Language Models are Few-Shot Learners, appendix C (13 words). Broder (1997): On
the resemblance and containment of documents.
"""


class Overlap(evaluate.Measurement):  # type: ignore[misc]
    """What is shared with test sessions, as an ``evaluate`` measurement."""

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
        tested_on: Sequence[Sequence[Message]],
        similarity: float = SIMILARITY,
        span: int = SPAN,
    ) -> dict[str, Any]:
        counts = OverlapCounts(said_in(tested_on), similarity, span)
        for session in messages:
            counts.add(spoken(session))
        return counts.statistics()
