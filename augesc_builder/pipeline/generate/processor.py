"""What generates, and in which numbers: chosen when a run begins, and kept by those that resume it.

A row is the same to the last bit on one machine. On another the same draws may round otherwise, so
a run says what it was begun on, and a process that finds something else says so.
"""

from __future__ import annotations

import platform
import re
import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch

from augesc_builder.engine.cpu_kernels import library
from augesc_builder.engine.models import PACKED
from augesc_builder.errors import CheckpointError

_NAME = re.compile(r"^model name[ \t]*: (.+)$", re.MULTILINE)
_FLAGS = re.compile(r"^(?:flags|Features)[ \t]*: (.+)$", re.MULTILINE)
_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}
_FEATURES = {"avx2", "avx512f", "asimd", "sve", *_BFLOAT16}
"""Of a processor, as Linux names them: rounding and speed of products depend on these."""


def dtype_for(setting: str) -> str:
    """Return the type of the weights for ``generate.backend.dtype``.

    ``auto`` is bfloat16 on GPUs and on CPUs that compute with it, float32 elsewhere.
    """
    if setting != "auto":
        return setting
    has_bfloat16 = torch.cuda.is_available() or bool(_BFLOAT16 & set(_processor()["features"]))
    return "bfloat16" if has_bfloat16 else "float32"


def check_weights(config: Any, name: str, weights: str) -> None:
    """Refuse 8-bit weights where nothing here computes with them: they need compiled loops.

    Raises :class:`~augesc_builder.errors.CheckpointError`, before anything is trained.
    """
    missing = None
    if torch.cuda.is_available():
        missing = "they are for CPUs, and this machine has a GPU (CUDA_VISIBLE_DEVICES= hides it)"
    elif config.model_type not in PACKED:
        missing = f"{name} is of the type {config.model_type}, expected {', '.join(sorted(PACKED))}"
    elif library() is None:
        missing = "they need a C++ compiler (c++, or what CXX names), and there is none here"
    if missing is not None:
        raise CheckpointError(
            f"generate.backend.weights: {weights}: {missing}; or set it to null, for weights as "
            f"generate.backend.dtype says"
        )


def facts_for(setting: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run notes of its numbers: those ``known`` since it began, or chosen now.

    ``dtype`` is kept. Warns where this processor, or what computes on it, is not what the run began
    with: what is there on both sides, and what it changes.
    """
    here = machine()
    # An earlier version noted less: what it did not note is not compared.
    begun = {**here, **known.get("processor", {})}
    dtype = known.get("dtype") or dtype_for(setting)
    changed = [
        f"{key}: {_shown(begun[key])} then, {_shown(here[key])} now"
        for key in here
        if begun[key] != here[key]
    ]
    if changed:
        warnings.warn(
            f"this run was begun with something else to compute on ({'; '.join(changed)}); "
            f"{_consequence(dtype, begun, here)}",
            RuntimeWarning,
            stacklevel=2,
        )
    return {"dtype": dtype, "processor": begun}


def _consequence(dtype: str, begun: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Say what another processor, or other kernels, change for a run."""
    lines = [
        "conversations that are still missing draw the same numbers, and may differ by rounding"
    ]
    if dtype == "bfloat16" and here["kernels"] != "cuda" and not _BFLOAT16 & set(here["features"]):
        lines.append(
            "their weights stay in bfloat16, which this processor does not compute in: it takes "
            "longer"
        )
    if (begun["kernels"], here["kernels"]) == ("compiled", "torch"):
        lines.append(
            "without compiled loops (a C++ compiler makes them: c++, or what CXX names) it takes "
            "about twice as long"
        )
    return "; ".join(lines)


def _shown(value: Any) -> str:
    return (", ".join(value) or "none") if isinstance(value, list) else str(value)


def _kernels() -> dict[str, str]:
    """Return which kernels decode, and which build of them: other builds may round otherwise."""
    loops = None if torch.cuda.is_available() else library()
    if loops is not None:
        return {"kernels": "compiled", "build": Path(loops._name).stem}
    kind = "cuda" if torch.cuda.is_available() else "torch"
    return {"kernels": kind, "build": f"torch {torch.__version__}"}


def machine() -> dict[str, Any]:
    """Return what computes here: the processor or GPU, its features, and the kernels."""
    return {**_processor(), **_kernels()}


def device() -> str:
    """Name what this process computes on: GPUs, or the processor."""
    return str(_processor()["name"])


@cache
def _processor() -> dict[str, Any]:
    if torch.cuda.is_available():
        names = {torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
        return {"name": ", ".join(sorted(names)), "features": []}
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        text = ""
    name, flags = _NAME.search(text), _FLAGS.search(text)
    features = _FEATURES & set(flags[1].split() if flags else ())
    return {"name": name[1] if name else platform.machine(), "features": sorted(features)}
