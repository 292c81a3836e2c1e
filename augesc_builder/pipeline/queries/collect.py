"""Which posts become triggers, and why the others do not (section 4.2, appendix A).

Posts are judged in groups of rules, cheap ones first: what the source says of them; their text;
their length in words; duplicates; the classifiers. A post that one group rejects is asked no more.
The first two groups and the length look at one post alone, so they run in as many processes as
there are; what needs memory of earlier posts runs in order. The outcome is the same for any number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from augesc_builder.config.queries import Queries, QuerySource
from augesc_builder.errors import InputError
from augesc_builder.pipeline.queries.report import Funnel
from augesc_builder.pipeline.queries.screen import ScreenedPost, screen_posts
from augesc_builder.readers.records import USUAL, BadLines, Limits
from augesc_builder.sources.registry import find_source
from augesc_builder.tables import query_id

Row = dict[str, Any]

_BATCH = 1024
"""Posts that are judged together by what needs memory, or a model."""


@dataclass
class Collected:
    """What came of the sources: a funnel a source, and the Hub commits that were loaded."""

    funnels: dict[str, Funnel]
    revisions: dict[str, str]


def collect_queries(
    settings: Queries, collected: Collected, *, limits: Limits = USUAL, num_proc: int = 1
) -> Iterator[tuple[list[Row], list[Row]]]:
    """Judge every post of every source; give rows of queries and of rejected posts, in batches.

    ``collected`` is filled meanwhile; ``limits`` are for what is read. Raises
    :class:`~augesc_builder.errors.InputError` for a source that gives no query at all, and at the
    first bad line where the recipe is strict.
    """
    gate = _Gate(settings, collected)
    for origin in settings.sources:
        funnel = collected.funnels.setdefault(origin.source, Funnel(origin.source))
        before = funnel.n_queries
        bad = BadLines(strict=settings.strict, limits=limits)
        posts = screen_posts(origin, settings, bad, collected.revisions, num_proc)
        for batch in _batches(posts):
            queries, rejected = gate.judge(origin, batch, funnel)
            if settings.max_per_source is not None:
                left = settings.max_per_source - (funnel.n_queries - before)
                rejected += [{**row, "reasons": ["max_per_source"]} for row in queries[left:]]
                queries = queries[:left]
            funnel.add(queries, rejected)
            yield queries, rejected
            if funnel.n_queries - before == settings.max_per_source:
                break
        funnel.add_bad(bad)
        if funnel.n_queries == before:
            raise InputError(
                f"none of {funnel.n_posts:,} posts became a query ({funnel.why()})",
                origin.path or origin.source,
            )


class _Gate:
    """The rules that need memory of earlier posts, or a model."""

    def __init__(self, settings: Queries, collected: Collected) -> None:
        self._seen: set[bytes] = set()
        self._similar = self._names = self._judges = None
        if settings.near_duplicates is not None:
            from augesc_builder.text.minhash import NearDuplicateIndex

            self._similar = NearDuplicateIndex(settings.near_duplicates)
        if settings.names_and_places is not None:
            from augesc_builder.text.named_entities import NameFinder

            self._names = NameFinder(settings.names_and_places)
        judged = any(_is_judged(origin.source) for origin in settings.sources)
        if settings.classifiers.enabled and judged:
            from augesc_builder.pipeline.queries.classifiers import PostClassifiers

            self._judges = PostClassifiers(settings.classifiers)
            collected.revisions |= self._judges.revisions

    def judge(
        self, origin: QuerySource, posts: list[ScreenedPost], funnel: Funnel
    ) -> tuple[list[Row], list[Row]]:
        """Part a batch of examined posts into rows of queries and of rejected posts."""
        rows = [_row(origin.source, post) for post in posts]
        for row in rows:
            if not row["reasons"] and (reason := self._memory(row["text"])):
                row["reasons"] = [reason]
        if self._judges is not None and _is_judged(origin.source):
            standing = [row for row in rows if not row["reasons"]]
            texts = [row["text"] for row in standing]
            for row, reasons in zip(standing, self._judges.reasons(texts), strict=True):
                row["reasons"] = reasons
        funnel.n_posts += len(rows)
        return [r for r in rows if not r["reasons"]], [r for r in rows if r["reasons"]]

    def _memory(self, text: str) -> str | None:
        key = hashlib.blake2b(text.casefold().encode(), digest_size=8).digest()
        if key in self._seen:
            return "duplicate"
        self._seen.add(key)
        if self._names is not None and self._names.finds(text):
            return "personal_data"
        if self._similar is not None and self._similar.seen(text):
            return "near_duplicate"
        return None


def _is_judged(source: str) -> bool:
    """Whether the classifiers of appendix A judge the posts of a source."""
    info = find_source(source)
    return info is not None and info.appendix_a


def _row(source: str, post: ScreenedPost) -> Row:
    return {
        "query_id": query_id(source, post.text),
        "source": source,
        "text": post.text,
        "n_words": post.n_words,
        "emotion": post.emotion,
        "subreddit": post.subreddit,
        "reasons": list(post.reasons),
    }


def _batches(posts: Iterable[ScreenedPost]) -> Iterator[list[ScreenedPost]]:
    batch: list[ScreenedPost] = []
    for post in posts:
        batch.append(post)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
