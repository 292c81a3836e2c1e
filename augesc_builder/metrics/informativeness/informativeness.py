"""What a turn adds to what was said before, over a corpus.

Offline, as a class::

    Informativeness().compute(messages=dataset["messages"])

or by ``evaluate.load("PATH/informativeness", module_type="measurement")``. The measure itself,
session by session, is :class:`augesc_builder.metrics.informativeness.measure.Informativeness`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import evaluate

from augesc_builder.metrics.features import FEATURES
from augesc_builder.metrics.informativeness import measure
from augesc_builder.metrics.informativeness.counts import InformativenessCounts
from augesc_builder.text.prompts import Message

DESCRIPTION = """\
Content words and facts of a turn that nobody has said before in the session. Content words are
NLTK's words as stems (Porter), without stop words, numbers and marks. Facts are numbers (in digits
or words), kin and others who are close, pets among them, and names: words with a capital within a
sentence. English only; rules, no model. What is new need not be true or to the point.
"""

INPUTS_DESCRIPTION = """\
Args:
    messages: for each session its utterances, a list of {"role", "content"} in order.
Returns:
    sessions (count); means over sessions, for the seeker's turns: new_words and new_facts (mean
    number a turn), new_share (of the content words of the turns, those that are new, 0 to 1); for
    seeker and supporter: utterances (count), mean (new content words an utterance) and by_progress
    (that mean in five equal parts of the sessions, first to last). Means of nothing are None.
"""

CITATION = """\
Zheng et al. (2023): AugESC: Dialogue Augmentation with Large Language Models for Emotional Support
Conversation, section 6.4.
"""


class Informativeness(evaluate.Measurement):  # type: ignore[misc]
    """What turns add as an ``evaluate`` measurement."""

    def _info(self) -> evaluate.MeasurementInfo:
        return evaluate.MeasurementInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS_DESCRIPTION,
            features=FEATURES,
        )

    def _compute(self, messages: Iterable[Sequence[Message]]) -> dict[str, Any]:
        sessions = list(messages)
        counts = InformativenessCounts()
        for session, scored in zip(
            sessions, measure.Informativeness().score(sessions), strict=True
        ):
            counts.add(session, scored)
        return counts.statistics()
