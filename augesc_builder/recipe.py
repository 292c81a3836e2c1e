"""Recipes: every setting of a run, with its type and its bounds.

The values and their meaning stand in ``recipes/paper.yaml``, commented key by key; there are no
hidden defaults here. A recipe either gives every key or begins with ``extends: NAME`` and gives
only what differs. Unknown keys are refused with the nearest name.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from augesc_builder.errors import RecipeError

RECIPES = Path(__file__).parent / "recipes"

Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A group of keys; immutable, and no key is ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Bounds(Section):
    """An inclusive range."""

    min: int | float
    max: int | float

    @model_validator(mode="after")
    def _ordered(self) -> Bounds:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


class FromScratch(Section):
    """Shape of a randomly initialized GPT-J; its byte-level BPE is trained on the sessions."""

    vocab_size: Annotated[int, Field(ge=300)]
    n_embd: Positive
    n_layer: Positive
    n_head: Positive
    rotary_dim: Positive
    n_positions: Positive


class Backbone(Section):
    """The causal language model that is fine-tuned."""

    name: str | None
    revision: str | None
    from_scratch: FromScratch | None

    @model_validator(mode="after")
    def _one_origin(self) -> Backbone:
        if (self.name is None) == (self.from_scratch is None):
            raise ValueError("give either a name or from_scratch, and set the other to null")
        return self


class Prompt(Section):
    """What stands before the conversation."""

    instruction: Annotated[str, Field(min_length=1)]


class Lora(Section):
    """Low-rank adaptation by peft; the adapter is merged into the checkpoint at the end."""

    rank: Positive
    alpha: Positive
    dropout: Fraction
    target_modules: list[str] | None


class Finetune(Section):
    """Fine-tuning of the backbone (section 4.1, Training)."""

    sessions: str
    revision: str | None
    n_sessions: Positive
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
    mixed_precision: Literal["no", "bf16", "fp16"]
    save_state_every: NotNegative
    lora: Lora | None


class QuerySource(Section):
    """A corpus of triggers; ``path`` null means the bundled or downloaded one."""

    source: str
    path: str | None = None


class Queries(Section):
    """Which posts become triggers (section 4.2)."""

    sources: Annotated[list[QuerySource], Field(min_length=1)]
    n_words: Bounds
    negative_emotions: list[str]
    max_per_source: Positive | None


class Generate(Section):
    """Sampling of conversations (section 4.1, Inference)."""

    engine: Literal["simple"]
    samples_per_query: Positive | dict[str, Positive]
    max_tokens: Positive
    top_p: Annotated[float, Field(gt=0, le=1)]
    temperature: Annotated[float, Field(gt=0)]
    repetition_penalty: Annotated[float, Field(gt=0)]
    dtype: Literal["float32", "bfloat16", "float16"]
    batch_size: Positive
    shard_size: Positive

    def samples_for(self, source: str) -> int:
        """Say how many conversations each query of a source triggers."""
        if isinstance(self.samples_per_query, int):
            return self.samples_per_query
        return self.samples_per_query.get(source, 1)


class SessionLength(Section):
    """Threshold of ``session_length``."""

    max: Positive


class ContinuousUtterances(Section):
    """Threshold of ``continuous_utterances``."""

    max: Positive


class BalancedUtterances(Section):
    """Threshold of ``balanced_utterances``."""

    max_ratio: Annotated[float, Field(ge=1)]


class RoleWords(Section):
    """The words that no utterance contains."""

    words: list[str]


class UtteranceLength(Section):
    """Thresholds of ``seeker_utterance_length`` and ``supporter_utterance_length``."""

    mean: Bounds
    short: Positive
    max_short_share: Fraction
    max: Positive


class Requirements(Section):
    """Thresholds of the requirements (section 4.3); all inclusive."""

    session_length: SessionLength
    total_utterances: Bounds
    continuous_utterances: ContinuousUtterances
    balanced_utterances: BalancedUtterances
    role_words: RoleWords
    seeker_utterance_length: UtteranceLength
    supporter_utterance_length: UtteranceLength


class Recipe(Section):
    """Every setting of a run."""

    name: str
    about: str
    seed: NotNegative
    prompt: Prompt
    backbone: Backbone
    finetune: Finetune
    queries: Queries
    generate: Generate
    requirements: Requirements

    def settings(self) -> dict[str, Any]:
        """Give the recipe as plain JSON values."""
        return self.model_dump(mode="json")


def shipped_recipes() -> list[str]:
    """Name the recipes in the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_recipe(name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Load a shipped recipe by name, or a recipe file, and apply ``key.path=value`` overrides.

    Raises :class:`~augesc_builder.errors.RecipeError`.
    """
    values = _read(name)
    for override in overrides:
        _apply(values, override)
    return make_recipe(values)


def make_recipe(values: Mapping[str, Any]) -> Recipe:
    """Check plain values against the recipe's keys, types and bounds."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError(_explain(error)) from None


def dump_recipe(recipe: Recipe) -> str:
    """Write a recipe as YAML; reading it back gives the same recipe."""
    return yaml.safe_dump(recipe.settings(), sort_keys=False, allow_unicode=True, width=100)


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = ""
) -> dict[str, tuple[Any, Any]]:
    """Compare nested settings: ``{"a.b.c": (old, new)}`` for every key that differs."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in dict.fromkeys([*old, *new]):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found |= differences(before, after, f"{prefix}{key}.")
        elif before != after:
            found[f"{prefix}{key}"] = (before, after)
    return found


def _read(name: str | Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    path = _find(name)
    if path in seen:
        raise RecipeError(f"{path}: the recipe extends itself; remove one `extends:`")
    try:
        values = _Loader(path.read_text(encoding="utf-8")).get_single_data()
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise RecipeError(f"{path}: not a YAML file in UTF-8: {reason}") from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise RecipeError(
            f"{path}: expected keys and values, such as `extends: paper`, found "
            f"{type(values).__name__}"
        )
    base = values.pop("extends", None)
    if base is None:
        return values
    if (path.parent / str(base)).is_file():
        base = path.parent / str(base)
    return _merge(_read(base, (*seen, path)), values)


def _find(name: str | Path) -> Path:
    shipped = RECIPES / f"{name}.yaml"
    if str(name) in shipped_recipes():
        return shipped
    if Path(name).is_file():
        return Path(name).resolve()
    near = difflib.get_close_matches(str(name), shipped_recipes(), n=1)
    raise RecipeError(
        f"no recipe {str(name)!r}: expected a YAML file or one of {', '.join(shipped_recipes())}"
        + (f"; did you mean {near[0]!r}?" if near else "")
    )


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay ``over`` on ``base``, section by section; anything but a section is replaced whole."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = (
            _merge(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
        )
    return merged


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set {override}: expected key.path=value, such as generate.top_p=0.95")
    try:
        value = _Loader(text).get_single_data()
    except yaml.YAMLError:
        value = text
    *sections, last = key.strip().split(".")
    target = values
    for i, section in enumerate(sections):
        inner = target.setdefault(section, {})
        if inner is None:  # an optional section, such as finetune.lora
            inner = target[section] = {}
        if not isinstance(inner, dict):
            raise RecipeError(f"--set {override}: {'.'.join(sections[: i + 1])} holds no keys")
        target = inner
    target[last] = value


class _Loader(yaml.SafeLoader):
    """YAML, with numbers such as ``6e-5`` read as numbers (YAML 1.1 wants ``6.0e-5``)."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def _explain(error: ValidationError) -> str:
    """Write pydantic's findings as one line, with the nearest name for an unknown key."""
    found = error.errors()
    parts = []
    for item in found[:4]:
        path = [str(part) for part in item["loc"]]
        key = ".".join(path)
        if item["type"] == "extra_forbidden":
            names = _keys_at(path[:-1])
            near = difflib.get_close_matches(path[-1], names, n=1, cutoff=0.5)
            hint = f"did you mean {'.'.join([*path[:-1], near[0]])}?" if near else ""
            parts.append(f"unknown key {key}; {hint or 'known here: ' + ', '.join(names)}")
        elif item["type"] == "missing":
            parts.append(f"missing key {key}; give it, or begin the file with `extends: paper`")
        elif item["type"] == "value_error":
            parts.append(f"{key}: {item['ctx']['error']}")
        else:
            parts.append(f"{key or 'recipe'}: {item['msg']}, found {item['input']!r:.80}")
    if len(found) > len(parts):
        parts.append(f"and {len(found) - len(parts)} more")
    return "recipe: " + " | ".join(parts)


def _keys_at(path: Sequence[str]) -> list[str]:
    """List the keys that the recipe knows below ``path``."""
    section: type[BaseModel] = Recipe
    for part in path:
        field = section.model_fields.get(part)
        inner = field and next(
            (
                kind
                for kind in (field.annotation, *getattr(field.annotation, "__args__", ()))
                if isinstance(kind, type) and issubclass(kind, BaseModel)
            ),
            None,
        )
        if inner:
            section = inner
    return list(section.model_fields)
