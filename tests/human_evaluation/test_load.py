"""Many people at once, in a hurry, while the server is killed: every answer is there, once."""

from __future__ import annotations

import hashlib
import random
import sqlite3
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from augesc_builder.human_evaluation.form import ATTENTION
from augesc_builder.human_evaluation.store import Store
from augesc_builder.human_evaluation.study import Study
from augesc_builder.run import layout
from tests.human_evaluation.people import Person, Server, fill, leave_all, links_of
from tests.human_evaluation.studies import make_study


class Annotator:
    """Somebody who reloads, clicks twice, sends old forms again and changes their mind."""

    def __init__(self, address: str, number: int) -> None:
        self.person = Person(address, patience=900)
        self.dice = random.Random(number)
        self.number = number
        self.meant: dict[str, dict[str, int]] = {}
        self.taken: set[str] = set()
        """Marks of forms that the server said it had taken."""
        self.old: list[tuple] = []

    def work(self) -> None:
        self.person.begin()
        while self.person.page.step != "done":
            self._rate()
            if self.dice.random() < 0.15 and self.person.page.step not in {"1", "done"}:
                self._change()
        self.person.close()

    def _rate(self) -> None:
        person, dice = self.person, self.dice
        if dice.random() < 0.2:
            person.open(person.page.address)  # a reload
        page = person.page
        if dice.random() < 0.3:  # a change of mind before it is sent
            self._send({"empathy": "1", "logic": "2"}, "keep", page, n=1)
        given = self._choose(page, "first")
        if dice.random() < 0.25:  # a double click: two requests at a time
            other = Person(page.address, patience=900)
            with ThreadPoolExecutor(1) as second:
                late = second.submit(other.send, {**given, "n": "2"}, "on", page)
                self._send(given, "on", page, n=2)
                late.result()
            other.close()
        else:
            self._send(given, "on", page, n=2)
        assert person.page.status == 200, person.page.text
        self.old.append((page, given))
        if dice.random() < 0.2:  # a copy that was held up somewhere comes after all
            here = person.page
            older, values = dice.choice(self.old)
            self._send(values, "on", older, n=2)
            person.page = here

    def _change(self) -> None:
        self._send({}, "back", self.person.page, n=1)
        page = self.person.page
        self._send(self._choose(page, "second"), "on", page, n=2)

    def _choose(self, page, mood: str) -> dict[str, str]:
        item = page.form.values["item"]

        def option(i: int) -> int:
            text = f"{self.number}/{item}/{i}/{mood}/{len(self.old)}"
            return hashlib.sha256(text.encode()).digest()[0] % 4 + 1

        given = fill(page, option)
        self.meant[item] = {key: int(value) for key, value in given.items()}
        return given

    def _send(self, values: dict[str, str], go: str, page, n: int) -> None:
        here = self.person.page
        answer = self.person.send({**values, "n": str(n)}, go, page)
        if answer.status in {200, 204} and values:
            self.taken.add(f"{page.form.values['nonce']}.{n}")
        if answer.status == 204:
            self.person.page = here


def many_at_once(folder, n_people: int, per_person: int, n_kills: int) -> None:
    sessions = n_people * per_person // 9  # of each of three sets; three people rate each
    study = make_study(
        folder,
        *(f"sessions={sessions}", f"per_person={per_person}", "ratings=3", "min_seconds=0"),
        *("crowd.enabled=true", f"links={n_people // 2}"),
        n=sessions,
    )
    assert len(study.places) == n_people
    table = folder.with_name("links.csv")
    with Server(folder, "--links", str(table)) as server:
        addresses = list(links_of(table).values())
        addresses += [
            f"{server.address}/?PROLIFIC_PID=person{i}&STUDY_ID=s&SESSION_ID=v{i}"
            for i in range(n_people - len(addresses))
        ]
        people = [Annotator(address, i) for i, address in enumerate(addresses)]
        over = threading.Event()

        def kill() -> int:
            killed = 0
            while killed < n_kills and not over.is_set():
                if sum(len(a.old) for a in people) > (killed + 1) * n_people * per_person // (
                    n_kills + 1
                ):
                    server.kill()
                    try:
                        server.start()
                    except BaseException:
                        for annotator in people:  # nobody waits for what does not come
                            annotator.person.patience = 0
                        raise
                    killed += 1
                time.sleep(0.01)
            return killed

        with ThreadPoolExecutor(n_people + 1) as pool:
            killer = pool.submit(kill)
            working = [pool.submit(annotator.work) for annotator in people]
            wait(working)
            over.set()
            for done in working:
                done.result()
            assert killer.result() == n_kills
        assert server.stop()[0] == 0
    leave_all()
    _check(Study.open(folder), people, per_person)


def _check(study: Study, people: list[Annotator], per_person: int) -> None:
    with Store.open(study) as store:
        log = list(store.events())
        placed = {e.annotator: e.body for e in log if e.kind == "placed"}
        answers = {
            (name, item): store.answers(name, item)
            for name, body in placed.items()
            for item in body["items"]
        }
        ratings = list(store.ratings())
    assert Counter(e.kind for e in log)["placed"] == len(people)
    assert sorted(body["place"] for body in placed.values()) == list(range(len(people)))

    # Given to the right session, and to no other.
    own = {name: set(body["items"]) for name, body in placed.items()}
    assert all(e.item in own[e.annotator] for e in log if e.kind == "answered")
    meant = Counter(
        (item, tuple(sorted(given.items())))
        for annotator in people
        for item, given in annotator.meant.items()
    )
    found = Counter((item, tuple(sorted(given.items()))) for (_, item), given in answers.items())
    assert found == meant

    # Lost: none. Doubled: none.
    assert len(ratings) == len(people) * per_person * 7
    assert Counter(Counter((r.session, r.question) for r in ratings).values()).keys() == {3}
    assert len({(r.annotator, r.session, r.question) for r in ratings}) == len(ratings)
    assert not any(r.question == ATTENTION for r in ratings)
    with sqlite3.connect(study.folder / layout.EVENTS) as connection:
        marks = Counter(
            mark
            for (mark,) in connection.execute(
                "SELECT submission FROM events WHERE kind = 'answered'"
            )
        )
    connection.close()
    taken = {mark for annotator in people for mark in annotator.taken}
    assert taken <= set(marks)
    assert set(marks.values()) == {1}


def test_a_few_at_once_while_the_server_is_killed(tmp_path):
    many_at_once(tmp_path / "study", n_people=6, per_person=3, n_kills=1)


@pytest.mark.slow
def test_sixty_at_once_while_the_server_is_killed_five_times(tmp_path):
    many_at_once(tmp_path / "study", n_people=60, per_person=15, n_kills=5)
