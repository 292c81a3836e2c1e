"""The causal language model and its tokenizer: from the Hub, from a folder, or from nothing.

A tiny GPT-J with a random start takes the same path as GPT-J-6B; only the recipe differs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    GPTJConfig,
    GPTJForCausalLM,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from augesc_builder.config.backbone import FromScratch
from augesc_builder.config.paths import GGUF
from augesc_builder.engine.tensor_parallel import tensor_parallel_options, tensor_parallel_size
from augesc_builder.errors import AugescError, CheckpointError
from augesc_builder.models import pretrained
from augesc_builder.models.gguf_weights import is_gguf, read_once

END = "<|endoftext|>"
"""GPT-J's end-of-sequence token; the tokenizer made here uses the same."""


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, special_tokens: Sequence[str] = ()
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE; any text can be encoded with it, and decoding gives it back.

    Its tokens are those learned, ``special_tokens`` and :data:`END`.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[*special_tokens, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=END, unk_token=END
    )


def from_scratch(
    shape: FromScratch, texts: Iterable[str], seed: int
) -> tuple[GPTJForCausalLM, PreTrainedTokenizerFast]:
    """Make a randomly initialized GPT-J and train its tokenizer on ``texts``."""
    tokenizer = train_tokenizer(texts, shape.vocab_size)
    config = GPTJConfig(
        **(shape.model_dump() | {"vocab_size": len(tokenizer)}),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return GPTJForCausalLM(config), tokenizer


def load(
    name: str | Path,
    *,
    revision: str | None,
    dtype: str,
    device_map: str | None = None,
    tensor_parallel: int = 1,
) -> tuple[Any, Any]:
    """Load a causal language model in ``dtype`` and its tokenizer.

    With ``tensor_parallel`` above 1 every one of so many processes that have met
    (:mod:`augesc_builder.engine.tensor_parallel`) gets its shard of each layer.

    Raises :class:`~augesc_builder.errors.CheckpointError` where one of them is missing or broken,
    or where they do not fit each other.
    """
    check_folder(name)
    how = {"device_map": device_map}
    if tensor_parallel > 1:
        check_tensor_parallel(config_of(None, name, revision), name, tensor_parallel)
        how = tensor_parallel_options(tensor_parallel)
    try:
        with quiet_bars() if Path(name).exists() else contextlib.nullcontext(), read_once(name):
            tokenizer = pretrained.load_tokenizer(name, revision)
            model = pretrained.load_pretrained(
                AutoModelForCausalLM, name, revision, dtype=getattr(torch, dtype), **how
            )
    except AugescError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"{name}: cannot be loaded as a causal LM: {brief(error)}{_way_out(name)}"
        ) from error
    check_fit(name, model.get_input_embeddings().num_embeddings, tokenizer)
    if tensor_parallel_size(model) != tensor_parallel:
        raise CheckpointError(f"{name}: transformers did not shard it {tensor_parallel} ways")
    return model, tokenizer


def check_tensor_parallel(config: Any, name: str | Path, n: int) -> None:
    """Refuse a model that ``transformers`` cannot shard over ``n`` processes.

    Raises :class:`~augesc_builder.errors.CheckpointError` where it has no plan for such a model, or
    where its heads or its inner width cannot be divided by ``n``.
    """
    config = config.get_text_config()
    if not getattr(config, "base_model_tp_plan", None):
        raise CheckpointError(
            f"{name}: transformers has no tensor parallelism for {config.model_type}; set "
            f"generate.backend.tensor_parallel=1 (and generate.backend.device_map=auto if one GPU "
            f"is too small)"
        )
    heads = config.num_attention_heads
    for key, whole in (
        ("num_attention_heads", heads),
        ("num_key_value_heads", getattr(config, "num_key_value_heads", None) or heads),
        ("intermediate_size", getattr(config, "intermediate_size", None) or n),
    ):
        if whole % n:
            raise CheckpointError(
                f"{name}: its {key}, {whole}, cannot be cut into {n} shards; set "
                f"generate.backend.tensor_parallel to a divisor"
            )


