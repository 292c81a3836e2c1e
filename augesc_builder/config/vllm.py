"""Section ``generate.backend`` of a recipe whose texts vLLM makes."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from augesc_builder.config.base import AddressText, BackendSettings, ModelText, Positive


class VllmSettings(BackendSettings):
    """vLLM: in an environment of its own, or on a server at ``address``."""

    free: ClassVar[frozenset[str]] = frozenset(
        {
            *("address", "max_num_seqs", "tensor_parallel", "pipeline_parallel"),
            *("gpu_memory_utilization", "kv_cache_gib", "enforce_eager"),
        }
    )

    several: ClassVar[bool] = True
    obeys: ClassVar[frozenset[str]] = frozenset({"strategies"})

    type: Literal["vllm"] = "vllm"
    address: AddressText | None = None
    model: ModelText | None = None
    max_num_seqs: Positive | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    quantization: str | None = None
    tensor_parallel: Positive = 1
    pipeline_parallel: Positive = 1
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = None
    kv_cache_gib: Annotated[float, Field(gt=0)] | None = None
    enforce_eager: bool = False

    @property
    def gpus(self) -> int:
        """How many GPUs a worker has; 0: the server at ``address`` has them."""
        return self.tensor_parallel * self.pipeline_parallel if self.address is None else 0

    @model_validator(mode="after")
    def _the_server_has_its_own(self) -> VllmSettings:
        of_a_server = {"type", "address", "model", "max_num_seqs"}
        fields = VllmSettings.model_fields
        said = [name for name in fields if getattr(self, name) != fields[name].default]
        if self.address is None and self.model is not None:
            raise ValueError("model is a name on the server at address; set it to null")
        if self.address is not None and (others := [n for n in said if n not in of_a_server]):
            raise ValueError(
                f"{', '.join(others)} is for vllm serve to know, which runs at address; leave it "
                f"out here"
            )
        return self
