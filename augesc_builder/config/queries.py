"""Section ``queries`` of a recipe: which posts become triggers (section 4.2, appendix A)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from augesc_builder.config.base import Bounds, Fraction, Positive, Section
from augesc_builder.config.published import FILE, MODEL


class QuerySource(Section):
    """A corpus of triggers; ``path`` null means the bundled or downloaded one."""

    source: str
    path: Annotated[str | None, FILE] = None


class Lexicons(Section):
    """Word lists of the rules for Reddit posts; null means the shipped one."""

    serious_issue: Annotated[str | None, FILE]
    medication: Annotated[str | None, FILE]
    reddit_lingo: Annotated[str | None, FILE]


class RedditRules(Section):
    """Which Reddit posts are taken, and by which word lists they are judged (appendix A)."""

    subreddits: Annotated[list[str] | str | None, FILE]
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
    model: Annotated[str, MODEL]
    revision: str | None
    multi_label: bool
    threshold: Fraction
    labels: Sentiments


class ToxicityClassifier(Section):
    """A multi-label classifier of toxicity; any label at or above the threshold rejects."""

    model: Annotated[str, MODEL]
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
    names_and_places: Annotated[str | None, MODEL]
    near_duplicates: NearDuplicates | None
    reddit: RedditRules
    classifiers: Classifiers
