"""Decodes the task with another engine, in that engine's own environment; prints tokens a second.

    python benchmarks/generation_peers.py {ctranslate2|vllm} FOLDER

``FOLDER`` holds ``model/`` (a checkpoint of transformers) and ``task.json``. Loading is not timed;
CTranslate2's seconds are the processor's, vLLM's the clock's: it has processes of its own. Nothing
of augesc can be imported there, nor the other benchmarks.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

RESULT = "tokens a second:"
"""Stands before the number: engines write lines of their own."""


def ctranslate2(folder: Path, task: dict[str, Any]) -> float:
    """Decode in static batches, from which rows that ended are removed."""
    import ctranslate2 as engine

    sampling = task["sampling"]
    names = [f"t{i}" for i in range(50400)]
    converted = folder / "ctranslate2"
    if not converted.exists():
        from ctranslate2.converters.transformers import TransformersConverter

        _give_tokenizer(folder / "model", names, names[task["eos"]])
        TransformersConverter(str(folder / "model")).convert(str(converted))
    generator = engine.Generator(str(converted), device="cpu", inter_threads=1, intra_threads=1)
    prompts = [[names[i] for i in ids] for ids in task["prompts"]]
    made, begun, size = 0, time.process_time(), task["slots"]
    for first in range(0, len(prompts), size):
        several = prompts[first : first + size]
        shortest = min(map(len, several))  # what is longer of a prompt is made step by step
        steps = [
            len(prompt) - shortest + n
            for prompt, n in zip(several, task["lengths"][first : first + size], strict=True)
        ]

        def ends(step: Any, steps: list[int] = steps) -> bool:
            return bool(step.step + 1 >= steps[step.batch_id])

        results = generator.generate_batch(
            several,
            max_length=max(steps),
            min_length=1,
            sampling_topk=0,
            sampling_topp=sampling["top_p"],
            sampling_temperature=sampling["temperature"],
            repetition_penalty=sampling["repetition_penalty"],
            include_prompt_in_result=False,
            end_token=[],
            callback=ends,
        )
        made += sum(len(result.sequences_ids[0]) for result in results)
    return _all(task, made) / (time.process_time() - begun)


def vllm(folder: Path, task: dict[str, Any]) -> float:
    """Decode with continuous batching, as many sequences at a time as we have slots."""
    from vllm import LLM, SamplingParams

    model = LLM(
        str(folder / "model"),
        skip_tokenizer_init=True,
        dtype="float32",
        max_num_seqs=task["slots"],
        max_model_len=2048,
    )
    sampling = [
        SamplingParams(
            max_tokens=n,
            ignore_eos=True,
            detokenize=False,
            **task["sampling"],
        )
        for n in task["lengths"]
    ]
    prompts = [{"prompt_token_ids": ids} for ids in task["prompts"]]
    begun = time.perf_counter()
    results = model.generate(prompts, sampling)
    made = sum(len(result.outputs[0].token_ids) for result in results)
    return _all(task, made) / (time.perf_counter() - begun)


def _all(task: dict[str, Any], made: int) -> int:
    if made != sum(task["lengths"]):
        raise RuntimeError(f"{made} tokens instead of {sum(task['lengths'])}")
    return made


def _give_tokenizer(folder: Path, names: list[str], end: str) -> None:
    """Put a tokenizer of whole words beside the model: converting wants one."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="t0"))
    PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token=end, bos_token=end, unk_token="t0"
    ).save_pretrained(folder)


ENGINES = {"ctranslate2": ctranslate2, "vllm": vllm}


def main() -> None:
    """Run the engine that is asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    task = json.loads((given.folder / "task.json").read_text())
    print(RESULT, ENGINES[given.engine](given.folder, task), flush=True)


if __name__ == "__main__":
    main()
