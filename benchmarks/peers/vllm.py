"""vLLM's build for CPUs: continuous batching, in one process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.peers.protocol import Engine, Work, serve


@contextmanager
def load(work: Work) -> Iterator[Engine]:
    """Load the model in the type that is asked for, with as many sequences as slots."""
    import vllm

    longest = max(len(ids) + n for ids, n in zip(work.prompts, work.lengths, strict=True))
    model = vllm.LLM(
        str(work.model),
        skip_tokenizer_init=True,
        dtype=work.type,
        max_num_seqs=work.slots,
        max_model_len=longest,
        enable_prefix_caching=False,
    )
    yield Engine(f"vLLM {vllm.__version__}", lambda: _decode(model, work))


def _decode(model: Any, work: Work) -> list[int]:
    from vllm import SamplingParams

    sampling = [
        SamplingParams(max_tokens=n, ignore_eos=True, detokenize=False, **work.sampling)
        for n in work.lengths
    ]
    results = model.generate([{"prompt_token_ids": ids} for ids in work.prompts], sampling)
    return [len(result.outputs[0].token_ids) for result in results]


if __name__ == "__main__":
    serve(load)
