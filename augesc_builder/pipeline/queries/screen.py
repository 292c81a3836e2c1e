"""One post at a time: reading it from its source, and the rules that need nothing else.

Lines of a dump go to worker processes in chunks and come back in order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from augesc_builder.config.base import Bounds
from augesc_builder.config.recipe import Queries, QuerySource
from augesc_builder.errors import InputError, RecipeError
from augesc_builder.pipeline.queries import rules
from augesc_builder.run.workers import ordered_map
from augesc_builder.sources import reddit
from augesc_builder.sources.base import BadLines, Post
from augesc_builder.sources.sample import read_sample_queries
from augesc_builder.text.personal_data import has_personal_data
from augesc_builder.text.prompts import collapse

SOURCES = ("sample", "empathetic_dialogues", "reddit")

_CHUNK = 512
"""Lines that a worker process is given at a time."""


@dataclass(frozen=True)
class Examined:
    """A post with the reasons that hold against it; ``n_words`` is null where none were counted."""

    text: str
    emotion: str | None
    subreddit: str | None
    reasons: tuple[str, ...]
    n_words: int | None


@dataclass(frozen=True)
class Examiner:
    """The rules for one post; text rules are asked of Reddit posts only (appendix A)."""

    n_words: Bounds
    negative_emotions: frozenset[str]
    subreddits: frozenset[str] = frozenset()
    text_rules: rules.TextRules | None = None

    def post(self, post: Post) -> Examined:
        """Judge a post."""
        text = collapse(post.text)
        reasons = list(post.reasons)
        if post.emotion is not None and post.emotion not in self.negative_emotions:
            reasons.append("emotion")
        n_words: int | None = None
        if not reasons and rules.too_long_at_a_glance(text, self.n_words):
            reasons.append("length")
        if not reasons:
            if self.text_rules is not None:
                reasons += self.text_rules.reasons(text)
            if has_personal_data(text):
                reasons.append("personal_data")
        if not reasons:
            n_words, fits = rules.length(text, self.n_words)
            if not fits:
                reasons.append("length")
        return Examined(text, post.emotion, post.subreddit, tuple(reasons), n_words)

    def lines(self, lines: list[reddit.Line]) -> list[Examined | InputError]:
        """Parse and judge a chunk of a dump's lines."""
        posts = [reddit.parse_line(line, self.subreddits) for line in lines]
        return [p if isinstance(p, InputError) else self.post(p) for p in posts]


def examine(
    origin: QuerySource, settings: Queries, bad: BadLines, revisions: dict[str, str], num_proc: int
) -> Iterator[Examined]:
    """Read a source and judge its posts one by one, in order; bad lines go to ``bad``."""
    examiner = Examiner(settings.n_words, frozenset(settings.negative_emotions))
    if origin.source == "sample":
        yield from map(examiner.post, read_sample_queries())
    elif origin.source == "empathetic_dialogues":
        # Here, because worker processes load this module too, and do without Arrow.
        from augesc_builder.sources.empathetic_dialogues import (
            download_empathetic_dialogues,
            read_empathetic_dialogues,
        )

        path: Any = origin.path
        if path is None:
            path, revisions[origin.source] = download_empathetic_dialogues()
        yield from map(examiner.post, read_empathetic_dialogues(path, bad))
    elif origin.source == "reddit":
        if origin.path is None:
            raise RecipeError(
                "the source reddit needs a path: a dump or a folder of dumps, as in "
                "--source reddit=PATH"
            )
        examiner = Examiner(
            settings.n_words,
            frozenset(settings.negative_emotions),
            rules.load_subreddits(settings.reddit),
            rules.load_rules(settings.reddit),
        )
        path = origin.path
        if path.startswith(reddit.ON_THE_HUB):
            path, revisions[origin.source] = reddit.download(path)
        yield from _reddit(path, examiner, bad, num_proc)
    else:
        raise RecipeError(
            f"unknown source of queries {origin.source!r}; expected one of {', '.join(SOURCES)}"
        )


def _reddit(
    path: str | Path, examiner: Examiner, bad: BadLines, num_proc: int
) -> Iterator[Examined]:
    files = reddit.dump_files(path)
    for file in files:
        n_before = bad.count
        usable = False
        results = (
            _table(file, examiner)
            if reddit.is_table(file)
            else _dump(file, examiner, bad, num_proc)
        )
        for result in results:
            if isinstance(result, InputError):
                bad.add(result)
            else:
                usable = True
                yield result
        if not usable:
            found = f"; {bad.examples[-1]}" if bad.count > n_before and bad.examples else ""
            raise InputError(f"no post in it that can be read{found}", file)


def _table(file: Any, examiner: Examiner) -> Iterator[Examined | InputError]:
    for number, row in reddit.read_table(file):
        post = reddit.post_of(row, examiner.subreddits, str(file), number)
        yield post if isinstance(post, InputError) else examiner.post(post)


def _dump(
    file: Any, examiner: Examiner, bad: BadLines, num_proc: int
) -> Iterator[Examined | InputError]:
    chunks = _chunks(reddit.read_lines(file, bad))
    for results in ordered_map(examiner.lines, chunks, num_proc, preload=__name__):
        yield from results


def _chunks(lines: Iterator[reddit.Line]) -> Iterator[list[reddit.Line]]:
    while chunk := list(islice(lines, _CHUNK)):
        yield chunk
