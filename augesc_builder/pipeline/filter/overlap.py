"""What a text shares with sessions that models are tested on, for ``requirements.test_overlap``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from augesc_builder.config.recipe import Recipe
from augesc_builder.config.requirements import Overlap, Requirements
from augesc_builder.run.draft import Noted
from augesc_builder.text.prompts import Message

if TYPE_CHECKING:
    from augesc_builder.metrics.overlap.counts import Known


def measures(limits: Overlap) -> Mapping[str, Callable[[Sequence[Message]], float]]:
    """Return the functions that measure a conversation against the sessions of a section.

    - ``test_similarity``: the highest Jaccard similarity with one of them
    - ``test_span``: the longest span of words that stands in one of them
    """
    return {
        "test_similarity": functools.partial(_similarity, limits.sessions),
        "test_span": functools.partial(_span, limits.sessions),
    }


def with_tests_at_hand(folder: Noted, recipe: Recipe) -> Requirements:
    """Return the requirements with the test sessions that a source has as a file on this disk.

    The commit that they are of is the same for the whole run. Raises
    :class:`~augesc_builder.errors.InputError` for a source that has none.
    """
    from augesc_builder.sources.registry import find_source
    from augesc_builder.sources.sessions import files_tested_on

    limits, asked = recipe.requirements, recipe.requirements.test_overlap
    if asked is None or find_source(asked.sessions) is None:
        return limits
    files, commit = files_tested_on(asked.sessions, commit_of_tests(folder, recipe, asked.sessions))
    if commit is not None:
        folder.add(revisions={asked.sessions: commit})
    here = asked.model_copy(update={"sessions": str(files[0])})
    return limits.model_copy(update={"test_overlap": here})


def commit_of_tests(folder: Noted, recipe: Recipe, source: str) -> str | None:
    """Return the commit of a source that a run has read test or training sessions at, if any."""
    known = folder.manifest.get("revisions", {})
    trained = known.get("sessions", recipe.finetune.revision)
    return known.get(source) or (trained if source == recipe.finetune.sessions else None)


def _similarity(sessions: str, messages: Sequence[Message]) -> float:
    found = _known(sessions).similarities(message["content"] for message in messages)
    return max(found.values(), default=0.0)


def _span(sessions: str, messages: Sequence[Message]) -> float:
    from augesc_builder.text.words import tokenize

    return float(_known(sessions).longest_span(tokenize(m["content"]) for m in messages))


@functools.lru_cache(maxsize=1)
def _known(sessions: str) -> Known:
    """Read the sessions once in each process."""
    from augesc_builder.metrics.overlap.counts import known_sessions, said_in
    from augesc_builder.sources.sessions import files_tested_on, read_messages

    return known_sessions(said_in(read_messages(files_tested_on(sessions)[0])))
