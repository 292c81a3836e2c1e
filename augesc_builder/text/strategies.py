"""ESConv's eight strategies of support (Liu et al. 2021), and what a classifier of them reads."""

from __future__ import annotations

from collections.abc import Sequence

from augesc_builder.text.prompts import SPEAKER, Message

GROUPS = {
    "Question": "asks",
    "Restatement or Paraphrasing": "reflects",
    "Reflection of feelings": "reflects",
    "Self-disclosure": "comforts",
    "Affirmation and Reassurance": "comforts",
    "Providing Suggestions": "suggests",
    "Information": "informs",
    "Others": "other",
}
"""What a supporter does by each strategy, as ESConv's labels spell them.

Of the groups, ``comforts`` holds what ESConv's framework has in its comforting stage;
self-disclosure stands in all of its stages, and here with what says that somebody is not alone.
``other`` is mostly greetings and thanks.
"""

STRATEGIES = tuple(GROUPS)


def as_texts(history: Sequence[Message], turn: str) -> tuple[str, str]:
    """Return a supporter's turn and what stands before it, as a classifier reads the two.

    The history comes first, a line an utterance with its speaker; it may be empty.
    """
    lines = [f"{SPEAKER[message['role']]}: {message['content']}" for message in history]
    return "\n".join(lines), turn
