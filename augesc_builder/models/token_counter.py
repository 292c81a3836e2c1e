"""How many tokens a text has, by the tokenizer of the model that wrote it (section 4.3)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augesc_builder.errors import CheckpointError


@dataclass(frozen=True)
class TokenCounter:
    """A tokenizer that travels to worker processes as text."""

    name: str
    definition: str

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text; nothing is put in front or behind."""
        found = _tokenizer(self.definition).encode_batch_fast(texts, add_special_tokens=False)
        return [len(encoding.ids) for encoding in found]


@functools.lru_cache(maxsize=1)
def _tokenizer(definition: str) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(definition)
    tokenizer.encode_special_tokens = True  # what somebody typed is words: no control token
    return tokenizer


def load_counter(name: str | Path, revision: str | None = None) -> TokenCounter:
    """Load a tokenizer by its name on the Hub, its folder, or a GGUF file.

    A folder with ``vocab.json`` and ``merges.txt`` alone is taken for GPT-2's kind, as GPT-J's is.
    Raises :class:`~augesc_builder.errors.CheckpointError` where there is none.
    """
    from transformers import AutoTokenizer, GPT2Tokenizer

    from augesc_builder.models import pretrained
    from augesc_builder.models.gguf_weights import is_gguf

    folder = Path(name)
    is_path = folder.exists() or folder.is_absolute() or str(name).startswith(".")
    if is_path and not (folder.is_dir() or is_gguf(name)):
        raise CheckpointError(f"{name}: expected the folder of a tokenizer, or a name on the Hub")
    files = {file.name for file in folder.iterdir()} if folder.is_dir() else set()
    bare = {"vocab.json", "merges.txt"} <= files and not files & {"config.json", "tokenizer.json"}
    try:
        kind = GPT2Tokenizer if bare else AutoTokenizer
        tokenizer = pretrained.load_tokenizer(name, revision, kind)
        definition = tokenizer.backend_tokenizer.to_str()
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{name}: no tokenizer to be had there ({reason[:160]}); give a folder with "
            f"tokenizer.json, or with vocab.json and merges.txt"
        ) from error
    return TokenCounter(str(name), definition)
