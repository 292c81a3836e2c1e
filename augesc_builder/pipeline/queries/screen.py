"""One post at a time: reading it from its source, and the rules that need nothing else.

Posts of a dump go to worker processes in chunks and come back in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from augesc_builder.config.base import Bounds
from augesc_builder.config.queries import Queries, QuerySource
from augesc_builder.errors import InputError, RecipeError
from augesc_builder.pipeline.queries import rules
from augesc_builder.run.workers import ordered_map
from augesc_builder.sources.base import BadLines, Post, RawPosts
from augesc_builder.sources.registry import find_source, query_sources
from augesc_builder.text.personal_data import has_personal_data
from augesc_builder.text.prompts import collapse


@dataclass(frozen=True)
class ScreenedPost:
    """A post with the reasons that hold against it; ``n_words`` is null where none were counted."""

    text: str
    emotion: str | None
    subreddit: str | None
    reasons: tuple[str, ...]
    n_words: int | None


@dataclass(frozen=True)
class Screen:
    """The rules for one post; ``text_rules`` are asked of sources under appendix A only."""

    n_words: Bounds
    negative_emotions: frozenset[str]
    subreddits: frozenset[str] = frozenset()
    text_rules: rules.TextRules | None = None
    parse: Callable[[RawPosts], list[Post | InputError]] | None = None

    def post(self, post: Post) -> ScreenedPost:
        """Judge a post."""
        text = collapse(post.text)
        reasons = list(post.reasons)
        known = post.subreddit is None or post.subreddit.lower() in self.subreddits
        if self.subreddits and not known:
            reasons.append("subreddit")
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
        return ScreenedPost(text, post.emotion, post.subreddit, tuple(reasons), n_words)

    def raw(self, raw: RawPosts) -> tuple[str, list[ScreenedPost | InputError]]:
        """Parse and judge consecutive posts of a file; return the file's name too."""
        posts = self.parse(raw) if self.parse is not None else []
        return raw.path, [p if isinstance(p, InputError) else self.post(p) for p in posts]


def screen_posts(
    origin: QuerySource, settings: Queries, bad: BadLines, revisions: dict[str, str], num_proc: int
) -> Iterator[ScreenedPost]:
    """Yield the posts of a source, judged one by one, in order; bad lines go to ``bad``.

    Raises :class:`~augesc_builder.errors.RecipeError` for an unknown source, and
    :class:`~augesc_builder.errors.InputError` for a file without any post.
    """
    info = find_source(origin.source)
    if info is None or not info.gives_posts:
        names = ", ".join(known.name for known in query_sources())
        raise RecipeError(f"unknown source of queries {origin.source!r}; expected one of {names}")
    path, commit = info.locate(origin.path) if info.locate else (origin.path, None)
    if commit is not None:
        revisions[origin.source] = commit
    screen = Screen(settings.n_words, frozenset(settings.negative_emotions))
    if info.appendix_a:
        screen = replace(
            screen,
            subreddits=rules.load_subreddits(settings.reddit),
            text_rules=rules.load_rules(settings.reddit),
        )
    if info.read is not None:
        yield from map(screen.post, info.read(path, bad))
    elif info.read_raw is not None:
        screen = replace(screen, parse=info.parse)
        yield from _in_processes(screen, info.read_raw(path, bad), bad, num_proc)


def _in_processes(
    screen: Screen, raw: Iterator[RawPosts], bad: BadLines, num_proc: int
) -> Iterator[ScreenedPost]:
    """Parse and judge posts in processes; a file without one that can be read is an error."""
    path, usable = "", True
    for of, results in ordered_map(screen.raw, raw, num_proc, preload=__name__):
        if of != path:
            _check_file(path, usable, bad)
            path, usable = of, False
        for post in bad.good(results):
            usable = True
            yield post
    _check_file(path, usable, bad)


def _check_file(path: str, usable: bool, bad: BadLines) -> None:
    if not usable:
        found = next((said for said in reversed(bad.examples) if said.startswith(path)), "")
        raise InputError(f"no post in it that can be read{found and '; '}{found}", path)
