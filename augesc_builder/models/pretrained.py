"""The one door through which models, tokenizers and configs of others come in; none runs code.

A folder or repo may name Python files of its own (``auto_map``), and weights may be pickles.
``transformers`` asks on the terminal whether to run the first, and takes a ``y`` that was meant for
something else. Here neither is ever run, and nobody is asked.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, pipeline

from augesc_builder.models import gguf_weights
from augesc_builder.readers.gguf import read_header
from augesc_builder.readers.hub import hub_answers

_NO_CODE = {"trust_remote_code": False}


def _place(name: str | Path, revision: str | None) -> dict[str, Any]:
    """Return the revision of a model, and whether the cache alone is to be looked at."""
    from_cache = not Path(name).is_dir() and not hub_answers()
    return {"revision": revision or "main", "local_files_only": from_cache}


def load_config(name: str | Path, revision: str | None = None) -> Any:
    """Load a model's config. Raises ``OSError`` or ``ValueError`` where there is none."""
    if gguf_weights.is_gguf(name):
        with _no_code(), gguf_weights.alone(Path(name)) as (folder, place):
            config = AutoConfig.from_pretrained(folder, **place, **_NO_CODE)
        gguf_weights.check_layers(config, read_header(Path(name)))
        return config
    with _no_code():
        config = AutoConfig.from_pretrained(str(name), **_place(name, revision), **_NO_CODE)
    attention = str(getattr(config, "_attn_implementation", None))
    if "/" in attention:  # a repo of compiled kernels, which would be fetched and run
        raise ValueError(f"it asks to run the kernels of {attention[:80]!r}, which {_NEVER}")
    return config


def load_pretrained(
    kind: Any, name: str | Path, revision: str | None = None, config: Any = None, **how: Any
) -> Any:
    """Load a model as a class of ``transformers`` does; ``how`` are its other options.

    ``config`` is the one of :func:`load_config`, changed; not for GGUF files.

    Raises whatever that class raises, and ``ValueError`` where code would have to run.
    """
    if gguf_weights.is_gguf(name):
        return _load_gguf(kind, Path(name), **how)
    config = config or load_config(name, revision)
    with _no_code():
        return kind.from_pretrained(
            str(name),
            config=config,
            weights_only=True,
            **_place(name, revision),
            **_NO_CODE,
            **how,
        )


def _load_gguf(kind: Any, path: Path, **how: Any) -> Any:
    """Load a model from a GGUF file; its weights are as plain as any other's then."""
    config, header = load_config(path), read_header(path)
    with torch.device("meta"):
        gguf_weights.check_size(empty_model(config), header)
    with _no_code(), gguf_weights.alone(path) as (folder, place):
        model, found = kind.from_pretrained(
            folder,
            config=config,
            output_loading_info=True,
            **place,
            **_NO_CODE,
            **gguf_weights.plain_weights(),
            **how,
        )
    return gguf_weights.plain(model, found["missing_keys"])


def load_tokenizer(name: str | Path, revision: str | None = None, kind: Any = AutoTokenizer) -> Any:
    """Load a tokenizer. Raises what ``transformers`` raises."""
    if gguf_weights.is_gguf(name):
        with _no_code(), gguf_weights.alone(Path(name)) as (folder, place):
            return gguf_weights.plain_tokenizer(kind.from_pretrained(folder, **place, **_NO_CODE))
    with _no_code():
        return kind.from_pretrained(str(name), **_place(name, revision), **_NO_CODE)


def load_text_classifier(name: str, revision: str | None, device: str) -> Any:
    """Load a text-classification pipeline. Raises what ``transformers`` raises."""
    with _no_code():
        load_config(name, revision)
        return pipeline(
            "text-classification", model=name, revision=revision, device=device, **_NO_CODE
        )


def empty_model(config: Any) -> Any:
    """Make a causal language model with random weights of a config."""
    with _no_code():
        return AutoModelForCausalLM.from_config(config, **_NO_CODE)


_NEVER = "augesc never does: give a model of a kind that transformers itself knows"


@contextlib.contextmanager
def _no_code() -> Iterator[None]:
    """Say in one line that code would have to run."""
    try:
        yield
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        what = "it asks to run Python code of its own (auto_map)"
        raise ValueError(f"{what}, which {_NEVER}") from error
