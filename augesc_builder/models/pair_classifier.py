"""Whether a text contradicts another one, said by a sequence classifier of ``transformers``.

Any model of natural language inference will do: labels ``contradiction``, ``neutral`` and
``entailment`` in any order and case, or two labels, ``contradiction`` and ``no contradiction``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification

from augesc_builder.errors import CheckpointError, DownloadError
from augesc_builder.models.pretrained import load_pretrained, load_tokenizer
from augesc_builder.readers.hub import resolve_model

MODEL = "MoritzLaurer/DeBERTa-v3-base-mnli-fever-anli"
REVISION = "6f5cf0a2b59cabb106aca4c287eed12e357e90eb"
"""A public model of natural language inference (184M parameters, MIT licence) at a commit."""

LONGEST = 256
"""Tokens of a pair; of longer ones the longer text is cut."""

TOKENS_AT_ONCE = 4096
"""Tokens of a batch, padding counted."""

_NO_LETTER = re.compile(r"[^a-z]")
_CONTRADICTION = "contradiction"
_OTHERS = frozenset(
    ("nocontradiction", "notcontradiction", "noncontradiction", "neutral", "entailment")
)


class PairClassifier:
    """Scores pairs of texts with a model; each as it would be alone, whatever it is batched with.

    ``name`` is a folder, or a model on the Hub at ``revision`` (of the default, :data:`REVISION`).
    ``both_orders`` asks for each pair twice and takes the higher answer: to contradict is mutual,
    what models say is not. It takes twice the time. ``dtype`` is what it computes in.
    Raises :class:`~augesc_builder.errors.DownloadError` where the Hub does not have it, and
    :class:`~augesc_builder.errors.CheckpointError` where it cannot be loaded or has other labels.
    """

    def __init__(
        self,
        name: str = MODEL,
        revision: str | None = None,
        device: str | None = None,
        *,
        both_orders: bool = False,
        dtype: str = "float32",
    ) -> None:
        if name == MODEL and revision is None:
            revision = REVISION
        self.name = name
        self._both_orders, self._dtype = both_orders, dtype
        self.commit = None if Path(name).is_dir() else resolve_model(name, revision, "classifier")
        try:
            self._tokenizer = load_tokenizer(name, self.commit)
            model = load_pretrained(
                AutoModelForSequenceClassification, name, self.commit, dtype=getattr(torch, dtype)
            )
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
            if self.commit and isinstance(error, OSError):
                raise DownloadError(
                    f"{name} cannot be had from the Hub ({reason}); fetch it where there is a "
                    f"network (hf download {name} --revision {self.commit}), give a folder, or "
                    f"score by the rules alone"
                ) from error
            raise CheckpointError(f"{name}: cannot be loaded as a classifier: {reason}") from error
        self._label = contradiction_label(name, model.config.id2label)
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._model = model.to(self._device).eval()
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        model.config.pad_token_id = self._tokenizer.pad_token_id

    def settings(self) -> dict[str, Any]:
        """Return what its scores depend on."""
        return {
            "model": self.name,
            "commit": self.commit,
            "longest": LONGEST,
            "both_orders": self._both_orders,
            **({} if self._dtype == "float32" else {"dtype": self._dtype}),
        }

    def contradictions(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Return for each pair of texts, the earlier first, how probably they contradict, 0..1.

        Pairs that are the same are scored once.
        """
        unique = dict.fromkeys(pairs)
        scores = self._score(list(unique))
        if self._both_orders:
            turned = self._score([(second, first) for first, second in unique])
            scores = [max(each) for each in zip(scores, turned, strict=True)]
        of_pair = dict(zip(unique, scores, strict=True))
        return [of_pair[pair] for pair in pairs]

    @torch.inference_mode()
    def _score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        if not pairs:
            return []
        encoded = self._tokenizer(
            [first for first, _ in pairs],
            [second for _, second in pairs],
            truncation="longest_first",
            max_length=min(LONGEST, self._tokenizer.model_max_length),
        )
        lengths = [len(ids) for ids in encoded["input_ids"]]
        scores = [0.0] * len(pairs)
        for batch in batches(lengths):
            inputs = self._tokenizer.pad(
                {key: [values[i] for i in batch] for key, values in encoded.items()},
                padding_side="right",
                return_tensors="pt",
            ).to(self._device)
            logits = self._model(**inputs).logits.float()  # (B, labels)
            for i, score in zip(batch, logits.softmax(-1)[:, self._label].tolist(), strict=True):
                scores[i] = score
        return scores


def batches(lengths: Sequence[int]) -> list[list[int]]:
    """Return batches of at most :data:`TOKENS_AT_ONCE`, each of pairs of one length.

    No pair is padded then, so that none is scored otherwise than it would be alone.
    """
    by_length: dict[int, list[int]] = {}
    for i, length in enumerate(lengths):
        by_length.setdefault(length, []).append(i)
    return [
        same[start : start + size]
        for length, same in sorted(by_length.items())
        for size in [max(1, TOKENS_AT_ONCE // max(length, 1))]
        for start in range(0, len(same), size)
    ]


def contradiction_label(name: str, labels: Mapping[int, Any]) -> int:
    """Return the number of the label that means contradiction.

    Raises :class:`~augesc_builder.errors.CheckpointError` for labels of another kind of model.
    """
    plain = {number: _NO_LETTER.sub("", str(label).lower()) for number, label in labels.items()}
    found = [number for number, label in plain.items() if label == _CONTRADICTION]
    others = {label for label in plain.values() if label != _CONTRADICTION}
    is_nli = others == {"neutral", "entailment"}
    if (
        len(found) == 1
        and len(plain) == len(others) + 1
        and (is_nli or (len(others) == 1 and others <= _OTHERS))
    ):
        return found[0]
    shown = ", ".join(str(label)[:40] for label in list(labels.values())[:8])
    raise CheckpointError(
        f"{name}: its labels are {shown}; expected contradiction, neutral and entailment, or "
        f"contradiction and no contradiction: give a model of natural language inference"
    )
