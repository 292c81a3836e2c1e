"""How many different sessions a corpus holds.

Offline, as a class::

    Vendi().compute(messages=dataset["messages"])

or by ``evaluate.load("PATH/vendi", module_type="measurement")``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import evaluate

from augesc_builder.metrics.features import FEATURES
from augesc_builder.metrics.tokenized import spoken
from augesc_builder.metrics.vendi.counts import SESSIONS, VendiCounts
from augesc_builder.text.prompts import Message

DESCRIPTION = """\
The Vendi score (Friedman and Dieng 2023): the effective number of different sessions. Two sessions
are alike by the cosine of the words and pairs of words that they hold, each counted once, and the
score is the exponential of the entropy of that matrix's eigenvalues by its size: 1 where all
sessions are the same, and as many as there are where no two share a word. Words are NLTK's,
case-sensitive, punctuation marks included.

It is of a sample of sessions, since time grows with the cube of their number; which are drawn
depends on their texts and the seed alone. It grows with the number of sessions that are compared:
compare corpora by samples of one size.
"""

INPUTS_DESCRIPTION = """\
Args:
    messages: for each session its utterances, a list of {"role", "content"} in order.
    seed: of the sample.
    size: sessions of the sample, at most.
Returns:
    vendi: from 1 to compared, None where no session has a word; compared: the sessions of the
    sample; sessions: all of them.
"""

CITATION = """\
Friedman, Dieng (2023): The Vendi Score: A Diversity Evaluation Metric for Machine Learning. TMLR,
arXiv 2210.02410.
"""


class Vendi(evaluate.Measurement):  # type: ignore[misc]
    """The Vendi score as an ``evaluate`` measurement."""

    def _info(self) -> evaluate.MeasurementInfo:
        return evaluate.MeasurementInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS_DESCRIPTION,
            features=FEATURES,
        )

    def _compute(
        self, messages: Iterable[Sequence[Message]], seed: int = 0, size: int = SESSIONS
    ) -> dict[str, Any]:
        counts = VendiCounts(seed, size)
        counts.add([spoken(session) for session in messages])
        return counts.statistics()
