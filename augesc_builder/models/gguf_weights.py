"""GGUF files as ``transformers`` takes them: alone, read once, and plain weights after it."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import transformers
from transformers import modeling_gguf_pytorch_utils as loader

from augesc_builder.config.paths import GGUF
from augesc_builder.readers.gguf import Header, read_header

_FILE = f"model{GGUF}"
_TENSORS_A_LAYER = 2
"""At the very least: what is mixed along the sequence, and what follows it."""


def is_gguf(name: str | Path) -> bool:
    """Whether a model's name is that of a GGUF file on this disk."""
    return Path(name).suffix == GGUF and Path(name).is_file()


@contextlib.contextmanager
def alone(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a folder with a GGUF file in it and nothing else, and the options that name the file.

    What lies beside the file, or in the working folder under its name, has no part in what is
    loaded. Raises what :func:`~augesc_builder.readers.gguf.read_header` does.
    """
    read_header(path)
    with tempfile.TemporaryDirectory(prefix="augesc-") as folder:
        (Path(folder) / _FILE).symlink_to(path.resolve())
        yield folder, {"gguf_file": str(Path(folder) / _FILE), "local_files_only": True}


@contextlib.contextmanager
def read_once(name: str | Path) -> Iterator[None]:
    """Let libraries read a file's header once, and not for config, tokenizer and weights each.

    What is no GGUF file is left to them. They also make the table of all names of tensors anew for
    each module of a model. Both together are more than half of the time that it takes. Their bar
    is not shown.
    """
    if not is_gguf(name):
        yield
        return
    import gguf

    reader = functools.cache(gguf.GGUFReader)
    changes: list[tuple[Any, str, Callable[..., Any]]] = [
        (gguf, "GGUFReader", lambda path: reader(Path(path).resolve())),
        (gguf, "get_tensor_name_map", functools.cache(gguf.get_tensor_name_map)),
        (loader, "tqdm", lambda tensors, **_: tensors),
    ]
    before = [(module, what, getattr(module, what)) for module, what, _ in changes]
    try:
        for module, what, new in changes:
            setattr(module, what, new)
        yield
    finally:
        for module, what, old in before:
            setattr(module, what, old)


def plain_weights() -> dict[str, Any]:
    """Return the options that unpack all weights, where some could be multiplied as they are."""
    kind = getattr(transformers, "GgufConfig", None)  # versions without it know no other way
    return {"quantization_config": kind(dequantize=True)} if kind else {}


def check_layers(config: Any, header: Header) -> None:
    """Refuse a config of more layers than there can be tensors for. Raises ``ValueError``."""
    n = config.get_text_config().num_hidden_layers
    if n * _TENSORS_A_LAYER > header.n_tensors:
        raise ValueError(f"it says {n:,} layers, and holds {header.n_tensors:,} tensors")


def check_size(model: Any, header: Header) -> None:
    """Refuse a model of more weights than the file holds. Raises ``ValueError``."""
    n = sum(parameter.numel() for parameter in model.parameters())
    if n > header.n_values:
        raise ValueError(f"it says a model of {n:,} weights, and holds {header.n_values:,}")


def plain(model: Any, missing: Collection[str]) -> Any:
    """Return a model without what says that its weights are in a GGUF file, which they are not.

    With it ``transformers`` refuses to save the model. Raises ``ValueError`` where the file had
    not all of the weights.
    """
    if missing:
        some = ", ".join(sorted(missing)[:3])
        raise ValueError(f"it lacks {len(missing):,} tensors, such as {some}")
    for mark in ("hf_quantizer", "quantization_method", "is_quantized"):
        vars(model).pop(mark, None)
    vars(model.config).pop("quantization_config", None)
    model.config.name_or_path = ""
    return model


def plain_tokenizer(tokenizer: Any) -> Any:
    """Return a tokenizer without the file that it was read from: it is saved with what it says."""
    for key in ("gguf_file", "name_or_path", "is_local", "local_files_only", "vocab_file"):
        tokenizer.init_kwargs.pop(key, None)
    tokenizer.name_or_path = ""
    return tokenizer
