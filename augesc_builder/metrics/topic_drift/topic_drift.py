"""Whether the supporter's turns fit what the seeker speaks of, over a corpus.

Offline, as a class::

    TopicDrift().compute(messages=dataset["messages"])

or by ``evaluate.load("PATH/topic_drift", module_type="measurement")``. The measure itself, session
by session and with any scorer, is :class:`augesc_builder.metrics.topic_drift.measure.TopicDrift`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import evaluate

from augesc_builder.metrics.features import FEATURES
from augesc_builder.metrics.topic_drift import measure
from augesc_builder.metrics.topic_drift.counts import DriftCounts
from augesc_builder.metrics.topic_drift.distractors import Distractors
from augesc_builder.metrics.topic_drift.scorers.base import Scorer
from augesc_builder.metrics.topic_drift.scorers.words import Words
from augesc_builder.text.prompts import Message

DESCRIPTION = """\
Each supporter's turn is ranked among turns of other sessions, of about as many words, by how well
it fits what was said before: by the words that it shares with the trigger and with all that the
seeker has said so far (BM25, no model), by a causal language model's likelihood, or by a sentence
encoder. Drift is the share of those turns that fit better (equal ones count half): 0 where none
does, 0.5 by chance. A rank is comparable across scorers and lengths. A change of topic is where
the turns begin to rank lower: ranks are cut in two where their means differ most, and it counts
from so many standard errors on. Words are English; a turn may fit without sharing a word.
"""

INPUTS_DESCRIPTION = """\
Args:
    messages: for each session its utterances, a list of {"role", "content"} in order.
    distractors: sessions of the same form whose supporter's turns are the others; None: messages.
    scorer: a scorer (augesc_builder.metrics.topic_drift.scorers); None: words.
    n: turns of other sessions that a turn is ranked among.
    threshold: drift from which a turn counts as drifted, 0 to 1.
    change: standard errors from which the topic counts as changed.
Returns:
    sessions (count) and scored_sessions (of them, those with a supporter's turn behind the trigger
    and turns of other sessions to rank it among); means over those: drift (mean of the turns),
    drifted_share (of the turns) and change_share (of the sessions, those whose topic changes);
    change_place (where it does, the share of the session before it); scored_turns (count) and
    by_progress (their mean drift in five equal parts of the sessions, first to last). All but the
    counts are from 0 to 1; means of nothing are None.
"""

CITATION = """\
Zheng et al. (2023): AugESC: Dialogue Augmentation with Large Language Models for Emotional Support
Conversation, section 6.4. Robertson and Zaragoza (2009): The Probabilistic Relevance Framework:
BM25 and Beyond.
"""


class TopicDrift(evaluate.Measurement):  # type: ignore[misc]
    """Topic drift as an ``evaluate`` measurement."""

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
        distractors: Iterable[Sequence[Message]] | None = None,
        scorer: Scorer | None = None,
        n: int = measure.N,
        threshold: float = measure.THRESHOLD,
        change: float = measure.CHANGE,
    ) -> dict[str, Any]:
        sessions = list(messages)
        pool = Distractors.from_sessions(sessions if distractors is None else distractors)
        drift = measure.TopicDrift(
            scorer or Words(pool.texts), pool, n=n, threshold=threshold, change=change
        )
        counts = DriftCounts()
        for session, scored in zip(sessions, drift.score(sessions), strict=True):
            counts.add(session, scored)
        return counts.statistics()
