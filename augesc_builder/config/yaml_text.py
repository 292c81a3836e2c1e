"""YAML as settings are written in: no key twice, no dates, and nothing that takes all memory."""

from __future__ import annotations

import copy
import functools
import re
from typing import Any

import yaml

_MOST_VALUES = 1_000_000
"""Aliases counted each time: nine lines of them can stand for a thousand million values."""

_DEEPEST = 50
"""Values in each other."""

_LONGEST_NUMBER = 40
"""Characters of a whole number, more than any of 64 bits has."""

_MERGE = "<<"
_SURROGATE = re.compile(r"[\ud800-\udfff]")


class LimitError(yaml.YAMLError):
    """Text that is YAML, and yet not to be read; ``problem`` says why."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(problem)


def load_yaml(text: str) -> Any:
    """Read YAML with its safe types.

    Raises ``yaml.YAMLError`` where it is not YAML, and of its kinds :class:`LimitError` for a
    repeated key, a value that is not what its tag says, and for values too long, too deep or too
    many.
    """
    try:
        return copy.deepcopy(_read(text))
    except RecursionError:
        raise LimitError("its values are nested too deep; write them flatter") from None
    except (ValueError, LookupError, AttributeError, TypeError, ArithmeticError) as error:
        # PyYAML converts a scalar by its tag and does not look whether it can: `!!bool 3`.
        raise LimitError(f"a value is not what its tag says ({error})") from None


@functools.lru_cache(maxsize=16)
def _read(text: str) -> Any:
    # Most recipes extend the same few files, and a run reads its own again and again.
    return _Loader(text).get_single_data()


def lines_of(text: str) -> dict[tuple[str, ...], int]:
    """Return the line, from 1, in which each value of a YAML text begins, by its path.

    Entries of lists are numbered from 0. The text is one that :func:`load_yaml` has read.
    """
    lines: dict[tuple[str, ...], int] = {}

    def walk(node: Any, path: tuple[str, ...]) -> None:
        lines.setdefault(path, _line(node))
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                place = (*path, str(key.value))
                lines[place] = _line(key)
                walk(value, place)
        elif isinstance(node, yaml.SequenceNode):
            for i, value in enumerate(node.value):
                walk(value, (*path, str(i)))

    walk(_Loader(text).get_single_node(), ())
    return lines


class _Loader(yaml.SafeLoader):
    """YAML, with numbers such as ``6e-5`` read as numbers (YAML 1.1 wants ``6.0e-5``)."""

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is not None:
            _check(node, {}, ())
        return node


def _check(node: Any, known: dict[int, int], above: tuple[int, ...]) -> int:
    """Return how many values a node stands for, once nothing in it is beyond a limit."""
    if id(node) in above:
        raise LimitError(f"the value in line {_line(node)} holds itself")
    if len(above) > _DEEPEST:
        raise LimitError(f"more than {_DEEPEST} values in each other, in line {_line(node)}")
    if id(node) not in known:
        if isinstance(node, yaml.ScalarNode):
            _check_scalar(node)
            parts = []
        elif isinstance(node, yaml.MappingNode):
            _check_keys(node)
            parts = [part for pair in node.value for part in pair]
        else:
            parts = node.value
        known[id(node)] = 1 + sum(_check(part, known, (*above, id(node))) for part in parts)
    if known[id(node)] > _MOST_VALUES:
        raise LimitError(f"more than {_MOST_VALUES:,} values, aliases counted each time")
    return known[id(node)]


def _check_scalar(node: Any) -> None:
    if node.tag.endswith(":int") and len(node.value) > _LONGEST_NUMBER:
        raise LimitError(
            f"a number of {len(node.value):,} characters in line {_line(node)}; no setting is so "
            f"large"
        )
    if _SURROGATE.search(node.value):
        raise LimitError(f"half of a surrogate pair in line {_line(node)}, which is no character")


def _check_keys(node: Any) -> None:
    """Refuse a key that is given twice: of the two values, the first would be lost silently."""
    first: dict[str, int] = {}
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value != _MERGE:
            if key.value in first:
                raise LimitError(
                    f"the key {key.value:.60} stands in line {first[key.value]} and again in line "
                    f"{_line(key)}; remove one"
                )
            first[key.value] = _line(key)


def _line(node: Any) -> int:
    return int(node.start_mark.line) + 1


# A date is text: no setting is one, and 2020-13-45 would be none.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if not tag.endswith(":timestamp")]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(?:\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)
