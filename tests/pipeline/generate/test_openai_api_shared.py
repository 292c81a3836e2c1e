"""Several workers that ask one endpoint: none pays for what another has; they share a budget."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from augesc_builder.errors import BudgetError, RecipeError
from augesc_builder.pipeline.generate.backends.openai_api import OpenAIBackend
from augesc_builder.pipeline.generate.endpoint import asking, journal
from augesc_builder.pipeline.generate.endpoint.asking import Asking
from augesc_builder.pipeline.generate.endpoint.client import Answer, Endpoint
from augesc_builder.pipeline.generate.endpoint.journal import Journal
from augesc_builder.pipeline.generate.endpoint.lines import Place, digest_of
from augesc_builder.run import copies, layout
from tests.conftest import ROOT, SOAK, rows_of
from tests.endpoint_stub import MODEL, Reply, Stub, usual
from tests.pipeline.generate.test_openai_api import Runs, reasons

pytest.importorskip("openai", reason="the extra api")

SEVERAL = "executor.type=slurm"
BODY = {"model": MODEL, "prompt": "once more", "max_tokens": 10}
PROMPT = digest_of(BODY)


@pytest.fixture(autouse=True)
def _hasty(monkeypatch):
    """Others are looked at as often as can be."""
    monkeypatch.setattr(journal, "LOOK", 0.0)
    monkeypatch.setattr(journal, "FORGET", 0.0)
    monkeypatch.setattr(asking, "LOOK", 0.01)


@pytest.fixture
def stub():
    with Stub() as server:
        yield server


@pytest.fixture
def runs(tmp_path, stub):
    return Runs(tmp_path, stub, 10)


def journals(out: Path) -> list[list[dict]]:
    """Give the lines of each worker's journal; a kill may leave a torn one at the end."""
    files = [path.read_bytes().splitlines(keepends=True) for path in out.glob("requests/*.jsonl")]
    return [[json.loads(line) for line in lines if line.endswith(b"\n")] for lines in files]


class Worker:
    """One of several workers of a run, as far as its journal goes."""

    def __init__(self, runs: Runs, *overrides: str) -> None:
        recipe = runs.recipe(SEVERAL, *overrides)
        runs.out.mkdir(exist_ok=True)
        self.backend = OpenAIBackend(recipe, runs.folder, runs.out)
        self.done = set[int]()
        self.backend.is_done = self.done.__contains__
        self.journal: Journal = self.backend.journal

    def asked(self, place: Place) -> None:
        self.journal.asked("one", place, PROMPT, (7, 10))

    def answered(self, text: str = "yes") -> None:
        asyncio.run(self.journal.answered("one", Answer(text, "stop", 5, 3), 0.1))

    def ask(self, place: Place) -> Answer:
        settings = self.backend.recipe.generate.backend

        async def ask() -> Answer:
            endpoint = Endpoint(settings)
            try:
                return await Asking(settings, endpoint, self.journal).ask(place, BODY)
            finally:
                await endpoint.close()

        return asyncio.run(ask())


def is_elsewhere(worker: Worker) -> None:
    """Let the journal of a worker be that of another machine."""
    (path,) = worker.backend.folder.glob("requests/*.jsonl")
    first, *others = path.read_text().splitlines()
    begun = json.loads(first)
    begun["process"]["host"] = "elsewhere"
    path.write_text("\n".join([json.dumps(begun), *others, ""]))


def is_gone(worker: Worker) -> None:
    """Let the process of a worker have ended."""
    (path,) = worker.backend.folder.glob("requests/*.jsonl")
    first, *others = path.read_text().splitlines()
    begun = json.loads(first)
    begun["process"]["pid"] = 2**22 + 1
    path.write_text("\n".join([json.dumps(begun), *others, ""]))


def test_what_another_was_answered_is_not_asked_for(runs, stub):
    first, second = Worker(runs), Worker(runs)
    place = Place("q", 0, shard=3)
    first.asked(place)
    first.answered()
    assert second.ask(place).text == "yes"
    assert not stub.asked
    assert second.journal.spent.tokens == 8
    assert second.journal.own.tokens == 0
    second.journal.close()  # nothing was paid for by it
    assert len(journals(runs.out)) == 1


