"""``augesc study judge``: a model fills the form of a study, as one more annotator that is marked.

Each draw is an event, ``judged``, with the order in which a pair was shown; what the draws come to
is the judge's answer, which the store hands to reports as a judge's. Requests and raw answers stand
in a journal beside the events: nothing that was answered is asked or paid for again.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from augesc_builder.errors import StudyError
from augesc_builder.human_evaluation.conversations import read_talk
from augesc_builder.human_evaluation.events import ANSWERED, ARRIVED, Event
from augesc_builder.human_evaluation.form import LEFT, RIGHT, TIE, Slot
from augesc_builder.human_evaluation.judge_prompt import (
    MalformedError,
    guideline,
    parse_answer,
    request,
    swapped,
)
from augesc_builder.human_evaluation.judge_settings import SECTION, JudgeSettings
from augesc_builder.human_evaluation.store import JUDGE, Store
from augesc_builder.human_evaluation.study import Study
from augesc_builder.pipeline.generate.endpoint.asking import Asking, Stopped, most_tokens
from augesc_builder.pipeline.generate.endpoint.client import FAILED, Endpoint
from augesc_builder.pipeline.generate.endpoint.journal import Journal
from augesc_builder.pipeline.generate.endpoint.lines import Place
from augesc_builder.run import layout
from augesc_builder.run.progress import Progress
from augesc_builder.text.prompts import Message

JUDGED = "judged"
"""A draw of a judge: ``draw``, ``order``, ``answers`` as the study's sides have them, or null with
the ``reason`` why they are missing."""

MISSING = "missing"
"""An item that a judge has no answer for: ``reason``."""

AS_SHOWN, EXCHANGED = "as shown", "exchanged"
"""The orders of a pair."""

_FINAL = {FAILED, "content_filter", "refused"}
"""Ends of an answer after which the same is not asked again."""


@dataclass(frozen=True)
class Work:
    """An item, what is to be answered about it, and its conversation, or both of a pair."""

    item: str
    slots: tuple[Slot, ...]
    conversations: tuple[Sequence[Message], ...]

    @property
    def orders(self) -> tuple[str, ...]:
        """The orders in which it is shown."""
        return (AS_SHOWN,) if len(self.conversations) == 1 else (AS_SHOWN, EXCHANGED)

    def shown(self, order: str) -> Sequence[Sequence[Message]]:
        """Return its conversations in an order."""
        return self.conversations[::-1] if order == EXCHANGED else self.conversations


@dataclass(frozen=True)
class Draw:
    """What came of asking once, in one order."""

    number: int
    order: str
    answers: dict[str, int] | None
    reason: str | None


def judge(study: Study, settings: JudgeSettings, progress: Progress) -> str:
    """Let a model judge every item of a study, and return its name among the annotators.

    A run that was stopped goes on where it was. Raises what asking an endpoint raises
    (:class:`~augesc_builder.errors.EndpointError`, :class:`~augesc_builder.errors.BudgetError`),
    and :class:`~augesc_builder.errors.StudyError` where a judge is at work on the study.
    """
    guide = guideline(study.form, settings.prompt)
    name = settings.name(guide)
    with _alone(study), Store.open(study) as store:
        every = work_of(study, list(store.events()))
        todo = [work for work in every if not _is_answered(store, name, work)]
        facts = {**settings.identity(guide), "host": urlsplit(settings.endpoint.base_url).hostname}
        store.arrive(name, JUDGE, **facts)
        journal = Journal(study.folder / layout.judge_requests(name), settings.endpoint.prices)
        with progress.bar(len(every), "judging", "item", done=len(every) - len(todo)) as bar:
            asyncio.run(_Judging(settings, guide, name, store, journal, bar.update).all(todo))
        _say(store, name, len(every), journal, progress)
    return name


@contextlib.contextmanager
def _alone(study: Study) -> Iterator[None]:
    lock = FileLock(study.folder / layout.JUDGE_LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise StudyError(f"{study.folder}: a judge is at work on it already", "at_work") from None
    try:
        yield
    finally:
        lock.release()


def plan(study: Study, settings: JudgeSettings) -> list[str]:
    """Say how many requests a judge needs, and about how many tokens; nothing is asked."""
    guide = guideline(study.form, settings.prompt)
    name = settings.name(guide)
    with Store.open(study) as store:
        every = work_of(study, list(store.events()))
        todo = [work for work in every if not _is_answered(store, name, work)]
    n = prompt = 0
    for work in todo:
        asked = request(guide, work.slots, work.conversations)
        size, _ = most_tokens({"messages": asked, "max_tokens": 0})
        n += settings.draws * len(work.orders)
        prompt += settings.draws * len(work.orders) * size
    most = n * settings.endpoint.max_new_tokens
    return [
        f"{name}: {len(todo):,} of {len(every):,} items, {n:,} requests to "
        f"{settings.endpoint.base_url} for {settings.endpoint.model} if every answer is of the "
        f"form, {n * settings.tries:,} at most: about {prompt:,} tokens of prompts, and at most "
        f"{most:,} of answers. Nothing is asked yet."
    ]


def work_of(study: Study, events: Sequence[Event]) -> list[Work]:
    """Return what there is to judge: all sessions; of pairs, those that a person has compared."""
    if study.form.about != "pair":
        return [
            Work(item.id, tuple(study.slots(item.id)), (item.messages,))
            for item in study.items.values()
        ]
    judges = {e.annotator for e in events if e.kind == ARRIVED and e.body.get("via") == JUDGE}
    last: dict[str, str] = {}
    theirs: defaultdict[tuple[str, str], list[Event]] = defaultdict(list)
    for event in events:
        theirs[event.item, event.annotator].append(event)
        if event.kind == ANSWERED and event.annotator not in judges:
            last[event.item] = event.annotator
    found = []
    for item, who in last.items():
        talk = read_talk(study.items[item], theirs[item, who])
        both = (talk.left.history, talk.right.history)
        if all(both):
            found.append(Work(item, tuple(study.slots(item)), both))
    return found


def combined(work: Work, draws: Sequence[Draw]) -> dict[str, int] | None:
    """Return what draws come to: the median option, the lower of two; None where there is none.

    About a pair: the side that more than half of all draws prefer, and else a tie. A draw counts
    where both orders have an answer, so that neither side was first more often.
    """
    lacking = {draw.number for draw in draws if draw.answers is None}
    answers = [d.answers for d in draws if d.answers is not None and d.number not in lacking]
    if not answers:
        return None
    if len(work.orders) == 1:
        return {
            slot.key: int(statistics.median_low([one[slot.key] for one in answers]))
            for slot in work.slots
        }
    return {slot.key: _preferred([one[slot.key] for one in answers]) for slot in work.slots}


def _preferred(chosen: Sequence[int]) -> int:
    return next((side for side in (LEFT, RIGHT) if 2 * chosen.count(side) > len(chosen)), TIE)


class _Judging:
    """A judge at work."""

    def __init__(
        self,
        settings: JudgeSettings,
        guide: str,
        name: str,
        store: Store,
        journal: Journal,
        count: Any,
    ) -> None:
        self._settings, self._guide, self._name = settings, guide, name
        self._store, self._journal, self._count = store, journal, count

    async def all(self, todo: Sequence[Work]) -> None:
        """Judge every item, as many at a time as the settings let and the endpoint bears."""
        asked = self._settings.asked()
        endpoint = Endpoint(asked, SECTION)
        asking = Asking(asked, endpoint, self._journal, SECTION)
        left = iter(todo)

        async def work() -> None:
            for one in left:
                try:
                    await self._one(asking, one)
                except Stopped:
                    return
                except BaseException:
                    asking.stop()
                    raise
                self._count(1)

        try:
            workers = (work() for _ in range(min(asked.concurrency, len(todo))))
            ended = await asyncio.gather(*workers, return_exceptions=True)
        finally:
            await endpoint.close()
            self._journal.close()
        for error in ended:
            if error is not None:
                raise error

    async def _one(self, asking: Asking, work: Work) -> None:
        draws = []
        for number in range(self._settings.draws):
            for order in work.orders:
                draw = await self._draw(asking, work, number, order)
                body: dict[str, Any] = {"draw": number, "order": order, "answers": draw.answers}
                body |= {"reason": draw.reason} if draw.reason else {}
                self._store.record(JUDGED, self._name, work.item, body, JUDGED)
                draws.append(draw)
        answers = combined(work, draws)
        if answers is not None:
            self._store.answer(self._name, work.item, answers, JUDGED)
            return
        reasons = list(dict.fromkeys(draw.reason for draw in draws if draw.reason))
        body = {"reason": "; ".join(map(str, reasons))}
        self._store.record(MISSING, self._name, work.item, body, JUDGED)

    async def _draw(self, asking: Asking, work: Work, number: int, order: str) -> Draw:
        """Ask once, and again while the answer is not of the form."""
        settings, again = self._settings, ""
        sample = number * len(work.orders) + work.orders.index(order)
        for turn in range(settings.tries):
            body: Mapping[str, Any] = {
                "model": settings.endpoint.model,
                "messages": request(self._guide, work.slots, work.shown(order), again),
                "max_tokens": settings.endpoint.max_new_tokens,
                "temperature": settings.temperature,
            }
            answer = await asking.ask(Place(work.item, sample, turn), body)
            if answer.finish_reason in _FINAL:
                return Draw(number, order, None, answer.finish_reason)
            try:
                found = parse_answer(answer.text, work.slots)
            except MalformedError as error:
                again = str(error)
            else:
                return Draw(number, order, swapped(found) if order == EXCHANGED else found, None)
        return Draw(number, order, None, f"{settings.tries} answers not of the form: {again}")


def _is_answered(store: Store, name: str, work: Work) -> bool:
    given = store.answers(name, work.item)
    return all(slot.key in given for slot in work.slots)


def _say(store: Store, name: str, n: int, journal: Journal, progress: Progress) -> None:
    """Say what came of it, and how far the judge agrees with itself."""
    mine = [event for event in store.events() if event.annotator == name]
    done = {event.item for event in mine if event.kind == ANSWERED}
    missing = {e.item: e.body["reason"] for e in mine if e.kind == MISSING and e.item not in done}
    draws = [e for e in mine if e.kind == JUDGED and e.body["answers"] is not None]
    spent = journal.spent
    progress.say(
        f"{name}: {len(done):,} of {n:,} items judged, in {spent.answers:,} answers and "
        f"{spent.tokens:,} tokens"
    )
    by_slot: dict[tuple[str, str], list[int]] = {}
    orders: dict[tuple[str, str, int], list[int]] = {}
    for event in draws:
        for key, number in event.body["answers"].items():
            by_slot.setdefault((event.item, key), []).append(number)
            orders.setdefault((event.item, key, event.body["draw"]), []).append(number)
    for what, groups in (("all draws", by_slot.values()), ("both orders", orders.values())):
        several = [group for group in groups if len(group) > 1]
        if several:
            alike = sum(len(set(group)) == 1 for group in several) / len(several)
            progress.say(f"  {what} of an answer are alike: {100 * alike:.1f} %")
    for item, reason in list(missing.items())[:3]:
        progress.say(f"  missing: {item}: {reason}")
    if len(missing) > 3:  # noqa: PLR2004
        progress.say(f"  and {len(missing) - 3:,} more; events of the kind `{MISSING}` say why")
