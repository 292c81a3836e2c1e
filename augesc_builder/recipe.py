"""Recipes: every setting of a run, read from files and checked.

The values and their meaning stand in ``recipes/paper.yaml``, commented key by key; there are no
hidden defaults here. A recipe either gives every key or begins with ``extends: NAME`` and gives
only what differs. Unknown keys are refused with the nearest name.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from augesc_builder.errors import RecipeError
from augesc_builder.settings import Recipe

RECIPES = Path(__file__).parent / "recipes"


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
