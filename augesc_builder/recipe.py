"""Recipes: every setting of a run, read from files and checked.

The values and their meaning stand in ``recipes/paper.yaml``, commented key by key; there are no
hidden defaults here. A recipe either gives every key or begins with ``extends: NAME`` and gives
only what differs. Unknown keys are refused with the nearest name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from augesc_builder.layered import Layers
from augesc_builder.settings import Recipe

RECIPES = Path(__file__).parent / "recipes"


_LAYERS = Layers("recipe", RECIPES, base="paper", example="generate.top_p=0.95")


def shipped_recipes() -> list[str]:
    """Name the recipes in the package."""
    return _LAYERS.shipped()


def load_recipe(name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Load a shipped recipe by name, or a recipe file, and apply ``key.path=value`` overrides.

    Raises :class:`~augesc_builder.errors.RecipeError`.
    """
    return make_recipe(_LAYERS.read(name, overrides))


def make_recipe(values: Mapping[str, Any]) -> Recipe:
    """Check plain values against the recipe's keys, types and bounds."""
    return _LAYERS.check(Recipe, values)


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
