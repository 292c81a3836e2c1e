"""Compiles the kernel for a card that need not be here: ``python compile_kernels.py 90``."""

from __future__ import annotations

import sys

from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from augesc_builder.engine.kernels import _attend, tile


def main() -> None:
    capability = int(sys.argv[1])
    pointers = ("query", "key", "value", "keys", "values", "out")
    strides = [name for name in _attend.arg_names if name.endswith(("_slot", "_head"))]
    for size in (64, 96, 128, 256):
        constants = {"HEADS": 16, "SHARE": 1, "SIZE": size, **tile(size)}
        types = {
            **dict.fromkeys(pointers, "*bf16"),
            "positions": "*i64",
            "scale": "fp32",
            **dict.fromkeys(["room", *strides], "i32"),
            **dict.fromkeys(constants, "constexpr"),
        }
        compiled = compile(
            ASTSource(_attend, {name: types[name] for name in _attend.arg_names}, constants),
            target=GPUTarget("cuda", capability, 32),
            options={"enable_fp_fusion": True},
        )
        if not compiled.asm["cubin"] or ".local" in compiled.asm["ptx"]:
            sys.exit(f"heads of {size} do not keep to the registers of sm_{capability}")


main()
