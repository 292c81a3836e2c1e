"""What people are told where a page cannot be what they asked for, or where it all ends."""

from __future__ import annotations

from typing import Any

from augesc_builder.human_evaluation.settings import Crowd
from augesc_builder.human_evaluation.state import Stage


class Unfit(Exception):  # noqa: N818 - much of it is no error: a study closes, a place is lost
    """A heading, some lines, and what goes with them; ``status`` is that of the answer."""

    def __init__(
        self,
        heading: str,
        *lines: str,
        status: int = 200,
        code: str | None = None,
        url: str | None = None,
    ) -> None:
        super().__init__(heading)
        self.heading, self.lines, self.status = heading, lines, status
        self.code, self.url = code, url

    def values(self) -> dict[str, Any]:
        """Return what the template ``quality_end`` is filled with."""
        return {
            "heading": self.heading,
            "lines": self.lines,
            "code": self.code,
            "return_url": self.url,
        }

    @classmethod
    def no_link(cls) -> Unfit:
        """Answer somebody who came without a link."""
        return cls(
            "This study is entered by a personal link",
            "Please open the whole link that you were sent, or come by the button of the platform "
            "that told you of this study.",
            status=404,
        )

    @classmethod
    def unknown_link(cls) -> Unfit:
        """Answer a link that nobody has."""
        return cls(
            "This link is not known here",
            "Please open the whole link that you were sent: often its last characters were lost "
            "on the way. If it still does not work, write to whoever sent it to you.",
            status=404,
        )

    @classmethod
    def guessed(cls, seconds: int) -> Unfit:
        """Answer one of many links from one address that nobody has."""
        return cls(
            "Please wait a little",
            f"Too many links were tried that nobody has. Yours works again in {seconds} seconds.",
            status=429,
        )

    @classmethod
    def bad_entry(cls, why: str) -> Unfit:
        """Answer a platform's address that is not as it should be."""
        return cls(
            "You came without what tells us who you are",
            f"Something is not right with the address: {why}.",
            "Please go back to the platform, and open the study by its button there. Nothing was "
            "kept, and it has no disadvantage for you.",
            status=400,
        )

    @classmethod
    def nowhere(cls, status: int = 404) -> Unfit:
        """Answer an address that no page has."""
        return cls("There is no such page", "Please open your link again.", status=status)

    @classmethod
    def unreadable(cls) -> Unfit:
        """Answer what no page of ours sends."""
        return cls(
            "This was not taken",
            "What was sent is not what the page asks for. Please open your link again; what you "
            "sent before is kept.",
            status=400,
        )

    @classmethod
    def not_yours(cls) -> Unfit:
        """Answer ratings of a conversation that the person does not have, or has no more."""
        return cls(
            "This conversation is not among yours",
            "Your answers to it were not taken. If you were away for long, it was given to "
            "somebody else. What you sent before is kept; please open your link again.",
            status=409,
        )

    @classmethod
    def late(cls) -> Unfit:
        """Answer what was sent after the study closed."""
        return cls(
            "The study has closed",
            "This came after its end and was not taken. What you sent before is kept. Thank you.",
            status=410,
        )

    @classmethod
    def no_place(cls) -> Unfit:
        """Say that all places are taken."""
        return cls(
            "All places are taken at the moment",
            "Thank you for coming. Should somebody leave, their place becomes free: you may open "
            "your link again later. If a platform sent you, please return your submission there.",
            status=503,
        )

    @classmethod
    def broken(cls, *, is_full: bool) -> Unfit:
        """Say that the store did not take what was sent."""
        why = "Its disk is full." if is_full else "Something is wrong with it."
        return cls(
            "The server could not keep this",
            f"{why} It is not your fault, and what you sent before is kept. Please go back, wait "
            "a little, and send it again.",
            status=503,
        )

    @classmethod
    def withdrawn(cls) -> Unfit:
        """Say farewell to somebody who left, and asked that their answers be left out."""
        return cls(
            "You have left the study",
            "The answers that you sent are left out of it. Thank you for coming. If a platform "
            "sent you, please return your submission there.",
        )

    @classmethod
    def ended(cls, stage: Stage, crowd: Crowd) -> Unfit:
        """Say farewell to somebody who has nothing more to do here, or whose study has closed."""
        if stage == "done":
            return cls(
                "Thank you, that was all of it",
                "All your answers are kept. Some of these conversations are heavy to read: please "
                "do something now that is good for you.",
                code=crowd.completion_code,
                url=_return_url(crowd, crowd.completion_code),
            )
        if stage == "screened_out":
            return cls(
                "Thank you for your time",
                "The answers were not what we had hoped for, so the study ends here for you. That "
                "says nothing about you: perhaps our explanation was not clear.",
                code=crowd.screen_out_code,
                url=_return_url(crowd, crowd.screen_out_code),
            )
        if stage == "timed_out":
            return cls(
                "Your place was given to somebody else",
                "You were away for longer than a place is held. What you sent is kept. Thank you.",
            )
        if stage == "left":
            return cls(
                "You have left the study",
                "Thank you for coming. If a platform sent you, please return your submission "
                "there.",
            )
        return cls(
            "This study has closed", "It takes no more answers. What you sent is kept. Thank you."
        )


def _return_url(crowd: Crowd, code: str | None) -> str | None:
    if crowd.completion_url is None or code is None:
        return None
    return crowd.completion_url.replace("{code}", code)
