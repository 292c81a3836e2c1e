"""Recipes: every setting of a run, read from files and checked.

What a key means, its unit and its source in the paper stand beside it in ``recipes/paper.yaml``;
there are no hidden defaults here. A recipe either gives every key or begins with ``extends: NAME``
and gives only what differs. Unknown keys are refused with the nearest name.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, create_model, model_validator

from augesc_builder.config.backbone import Backbone
from augesc_builder.config.base import (
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
from augesc_builder.config.executor import EXECUTOR, Executor
from augesc_builder.config.generate import (
    BACKGROUND,
    MOVED,
    RENAMED,
    Generate,
    generate_model,
)
from augesc_builder.config.loader import ConfigLoader
from augesc_builder.config.plugins import import_modules, load_plugins, plugin_modules
from augesc_builder.config.published import ON_THE_HUB
from augesc_builder.config.quality import QUALITY, Quality
from augesc_builder.config.queries import Queries
from augesc_builder.config.requirements import Requirements, requirements_model
from augesc_builder.config.select import Select
from augesc_builder.config.statistics import STATISTICS, Statistics

_PERSONAS_ON_THE_HUB = re.compile(rf"hf://datasets/{ON_THE_HUB.pattern}@[0-9a-f]{{40}}")


class Prompt(Section):
    """How a conversation is written for the model, and what stands before it."""

    form: Literal["paper", "chat"]
    instruction: Annotated[str, Field(min_length=1)]
    background: bool = False
    personas: PathText | None = None
    strategies: bool = False

    @model_validator(mode="after")
    def _personas_are_in_backgrounds(self) -> Prompt:
        if self.personas is None:
            return self
        if not self.background:
            raise ValueError("personas begin backgrounds; set background to true, or it to null")
        if not _PERSONAS_ON_THE_HUB.fullmatch(self.personas) and "://" in self.personas:
            raise ValueError(
                f"personas: expected a file, or hf://datasets/USER/NAME@COMMIT with a commit of 40 "
                f"hex digits, found {self.personas[:120]!r}"
            )
        return self


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


_FREE = {"card", "executor"}
"""Sections that may change while a run goes on."""


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
    quality: Quality
    select: Select | None
    statistics: Statistics
    card: Card
    executor: Executor

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

    @model_validator(mode="after")
    def _the_backend_obeys_the_prompt(self) -> Recipe:
        backend = self.generate.backend
        for name in ("background", "strategies"):
            if getattr(self.prompt, name) and name not in backend.obeys:
                raise ValueError(
                    f"prompt.{name} is for texts of the fine-tuned model, and the backend "
                    f"{backend.type} cannot do it; set it to false, or generate.backend.type to "
                    f"local"
                )
        return self

    @model_validator(mode="after")
    def _can_be_shared(self) -> Recipe:
        self.executor.check(self.generate)
        return self

    @model_validator(mode="after")
    def _bad_turns_can_be_told_and_drawn_again(self) -> Recipe:
        resample, backend = self.generate.resample, self.generate.backend
        if resample is None:
            return self
        if "resample" not in backend.obeys:
            raise ValueError(
                f"generate.resample continues a text from the turn before, and the backend "
                f"{backend.type} cannot do it; set it to null, or generate.backend.type to local"
            )
        self._are_measured("generate.resample", resample.measures)
        if getattr(backend, "tensor_parallel", 1) > 1 and (
            by := sorted(resample.measures & set(self.quality.models()))
        ):
            raise ValueError(
                f"generate.resample goes by {', '.join(by)} with a model, of which processes that "
                f"share one (generate.backend.tensor_parallel) may round differently; leave out "
                f"one of both"
            )
        return self

    @model_validator(mode="after")
    def _has_a_choice(self) -> Recipe:
        if self.select is None:
            return self
        self._are_measured("select", self.select.measures)
        per_query = self.select.per_query
        samples = self.generate.samples_per_query
        most = samples if isinstance(samples, int) else max(samples.values(), default=1)
        if per_query is not None and most <= per_query:
            raise ValueError(
                f"select.per_query: the best {per_query} of generate.samples_per_query "
                f"{samples} is no choice; give more samples, or set select to null"
            )
        return self

    def _are_measured(self, what: str, wanted: Collection[str]) -> None:
        for name in sorted(set(wanted) - set(self.quality.measures)):
            raise ValueError(
                f"{what} goes by {name}, and quality.measures has "
                f"{', '.join(self.quality.measures) or 'none'}; add it there"
            )

    def settings(self) -> dict[str, Any]:
        """Return the recipe as plain JSON values."""
        return {**self.model_dump(mode="json"), "requirements": self.requirements.settings()}

    def fixed_settings(self) -> dict[str, Any]:
        """Return the settings that a run keeps to its end.

        Those are all but the backend's free keys, the form of the card, which is written anew, and
        who makes the shards, which no row depends on.
        How many sessions are kept is free too, and so is the budget for them; not whether so many
        are, and of what.
        """
        found = self.settings()
        for name in _FREE:
            del found[name]
        keep = self.generate.keep
        found["generate"]["keep_budget"] = None
        found["generate"]["keep"] = keep and (sorted(keep) if isinstance(keep, dict) else "so many")
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
        "statistics.tested_on": STATISTICS["tested_on"],
        "reading": READING,
        "executor": EXECUTOR,
        "quality": QUALITY,
        "prompt.form": "paper",
        "prompt.background": False,
        "prompt.personas": None,
        "prompt.strategies": False,
        "generate.background": BACKGROUND,
        "generate.resample": None,
        "finetune.held_out": 0,
        "requirements.counted": "generated",
        "select": None,
        "generate.keep": None,
        "generate.keep_budget": None,
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

    Sections that a run is free of are not among those it keeps.
    """
    found = _LOADER.modernize(settings)
    for name in _FREE - settings.keys():
        found.pop(name, None)
    return found


def _restore(values: Mapping[str, Any], modules: tuple[str, ...]) -> Recipe:
    import_modules(modules)
    return make_recipe(values)
