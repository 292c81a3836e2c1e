"""The task decoded by our engine, by the same kernels in static batches, and by transformers."""

from __future__ import annotations

import time
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from augesc_builder.engine import Prompt, Sampling, generate
from augesc_builder.engine.continuous import ContinuousBatchingEngine
from augesc_builder.engine.sampling import stream_key
from benchmarks.generation_task import EOS, PENALTY, TEMPERATURE, TOP_P, Task


def engine_for(
    model: Any,
    n_slots: int,
    *,
    refill: bool = True,
    eos: int = EOS,
    weights: torch.dtype | None = None,
) -> ContinuousBatchingEngine:
    """Make our engine ready for a task."""
    sampling = Sampling(2048, TOP_P, TEMPERATURE, PENALTY)
    return ContinuousBatchingEngine(model, eos, sampling, n_slots, refill=refill, weights=weights)


def decode(engine: ContinuousBatchingEngine, task: Task) -> None:
    """Decode a task."""
    prompts = [
        Prompt(ids, stream_key(1, str(i), 0), len(ids) + n)
        for i, (ids, n) in enumerate(zip(task.prompts, task.lengths, strict=True))
    ]
    results = generate(engine, prompts, lambda *_: None)
    made = sum(len(result.token_ids) for result in results)
    if made != task.n_tokens:
        raise RuntimeError(f"{made} tokens instead of {task.n_tokens}")


def decode_ours(
    model: Any,
    task: Task,
    n_slots: int,
    *,
    refill: bool = True,
    eos: int = EOS,
    weights: torch.dtype | None = None,
) -> tuple[float, float]:
    """Decode a task with our engine; return tokens a second and the share of slots at work."""
    engine = engine_for(model, n_slots, refill=refill, eos=eos, weights=weights)
    begun = clock(model)
    decode(engine, task)
    return task.n_tokens / (clock(model) - begun), engine.utilisation


def decode_static(model: Any, task: Task, n_slots: int, eos: int = EOS) -> float:
    """Decode as static batches do, with our kernels: all rows go on until the longest ends."""
    longest = [max(task.lengths[i : i + n_slots]) for i in range(0, len(task.lengths), n_slots)]
    whole = Task(task.prompts, [longest[i // n_slots] for i in range(len(task.lengths))])
    rate, _ = decode_ours(model, whole, n_slots, refill=False, eos=eos)
    return rate * task.n_tokens / whole.n_tokens


class _Ends(StoppingCriteria):  # type: ignore[misc]
    """Ends every row of a batch at its own length."""

    def __init__(self, width: int, lengths: list[int], device: Any) -> None:
        self.ends = torch.tensor(lengths, device=device) + width

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        return input_ids.shape[1] >= self.ends


@torch.inference_mode()
def decode_theirs(model: Any, task: Task, batch_size: int, eos: int = EOS) -> float:
    """Decode a task with ``transformers.generate`` in static batches; return tokens a second."""
    begun = clock(model)
    for first in range(0, len(task.prompts), batch_size):
        prompts = task.prompts[first : first + batch_size]
        lengths = task.lengths[first : first + batch_size]
        width = max(map(len, prompts))
        ids = torch.full((len(prompts), width), eos)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        made = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            do_sample=True,
            top_k=0,
            top_p=TOP_P,
            temperature=TEMPERATURE,
            repetition_penalty=PENALTY,
            max_new_tokens=max(lengths),
            pad_token_id=eos,
            stopping_criteria=StoppingCriteriaList([_Ends(width, lengths, model.device)]),
        )
        if made.shape[1] != width + max(lengths):
            raise RuntimeError("a row ended early")
    return task.n_tokens / (clock(model) - begun)


def clock(model: Any) -> float:
    """Return seconds: of this process on one thread, otherwise of the world."""
    alone = model.device.type == "cpu" and torch.get_num_threads() == 1
    return time.process_time() if alone else time.perf_counter()
