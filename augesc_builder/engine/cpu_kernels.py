"""Decoding on CPU in compiled loops, where the machine has a C++ compiler: the room ``loops``.

A step of few rows reads every weight, and every key and value of its rows, and does little with
each; the loops do so at about the speed of memory. They are compiled when they are first asked for
(some seconds, once), for this very processor. Weights, keys and values are float32 or bfloat16,
weights may be 8-bit integers too; what goes in and comes out is float32.

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

_TYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.int8: "int8"}
_TOGETHER = {torch.float32: 1, torch.bfloat16: 2, torch.int8: 4}
"""Inputs whose weights lie side by side in a panel: those that a matrix unit takes together."""

_DEPTH = 16
"""As many times so many are the inputs of a matrix unit's tile; zeros fill up the last one."""

_FLAGS = ("-O3", "-march=native", "-std=c++17", "-ffp-contract=fast", "-shared", "-fPIC")
_SIGNATURES = {
    "product": "pppppllli",
    "attend": "ppppppppllllllllf",
    "rms_norm": "pppllf",
    "gelu": "pll",
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


_ROWS_AT_ONCE = 4096
"""Of a matrix that is rounded to integers: its quotients are float32, so many at a time."""

_FEATURES = re.compile(r"^(?:flags|Features).*$", re.MULTILINE)
"""Of a processor, in ``/proc/cpuinfo``."""


def runs_compiled(model: Any) -> bool:
    """Whether a model's steps run in compiled loops: all of it on CPU, in a type that they have."""
    return (
        model.dtype in (torch.float32, torch.bfloat16)
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
    sources = sorted(Path(__file__).with_name("loops").glob("*.?pp"))
    (source,) = (path for path in sources if path.suffix == ".cpp")
    try:
        processor = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        processor = platform.processor()
    flags = _FEATURES.search(processor)
    parts = (compiler, *_FLAGS, flags[0] if flags else processor)
    key = hashlib.blake2b("\n".join(parts).encode(), digest_size=12)
    for path in sources:
        key.update(path.read_bytes())
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

    Read from end to end, as weights, keys and values are at every step, small ones cost a fifth of
    the time and more.
    """
    with contextlib.suppress(OSError, AttributeError):  # not Linux: as it is
        page = mmap.PAGESIZE
        begin, end = -(-x.data_ptr() // page) * page, (x.data_ptr() + x.nbytes) // page * page
        if end > begin:
            madvise = ctypes.CDLL(None).madvise
            madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), mmap.MADV_HUGEPAGE)
    return x


_ARENA = 1 << 26
"""Bytes in which matrices stand one behind the other: many are smaller than a large page."""

_LINE = 64
"""Bytes of a cache line: panels begin with one."""

_arena = torch.empty(0, dtype=torch.uint8)


def _room_for(shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Return a tensor with anything in it, next to the one before."""
    global _arena  # noqa: PLW0603
    size = shape.numel() * dtype.itemsize
    if size > len(_arena):
        with torch.inference_mode(mode=False):  # whoever asks next may write to the rest
            _arena = large_pages(torch.empty(max(size, _ARENA), dtype=torch.uint8))
    room, _arena = _arena[:size], _arena[-(-size // _LINE) * _LINE :]
    return room.view(dtype).view(shape)


class Linear(ctypes.Structure):
    """A packed layer as the loops know it."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("product", "panels", "scales", "bias")),
        *((name, ctypes.c_long) for name in ("n_in", "n_out")),
    )


def quantized(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return 8-bit integers (out, in) and scales (out,) whose product is about a matrix (out, in).

    A row's scale is its largest magnitude by 127: no weight is off by more than half of it.
    """
    scales = torch.maximum(weight.amax(1), -weight.amin(1)).float() / 127
    divisors = torch.where(scales == 0, 1, scales)[:, None]
    integers = torch.empty(weight.shape, dtype=torch.int8)
    for part, rows, by in zip(
        *(torch.split(x, _ROWS_AT_ONCE) for x in (integers, weight, divisors)), strict=True
    ):
        part.copy_((rows / by).round_())
    return integers, scales


class PackedLinear:
    """A linear layer whose matrix (out, in) lies in panels, in the order in which it is read.

    They are in the matrix's type, or rounded to ``dtype``; ``torch.int8`` are :func:`quantized`.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None = None, *, dtype: torch.dtype | None = None
    ) -> None:
        self.n_out, self._n_in = weight.shape
        self._dtype = dtype or weight.dtype
        self._scales = None
        weight = weight.detach()
        if self._dtype == torch.int8:
            weight, scales = quantized(weight)
            self._scales = pad(scales, (0, -self.n_out % LANES))
        together = _TOGETHER[self._dtype]
        missing = (0, -self._n_in % (_DEPTH * together), 0, -self.n_out % LANES)
        panels = pad(weight, missing) if any(missing) else weight  # which pad would copy as well
        self._padded = panels.shape[1]
        panels = panels.view(-1, LANES, self._padded // together, together).transpose(1, 2)
        # (out / LANES, in / together, LANES, together)
        self._panels = _room_for(panels.shape, self._dtype).copy_(panels)
        self._bias = None if bias is None else bias.detach().float().contiguous()

    def structure(self) -> Linear:
        """Return the layer as the loops know it; it must live as long as they use it."""
        product = getattr(library(), f"product_{_TYPES[self._dtype]}")
        given = (self._panels, self._scales, self._bias)
        places = (None if x is None else x.data_ptr() for x in given)
        return Linear(ctypes.cast(product, ctypes.c_void_p), *places, self._padded, self.n_out)

    def __call__(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """Return the layer's output (N, out) for float32 (N, in), added to ``out`` if given."""
        if self._padded != self._n_in:
            x = pad(x, (0, self._padded - self._n_in))
        x = x.contiguous()
        adds = out is not None
        if out is None:
            out = x.new_empty(len(x), self.n_out)
        shape = (len(x), self._padded, self.n_out)
        call("product", self._dtype, x, self._panels, self._scales, self._bias, out, *shape, adds)
        return out


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return rows (N, E) divided by the root of their mean square, times ``weight`` (E,)."""
    out = torch.empty_like(x)
    call("rms_norm", torch.float32, x, weight, out, *x.shape, eps)
    return out


def gelu_(x: Tensor) -> Tensor:
    """Apply GELU, in its form with a hyperbolic tangent, to rows (N, I) in place; return them."""
    call("gelu", torch.float32, x, *x.shape)
    return x
