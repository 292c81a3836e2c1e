"""Section ``queries`` of a recipe: which posts become triggers (section 4.2, appendix A)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from augesc_builder.config.base import Bounds, Fraction, ModelText, PathText, Positive, Section


class QuerySource(Section):
    """A corpus of triggers; ``path`` null means the bundled or downloaded one."""

    source: str
    path: PathText | None = None


class Lexicons(Section):
    """Word lists of the rules for Reddit posts; null means the shipped one."""

    serious_issue: PathText | None
    medication: PathText | None
    reddit_lingo: PathText | None


class RedditRules(Section):
    """Which Reddit posts are taken, and by which word lists they are judged (appendix A)."""

    subreddits: list[str] | PathText | None
    lexicons: Lexicons


class Sentiments(Section):
    """What a classifier's labels mean."""

    positive: list[str]
    negative: list[str]
    ambiguous: list[str]
    neutral: list[str]


class EmotionClassifier(Section):
    """A classifier that rejects posts of neutral or positive emotion."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    model: ModelText
    revision: str | None
    multi_label: bool
    threshold: Fraction
    labels: Sentiments


class ToxicityClassifier(Section):
    """A multi-label classifier of toxicity; any label at or above the threshold rejects."""

    model: ModelText
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
    names_and_places: ModelText | None
    near_duplicates: NearDuplicates | None
    reddit: RedditRules
    classifiers: Classifiers