def test_what_another_is_being_answered_is_waited_for(runs, stub, monkeypatch):
    first, second = Worker(runs), Worker(runs)
    place, looks = Place("q", 0), []
    first.asked(place)
    original = Journal.is_asked

    def is_asked(self, *key):
        found = original(self, *key)
        looks.append(found)
        if len(looks) == 3:
            first.journal.failed("one", "no", 0.1, paid=False)
            first.asked(place)
        if len(looks) == 5:
            raise ZeroDivisionError
        return found

    monkeypatch.setattr(Journal, "is_asked", is_asked)
    with pytest.raises(ZeroDivisionError):
        second.ask(place)
    assert looks == [True] * 5
    monkeypatch.setattr(Journal, "is_asked", original)
    first.answered()
    assert second.ask(place).text == "yes"
    assert not stub.asked


def test_who_is_gone_is_not_waited_for_and_may_have_paid(runs, stub):
    first = Worker(runs)
    place = Place("q", 0)
    first.asked(place)
    assert Worker(runs).journal.spent.unknown == 0  # it is at work
    is_gone(first)
    second = Worker(runs)
    assert second.journal.spent.unknown_tokens == 17
    begun = time.monotonic()
    second.ask(place)
    assert len(stub.asked) == 1
    assert time.monotonic() - begun < 60 < second.backend.recipe.generate.backend.timeout


def test_who_is_elsewhere_is_waited_for_as_long_as_a_request_may_take(runs, stub):
    first = Worker(runs)
    place = Place("q", 0)
    first.asked(place)
    is_elsewhere(first)
    second = Worker(runs, "generate.backend.timeout=0.5")
    begun = time.monotonic()
    assert second.journal.spent.unknown == 1
    second.ask(place)
    assert time.monotonic() - begun >= 0.5
    assert len(stub.asked) == 1


def test_no_answer_is_kept_in_mind_of_a_shard_that_is_done(runs):
    first, second = Worker(runs), Worker(runs)
    for shard in (0, 1):
        first.asked(Place("q", shard, shard=shard))
        first.answered()
    assert second.journal.answer(Place("q", 1), PROMPT) is not None
    second.done.add(1)
    assert second.journal.answer(Place("q", 1), PROMPT) is None
    assert second.journal.answer(Place("q", 0), PROMPT) is not None
    late = Worker(runs)
    late.done.update({0, 1})
    late = Journal(late.journal.path, None, others=late.journal._others, is_done={0}.__contains__)
    assert [place.sample for place, _ in late._answers] == [1]
    assert late.spent.answers == 2


def test_the_budget_is_that_of_all(runs, stub):
    first = Worker(runs)
    first.asked(Place("q", 0))
    first.answered()
    for budget, says in ((8, "budget.tokens is 8, and 8 are spent in 1 answers"), (9, None)):
        second = Worker(runs, f"generate.backend.budget.tokens={budget}")
        if says is None:
            second.ask(Place("q", 1))
        else:
            with pytest.raises(BudgetError, match=says):
                second.ask(Place("q", 1))
    assert len(stub.asked) == 1


def test_one_process_goes_on_from_what_workers_paid_for(runs, stub, monkeypatch):
    monkeypatch.setenv("AUGESC_RANK", "0")
    monkeypatch.setenv("AUGESC_WORLD_SIZE", "1")
    budget = "generate.backend.budget.tokens=1300"
    with pytest.raises(BudgetError, match=r"budget\.tokens is 1,300"):
        runs(SEVERAL, budget, "generate.backend.concurrency=1")
    n = len(stub.answered)
    assert 4 < n < 10
    with pytest.raises(BudgetError, match=f"in {n} answers"):
        runs(budget)
    assert reasons(runs()) == {"eos": 10}
    assert len(stub.asked) == runs.facts()["answers"] == 10


def test_a_budget_that_workers_cannot_share_is_refused(runs, monkeypatch, tmp_path):
    monkeypatch.setenv(copies.WORK, str(tmp_path / "work"))
    recipe = runs.recipe(SEVERAL, "generate.backend.budget.tokens=5")
    at_address = copies.folder_of("memory://bucket/run")
    with pytest.raises(RecipeError, match=r"budget: workers of a run at an address \(memory://"):
        OpenAIBackend(recipe, tmp_path, at_address).prepare({}, 1, 1)
    OpenAIBackend(runs.recipe(SEVERAL), tmp_path, at_address).prepare({}, 1, 1)
    OpenAIBackend(recipe, tmp_path, tmp_path).prepare({}, 1, 1)


