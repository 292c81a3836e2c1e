"""Kinds of machines: what the rounding of rows depends on, as workers note it.

Each kind is noted once, by the first worker of it; the mark of a shard names it by its digest. So
what kinds there are is known without reading the marks of all shards.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from augesc_builder.run.heartbeat import one_line
from augesc_builder.run.shards import KEPT, Shards

_LONGEST = 200
"""Characters of a name."""


def note_kind(shards: Shards, stage: str, facts: Mapping[str, Any]) -> str:
    """Note a kind of machine that makes shards of a stage; return its digest."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]
    shards.note(f"{_prefix(stage)}{digest}", facts)
    return digest


def kinds_of(shards: Shards, stage: str) -> dict[str, dict[str, Any]]:
    """Return the kinds of machines that made, or began, shards of a stage, by their digests."""
    start = _prefix(stage)
    names = [name for name in shards.marks.scan() if name.startswith(start)]
    return {name.removeprefix(start): shards.facts(name) for name in sorted(names)}


def names_of(kinds: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name each kind in a line: what it computes on, and what else tells it from the others."""
    keys = dict.fromkeys(key for kind in kinds for key in kind if key != "name")
    told = [key for key in keys if len({json.dumps(kind.get(key)) for kind in kinds}) > 1]
    return [_name(kind, told) for kind in kinds]


def _name(kind: Mapping[str, Any], keys: Sequence[str]) -> str:
    name = str(kind.get("name", "unknown"))
    more = ", ".join(f"{key} {_shown(kind.get(key))}" for key in keys)
    return one_line(f"{name} ({more})" if more else name, _LONGEST)


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def _prefix(stage: str) -> str:
    return f"{KEPT}kind-{stage}-"
