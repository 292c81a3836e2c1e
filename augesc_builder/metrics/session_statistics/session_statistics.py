"""Statistics of sessions, as the paper's Table 2 has them.

Offline, as a class::

    SessionStatistics().compute(messages=dataset["messages"])

or by ``evaluate.load("PATH/session_statistics", module_type="measurement")``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import evaluate

from augesc_builder.metrics.features import FEATURES
from augesc_builder.metrics.session_statistics.counts import count_sessions
from augesc_builder.text.prompts import Message

DESCRIPTION = """\
Sessions, their mean length in words, unique words; and for seeker and supporter: utterances,
utterances a session, words an utterance, unique words. Words are NLTK's, case-sensitive, with
punctuation marks (section 4.2 of the AugESC paper). The histograms of seeker and supporter are the
two distributions of its Table 2.
"""

INPUTS_DESCRIPTION = """\
Args:
    messages: for each session its utterances, a list of {"role", "content"} in order; the seeker is
        "user", the supporter "assistant".
Returns:
    sessions (count), mean_session_words (words of all utterances of a session), unique_words,
    session_utterances: a histogram, a list of [utterances of a session, sessions];
    and the dictionaries seeker and supporter with utterances (count), mean_utterances (a session),
    mean_utterance_words, unique_words, session_utterances as above, but of this role alone, and
    utterance_words: a histogram, a list of [words of an utterance, utterances]. A mean of nothing
    is None.
"""

CITATION = "Zheng, Sabour, Wen, Huang (2022): AugESC. arXiv 2202.13047, section 5.1."


class SessionStatistics(evaluate.Measurement):  # type: ignore[misc]
    """Table 2 of the paper as an ``evaluate`` measurement."""

    def _info(self) -> evaluate.MeasurementInfo:
        return evaluate.MeasurementInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS_DESCRIPTION,
            features=FEATURES,
        )

    def _compute(self, messages: Iterable[Sequence[Message]]) -> dict[str, Any]:
        return count_sessions(messages).statistics()
