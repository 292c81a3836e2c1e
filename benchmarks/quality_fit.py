"""Several weak signals in one small calibrated model: a logistic regression with few weights.

It is fitted on what people said of the development part, and its numbers are probabilities of what
they were asked for. The penalty is fixed (one for each squared weight of a standardized signal), so
that nothing is chosen by trying; the fit has one optimum, which Newton's method finds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from augesc_builder.errors import InputError
from augesc_builder.metrics.intervals import Numbers

PENALTY = 1.0
_STEPS, _CLOSE = 100, 1e-10


@dataclass(frozen=True)
class Fitted:
    """Weights of standardized signals: the probability is ``expit(bias + weights @ z)``.

    A signal that says nothing of an item (NaN) counts as its mean.
    """

    signals: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float

    def probability(self, signals: Numbers) -> Numbers:
        """Return probabilities (items,) by signals (items, signals)."""
        found: Numbers = expit(self.bias + self._standardized(signals) @ np.array(self.weights))
        return found

    def _standardized(self, signals: Numbers) -> Numbers:
        found: Numbers = np.nan_to_num((signals - np.array(self.mean)) / np.array(self.scale))
        return found


def fit(names: Sequence[str], signals: Numbers, shares: Numbers) -> Fitted:
    """Fit probabilities to ``shares`` (items,) from 0 to 1, by ``signals`` (items, signals).

    A share is that of people who said so, or how far up a scale their mean rating lies.
    """
    known = np.isfinite(signals)
    n = np.maximum(known.sum(0), 1)
    mean = np.where(known, signals, 0).sum(0) / n
    scale = np.sqrt(np.where(known, (signals - mean) ** 2, 0).sum(0) / n)
    scale[scale < _CLOSE] = 1
    start = Fitted(tuple(names), tuple(mean.tolist()), tuple(scale.tolist()), (), 0.0)
    z = np.column_stack([np.ones(len(signals)), start._standardized(signals)])
    penalty = PENALTY * np.eye(z.shape[1])
    penalty[0, 0] = _CLOSE  # the bias is free
    weights = np.zeros(z.shape[1])
    for _ in range(_STEPS):
        p = expit(z @ weights)
        slope = z.T @ (shares - p) - penalty @ weights
        step = np.linalg.solve(z.T @ (z * (p * (1 - p))[:, None]) + penalty, slope)
        weights += step * min(1.0, 2.0 / max(_CLOSE, float(np.abs(step).max())))
        if np.abs(step).max() < _CLOSE:
            break
    return Fitted(
        start.signals, start.mean, start.scale, tuple(weights[1:].tolist()), float(weights[0])
    )


@dataclass
class Calibration:
    """What was fitted on development parts: models by their task, and thresholds of measures."""

    models: dict[str, Fitted] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)

    def save(self, path: Path, made: Mapping[str, Any]) -> None:
        """Write it as JSON, with how it was made."""
        value = {"made": dict(made), **asdict(self)}
        path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read one.

        Raises :class:`~augesc_builder.errors.InputError` for a file that holds none.
        """
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            models = {task: _fitted(model) for task, model in value["models"].items()}
            return cls(models, {name: float(x) for name, x in value["thresholds"].items()})
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}", path) from None
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise InputError(
                f"not what --save writes ({type(error).__name__}: {error})", path
            ) from None


def _fitted(value: Mapping[str, Any]) -> Fitted:
    signals, mean, scale, weights = (
        tuple(value[name]) for name in ("signals", "mean", "scale", "weights")
    )
    return Fitted(signals, mean, scale, weights, float(value["bias"]))
