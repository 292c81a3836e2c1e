"""The interactive study at work: its systems loaded, its conversations, its pages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from augesc_builder.dialog.handover import hand_over_to
from augesc_builder.errors import StudyError
from augesc_builder.human_evaluation.interactive_pages import InteractivePages
from augesc_builder.human_evaluation.replying import Replies
from augesc_builder.human_evaluation.store import Store
from augesc_builder.human_evaluation.study import Study
from augesc_builder.human_evaluation.systems import open_systems
from augesc_builder.human_evaluation.talking import Talks
from augesc_builder.run.progress import Progress


@contextmanager
def open_pages(study: Study, store: Store, progress: Progress) -> Iterator[InteractivePages]:
    """Yield the pages of an interactive study while its systems are loaded.

    Raises :class:`~augesc_builder.errors.HandOverError` where ``on_danger`` is nobody, and what
    :func:`~augesc_builder.human_evaluation.systems.open_systems` raises.
    """
    settings = study.settings.interactive
    if settings is None:
        raise StudyError(f"{study.folder}: this study compares no systems", "no_place")
    on_danger = hand_over_to(settings.on_danger) if settings.on_danger else None
    talks = Talks(store, settings, on_danger, progress.say)
    replies = Replies(talks, open_systems(settings, study.settings.seed), progress.say)
    try:
        talks.tell_all()
        yield InteractivePages(study, store, talks, replies)
    finally:
        replies.close()
