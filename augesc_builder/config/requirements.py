"""Section ``requirements`` of a recipe: a section for each requirement that has thresholds."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, create_model

from augesc_builder.config.base import Bounds, Fraction, ModelText, Positive, Section
from augesc_builder.config.plugins import import_modules, plugin_modules


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


class Tokenizer(Section):
    """The tokenizer that session length is counted by."""

    name: ModelText
    revision: str | None = None


class Requirements(Section):
    """Thresholds of the requirements (section 4.3); all inclusive.

    ``tokenizer`` counts the tokens of every text, whoever wrote it; ``None``: those that its model
    counted, or, where it counted none, those of the recipe's backbone. ``counted`` says of which
    text: as it was generated, or as the conversation that is read from it.

    A requirement from outside the package has its section here too (:func:`add_requirement`), and
    judges only where the recipe gives it.
    """

    session_length: SessionLength
    total_utterances: Bounds
    continuous_utterances: ContinuousUtterances
    balanced_utterances: BalancedUtterances
    role_words: RoleWords
    seeker_utterance_length: UtteranceLength
    supporter_utterance_length: UtteranceLength
    tokenizer: Tokenizer | None = None
    counted: Literal["stripped", "generated"] = "generated"

    def section(self, name: str) -> Any:
        """Return the thresholds of a requirement; ``None`` where it has none here."""
        return getattr(self, name, None)

    def settings(self) -> dict[str, Any]:
        """Return the sections that are given, as plain JSON values."""
        return self.model_dump(mode="json", exclude_none=True)

    def __reduce__(self) -> tuple[Any, ...]:
        """Let a worker make it anew: the class may be one that only this process has."""
        return _restore, (self.settings(), plugin_modules())


_added: dict[str, type[Section]] = {}


def add_requirement(name: str, settings: type[Section]) -> None:
    """Let recipes give a section to a requirement from outside the package."""
    _added[name] = settings
    requirements_model.cache_clear()


@functools.cache
def requirements_model() -> type[Requirements]:
    """Return the section as it stands with what was added: those sections may be left out."""
    added: dict[str, Any] = {name: (kind | None, None) for name, kind in _added.items()}
    return create_model("Requirements", __base__=Requirements, **added) if added else Requirements


def _restore(values: Mapping[str, Any], modules: tuple[str, ...]) -> Requirements:
    import_modules(modules)
    return requirements_model().model_validate(values)
