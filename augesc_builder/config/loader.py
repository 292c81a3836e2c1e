"""Settings in layers: YAML files that extend one another, overrides, and errors that name keys.

Recipes and training configs are both read this way. Unknown keys are refused with the nearest name.
"""

from __future__ import annotations

import copy
import difflib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from augesc_builder.config.paths import check_path
from augesc_builder.config.yaml_text import LimitError, load_yaml
from augesc_builder.errors import RecipeError

Settings = TypeVar("Settings", bound=BaseModel)


@dataclass(frozen=True)
class ConfigLoader:
    """A kind of settings file: what it is called, and where the shipped ones are.

    ``base`` is the shipped file that an incomplete one is advised to extend; ``example`` is an
    override that could be given. ``moved`` has the keys of earlier versions with today's, and
    ``renamed``, for a key of today, values that have another name now; ``added`` has the keys that
    they lacked, with what was done then: at the top where all of ``known_by`` tell a whole file, in
    a section where that stands; ``kinds`` has the type of a section that did not say it.
    """

    noun: str
    folder: Path
    base: str
    example: str
    moved: Mapping[str, str] = field(default_factory=dict)
    renamed: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    added: Mapping[str, Any] = field(default_factory=dict)
    known_by: tuple[str, ...] = ()
    kinds: Mapping[str, str] = field(default_factory=dict)

    def shipped(self) -> list[str]:
        """Name the shipped files."""
        return sorted(path.stem for path in self.folder.glob("*.yaml"))

    def read(self, name: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
        """Read a shipped file by name, or a file, and apply ``key.path=value`` overrides.

        Raises :class:`~augesc_builder.errors.RecipeError`.
        """
        values = self._read(name)
        for override in overrides:
            self._apply(values, override)
        return values

    def check(self, model: type[Settings], values: Mapping[str, Any]) -> Settings:
        """Check plain values against the keys, types and bounds of ``model``.

        Raises :class:`~augesc_builder.errors.RecipeError`, naming the keys.
        """
        try:
            return model.model_validate(values)
        except ValidationError as error:
            raise RecipeError(self.explain(model, error)) from None

    def modernize(self, values: Mapping[str, Any], *, told: bool = False) -> dict[str, Any]:
        """Return values with the keys and names of earlier versions as they are now.

        Each is logged in a line that names the new key, unless the user was ``told`` already.
        """
        modern = copy.deepcopy(dict(values))
        for old, new in self.moved.items():
            *sections, last = old.split(".")
            holder = _at(modern, sections)
            if holder is not None and last in holder:
                _put(modern, new, holder.pop(last))
                section = new.rpartition(".")[0]
                if section in self.kinds:
                    _put(modern, f"{section}.{KIND}", self.kinds[section])
                self._tell(told, f"{old} is now {new}")
        for key, names in self.renamed.items():
            *sections, last = key.split(".")
            holder = _at(modern, sections)
            if holder is not None and holder.get(last) in names:
                before, holder[last] = holder[last], names[holder[last]]
                self._tell(told, f"{key}: {before} is now {holder[last]}")
        whole = modern.keys() >= set(self.known_by)
        for key, value in self.added.items() if "extends" not in modern else ():
            *sections, last = key.split(".")
            holder = _at(modern, sections)
            if holder is not None and (sections or whole):  # of a run's folder, some sections stand
                holder.setdefault(last, copy.deepcopy(value))
        return modern

    def _tell(self, told: bool, what: str) -> None:
        if not told:
            logging.getLogger("augesc").warning("augesc: %s: %s", self.noun, what)

    def _read(self, name: str | Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
        path = self.find(name)
        if path in seen:
            raise RecipeError(f"{path}: the {self.noun} extends itself; remove one `extends:`")
        try:
            values = load_yaml(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())
            raise RecipeError(f"{path}: not a YAML file in UTF-8: {reason}") from None
        except OSError as error:
            raise RecipeError(f"{path}: cannot be read: {error.strerror}") from None
        if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
            raise RecipeError(
                f"{path}: expected keys and values, such as `extends: {self.base}`, found "
                f"{type(values).__name__}"
            )
        values = self.modernize(values)
        base = values.pop("extends", None)
        if base is None:
            return values
        if not isinstance(base, str):
            raise RecipeError(f"{path}: extends: expected a name or a file, found {base!r:.80}")
        beside = path.parent / self._checked(base)
        if beside.is_file():
            base = str(beside)
        return merge(self._read(base, (*seen, path)), values)

    def _checked(self, name: str | Path) -> str:
        try:
            return check_path(str(name))
        except ValueError as error:
            raise RecipeError(f"{self.noun}: {error}") from None

    def find(self, name: str | Path) -> Path:
        """Return the path of a shipped file by its name, or of the file given.

        Raises :class:`~augesc_builder.errors.RecipeError` where there is neither.
        """
        name = self._checked(name)
        shipped = self.folder / f"{name}.yaml"
        if str(name) in self.shipped():
            return shipped
        if Path(name).is_file():
            return Path(name).resolve()
        near = difflib.get_close_matches(str(name), self.shipped(), n=1)
        raise RecipeError(
            f"no {self.noun} {str(name)!r}: expected a YAML file or one of "
            f"{', '.join(self.shipped())}" + (f"; did you mean {near[0]!r}?" if near else "")
        )

    def _apply(self, values: dict[str, Any], override: str) -> None:
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            raise RecipeError(f"--set {override}: expected key.path=value, such as {self.example}")
        try:
            value = load_yaml(text)
        except LimitError as error:
            raise RecipeError(f"--set {override:.60}: {error.problem}") from None
        except yaml.YAMLError:
            value = text
        key = key.strip()
        if key in self.moved:
            self._tell(False, f"{key} is now {self.moved[key]}")
            key = self.moved[key]
        if isinstance(value, str) and value in self.renamed.get(key, ()):
            self._tell(False, f"{key}: {value} is now {self.renamed[key][value]}")
            value = self.renamed[key][value]
        *sections, last = key.split(".")
        target: Any = values
        for i, section in enumerate(sections):
            if isinstance(target, dict) and target.get(section) is None:
                target[section] = {}  # an optional section, such as finetune.lora
            target = target[_place_in(target, section, override)]
            if not isinstance(target, dict | list):
                raise RecipeError(f"--set {override}: {'.'.join(sections[: i + 1])} holds no keys")
        if last == KIND and isinstance(target, dict) and target.get(KIND) not in (None, value):
            target.clear()  # another kind of thing, with keys of its own
        target[_place_in(target, last, override)] = value

    def explain(self, model: type[BaseModel], error: ValidationError) -> str:
        """Write pydantic's findings as one line, with the nearest name for an unknown key."""
        found = error.errors()
        parts = []
        for item in found[:4]:
            path, holder = _locate(model, [str(part) for part in item["loc"]])
            key = ".".join(path)
            if item["type"] == "extra_forbidden":
                names = list(holder.model_fields)
                near = difflib.get_close_matches(path[-1], names, n=1, cutoff=0.5)
                hint = f"did you mean {'.'.join([*path[:-1], near[0]])}?" if near else ""
                parts.append(f"unknown key {key}; {hint or 'known here: ' + ', '.join(names)}")
            elif item["type"] == "missing":
                parts.append(
                    f"missing key {key}; give it, or begin the file with `extends: {self.base}`"
                )
            elif item["type"] == "union_tag_invalid":
                known = item["ctx"]["expected_tags"].replace("'", "")
                parts.append(f"{key}.{KIND}: expected one of {known}, found {item['ctx']['tag']!r}")
            elif item["type"] == "value_error":
                parts.append(f"{key}: {item['ctx']['error']}" if key else str(item["ctx"]["error"]))
            else:
                parts.append(f"{key or self.noun}: {item['msg']}, found {item['input']!r:.80}")
        if len(found) > len(parts):
            parts.append(f"and {len(found) - len(parts)} more")
        return f"{self.noun}: " + " | ".join(parts)


def merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay ``over`` on ``base``, section by section; anything but a section is replaced whole.

    A section of another ``type`` is another section, and replaced whole too.
    """
    if base.get(KIND) != over.get(KIND, base.get(KIND)):
        return dict(over)
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = (
            merge(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
        )
    return merged


def _place_in(holder: dict[str, Any] | list[Any], name: str, override: str) -> Any:
    """Return a key as its holder is asked by: of a list, the number of an entry, from 0.

    Raises :class:`~augesc_builder.errors.RecipeError` where a list has no such entry.
    """
    if isinstance(holder, dict):
        return name
    if name not in map(str, range(len(holder))):
        raise RecipeError(
            f"--set {override}: expected the number of one of {len(holder)} entries, from 0, "
            f"found {name!r:.80}"
        )
    return int(name)


def _at(values: Mapping[str, Any], sections: Sequence[str]) -> dict[str, Any] | None:
    """Return the section at a path; ``None`` where there is none."""
    found: Any = values
    for name in sections:
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else None


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for name in sections:
        values = values.setdefault(name, {})
    values[last] = value


KIND = "type"
"""The key by which a section says which of several kinds it is."""


def _locate(model: type[BaseModel], path: Sequence[str]) -> tuple[list[str], type[BaseModel]]:
    """Return the keys of an error's path, and the section that holds the last of them.

    pydantic puts the ``type`` of a section in front of its keys, where there are several types.
    """
    names: list[str] = []
    holder, field = model, None
    for part in path:
        if field is not None:
            holder = _section_in(field, part) or holder
            if field.discriminator is not None:
                field = None
                continue
        names.append(part)
        field = holder.model_fields.get(part)
    return names, holder


def _section_in(field: FieldInfo, part: str) -> type[BaseModel] | None:
    """Return the section that a field holds; of several types, the one called ``part``."""
    for option in (field.annotation, *getattr(field.annotation, "__args__", ())):
        if not (isinstance(option, type) and issubclass(option, BaseModel)):
            continue
        kind = option.model_fields.get(KIND)
        if field.discriminator is None or (kind and part in get_args(kind.annotation)):
            return option
    return None


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
