"""Rows that take more than one prompt: what a step asks for depends on what the last one gave.

The steps of a row are a Python generator: it yields a prompt, is sent what that became, and returns
the row. Steps of many rows go through the engine in one stream, each with a random stream of its
own, so that a row is the same in any company.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Protocol

from augesc_builder.engine import Continuation, OnStep, Prompt
from augesc_builder.pipeline.generate.tasks import Row, Task

Steps = Generator[Prompt, Continuation, Row]


class ResumingEngine(Protocol):
    """An engine that waits where a prompt depends on a row that has not ended."""

    def stream(
        self, prompts: Iterable[Prompt | None], on_step: OnStep
    ) -> Iterator[tuple[int, Continuation]]:
        """Yield rows as :meth:`Engine.stream <augesc_builder.engine.Engine.stream>` does.

        ``None`` in the place of a prompt says that there is none before more rows are yielded; it
        is counted too. The prompts are asked again when more rows have ended.
        """


def stepwise(
    engine: ResumingEngine,
    begin: Callable[[Task], Steps],
    tasks: Iterable[Task],
    on_step: OnStep,
) -> Iterator[tuple[Task, Row]]:
    """Yield each task with its row as it is done, in no order; tasks are read as needed.

    ``on_step`` counts a row when all its steps are done, and the tokens of all of them.
    """
    coming = iter(tasks)
    ready: deque[tuple[Task, Steps, Prompt]] = deque()
    at_work: dict[int, tuple[Task, Steps]] = {}

    def prompts() -> Iterator[Prompt | None]:
        """Yield the next prompt that there is, those of begun rows first; ``None`` to wait."""
        number = 0
        while True:
            if ready:
                task, steps, prompt = ready.popleft()
            elif (new := next(coming, None)) is not None:
                task, steps = new, begin(new)
                prompt = next(steps)
            elif at_work:
                yield None
                number += 1
                continue
            else:
                return
            at_work[number] = task, steps
            yield prompt
            number += 1

    for number, result in engine.stream(prompts(), lambda _, made: on_step(0, made)):
        task, steps = at_work.pop(number)
        try:
            ready.append((task, steps, steps.send(result)))
        except StopIteration as done:
            on_step(1, 0)
            yield task, done.value
