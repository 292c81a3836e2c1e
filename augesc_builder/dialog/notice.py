"""What a person is told who seems to be in danger, before any reply of a model.

What people write is looked through for signs of danger before a model sees it. Where there are any,
the notice comes first, and the model has no part in it. It is no diagnosis and no safety device: it
misses what is said in other words.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from augesc_builder.text.prompts import Message

if TYPE_CHECKING:
    from augesc_builder.text.safety import Scanner

SERIOUS = (
    "What you wrote sounds serious. This is a computer program: it cannot help in an emergency, "
    "and what it says may be wrong. Please reach a person."
)
"""How the notice begins."""

HELPLINES = "https://findahelpline.com"

PLACES = (
    "In danger right now: call your local emergency number (112, 911, 999).",
    "In the USA and Canada: call or text 988. In the UK and Ireland: call Samaritans at 116 123.",
    f"Anywhere: find a free helpline at {HELPLINES}",
    "Or tell somebody you trust, now.",
)
"""Where people find help; in the notice, and where distressing texts are read."""

_WIDTH = 72


def crisis() -> str:
    """Return the notice as lines for a terminal."""
    rule = "-" * _WIDTH
    said = textwrap.fill(SERIOUS, _WIDTH)
    places = [
        textwrap.fill(place, _WIDTH, initial_indent="- ", subsequent_indent="  ")
        for place in PLACES
    ]
    return "\n".join([rule, said, "", *places, rule, ""])


class Watch:
    """Looks for signs of danger by the word lists and, where there is one, a classifier.

    ``warn`` is told, once, of a classifier that fails; the word lists go on without it.
    """

    def __init__(self, classifier: Scanner | None, warn: Callable[[Exception], None]) -> None:
        from augesc_builder.text.safety import DangerScanner

        self._scanners: list[Scanner] = [DangerScanner(), *([classifier] if classifier else [])]
        self._warn = warn

    def signs(self, before: Sequence[str], text: str) -> list[str]:
        """Return the kinds of the signs in what a person says next, each once.

        ``before`` is what the person said until now: a sign may begin in the last of it.
        """
        heard: list[Message] = [{"role": "user", "content": said} for said in before[-1:]]
        heard.append({"role": "user", "content": text})
        found: list[str] = []
        for scanner in list(self._scanners):
            try:
                flags = scanner.scan(heard)
            except Exception as error:  # a model's code can fail in any way; the notice must not
                self._scanners.remove(scanner)
                self._warn(error)
            else:
                found += [flag.flag for flag in flags if flag.utterance == len(heard) - 1]
        return list(dict.fromkeys(found))