def test_a_journal_at_an_address_is_found_by_the_next_worker(runs, monkeypatch, tmp_path):
    address, place = f"memory://bucket/{tmp_path.name}", Place("q", 0)
    for machine in ("a", "b"):
        monkeypatch.setenv(copies.WORK, str(tmp_path / machine))
        runs.out = copies.folder_of(address)
        worker = Worker(runs)
        if machine == "b":
            assert worker.journal.answer(place, PROMPT).text == "yes"
            break
        worker.asked(place)
        worker.answered()
        worker.journal.close()
        worker.backend.close()


class Elements:
    """Elements of an array, as processes, and the command behind them."""

    def __init__(self, runs: Runs, n: int) -> None:
        self.runs, self.n = runs, n

    def start(self, rank: int | None) -> subprocess.Popen[str]:
        runs = self.runs
        given = {
            "generate.backend.base_url": runs.stub.url,
            "generate.backend.model": MODEL,
            "generate.shard_size": 4,
            "generate.backend.concurrency": 3,
        }
        command = [
            *(sys.executable, "-m", "augesc_builder", "generate", str(runs.queries)),
            *("--recipe", "paper-gpt3", "--out", str(runs.out), "--executor", "slurm"),
            *(part for key, value in given.items() for part in ("--set", f"{key}={value}")),
        ]
        rank_of = {"AUGESC_RANK": str(rank), "AUGESC_WORLD_SIZE": str(self.n)}
        environ = {**os.environ, **({} if rank is None else rank_of)}
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=environ,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def end(self, process: subprocess.Popen[str]) -> None:
        said, _ = process.communicate(timeout=600)
        assert process.returncode == 0, said


@pytest.mark.slow
def test_elements_share_an_endpoint_and_the_last_command_adds_up(tmp_path, stub):
    runs = Runs(tmp_path, stub, 30)
    stub.behave = lambda asked: Reply(usual(asked).body, delay=0.1)
    elements = Elements(runs, 2)
    both = [elements.start(rank) for rank in range(2)]
    for process in both:
        elements.end(process)
    elements.end(elements.start(None))
    rows = rows_of(runs.out)
    assert reasons(rows) == {"eos": 30}
    assert len({row["query_id"] for row in rows}) == 30
    assert runs.facts()["answers"] == len(stub.answered) == len(stub.asked)
    # Two may ask for the same row where neither has seen yet that the other does.
    assert 30 <= len(stub.asked) <= 30 + 5 * 3
    assert not (runs.out / layout.REQUESTS).exists()
    for lines in journals(runs.out):
        assert lines[0]["event"] == "begun"
        assert sum(line["event"] == "answered" for line in lines) > 0
    manifest = json.loads((runs.out / "manifest.json").read_text())
    (kind,) = manifest["stages"]["generate"]["kinds"]
    assert kind == {"facts": {"name": f"{MODEL} at 127.0.0.1"}, "shards": 8}


@pytest.mark.slow
@pytest.mark.soak
def test_elements_that_are_killed_lose_no_answer(tmp_path, stub):
    rng = random.Random(5)
    n, n_kills = 120, 40 if SOAK else 3
    runs = Runs(tmp_path, stub, n)
    stub.behave = lambda asked: Reply(usual(asked).body, delay=0.2)
    elements = Elements(runs, 2)
    under = [elements.start(rank) for rank in range(2)]
    for _ in range(n_kills):
        goal, begun = len(stub.answered) + rng.randrange(1, 8), time.monotonic()
        while len(stub.answered) < min(goal, n - 5) and time.monotonic() - begun < 120:
            time.sleep(0.02)
        rank = rng.randrange(2)
        under[rank].send_signal(signal.SIGKILL)
        under[rank].communicate()
        under[rank] = elements.start(rank)
    for process in under:
        elements.end(process)
    elements.end(elements.start(None))
    rows = rows_of(runs.out)
    assert Counter(row["query_id"] for row in rows) == Counter(f"{i:016x}" for i in range(n))
    facts = runs.facts()
    # An answer that was sent, and of which nothing is known here, was under way as one was killed.
    assert facts["answers"] <= len(stub.answered) <= facts["answers"] + facts["of_unknown_end"]
    assert facts["of_unknown_end"] <= 3 * n_kills
    assert len(stub.asked) <= n + 3 * n_kills + 2 * 3 * (n_kills + 1)
