"""Sessions that stand twice, and utterances that are said again in their session.

Offline, as a class::

    Duplication().compute(messages=dataset["messages"])

or by ``evaluate.load("PATH/duplication", module_type="measurement")``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import evaluate

from augesc_builder.config.queries import NearDuplicates
from augesc_builder.metrics.duplication.counts import DEFAULT, DuplicationCounts
from augesc_builder.metrics.features import FEATURES
from augesc_builder.metrics.tokenized import spoken
from augesc_builder.text.prompts import Message

DESCRIPTION = """\
Exact duplicates: sessions that say the same, word for word, as another one that was counted. Near
duplicates (where asked for): sessions that have another one of about the same words in about the
same order, by MinHash over shingles of words; approximate, as MinHash is. Repeated utterances: what
was said in the same session before, by anybody, without regard to case and blanks.
"""

INPUTS_DESCRIPTION = """\
Args:
    messages: for each session its utterances, a list of {"role", "content"} in order.
    near_duplicates: search them too (the extra near-duplicates of augesc); takes about a
        kilobyte of memory a session.
    threshold: Jaccard similarity of shingles from which two sessions are near duplicates.
    shingle: words of a shingle. permutations: hash functions of MinHash.
Returns:
    sessions (count), duplicate_sessions (count of those beyond the first of each text) and
    duplicate_share; near_duplicate_sessions (count of those that have another one like them; None
    where not asked for) and near_duplicate_share; utterances (count), repeated_utterances (count)
    and repeated_share; sessions_with_repetition (count) and repetition_share (of sessions). Shares
    are from 0 to 1, and of nothing None.
"""

CITATION = """\
Broder (1997): On the resemblance and containment of documents. Lee et al. (2022): Deduplicating
Training Data Makes Language Models Better.
"""


class Duplication(evaluate.Measurement):  # type: ignore[misc]
    """Duplicates and repetitions as an ``evaluate`` measurement."""

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
        near_duplicates: bool = False,
        threshold: float = DEFAULT.threshold,
        shingle: int = DEFAULT.shingle,
        permutations: int = DEFAULT.permutations,
    ) -> dict[str, Any]:
        near = NearDuplicates(threshold=threshold, shingle=shingle, permutations=permutations)
        counts = DuplicationCounts(near if near_duplicates else None)
        counts.add([spoken(session) for session in messages])
        return counts.statistics()
