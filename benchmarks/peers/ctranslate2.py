"""CTranslate2: static batches, from which rows that ended are removed.

Its penalty is on the tokens that a row made and not on those of its prompt, which costs the same.
Products of weights packed beforehand (CT2_USE_EXPERIMENTAL_PACKED_GEMM) were not faster.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.peers.protocol import Engine, Setup, Work, serve


@contextmanager
def load(setup: Setup) -> Iterator[Engine]:
    """Convert the model, once, and load it in the type that is asked for."""
    import ctranslate2

    if setup.type not in ctranslate2.get_supported_compute_types("cpu"):
        raise RuntimeError(f"no {setup.type} on this processor")
    names = [f"t{i}" for i in range(setup.vocabulary)]
    model = Path(setup.model)
    converted = model.with_name("ctranslate2")
    if not converted.exists():
        _convert(model, converted, names, names[setup.eos])
    generator = ctranslate2.Generator(
        str(converted), device="cpu", compute_type=setup.type, intra_threads=setup.threads
    )
    yield Engine(
        f"CTranslate2 {ctranslate2.__version__}",
        lambda work: _decode(generator, work, names, setup.slots),
    )


def _decode(generator: Any, work: Work, names: list[str], size: int) -> list[list[int]]:
    # Of a batch's prompts the length of the shortest is read at once, and the rest of the others
    # step by step: prompts of like length go together.
    order = sorted(range(len(work.prompts)), key=lambda row: len(work.prompts[row]))
    made: dict[int, list[int]] = {}
    for first in range(0, len(order), size):
        rows = order[first : first + size]
        prompts = [[names[i] for i in work.prompts[row]] for row in rows]
        shortest = len(prompts[0])
        steps = [
            len(prompt) - shortest + work.lengths[row]
            for prompt, row in zip(prompts, rows, strict=True)
        ]

        def ends(step: Any, steps: list[int] = steps) -> bool:
            return bool(step.step + 1 >= steps[step.batch_id])

        results = generator.generate_batch(
            prompts,
            max_length=max(steps),
            min_length=1,
            sampling_topk=0 if work.temperature else 1,
            sampling_topp=work.top_p if work.temperature else 1,
            sampling_temperature=work.temperature or 1,
            repetition_penalty=work.repetition_penalty,
            include_prompt_in_result=False,
            end_token=[],
            callback=ends,
        )
        made |= {row: result.sequences_ids[0] for row, result in zip(rows, results, strict=True)}
    return [made[row] for row in range(len(made))]


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
