"""Posts: what a source of triggers gives, before any rule has judged it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Post:
    """The first thing somebody wrote, and what its source says of it."""

    text: str
    emotion: str | None = None
    subreddit: str | None = None
