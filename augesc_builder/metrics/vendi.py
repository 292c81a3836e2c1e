"""How many different sessions a set holds, by the Vendi score (Friedman and Dieng 2023).

Two sessions are alike by the words and pairs of words that both have (the cosine of what they hold,
each counted once), and the score is the exponential of the entropy of that similarity matrix's
eigenvalues by its size: 1 where all are the same, and as many as there are where no two share
anything. It grows with the set, so that only sets of one size can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from augesc_builder.metrics.lexical_diversity.counts import hashed_grams
from augesc_builder.metrics.tokenized import Spoken


def vendi_score(sessions: Sequence[Spoken]) -> float | None:
    """Return the effective number of sessions, ``None`` where none has a word.

    Memory grows with the square of the number of sessions.
    """
    held = [np.empty((0, 2), np.uint64)]
    for grams, at in list(hashed_grams(sessions))[:2]:
        held.append(np.stack([at.astype(np.uint64), grams], axis=1))
    pairs = np.unique(np.concatenate(held), axis=0)
    if not len(pairs):
        return None
    names, columns = np.unique(pairs[:, 1], return_inverse=True)
    rows = pairs[:, 0].astype(np.int64)
    shared = np.bincount(columns, minlength=len(names)) > 1  # others add to no two sessions
    sizes = np.bincount(rows, minlength=len(sessions)).astype(np.float64)
    at = np.cumsum(shared) - 1
    has = np.zeros((len(sessions), int(shared.sum())), np.float32)
    is_shared = shared[columns]
    has[rows[is_shared], at[columns[is_shared]]] = 1
    alike = (has @ has.T).astype(np.float64)
    np.fill_diagonal(alike, sizes)
    said = sizes > 0
    alike = alike[said][:, said] / np.sqrt(np.outer(sizes[said], sizes[said]))
    shares = np.linalg.eigvalsh(alike) / len(alike)
    shares = shares[shares > np.finfo(np.float64).eps]
    return float(np.exp(-np.sum(shares * np.log(shares))))
