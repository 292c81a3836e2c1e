"""Whether the texts of runs were judged alike, and the command that judges them so."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from augesc_builder.config.loader import differences
from augesc_builder.errors import InputError
from augesc_builder.pipeline.compare.runs import Run
from augesc_builder.run import layout


def check_alike(runs: Sequence[Run]) -> None:
    """Refuse runs that were not judged alike, with the command that judges them so.

    Raises :class:`~augesc_builder.errors.InputError` where thresholds or counts of tokens differ.
    """
    reference, *others = runs
    for other in others:
        alike = reference.counter.counts_as(other.counter)
        changed = differences(reference.requirements, other.requirements, "requirements.")
        if changed:
            said = ", ".join(
                f"{key} ({theirs!r} in {other.name}, {ours!r} in {reference.name})"
                for key, (ours, theirs) in changed.items()
            )
            how = _judge(reference, other, changed) if alike else _count(reference, other)
            raise InputError(
                f"judged by other requirements than {reference.name}: {said}; judge it alike and "
                f"compare what that makes: {how}",
                other.folder,
            )
        if not alike:
            raise InputError(
                f"its session length is counted in other tokens ({other.counter.label}) than that "
                f"of {reference.name} ({reference.counter.label}); count all by one tokenizer and "
                f"compare what that makes: {_count(reference, other)}",
                other.folder,
            )


def _judge(reference: Run, other: Run, changed: Mapping[str, tuple[Any, Any]]) -> str:
    """Return the command that judges a run by the requirements of the reference."""
    if "requirements.counted" in changed:
        return _count(reference, other)
    if any(key.startswith("requirements.role_words") for key in changed):
        return _filter(other, reference, reference.tokenizer)
    sets = [f"--set={key}={json.dumps(ours)}" for key, (ours, _) in changed.items()]
    return _command("--reuse", str(other.folder), *sets, out=f"{other.name}-alike")


def _count(reference: Run, other: Run) -> str:
    """Return the command, or both, by which two runs are counted by one tokenizer."""
    if reference.counter.tokenizer is not None:
        return _filter(other, reference, reference.counter.tokenizer)
    named = other.counter.tokenizer or {"name": "NAME", "revision": None}
    return " and ".join(_filter(run, reference, named) for run in (reference, other))


def _filter(run: Run, reference: Run, tokenizer: Mapping[str, Any] | None) -> str:
    """Return the command that judges a run's generations as the reference, by a tokenizer."""
    recipe = reference.folder / layout.RECIPE
    if recipe.is_file():
        like = ["--recipe", str(recipe)]
        if tokenizer != reference.tokenizer:
            like.append(f"--set=requirements.tokenizer={json.dumps(tokenizer)}")
    else:
        like = [
            f"--set=requirements={json.dumps({**reference.requirements, 'tokenizer': tokenizer})}"
        ]
    return _command(str(run.generations), *like, out=f"{run.name}-alike")


def _command(*words: str, out: str) -> str:
    return f"`{shlex.join(['augesc', 'filter', *words, '--out', out])}`"
