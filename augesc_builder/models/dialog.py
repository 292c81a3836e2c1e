"""Dialog models and their tokenizers: encoder-decoders and causal LMs, loaded or made new."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BlenderbotSmallConfig,
    BlenderbotSmallForConditionalGeneration,
    BlenderbotSmallTokenizer,
)

from augesc_builder.config.training import Model, Shape
from augesc_builder.errors import CheckpointError
from augesc_builder.models import pretrained
from augesc_builder.models.causal_lm import (
    brief,
    check_fit,
    check_folder,
    max_positions,
    quiet_bars,
    train_tokenizer,
)

NEW_LINE = "__newln__"
"""What stands between utterances for Blenderbot-small, whose tokenizer makes it of a line break."""

_SPECIAL = ("__null__", "__start__", "__end__", "__unk__", NEW_LINE)
_NOT_A_LIMIT = 1_000_000
"""``model_max_length`` of tokenizers that know none is larger."""


def load_model(settings: Model, texts: Iterable[str], seed: int) -> tuple[Any, Any]:
    """Load or make model and tokenizer of a config; ``texts`` train one where none is given."""
    shape = settings.from_scratch
    if shape is None:
        return load(str(settings.name), settings.revision, settings.tokenizer)
    if settings.tokenizer is None:
        tokenizer: Any = train_tokenizer(texts, shape.vocab_size, _SPECIAL)
        tokenizer.add_special_tokens(
            {
                **{"pad_token": "__null__", "bos_token": "__start__"},
                **{"eos_token": "__end__", "unk_token": "__unk__"},
            }
        )
    else:
        tokenizer = load_tokenizer(settings.tokenizer)
    return from_scratch(shape, tokenizer, seed), tokenizer


def from_scratch(
    shape: Shape, tokenizer: Any, seed: int
) -> BlenderbotSmallForConditionalGeneration:
    """Make a Blenderbot-small with random weights for a tokenizer."""
    config = BlenderbotSmallConfig(
        vocab_size=len(tokenizer),
        d_model=shape.d_model,
        max_position_embeddings=shape.n_positions,
        dropout=shape.dropout,
        **{f"{side}_layers": shape.layers for side in ("encoder", "decoder")},
        **{f"{side}_attention_heads": shape.heads for side in ("encoder", "decoder")},
        **{f"{side}_ffn_dim": shape.ffn_dim for side in ("encoder", "decoder")},
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.bos_token_id,
        forced_eos_token_id=tokenizer.eos_token_id,
        scale_embedding=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return BlenderbotSmallForConditionalGeneration(config)


def load(
    name: str | Path,
    revision: str | None = None,
    tokenizer: str | None = None,
    dtype: str = "float32",
) -> tuple[Any, Any]:
    """Load a dialog model, in ``dtype``, and its tokenizer.

    Raises :class:`~augesc_builder.errors.CheckpointError` where one of them is missing or broken,
    or where they do not fit each other.
    """
    check_folder(name)
    local = Path(name).is_dir()
    try:
        with quiet_bars() if local else contextlib.nullcontext():
            config = pretrained.load_config(name, revision)
            _check_speaks(config)
            kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
            model = pretrained.load_pretrained(kind, name, revision, dtype=getattr(torch, dtype))
    except Exception as error:
        raise CheckpointError(
            f"{name}: cannot be loaded as a dialog model: {brief(error)}"
        ) from error
    tokens = load_tokenizer(tokenizer or str(name), None if tokenizer else revision)
    check_belong(name, model, tokens)
    return model, tokens


def _check_speaks(config: Any) -> None:
    """Refuse a classifier, whose body would make a causal LM of sorts. Raises ``ValueError``."""
    if any(str(kind).endswith("ForSequenceClassification") for kind in config.architectures or ()):
        raise ValueError("it tells labels of texts, and says nothing itself")


def load_tokenizer(name: str, revision: str | None = None) -> Any:
    """Load a tokenizer; a folder of vocabulary and merges alone is Blenderbot-small's kind.

    Raises :class:`~augesc_builder.errors.CheckpointError` where there is none.
    """
    folder = Path(name)
    files = {file.name for file in folder.iterdir()} if folder.is_dir() else set()
    try:
        if files & {"config.json", "tokenizer.json", "tokenizer_config.json"} or not files:
            return pretrained.load_tokenizer(name, revision)
        return BlenderbotSmallTokenizer(
            vocab_file=str(folder / "vocab.json"), merges_file=str(folder / "merges.txt")
        )
    except Exception as error:
        raise CheckpointError(f"{name}: no tokenizer to be had there: {brief(error)}") from error


def check_belong(name: str | Path, model: Any, tokenizer: Any) -> None:
    """Refuse a tokenizer with more tokens, or with other special tokens, than the model knows.

    Raises :class:`~augesc_builder.errors.CheckpointError`, naming what does not fit.
    """
    check_fit(name, model.get_input_embeddings().num_embeddings, tokenizer)
    for what in ("eos_token_id", "pad_token_id"):
        ours, theirs = getattr(tokenizer, what), getattr(model.config, what, None)
        known = theirs if isinstance(theirs, list) else [theirs]
        if theirs is not None and ours is not None and ours not in known:
            raise CheckpointError(
                f"{name}: {what} is {theirs} for the model and {ours} for the tokenizer; they do "
                f"not belong together: give the model's own (model.tokenizer=null)"
            )


def check_method(method: str, model: Any) -> None:
    """Refuse to train an encoder-decoder as a causal LM, and the other way round.

    Raises :class:`~augesc_builder.errors.CheckpointError`.
    """
    fits = "seq2seq" if model.config.is_encoder_decoder else "sft"
    if method != fits:
        raise CheckpointError(
            f"a model of the type {model.config.model_type} is trained with method: {fits}, found "
            f"method: {method}; set method={fits}"
        )


def position_limit(model: Any, tokenizer: Any) -> int | None:
    """Return how many tokens model and tokenizer allow, or ``None`` where neither says so."""
    limit = max_positions(model.config)
    if limit is None and tokenizer.model_max_length < _NOT_A_LIMIT:
        return int(tokenizer.model_max_length)
    return limit
