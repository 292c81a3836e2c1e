"""Whether the speakers of a corpus contradict themselves, and keep to their roles.

Offline, as a class::

    ConsistencyMeasurement().compute(messages=dataset["messages"])

or by ``evaluate.load("PATH/consistency", module_type="measurement")``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import evaluate

from augesc_builder.metrics.consistency.counts import ConsistencyCounts
from augesc_builder.metrics.consistency.measure import Consistency
from augesc_builder.metrics.features import FEATURES
from augesc_builder.text.prompts import Message

DESCRIPTION = """\
Contradictions: utterances that clash with an earlier one of the same speaker, by rules that name
what clashes (age, duration, count, kinship, name, gender, work, place, and what is said again with
a negation, an opposite, a number, a name, a place or a time in another's place). Role confusions: a
seeker who supports, a supporter who asks for help or tells the seeker's story as theirs. English.
"""

INPUTS_DESCRIPTION = """\
Args:
    messages: for each session its utterances, a list of {"role", "content"} in order.
Returns:
    sessions (count); contradictions (count of findings at or above the threshold) and
    contradictions_per_session; sessions_with_contradiction and contradicting_share; role_confusions
    (count), role_confusions_per_session, sessions_with_role_confusion and confused_share;
    by_speaker_and_kind (counts). Shares are from 0 to 1, and of nothing None.
"""

CITATION = """\
Zheng et al. (2023): AugESC, section 6.4. Nie et al. (2021): I like fish, especially dolphins:
Addressing Contradictions in Dialogue Modeling.
"""


class ConsistencyMeasurement(evaluate.Measurement):  # type: ignore[misc]
    """Contradictions and role confusions of a corpus as an ``evaluate`` measurement."""

    def _info(self) -> evaluate.MeasurementInfo:
        return evaluate.MeasurementInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS_DESCRIPTION,
            features=FEATURES,
        )

    def _compute(self, messages: Iterable[Sequence[Message]]) -> dict[str, Any]:
        sessions = list(messages)
        counts = ConsistencyCounts()
        counts.add(sessions, Consistency().score(sessions))
        return counts.statistics()
