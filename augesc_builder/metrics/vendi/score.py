"""How many different sessions a set holds, by the Vendi score (Friedman and Dieng 2023).

Two sessions are alike by the words and pairs of words that both have (the cosine of what they hold,
each counted once), and the score is the exponential of the entropy of that similarity matrix's
eigenvalues by its size: 1 where all are the same, and as many as there are where no two share
anything. It grows with the set, so that only sets of one size can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from augesc_builder.metrics.distinct import Hashes
from augesc_builder.metrics.intervals import Numbers
from augesc_builder.metrics.lexical_diversity.counts import hashed_grams
from augesc_builder.metrics.tokenized import Spoken

_LEFT_OUT = 16
"""Sessions that are left out one by one, to see how far the first order goes."""


def vendi_score(sessions: Sequence[Spoken]) -> float | None:
    """Return the effective number of sessions, ``None`` where none has a word.

    Memory grows with the square of the number of sessions, and time with the cube.
    """
    return score_of(held_by(sessions))


def score_of(held: Sequence[Hashes]) -> float | None:
    """Return the same by what :func:`held_by` gives; sessions that hold nothing are left out."""
    alike = _alike([hashes for hashes in held if len(hashes)])
    return _score(alike) if len(alike) else None


def held_by(sessions: Sequence[Spoken]) -> list[Hashes]:
    """Return the hashes of the words and pairs of words that each session has, once each."""
    words, pairs, _ = hashed_grams(sessions)
    hashes, at = (np.concatenate(both) for both in zip(words, pairs, strict=True))
    order = np.argsort(at, kind="stable")
    ends = np.cumsum(np.bincount(at, minlength=len(sessions)))
    return [np.unique(part) for part in np.split(hashes[order], ends[:-1])] if len(ends) else []


def vendi_moves(held: Sequence[Hashes]) -> tuple[float, Numbers] | None:
    """Return the score by what sessions hold, and how it moves without each, (sessions,).

    Moves are from their mean, and of the first order: of the derivative by a session's weight,
    which the eigenvectors tell. How much larger they are, some that are left out show (without
    that they are a fifth too small). ``None`` where no session holds anything; one that holds
    nothing is left out, and moves nothing.
    """
    said = np.array([len(hashes) > 0 for hashes in held], bool)
    alike = _alike([hashes for hashes in held if len(hashes)])
    n = len(alike)
    if not n:
        return None
    shares, vectors = np.linalg.eigh(alike / n)
    is_some = shares > _LEAST
    shares, vectors = shares[is_some], vectors[:, is_some]
    # Of each session, by how it lies to the eigenvectors; their mean is the entropy.
    entropies = -n * (vectors**2 @ (shares * np.log(shares)))
    value = float(np.exp(-np.sum(shares * np.log(shares))))
    moves = np.zeros(len(held))
    if n > 1:
        first_order = -value * (entropies - entropies.mean()) / (n - 1)
        moves[said] = first_order * _slope(alike, first_order)
    return value, moves


def _slope(alike: Numbers, moves: Numbers) -> float:
    """Return by how much the score moves for each unit of the first order, by some of them."""
    n = len(moves)
    some = np.argsort(moves)[np.unique(np.linspace(0, n - 1, min(n, _LEFT_OUT)).astype(int))]
    exact = [_score(np.delete(np.delete(alike, i, 0), i, 1)) for i in some]
    apart = moves[some] - moves[some].mean()
    spread = float(apart @ apart)
    return float(apart @ np.array(exact)) / spread if spread > _LEAST else 1.0


_LEAST = float(np.finfo(np.float64).eps)


def _score(alike: Numbers) -> float:
    shares = np.linalg.eigvalsh(alike / len(alike))
    shares = shares[shares > _LEAST]
    return float(np.exp(-np.sum(shares * np.log(shares))))


def _alike(held: Sequence[Hashes]) -> Numbers:
    """Return the cosine of each two sessions, (n, n)."""
    sizes = np.array([len(hashes) for hashes in held], np.float64)
    cosines: Numbers = np.empty((0, 0))
    if len(held):
        cosines = _shared(held) / np.sqrt(np.outer(sizes, sizes))
    return cosines


def _shared(held: Sequence[Hashes]) -> Numbers:
    """Return how many hashes each two sessions share, (n, n)."""
    names, columns = np.unique(np.concatenate(held), return_inverse=True)
    rows = np.repeat(np.arange(len(held)), [len(hashes) for hashes in held])
    by_two = np.bincount(columns, minlength=len(names)) > 1  # others add to no two sessions
    at = np.cumsum(by_two) - 1
    has = np.zeros((len(held), int(by_two.sum())), np.float32)
    of_two = by_two[columns]
    has[rows[of_two], at[columns[of_two]]] = 1
    shared: Numbers = (has @ has.T).astype(np.float64)
    np.fill_diagonal(shared, [len(hashes) for hashes in held])
    return shared
