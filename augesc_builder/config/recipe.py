"""The sections of a recipe: every key with its type and its bounds.

What a key means, its unit and its source in the paper stand beside it in ``recipes/paper.yaml``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, model_validator

from augesc_builder.config.base import Bounds, Fraction, NotNegative, Positive, Section
from augesc_builder.config.loader import ConfigLoader


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

    name: str | None
    revision: str | None
    from_scratch: FromScratch | None

    @model_validator(mode="after")
    def _one_origin(self) -> Backbone:
        if (self.name is None) == (self.from_scratch is None):
            raise ValueError("give either a name or from_scratch, and set the other to null")
        return self

    @property
    def label(self) -> str:
        """Name the model as tables do."""
        if self.name is None:
            return "tiny GPT-J"
        name = self.name.rstrip("/").rpartition("/")[2]
        return "GPT-J" if name.lower() == "gpt-j-6b" else name


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


class Lexicons(Section):
    """Word lists of the rules for Reddit posts; null means the shipped one."""

    serious_issue: str | None
    medication: str | None
    reddit_lingo: str | None


class RedditRules(Section):
    """Which Reddit posts are taken, and by which word lists they are judged (appendix A)."""

    subreddits: list[str] | str | None
    lexicons: Lexicons


class Sentiments(Section):
    """What a classifier's labels mean."""

    positive: list[str]
    negative: list[str]
    ambiguous: list[str]
    neutral: list[str]


class EmotionClassifier(Section):
    """A classifier that puts out posts of neutral or positive emotion."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    model: str
    revision: str | None
    multi_label: bool
    threshold: Fraction
    labels: Sentiments


class ToxicityClassifier(Section):
    """A multi-label classifier of toxicity; any label at or above the threshold puts out."""

    model: str
    revision: str | None
    threshold: Fraction


class Classifiers(Section):
    """Models that judge Reddit posts (appendix A)."""

    enabled: bool
    batch_size: Positive
    emotions: list[EmotionClassifier]
    toxicity: ToxicityClassifier | None


class NearDuplicates(Section):
    """MinHash over word shingles of all queries so far."""

    threshold: Annotated[float, Field(gt=0, le=1)]
    shingle: Positive
    permutations: Positive


class Queries(Section):
    """Which posts become triggers (section 4.2)."""

    sources: Annotated[list[QuerySource], Field(min_length=1)]
    strict: bool
    n_words: Bounds
    negative_emotions: list[str]
    max_per_source: Positive | None
    names_and_places: str | None
    near_duplicates: NearDuplicates | None
    reddit: RedditRules
    classifiers: Classifiers


class Generate(Section):
    """Sampling of conversations (section 4.1, Inference)."""

    engine: Literal["slots", "simple"]
    samples_per_query: Positive | dict[str, Positive]
    max_tokens: Positive
    top_p: Annotated[float, Field(gt=0, le=1)]
    temperature: Annotated[float, Field(gt=0)]
    repetition_penalty: Annotated[float, Field(gt=0)]
    top_k: Positive | None
    min_p: Fraction
    greedy: bool
    dtype: Literal["float32", "bfloat16", "float16"]
    bfloat16_head: bool
    device_map: str | None
    tensor_parallel: Positive
    slots: Positive | None
    workers: Positive | None
    batch_size: Positive
    shard_size: Positive

    @model_validator(mode="after")
    def _one_way_to_share(self) -> Generate:
        if self.tensor_parallel > 1 and (
            self.device_map is not None or self.workers is not None or self.engine != "slots"
        ):
            raise ValueError(
                f"tensor_parallel {self.tensor_parallel} goes with engine: slots, device_map: null "
                f"and workers: null only"
            )
        return self

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


class SafetyClassifier(Section):
    """A multi-label classifier whose labels raise flags at or above the threshold."""

    model: str
    revision: str | None
    threshold: Fraction
    labels: dict[str, str]


class Safety(Section):
    """What scans the sessions besides the word lists."""

    classifier: SafetyClassifier | None


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
    safety: Safety

    def settings(self) -> dict[str, Any]:
        """Give the recipe as plain JSON values."""
        return self.model_dump(mode="json")


RECIPES = Path(__file__).parents[1] / "recipes"


_LOADER = ConfigLoader("recipe", RECIPES, base="paper", example="generate.top_p=0.95")


def shipped_recipes() -> list[str]:
    """Name the recipes in the package."""
    return _LOADER.shipped()


def load_recipe(name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Load a shipped recipe by name, or a recipe file, and apply ``key.path=value`` overrides.

    Raises :class:`~augesc_builder.errors.RecipeError`.
    """
    return make_recipe(_LOADER.read(name, overrides))


def make_recipe(values: Mapping[str, Any]) -> Recipe:
    """Check plain values against the recipe's keys, types and bounds."""
    return _LOADER.check(Recipe, values)


def dump_recipe(recipe: Recipe) -> str:
    """Write a recipe as YAML; reading it back gives the same recipe."""
    return yaml.safe_dump(recipe.settings(), sort_keys=False, allow_unicode=True, width=100)
