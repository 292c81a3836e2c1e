"""Sessions that stand twice, and utterances that are said again in their session.

Offline, as a class::

    Duplication().compute(messages=dataset["messages"])

or by ``evaluate.load("PATH/duplication", module_type="measurement")``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import evaluate
import numpy as np

from augesc_builder.metrics.sketch import Hashes, hash_of
from augesc_builder.metrics.spoken import FEATURES, Spoken, mean, spoken
from augesc_builder.near_duplicates import Sketches
from augesc_builder.prompts import Message
from augesc_builder.settings import NearDuplicates

DESCRIPTION = """\
Exact duplicates: sessions that say the same, word for word, as another one that was counted. Near
duplicates (where asked for): sessions that have another one of about the same words in about the
same order, by MinHash over shingles of words; approximate, as MinHash is. Repeated utterances: what
was said in the same session before, by anybody, without regard to case and blanks.
"""

INPUTS_DESCRIPTION = """\
Args:
    messages: for each session its utterances, a list of {"role", "content"} in order.
    near_duplicates: search them too (pip install 'augesc-builder[near-duplicates]'); takes about a
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

DEFAULT = NearDuplicates(threshold=0.8, shingle=5, permutations=128)


class DuplicationCounts:
    """Counts and hashes of sessions; those of other sessions can be merged in."""

    def __init__(self, near: NearDuplicates | None = None) -> None:
        self.utterances = self.repeated = self.with_repetition = 0
        self._hashes: list[Hashes] = []
        self._sketches = None if near is None else Sketches(near)

    def add(self, sessions: Sequence[Spoken]) -> None:
        """Count sessions."""
        self._hashes.append(np.array([hash_of(_text(session)) for session in sessions], np.uint64))
        for session in sessions:
            distinct = len({" ".join(said.text.casefold().split()) for said in session})
            self.utterances += len(session)
            self.repeated += len(session) - distinct
            self.with_repetition += distinct < len(session)
            if self._sketches is not None:
                self._sketches.add(" ".join(word for said in session for word in said.words))

    def merge(self, other: DuplicationCounts) -> None:
        """Add the counts of other sessions."""
        self.utterances += other.utterances
        self.repeated += other.repeated
        self.with_repetition += other.with_repetition
        self._hashes += other._hashes
        if self._sketches is not None and other._sketches is not None:
            self._sketches.merge(other._sketches)

    def statistics(self) -> dict[str, Any]:
        """Give the measurement."""
        hashes = np.concatenate([np.empty(0, np.uint64), *self._hashes])
        duplicates = len(hashes) - len(np.unique(hashes))
        near = None if self._sketches is None else self._sketches.n_alike()
        return {
            "sessions": len(hashes),
            "duplicate_sessions": duplicates,
            "duplicate_share": mean(duplicates, len(hashes)),
            "near_duplicate_sessions": near,
            "near_duplicate_share": None if near is None else mean(near, len(hashes)),
            "utterances": self.utterances,
            "repeated_utterances": self.repeated,
            "repeated_share": mean(self.repeated, self.utterances),
            "sessions_with_repetition": self.with_repetition,
            "repetition_share": mean(self.with_repetition, len(hashes)),
        }


def _text(session: Spoken) -> str:
    return "\n".join(f"{said.role} {said.text}" for said in session)


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