def load_tokenizer(name: str | Path, config: Any) -> Any:
    """Load the tokenizer of a model whose weights are loaded elsewhere.

    Raises :class:`~augesc_builder.errors.CheckpointError` where it is missing or broken, or does
    not fit the model.
    """
    try:
        with read_once(name):
            tokenizer = pretrained.load_tokenizer(name)
    except AugescError:
        raise
    except Exception as error:
        raise CheckpointError(f"{name}: its tokenizer cannot be loaded: {brief(error)}") from error
    check_fit(name, config.get_text_config().vocab_size, tokenizer)
    return tokenizer


def check_fit(name: str | Path, n_embeddings: int, tokenizer: Any) -> None:
    """Refuse a tokenizer that is not the model's, which has so many embeddings.

    Raises :class:`~augesc_builder.errors.CheckpointError` where it has no end-of-sequence token, or
    more tokens than the model has embeddings.
    """
    if tokenizer.eos_token_id is None:
        raise CheckpointError(
            f"{name}: its tokenizer has no end-of-sequence token; set eos_token in its "
            f"tokenizer_config.json, or take another model"
        )
    if len(tokenizer) > n_embeddings:
        raise CheckpointError(
            f"{name}: the tokenizer has {len(tokenizer)} tokens and the model {n_embeddings} "
            f"embeddings; they do not belong together"
        )


@contextlib.contextmanager
def quiet_bars() -> Iterator[None]:
    """Silence the bars that transformers draws over local files; downloads keep theirs."""
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


def check_folder(name: str | Path) -> None:
    """Refuse a local folder that is no checkpoint; what may be a name on the Hub passes.

    Raises :class:`~augesc_builder.errors.CheckpointError`, naming what the folder lacks.
    """
    folder = Path(name)
    if is_gguf(name):
        return
    if folder.is_file():
        raise CheckpointError(
            f"{name} is a file; expected a checkpoint folder or a name on the Hub"
        )
    if not folder.is_dir():
        if folder.is_absolute() or str(name).startswith(".") or str(name).count("/") > 1:
            raise CheckpointError(f"{name}: no such folder; give the checkpoint that was trained")
        return
    if not (folder / "config.json").exists():
        if found := sorted(path.name for path in folder.glob(f"*{GGUF}")):
            raise CheckpointError(
                f"{name} holds {', '.join(found[:3])}; name one by backbone.gguf_file"
            )
        raise CheckpointError(f"{name} holds no config.json; expected a checkpoint of transformers")
    weights = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin")
    if not any(any(folder.glob(pattern)) for pattern in weights):
        raise CheckpointError(
            f"{name} holds no weights (model.safetensors); fine-tune again, or give another folder"
        )


def max_positions(config: Any) -> int | None:
    """Return the longest sequence that the model's positions allow, where its config says so."""
    value = getattr(config, "max_position_embeddings", None)
    return int(value) if value else None


def config_of(shape: FromScratch | None, name: str | Path | None, revision: str | None) -> Any:
    """Return a model's config; from the Hub it is downloaded, but not GPT-J-6B's.

    Raises :class:`~augesc_builder.errors.CheckpointError` where there is none.
    """
    if shape is not None:
        return GPTJConfig(**shape.model_dump(), bos_token_id=0, eos_token_id=0)
    if str(name).lower() == "eleutherai/gpt-j-6b":
        return GPTJConfig()  # its defaults are GPT-J-6B's shape: no need to ask the Hub
    try:
        return pretrained.load_config(str(name), revision)
    except AugescError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"{name}: no config to be had: {brief(error)}{_way_out(name)}"
        ) from error


def size_of(config: Any) -> tuple[int, int]:
    """Return a model's number of parameters and of layers without making its weights."""
    with torch.device("meta"):
        model = pretrained.empty_model(config)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return parameters, int(config.num_hidden_layers)


def brief(error: Exception) -> str:
    """Return the first line of what an error says."""
    if isinstance(error, KeyError):
        return f"it lacks {str(error)[:200]}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200].rstrip(".") if lines else type(error).__name__


def _way_out(name: str | Path | None) -> str:
    another = "; take another GGUF file (backbone.gguf_file), or a checkpoint of transformers"
    return another if name is not None and is_gguf(name) else ""
