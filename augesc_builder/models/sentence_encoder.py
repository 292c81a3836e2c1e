"""Sentences as vectors, by any encoder of ``transformers`` and the mean over its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel

from augesc_builder.errors import AugescError, CheckpointError, DownloadError
from augesc_builder.models import pretrained
from augesc_builder.models.causal_lm import brief, max_positions, quiet_bars
from augesc_builder.readers.hub import resolve_model

Vectors = NDArray[np.float32]

_LONGEST = 256
"""Tokens of a text that are read, as sentence encoders are trained on."""

_NOTHING = "."
"""Stands for a text of no words: some tokenizers have no token for it."""


class SentenceEncoder:
    """An encoder and its tokenizer."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model, self._tokenizer = model.eval(), tokenizer
        self._longest = min(_LONGEST, max_positions(model.config) or _LONGEST)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return a vector of length 1 for each text, (n, d): the mean of its last hidden states."""
        read = self._tokenizer(
            [
                " ".join(text.split()).encode("utf-8", "replace").decode() or _NOTHING
                for text in texts
            ],
            padding=True,
            truncation=True,
            max_length=self._longest,
            return_tensors="pt",
        ).to(self._model.device)
        states = self._model(**read).last_hidden_state.float()  # (n, tokens, d)
        mask = read["attention_mask"][..., None].float()
        means = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
        found: Vectors = torch.nn.functional.normalize(means, dim=-1).cpu().numpy()
        return found


def load_encoder(
    name: str | Path, revision: str | None, key: str
) -> tuple[SentenceEncoder, str | None]:
    """Load an encoder; return it with its commit, ``None`` for a local folder.

    ``key`` is the setting that names it. Raises :class:`~augesc_builder.errors.DownloadError` where
    neither the Hub nor the cache has it, and :class:`~augesc_builder.errors.CheckpointError` where
    it cannot be loaded.
    """
    local = Path(name).is_dir()
    commit = None if local else resolve_model(str(name), revision, key)
    try:
        with quiet_bars():
            tokenizer = pretrained.load_tokenizer(name, commit)
            model = pretrained.load_pretrained(AutoModel, name, commit)
        return SentenceEncoder(model, tokenizer), commit
    except AugescError:
        raise
    except Exception as error:
        reason = f"{name}: cannot be loaded as a sentence encoder: {brief(error)}"
        if local or not isinstance(error, OSError):
            raise CheckpointError(
                f"{reason}; give one that transformers' AutoModel loads"
            ) from error
        raise DownloadError(
            f"{reason}; with a network: hf download {name} --revision {commit}, or give a folder "
            f"that holds it with --set {key}=PATH"
        ) from error
