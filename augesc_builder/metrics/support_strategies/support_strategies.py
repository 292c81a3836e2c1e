"""What supporters do over a corpus, and how far that is from ESConv's supporters.

As a class, with a classifier that was trained by ``augesc train --config strategies``::

    SupportStrategies().compute(messages=dataset["messages"], model="FOLDER")

or by ``evaluate.load("PATH/support_strategies", module_type="measurement")``. The measure itself,
session by session, is :class:`augesc_builder.metrics.support_strategies.measure.SupportStrategies`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import evaluate

from augesc_builder.metrics.features import FEATURES
from augesc_builder.metrics.support_strategies import measure
from augesc_builder.metrics.support_strategies.counts import StrategyCounts
from augesc_builder.text.prompts import Message

_AT_ONCE = 64
"""Sessions whose turns are classified together."""

DESCRIPTION = """\
The strategy of each of a supporter's turns, one of ESConv's eight, told by a classifier from the
turn and the utterances before it: their shares over the corpus and in six equal parts of the
conversations, beside those of ESConv's own labels (its train split), and the distance between the
two. Supporters of ESConv named their own strategies, and classifiers agree with them in less than
half of the turns: read shares of a corpus beside those that the same classifier gives ESConv's own
sessions. English.
"""

INPUTS_DESCRIPTION = """\
Args:
    messages: for each session its utterances, a list of {"role", "content"} in order.
    model: a classifier of ESConv's strategies, a folder or a name on the Hub.
    revision: its commit, tag or branch on the Hub.
    batch_size: turns that are classified together.
Returns:
    sessions and supporter_turns (counts); shares (of each strategy), groups (of what a turn does:
    asks, reflects, comforts, suggests, informs, other), by_progress (shares in six equal parts of
    the conversations, first to last), and ESConv's own esconv_shares and esconv_by_progress;
    distance, distance_by_progress and mean_distance_by_progress (total variation between the two).
    All but the counts are from 0 to 1, and of no turns None.
"""

CITATION = """\
Liu et al. (2021): Towards Emotional Support Dialog Systems.
"""


class SupportStrategies(evaluate.Measurement):  # type: ignore[misc]
    """Strategies of supporters as an ``evaluate`` measurement."""

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
        model: str = "",
        revision: str | None = None,
        batch_size: int = 32,
    ) -> dict[str, Any]:
        strategies = measure.SupportStrategies(model, revision, batch_size=batch_size)
        counts, sessions = StrategyCounts(), iter(messages)
        while some := list(islice(sessions, _AT_ONCE)):
            for scored in strategies.score(some):
                counts.add(scored.labels or ())
        return counts.statistics()
