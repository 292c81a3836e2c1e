"""Fine-tuning by several processes on CPUs, over gloo: copies of the model, or FSDP's shards.

``accelerate`` offers FSDP on accelerators alone, though PyTorch's works on CPUs: so its state is
told here that it is at work.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch.distributed.fsdp import fully_shard


def run(n: int, kind: str, recipe: Path, states: Path, out: Path) -> None:
    """Fine-tune with a batch of two by ``n`` processes, from the newest state there is."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_process, (n, port, kind, recipe, states, out), nprocs=n)


def _process(rank: int, n: int, port: int, kind: str, path: Path, states: Path, out: Path) -> None:
    os.environ |= {
        **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(n)},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"},
    }
    from augesc_builder.config.recipe import load_recipe
    from augesc_builder.pipeline.finetune import train
    from augesc_builder.run.progress import Progress
    from augesc_builder.sources.sample import read_sample_sessions

    if kind == "fsdp":
        make = train.make_accelerator
        train.make_accelerator = lambda **options: _sharding(make(**options))

    def save(fill: Any) -> None:
        (out / "checkpoint").mkdir(parents=True)
        fill(out / "checkpoint")

    recipe = load_recipe(path, ["finetune.batch_size=2"])
    sessions = [] if rank else read_sample_sessions()
    train.finetune(recipe, sessions, save, states, Progress(quiet=True))


def _sharding(accelerator: Accelerator) -> Accelerator:
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=["GPTJBlock"],
        state_dict_type="FULL_STATE_DICT",
        cpu_ram_efficient_loading=False,
    )
    for shared in (AcceleratorState._shared_state, PartialState._shared_state):
        shared["distributed_type"] = DistributedType.FSDP
    AcceleratorState._shared_state["fsdp_plugin"] = plugin
    return accelerator


def shard_sizes(n: int, config: dict[str, Any]) -> dict[str, int]:
    """Return the elements of GPT-J-6B, those that the first of ``n`` keeps, and of a unit."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.testing._internal.distributed.fake_pg import FakeStore
    from transformers import GPTJConfig, GPTJForCausalLM

    torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=n)
    try:
        with torch.device("meta"):
            model = GPTJForCausalLM(GPTJConfig())
        whole = sum(parameter.numel() for parameter in model.parameters())
        mesh = init_device_mesh("cpu", (n,))
        wanted = config["fsdp_transformer_layer_cls_to_wrap"]
        units = [m for m in model.modules() if type(m).__name__ == wanted]
        units += [model.get_input_embeddings(), model.get_output_embeddings()]
        largest = max(sum(p.numel() for p in unit.parameters()) for unit in units)
        for unit in [*units, model]:
            fully_shard(unit, mesh=mesh)
        kept = sum(parameter.to_local().numel() for parameter in model.parameters())
    finally:
        torch.distributed.destroy_process_group()
    return {"parameters": whole, "on_the_first": kept, "largest_unit": largest}
