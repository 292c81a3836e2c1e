"""Bad turns are drawn again: a conversation is cut before the first, and goes on from there.

What is kept are the tokens up to the cue of whoever speaks, so that the same speaker says something
else; what follows comes from the stream of the attempt. Of all that were drawn the conversation
with the fewest bad turns stands, of equals the first.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass

from augesc_builder.config.generate import Resample
from augesc_builder.config.quality import Quality
from augesc_builder.engine import Continuation, Prompt
from augesc_builder.metrics.consistency.roles import CONFUSIONS
from augesc_builder.metrics.scored import Finding, Measure
from augesc_builder.text.prompt_form import PromptForm
from augesc_builder.text.prompts import PLAIN, Message, parse, whole_text

NO_CONVERSATION = "no_conversation"
"""Why a draw is drawn again that no measure can look at: a line of it has no speaker."""

BadTurn = tuple[int, str]
"""The number of an utterance, and of ``generate.resample.by`` what counts it."""

BadTurns = Callable[[Sequence[Message]], list[BadTurn]]
"""Gives the bad turns of a conversation behind its query, the first one first."""

_COUNTED: Mapping[str, Callable[[Finding], bool]] = {
    "consistency.contradictions": lambda finding: finding.kind not in CONFUSIONS,
    "consistency.role_confusions": lambda finding: finding.kind in CONFUSIONS,
    "topic_drift.drifted": lambda finding: finding.kind == "off_topic",
}
"""Which findings of its measure a number counts."""


def bad_turns(settings: Resample, quality: Quality) -> BadTurns:
    """Return what finds bad turns, by measures with their models, which are loaded.

    Raises as :func:`~augesc_builder.pipeline.quality.measures.measures_of` does.
    """
    from augesc_builder.pipeline.quality.measures import measures_of

    measures: list[Measure] = measures_of(quality, sorted(settings.measures))

    def find(messages: Sequence[Message]) -> list[BadTurn]:
        # One conversation at a time: what a model says of it must not depend on company.
        found = {measure.name: measure.score([messages])[0].findings for measure in measures}
        return sorted(
            {
                (finding.utterance, number)
                for number in settings.by
                for finding in found[number.partition(".")[0]]
                if finding.utterance > 0 and _COUNTED[number](finding)
            }
        )

    return find


@dataclass(frozen=True)
class Resampled:
    """What stands of a conversation, why parts of it were drawn again, and the tokens that took."""

    result: Continuation
    reasons: tuple[str, ...]
    n_tokens: int


@dataclass(frozen=True)
class Resampler:
    """Draws bad turns of conversations again, at most ``attempts`` times each."""

    form: PromptForm
    attempts: int
    bad_turns: BadTurns

    def again(
        self, query: str, prompt: Prompt, first: Continuation, stream: Callable[[int], int]
    ) -> Generator[Prompt, Continuation, Resampled]:
        """Draw again what is bad in ``first``, which continues ``prompt``.

        ``stream`` gives the key of the random stream of an attempt, from 0.
        """
        best = first
        found = fewest = self._found(query, first)
        kept: tuple[int, ...] = ()
        reasons: list[str] = []
        n_drawn = len(first.token_ids)
        last = first
        while fewest and len(reasons) < self.attempts:
            if found is None:
                reasons.append(NO_CONVERSATION)
            else:
                utterance, reason = found[0]
                kept = self._before(query, last.token_ids, utterance)
                reasons.append(reason)
            made = yield Prompt((*prompt.token_ids, *kept), stream(len(reasons) - 1))
            n_drawn += len(made.token_ids)
            last = Continuation((*kept, *made.token_ids), made.finish_reason)
            found = self._found(query, last)
            if found is not None and len(found) < len(fewest):
                best, fewest = last, found
        return Resampled(best, tuple(reasons), n_drawn - len(best.token_ids))

    def _found(self, query: str, result: Continuation) -> list[BadTurn] | None:
        """Return the bad turns of a conversation; ``None`` where it is none."""
        if result.finish_reason not in {"eos", "length"}:
            return None
        text, _ = self.form.said(result.token_ids)
        messages = PLAIN.parse(whole_text(query, text))
        return None if messages is None else self.bad_turns(messages)

    def _before(self, query: str, ids: tuple[int, ...], utterance: int) -> tuple[int, ...]:
        """Return the tokens before the words of an utterance: its speaker's cue is the last."""

        def text(n: int) -> str:
            return self.form.text(ids[:n]).rstrip(" ")

        def n_begun(n: int) -> int:
            return _n_begun(whole_text(query, text(n)))

        n = bisect_right(range(len(ids) + 1), utterance, key=n_begun) - 1
        while n and text(n - 1) == text(n):  # a blank in front of the words is one of them
            n -= 1
        return ids[:n]


def _n_begun(text: str) -> int:
    """Return how many utterances a text has begun, whose last line may lack its speaker yet."""
    n = 0
    for line in text.split("\n"):
        messages = parse(line)
        if messages is None:
            break
        n += len(messages)
    return n
