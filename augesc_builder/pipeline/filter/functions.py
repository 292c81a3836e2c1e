"""The requirements as functions for ``Dataset.map`` and ``Dataset.filter``, streamed or not.

::

    measured = ds.map(augesc.measure, batched=True)
    kept = measured.filter(augesc.meets_requirements)

The filter stage measures by the same function. All are picklable and found by their module, so that
the cache of ``datasets`` knows them again.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augesc_builder.config.loader import merge
from augesc_builder.config.plugins import load_plugins
from augesc_builder.config.recipe import Recipe, load_recipe, make_recipe
from augesc_builder.config.requirements import Requirements
from augesc_builder.errors import InputError, RecipeError
from augesc_builder.pipeline.filter.requirements import REQUIREMENTS, Batch, active

Thresholds = Mapping[str, Any] | Requirements | Recipe | None
"""Thresholds of the requirements: a recipe's, or sections that differ from the paper's."""

_WHERE = Path("the dataset")
"""Stands where errors name a file."""


def measure(batch: Batch, requirements: Thresholds = None) -> dict[str, list[Any]]:
    """Return the numbers behind every requirement, for ``Dataset.map(..., batched=True)``.

    A row has ``messages`` (utterances with a ``role``, ``user`` or ``assistant``, and ``content``),
    or a ``text`` of lines ``Human:`` and ``AI:``, behind its ``query`` where there is one. Tokens
    are taken from ``n_tokens`` (of a text with ``n_prompt_tokens``), and null where those are
    missing. The columns are those of the table ``measured``, but for its keys.

    Raises :class:`~augesc_builder.errors.InputError` for rows of another form.
    """
    # Here, because `import augesc` must not wait for NLTK.
    from augesc_builder.pipeline.filter.measure import conversations, measure_conversations
    from augesc_builder.sources.sessions import check_messages

    limits = limits_of(requirements)
    n_rows = len(next(iter(batch.values()), ()))
    nothing: list[Any] = [None] * n_rows
    if "messages" in batch:
        found = [check_messages(m, _WHERE, row) for row, m in enumerate(batch["messages"], 1)]
        prompts = batch.get("n_prompt_tokens", [0] * n_rows)
        prompts = [n or 0 for n in prompts]  # a session counts its prompt too
        batch = {"messages": found, "n_tokens": batch.get("n_tokens", nothing)}
    elif "text" in batch:
        for row, text in enumerate(batch["text"], 1):
            if not isinstance(text, str):
                raise InputError(f"column text: expected a text, found {text!r:.60}", _WHERE, row)
        prompts = batch.get("n_prompt_tokens", nothing)
        batch = {
            "query": batch.get("query", nothing),
            "text": batch["text"],
            "n_tokens": batch.get("n_tokens", nothing),
        }
    else:
        names = ", ".join(batch) or "none"
        raise InputError(f"expected a column messages or text, found {names}", _WHERE)
    tokens = [
        None if prompt is None or n is None else prompt + n
        for prompt, n in zip(prompts, batch["n_tokens"], strict=True)
    ]
    return measure_conversations(conversations(batch), tokens, limits)


def meets_requirements(row: Mapping[str, Any], requirements: Thresholds = None) -> Any:
    """Whether a measured row meets every requirement, for ``Dataset.filter``.

    With ``batched=True`` a list is returned, a value a row. What could not be measured is not held
    against a row, as ``session_length`` where nothing counted tokens.
    """
    return _judge(row, None, requirements)


@dataclass(frozen=True)
class Meets:
    """Whether a measured row meets the requirements of these names."""

    names: tuple[str, ...]

    def __call__(self, row: Mapping[str, Any], requirements: Thresholds = None) -> Any:
        """Judge a row, or a batch of rows, as :func:`meets_requirements` does."""
        return _judge(row, self.names, requirements)


def meets(*names: str) -> Meets:
    """Return a function for ``Dataset.filter`` that asks these requirements alone.

    Raises ``ValueError`` for a name that no requirement has.
    """
    load_plugins()
    for name in names:
        if name not in REQUIREMENTS:
            raise ValueError(f"no requirement {name!r}; expected one of {', '.join(REQUIREMENTS)}")
    return Meets(names)


def limits_of(requirements: Thresholds) -> Requirements:
    """Return thresholds: the paper's, with what ``requirements`` gives in their place.

    Raises :class:`~augesc_builder.errors.RecipeError` for an unknown key and a wrong value.
    """
    if isinstance(requirements, Recipe):
        return requirements.requirements
    if isinstance(requirements, Requirements):
        return requirements
    return _limits(json.dumps(requirements or {}, sort_keys=True))


@functools.lru_cache(maxsize=64)
def _limits(changes: str) -> Requirements:
    recipe = load_recipe("paper")
    changed = merge(recipe.requirements.settings(), json.loads(changes))
    return make_recipe({**recipe.settings(), "requirements": changed}).requirements


def _judge(row: Mapping[str, Any], names: Sequence[str] | None, requirements: Thresholds) -> Any:
    if "n_utterances" not in row:
        found = ", ".join(row) or "none"
        raise InputError(
            f"no column n_utterances, found {found}; first ds.map(augesc.measure, batched=True)",
            _WHERE,
        )
    batched = isinstance(row["n_utterances"], list)
    batch = row if batched else {name: [value] for name, value in row.items()}
    limits = limits_of(requirements)
    judging = {requirement.name: requirement for requirement in active(limits)}
    if missing := [name for name in names or () if name not in judging]:
        raise RecipeError(
            f"requirements.{missing[0]} is null, so that nothing is judged by it; give its "
            f"section, as requirements={{{missing[0]!r}: {{...}}}}"
        )
    verdicts = [
        requirement.test(batch, limits.section(name))
        for name, requirement in judging.items()
        if names is None or name in names
    ]
    met = [False not in of_row for of_row in zip(*verdicts, strict=True)]
    return met if batched else met[0]
