"""Backend ``vllm``: vLLM decodes, in an environment of its own or on a server."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from augesc_builder.config.recipe import Recipe
from augesc_builder.config.vllm import VllmSettings
from augesc_builder.errors import RecipeError
from augesc_builder.pipeline.generate.backends.base import Backend, OnStep
from augesc_builder.pipeline.generate.tasks import Row, Task

if TYPE_CHECKING:
    from augesc_builder.pipeline.generate.vllm.process import VllmProcess
    from augesc_builder.pipeline.generate.vllm.server import VllmServer

_HOTTEST = 2.0


class VllmBackend(Backend):
    """Decodes with the fine-tuned checkpoint, its adapter merged if it had one.

    Prompts, ends and the distribution that tokens are drawn from are those of our own engine; the
    draws are not, and vLLM may draw others another time.
    """

    Settings = VllmSettings
    about = "vLLM, in an environment of its own or on a server"
    reproducible = False
    _is_loaded = False
    _engine: VllmProcess | VllmServer

    @classmethod
    def check(cls, recipe: Recipe) -> None:
        """Refuse what vLLM does not sample as we do, and a missing vLLM."""
        from augesc_builder.pipeline.generate.vllm.process import interpreter

        generate = recipe.generate
        if not generate.greedy and generate.temperature > _HOTTEST:
            raise RecipeError(
                f"generate.temperature is {generate.temperature}, and vLLM takes up to "
                f"{_HOTTEST:.0f}; lower it, or set generate.backend.type=local"
            )
        if not generate.greedy and generate.min_p and generate.top_p < 1:
            raise RecipeError(
                f"generate.min_p is {generate.min_p} and generate.top_p {generate.top_p}: vLLM "
                f"takes min_p first, and other backends top_p; set generate.min_p=0 or "
                f"generate.top_p=1"
            )
        if settings_of(recipe).address is None:
            interpreter()

    def prepare(self, known: Mapping[str, Any], n_tasks: int, n_shards: int) -> Mapping[str, Any]:
        """Load the model. A resumed run keeps the type of the weights that it was begun with."""
        dtype = known.get("dtype")
        if not self._is_loaded or dtype not in {None, self._engine.facts.get("dtype")}:
            self.close()  # of several workers, the first chose another type
            self._engine = self._start(dtype)
            self._is_loaded = True
        facts = self._engine.facts
        begun = known.get("vllm", facts["vllm"])
        if begun != facts["vllm"]:
            warnings.warn(
                f"this run was begun with vLLM {begun}, and here is {facts['vllm']}; conversations "
                f"that are still missing are made by this one",
                RuntimeWarning,
                stacklevel=2,
            )
        return {**facts, **known}

    def stream(self, tasks: Iterable[Task], on_step: OnStep) -> Iterator[tuple[Task, Row]]:
        """Yield rows as they end; tasks of all shards are with vLLM in one stream."""
        from augesc_builder.pipeline.generate.generator import generation_rows

        return generation_rows(
            self._engine,
            self._form,
            self.recipe.seed,
            tasks,
            lambda ended, made: on_step(ended, made, None),
        )

    def kind(self) -> Mapping[str, Any]:
        """Return which vLLM makes the texts, and the type of its weights."""
        facts = self._engine.facts
        return {"name": f"vLLM {facts['vllm']}"} | {k: v for k, v in facts.items() if k == "dtype"}

    def close(self) -> None:
        """End vLLM's process, or what asks a server."""
        if self._is_loaded:
            self._is_loaded = False
            self._engine.close()

    def _start(self, dtype: str | None) -> VllmProcess | VllmServer:
        from augesc_builder.models import causal_lm
        from augesc_builder.pipeline.generate.generator import check_positions, sampling_of
        from augesc_builder.pipeline.generate.vllm.process import VllmProcess, interpreter
        from augesc_builder.pipeline.generate.vllm.server import VllmServer
        from augesc_builder.text.prompt_form import prompt_form

        settings, sampling = settings_of(self.recipe), sampling_of(self.recipe)
        config = causal_lm.config_of(None, self.checkpoint, None)
        check_positions(config, sampling.max_tokens)
        tokenizer = causal_lm.load_tokenizer(self.checkpoint, config)
        self._form = prompt_form(self.recipe.prompt, tokenizer, self.checkpoint)
        if settings.address is not None:
            served = settings.address, settings.model, settings.max_num_seqs
            return VllmServer(*served, sampling, self._form.end)
        how = self._arguments(settings, dtype or settings.dtype)
        return VllmProcess(interpreter(), how, sampling, self._form.end)

    def _arguments(self, settings: VllmSettings, dtype: str) -> dict[str, Any]:
        """Return what ``vllm.LLM`` is given."""
        how = {
            "model": str(self.checkpoint.absolute()),
            "load_format": "safetensors",  # never a pickle
            "skip_tokenizer_init": True,
            "generation_config": "vllm",  # nothing but what the recipe says
            "disable_log_stats": False,
            "seed": 0,
            "max_model_len": self.recipe.generate.max_tokens,
            "dtype": dtype,
            "tensor_parallel_size": settings.tensor_parallel,
            "pipeline_parallel_size": settings.pipeline_parallel,
            "enforce_eager": settings.enforce_eager,
        }
        given = {
            "quantization": settings.quantization,
            "max_num_seqs": settings.max_num_seqs,
            "gpu_memory_utilization": settings.gpu_memory_utilization,
            "kv_cache_memory_bytes": settings.kv_cache_gib and int(settings.kv_cache_gib * 2**30),
        }
        return how | {key: value for key, value in given.items() if value is not None}


def settings_of(recipe: Recipe) -> VllmSettings:
    """Return the section of the backend ``vllm``.

    Raises ``TypeError`` where the recipe chooses another backend.
    """
    settings = recipe.generate.backend
    if not isinstance(settings, VllmSettings):
        raise TypeError(f"the backend is {settings.type}, not vllm")
    return settings
