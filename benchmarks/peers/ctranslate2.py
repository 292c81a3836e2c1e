"""CTranslate2: static batches, from which rows that ended are removed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.peers.protocol import Engine, Work, serve


@contextmanager
def load(work: Work) -> Iterator[Engine]:
    """Convert the model, once, and load it in the type that is asked for."""
    import ctranslate2

    if work.type not in ctranslate2.get_supported_compute_types("cpu"):
        raise RuntimeError(f"no {work.type} on this processor")
    names = [f"t{i}" for i in range(work.vocabulary)]
    converted = work.model.with_name("ctranslate2")
    if not converted.exists():
        _convert(work.model, converted, names, names[work.eos])
    generator = ctranslate2.Generator(
        str(converted), device="cpu", compute_type=work.type, intra_threads=work.threads
    )
    yield Engine(f"CTranslate2 {ctranslate2.__version__}", lambda: _decode(generator, work, names))


def _decode(generator: Any, work: Work, names: list[str]) -> list[int]:
    prompts = [[names[i] for i in ids] for ids in work.prompts]
    made = []
    for first in range(0, len(prompts), work.slots):
        several = prompts[first : first + work.slots]
        shortest = min(map(len, several))  # what is longer of a prompt is made step by step
        steps = [
            len(prompt) - shortest + n
            for prompt, n in zip(several, work.lengths[first : first + work.slots], strict=True)
        ]

        def ends(step: Any, steps: list[int] = steps) -> bool:
            return bool(step.step + 1 >= steps[step.batch_id])

        results = generator.generate_batch(
            several,
            max_length=max(steps),
            min_length=1,
            sampling_topk=0,
            sampling_topp=work.sampling["top_p"],
            sampling_temperature=work.sampling["temperature"],
            repetition_penalty=work.sampling["repetition_penalty"],
            include_prompt_in_result=False,
            end_token=[],
            callback=ends,
        )
        made += [len(result.sequences_ids[0]) for result in results]
    return made


def _convert(model: Path, converted: Path, names: list[str], end: str) -> None:
    """Convert a checkpoint. Its tokenizer, if it has one, is not asked: tokens go by number."""
    from ctranslate2.converters.transformers import TransformersConverter
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = models.WordLevel({name: i for i, name in enumerate(names)}, unk_token=names[0])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(words), eos_token=end, bos_token=end, unk_token=names[0]
    )

    class Converter(TransformersConverter):  # type: ignore[misc]
        def load_tokenizer(self, *_: Any, **__: Any) -> Any:
            return tokenizer

    Converter(str(model)).convert(str(converted))


if __name__ == "__main__":
    serve(load)
