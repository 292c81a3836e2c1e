"""Asking until there is an answer: retries, deadlines, and a budget over all requests."""

from __future__ import annotations

import asyncio
import difflib
import logging
import time
import uuid
from collections.abc import Mapping
from typing import Any

from augesc_builder.config.openai_api import OpenAISettings
from augesc_builder.errors import BudgetError, EndpointError
from augesc_builder.pipeline.generate.endpoint.client import SECTION, Answer, Endpoint, Trouble
from augesc_builder.pipeline.generate.endpoint.journal import LOOK, Journal
from augesc_builder.pipeline.generate.endpoint.lines import Place, digest_of, estimated_tokens
from augesc_builder.pipeline.generate.endpoint.throttle import Throttle, back_off
from augesc_builder.run.heartbeat import one_line

_PAID_ATTEMPTS = 3
"""How often a request is sent that comes to nothing although it may be paid for."""


class Stopped(Exception):  # noqa: N818 - the error that ended the run is another
    """The run has ended, and this request was not sent."""


class Asking:
    """Requests of a run to its endpoint, within the limits of its settings.

    The first error of the run ends it: requests under way are still waited for, since they are paid
    for, and no others are sent. ``section`` is what errors call the place of the settings.
    """

    def __init__(
        self,
        settings: OpenAISettings,
        endpoint: Endpoint,
        journal: Journal,
        section: str = SECTION,
    ) -> None:
        self.settings, self.journal = settings, journal
        self._section = section
        self.throttle = Throttle(settings.concurrency, self._sleep)
        self._endpoint = endpoint
        self._n_answered = journal.spent.answers
        self._is_down = False
        self._models: list[str] | None = None
        self._stopping = asyncio.Event()

    async def ask(self, place: Place, body: Mapping[str, Any]) -> Answer:
        """Return the answer to a request: that of the journal, or a new one.

        A prompt that the endpoint never answers, while it answers others, has an answer without a
        text. Raises :class:`~augesc_builder.errors.BudgetError` where the budget is spent, and
        :class:`~augesc_builder.errors.EndpointError` where no request is answered any more.
        """
        prompt = digest_of({**body, **self.settings.extra_body})
        known = self.journal.answer(place, prompt)
        if known is None:
            known = await self._answered_elsewhere(place, prompt)
        if known is not None:
            return known
        begun, others = time.monotonic(), self._n_answered
        attempt = n_paid = 0
        while True:
            attempt += 1
            try:
                answer = await self._once(place, prompt, body)
            except Trouble as trouble:
                n_paid += trouble.paid
                wait = back_off(attempt, trouble.wait)
                left = self.settings.deadline - (time.monotonic() - begun)
                if not trouble.again or wait > left or n_paid >= _PAID_ATTEMPTS:
                    is_the_prompts = self._n_answered > (0 if trouble.replied else others)
                    if trouble.fatal or not is_the_prompts:
                        raise EndpointError(self._why(trouble, attempt)) from None
                    return await self.journal.given_up(place, prompt, trouble.reason)
                self._tell(trouble)
                await self._sleep(wait)
            else:
                self._n_answered += 1
                self._is_down = False
                return answer

    async def _answered_elsewhere(self, place: Place, prompt: str) -> Answer | None:
        """Wait for the answer that another worker waits for, as long as a request may take.

        Whether one on another machine is alive, nobody can tell: then it is asked for again.
        """
        begun = time.monotonic()
        while self.journal.is_asked(place, prompt):
            if time.monotonic() - begun > self.settings.timeout:
                return None
            await self._sleep(LOOK)
        return self.journal.answer(place, prompt)

    def stop(self) -> None:
        """Let no other request be sent."""
        self._stopping.set()

    async def _once(self, place: Place, prompt: str, body: Mapping[str, Any]) -> Answer:
        async with self.throttle.slot() as sent_in:
            self._check()
            if self._models is None:  # before anything is paid; as yet there is a single slot
                self._models = await self._endpoint.models()
            request_id = uuid.uuid4().hex
            self.journal.asked(request_id, place, prompt, most_tokens(body))
            begun = time.monotonic()
            try:
                answer = await self._endpoint.ask(body, request_id)
            except Trouble as trouble:
                seconds = time.monotonic() - begun
                self.journal.failed(request_id, trouble.reason, seconds, paid=trouble.paid)
                if trouble.congested:
                    self.throttle.congested(sent_in, trouble.wait)
                raise
            self.throttle.answered()
            return await self.journal.answered(request_id, answer, time.monotonic() - begun)

    def _check(self) -> None:
        """Refuse to send more than the run may, all its workers together."""
        self.journal.look()
        if self._stopping.is_set():
            raise Stopped
        budget, spent = self.settings.budget, self.journal.spent
        money = spent.money(self.settings.prices)
        limits = (("tokens", budget.tokens, spent.tokens), ("money", budget.money, money))
        for name, most, now in limits:
            if most is not None and now is not None and now >= most:
                raise BudgetError(
                    f"{self._section}.budget.{name} is {most:,}, and {now:,.6g} are spent in "
                    f"{spent.answers:,} answers"
                    + (f" and {spent.unknown:,} requests of unknown end" * bool(spent.unknown))
                    + "; all answers are kept: raise it and run the same command again to go on"
                )

    async def _sleep(self, seconds: float) -> None:
        """Wait, unless the run ends meanwhile."""
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except asyncio.TimeoutError:
            return
        raise Stopped

    def _why(self, trouble: Trouble, attempt: int) -> str:
        """Say why the run ends, and which models there are where the recipe's is none of them."""
        settings, models = self.settings, self._models or []
        said = trouble.reason
        if trouble.again:
            said = (
                f"{settings.base_url}: {said}, {attempt} time{'s' * (attempt > 1)} within the "
                f"deadline ({settings.deadline:g} s, {self._section}.deadline); what was answered "
                f"is kept: run the same command again to go on"
            )
        if not models or settings.model in models:
            return said
        near = difflib.get_close_matches(settings.model, models, n=3, cutoff=0.3) or models[:3]
        return f"{said}; the endpoint names {one_line(', '.join(near), 200)}"

    def _tell(self, trouble: Trouble) -> None:
        """Log that the endpoint does not answer, once until it does again."""
        if not (self._is_down or trouble.congested):
            logging.getLogger("augesc").warning("augesc: %s; asked again", trouble.reason)
            self._is_down = True


def most_tokens(body: Mapping[str, Any]) -> tuple[int, int]:
    """Return the tokens of a request's prompt, estimated, and of its answer, the most there are."""
    messages = body.get("messages", ())
    text = "".join(message["content"] for message in messages) + body.get("prompt", "")
    return estimated_tokens(text), int(body["max_tokens"])
