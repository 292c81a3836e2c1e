"""What the pages of the interactive study hold; which system stands on which side is on none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from augesc_builder.dialog.notice import PLACES, SERIOUS
from augesc_builder.human_evaluation.conversations import SCREEN, Conversation, Talk
from augesc_builder.human_evaluation.quality_views import (
    CONSENT,
    Page,
    Views,
    grouped,
    linked,
    most_options,
)
from augesc_builder.human_evaluation.settings import Interactive
from augesc_builder.human_evaluation.study import Place, Study

COMPARE, LIVE = "compare-", "live-"
"""The steps with the questions, and with what is written at this moment, before the position."""


class TalkViews(Views):
    """The pages of one interactive study; ``told`` is who is told of danger, if anybody is."""

    def __init__(self, study: Study, settings: Interactive, told: str | None) -> None:
        super().__init__(study)
        self._settings, self._told = settings, told

    def consent(self, *, lacks: bool = False) -> Page:
        """Return what one agrees to."""
        return self._page(
            "interactive_consent",
            CONSENT,
            422 if lacks else 200,
            consent=self._study.settings.consent,
            least=self._settings.min_utterances,
            told=self._told,
            missing=lacks,
            leave=None,
        )

    def talk(
        self,
        place: Place,
        item: str,
        talk: Talk,
        so_far: Callable[[Conversation], str | None],
        drafts: Mapping[str, str],
        refused: Mapping[str, str],
        status: int,
    ) -> Page:
        """Return both conversations.

        ``so_far`` gives what is written of a reply, ``drafts`` is what was written and not sent,
        ``refused`` why something was not taken, by side (``both``: the first message).
        """
        position = place.items.index(item) + 1
        least = self._settings.min_utterances
        both = [(screen, talk.on(screen)) for screen in SCREEN]
        return self._page(
            "interactive_talk",
            str(position),
            status,
            item=item,
            is_begun=talk.is_begun,
            is_open=talk.is_long_enough(least),
            sides=[
                {
                    "screen": screen,
                    "talk": one,
                    "so_far": so_far(one) or "",
                    "n_done": min(one.n_said, one.n_replies, least),
                }
                for screen, one in both
            ],
            least=least,
            most=self._settings.max_characters,
            compare=f"{COMPARE}{position}",
            live=f"{LIVE}{position}",
            drafts=drafts,
            refused=refused,
            **self._notice(),
        )

    def comparison(
        self,
        place: Place,
        item: str,
        talk: Talk,
        chosen: Mapping[str, int],
        missing: Iterable[str] = (),
        status: int = 200,
    ) -> Page:
        """Return the questions below both conversations."""
        slots = self._study.slots(item, place.checks.get(item))
        position = str(place.items.index(item) + 1)
        return self._page(
            "interactive_compare",
            position,
            status,
            item=item,
            back=position,
            is_change=talk.is_answered,
            form=self._study.form,
            language=self._study.form.language,
            sides=[{"screen": screen, "talk": talk.on(screen)} for screen in SCREEN],
            slots=slots,
            groups=grouped(self._study.form, slots),
            most=most_options(slots),
            chosen=chosen,
            missing=set(missing),
            **self._notice(),
        )

    def _notice(self) -> dict[str, Any]:
        return {
            "serious": SERIOUS,
            "places": [linked(place) for place in PLACES],
            "told": self._told,
        }
