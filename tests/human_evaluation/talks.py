"""Interactive studies for tests: tiny models, an endpoint on loopback, pages without a server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from augesc_builder.human_evaluation.conversations import Talk
from augesc_builder.human_evaluation.create import create
from augesc_builder.human_evaluation.interactive import open_pages
from augesc_builder.human_evaluation.interactive_pages import InteractivePages
from augesc_builder.human_evaluation.quality_views import Page
from augesc_builder.human_evaluation.settings import load_settings
from augesc_builder.human_evaluation.store import Store
from augesc_builder.human_evaluation.study import Study
from augesc_builder.run.progress import Progress

NONCE = "0123456789abcdef"


def endpoint(url: str) -> str:
    return f"{{base_url: '{url}', model: stub-model}}"


def make_study(folder: Path, systems: dict[str, str], *overrides: str, pairs: int = 2) -> Study:
    """Create a study of systems, given as YAML of their sections."""
    named = [f"interactive.systems.{name}={system}" for name, system in systems.items()]
    more = [f"interactive.pairs={pairs}", "comprehension.questions=[]"]
    settings = load_settings("interactive", [*named, *more, *overrides])
    return create(settings, {}, folder, Progress(quiet=True))


class Said(Progress):
    """Keeps what the study's owner is told."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@dataclass
class Desk:
    """A server without sockets: the pages of a study, and one person who has a place."""

    study: Study
    store: Store
    pages: InteractivePages
    told: list[str]
    who: str = "somebody"
    item: str = ""
    seen: list[Page] = field(default_factory=list)

    def enter(self, who: str) -> Desk:
        """Let somebody in, up to a place."""
        self.store.arrive(who)
        self.store.consent(who)
        place = self.store.progress(who).place or self.store.assign(who)
        assert place is not None
        return Desk(self.study, self.store, self.pages, self.told, who, place.items[0])

    def get(self, step: str = "1") -> Any:
        return self.pages.get(self.who, step)

    def send(self, go: str, **fields: Any) -> Any:
        given = {name.replace("_", "-"): str(value) for name, value in fields.items()}
        form = {"nonce": NONCE, "item": self.item, "go": go, **given}
        return self.pages.post(self.who, "1", form)

    def say(self, side: str, text: str, n: int | None = None) -> Any:
        """Say something as the page would, after so many messages."""
        if n is None:
            n = 0 if side == "both" else getattr(self.talk, side).n_said
        return self.send(f"say-{side}", **{f"text_{side}": text, f"n_{side}": n})

    @property
    def talk(self) -> Talk:
        return self.pages.talks.read(self.who, self.item)

    def wait(self, until: Callable[[Talk], bool] = lambda talk: not talk.waiting) -> Talk:
        """Wait for replies; long, on a machine that is slow."""
        end = time.monotonic() + 120
        while not until(self.talk):
            assert time.monotonic() < end, self.talk
            time.sleep(0.02)
        return self.talk

    def converse(self, n: int) -> Talk:
        """Talk with both until each has said ``n`` messages."""
        if not self.talk.is_begun:
            self.say("both", "I lost my job and cannot sleep")
        for _ in range(n * 2):
            talk = self.wait()
            for side in ("left", "right"):
                if getattr(talk, side).n_said < n:
                    self.say(side, f"and then, {getattr(talk, side).n_said}, what?")
        return self.wait()

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [event.body for event in self.store.events() if event.kind == kind]


@contextmanager
def desk(study: Study, who: str = "somebody") -> Iterator[Desk]:
    """Give the pages of a study as a server has them, with somebody let in."""
    said = Said()
    with Store.open(study) as store, open_pages(study, store, said) as pages:
        yield Desk(study, store, pages, said.lines).enter(who)
