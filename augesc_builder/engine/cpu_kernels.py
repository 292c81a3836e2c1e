"""Decoding on CPU in compiled loops, where the machine has a C++ compiler: ``cpu_kernels.cpp``.

A step of few rows reads every weight, and every key and value of its rows, and does little with
each; the loops do so at about the speed of memory. They are compiled when they are first asked for
(some seconds, once), for this very processor. Weights, keys and values are float32 or bfloat16;
what goes in and comes out is float32.

Every sum has an order of its own: a row is the same to the last bit in any company, with any number
of slots and of threads, whether its tokens came as a prompt or one by one.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import mmap
import os
import platform
import re
import shutil
import subprocess
import tempfile
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

LANES = 16
"""Columns, or positions, of a panel: those that are computed with at once."""

_DEPTH = 32
"""Inputs of a matrix unit's tile; with fewer at the end, zeros fill it up."""

_TYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
_FLAGS = ("-O3", "-march=native", "-std=c++17", "-ffp-contract=fast", "-shared", "-fPIC")
_SIGNATURES = {
    "product": "ppppllli",
    "attend": "ppppppppllllllllf",
    "rms_norm": "pppllf",
    "run_llama": "pppppll",
    "draw": "ppppllllffldd",
}
_C = {
    "p": ctypes.c_void_p,
    "l": ctypes.c_long,
    "i": ctypes.c_int,
    "f": ctypes.c_float,
    "d": ctypes.c_double,
}


_FEATURES = re.compile(r"^(?:flags|Features).*$", re.MULTILINE)
"""Of a processor, in ``/proc/cpuinfo``."""


def runs_compiled(model: Any) -> bool:
    """Whether a model's steps run in compiled loops: all of it on CPU, in a type that they have."""
    return (
        model.dtype in _TYPES
        and all(weight.device.type == "cpu" for weight in model.parameters())
        and library() is not None
    )


@cache
def library() -> ctypes.CDLL | None:
    """Return the compiled loops, or ``None`` where this machine has no compiler for them.

    They are compiled once for a processor, a compiler and this source; the user's cache keeps them.
    """
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        return None
    source = Path(__file__).with_suffix(".cpp")
    try:
        processor = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        processor = platform.processor()
    flags = _FEATURES.search(processor)
    parts = (compiler, *_FLAGS, flags[0] if flags else processor)
    key = hashlib.blake2b("\n".join(parts).encode() + source.read_bytes(), digest_size=12)
    kept = _cache_folder() / f"cpu_kernels-{key.hexdigest()}.so"
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.suppress(OSError):  # not there yet, or damaged: made again
            return _typed(ctypes.CDLL(str(kept)))
        made = Path(folder) / kept.name
        for threads in (["-fopenmp"], []):  # Apple's compiler has no OpenMP: one thread then
            done = subprocess.run(
                [compiler, *_FLAGS, *threads, str(source), "-o", str(made)],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode == 0:
                return _typed(ctypes.CDLL(str(_keep(made, kept))))
    warnings.warn(
        f"decoding on CPU is slower than it could be: {compiler} does not compile its loops "
        f"({done.stderr.strip().splitlines()[:1]})",
        RuntimeWarning,
        stacklevel=2,
    )
    return None


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "augesc"


def _keep(made: Path, kept: Path) -> Path:
    """Move a file to the cache, whole or not at all; return where it is, moved or not."""
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=kept.parent, delete=False) as beside:
            beside.write(made.read_bytes())
        Path(beside.name).replace(kept)
    except OSError:  # no home, or it cannot be written to
        return made
    return kept


def _typed(loops: ctypes.CDLL) -> ctypes.CDLL:
    for name, letters in _SIGNATURES.items():
        for dtype in _TYPES.values():
            if hasattr(loops, f"{name}_{dtype}"):
                function = getattr(loops, f"{name}_{dtype}")
                function.argtypes, function.restype = [_C[letter] for letter in letters], None
    return loops


def call(name: str, dtype: torch.dtype, *arguments: Any) -> None:
    """Call a loop; tensors stand for where they begin, and must be laid out as it expects."""
    given = [x.data_ptr() if isinstance(x, Tensor) else x for x in arguments]
    getattr(library(), f"{name}_{_TYPES[dtype]}")(*given)


def large_pages(x: Tensor) -> Tensor:
    """Ask for large pages under a tensor that nothing was written to yet, and return it.

    Read from end to end, as keys and values are at every step, small ones cost a fifth of the time.
    """
    with contextlib.suppress(OSError, AttributeError):  # not Linux: as it is
        page = mmap.PAGESIZE
        begin, end = -(-x.data_ptr() // page) * page, (x.data_ptr() + x.nbytes) // page * page
        if end > begin:
            madvise = ctypes.CDLL(None).madvise
            madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), mmap.MADV_HUGEPAGE)
    return x


def release_packed(model: Any) -> None:
    """Free the matrices of a model whose linear layers are packed; it cannot run by itself then.

    An output layer that is the table of embeddings as well stays.
    """
    kept = model.get_input_embeddings().weight
    for module in model.modules():
        if type(module) is torch.nn.Linear and module.weight is not kept:
            module.weight.data = module.weight.data.new_empty(0)


class Linear(ctypes.Structure):
    """A packed layer as the loops know it."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("product", "panels", "bias")),
        *((name, ctypes.c_long) for name in ("n_in", "n_out")),
    )


class PackedLinear:
    """A linear layer whose matrix (out, in) lies in panels, in the order in which it is read."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.n_out, self._n_in = weight.shape
        self._dtype = weight.dtype
        panels = pad(weight.detach(), (0, -self._n_in % _DEPTH, 0, -self.n_out % LANES))
        deep = 2 if self._dtype == torch.bfloat16 else 1
        self._padded = panels.shape[1]
        self._panels = panels.view(-1, LANES, self._padded // deep, deep).transpose(1, 2)
        self._panels = self._panels.contiguous()  # (out / LANES, in / deep, LANES, deep)
        self._bias = None if bias is None else bias.detach().float().contiguous()

    def structure(self) -> Linear:
        """Return the layer as the loops know it; it must live as long as they use it."""
        product = getattr(library(), f"product_{_TYPES[self._dtype]}")
        bias = None if self._bias is None else self._bias.data_ptr()
        return Linear(
            ctypes.cast(product, ctypes.c_void_p),
            *(self._panels.data_ptr(), bias, self._padded, self.n_out),
        )

    def __call__(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """Return the layer's output (N, out) for float32 (N, in), added to ``out`` if given."""
        if self._padded != self._n_in:
            x = pad(x, (0, self._padded - self._n_in))
        x = x.contiguous()
        adds = out is not None
        if out is None:
            out = x.new_empty(len(x), self.n_out)
        shape = (len(x), self._padded, self.n_out)
        call("product", self._dtype, x, self._panels, self._bias, out, *shape, adds)
        return out


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return rows (N, E) divided by the root of their mean square, times ``weight`` (E,)."""
    out = torch.empty_like(x)
    call("rms_norm", torch.float32, x, weight, out, *x.shape, eps)
    return out
