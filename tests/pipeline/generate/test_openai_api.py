"""The backend ``openai_api`` against a real server on loopback, which can misbehave."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from augesc_builder.config.recipe import load_recipe
from augesc_builder.errors import (
    BudgetError,
    DiskError,
    EndpointError,
    MissingExtraError,
    RunFolderError,
)
from augesc_builder.pipeline.generate import stage
from augesc_builder.pipeline.generate.backends import backend_of
from augesc_builder.pipeline.generate.endpoint import throttle
from augesc_builder.pipeline.generate.endpoint.asking import Stopped
from augesc_builder.pipeline.generate.endpoint.client import retry_after
from augesc_builder.pipeline.generate.endpoint.journal import Journal
from augesc_builder.run.progress import Progress
from augesc_builder.text.prompts import PLAIN, PromptTemplate, read_text
from tests.conftest import ROOT, SOAK, rows_of
from tests.endpoint_stub import (
    MODEL,
    Asked,
    Reply,
    Stub,
    chat,
    completion,
    conversation,
    failure,
    usual,
)

pytest.importorskip("openai", reason="the extra api")

CHAT = "generate.backend.mode=chat"
KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def _hasty(monkeypatch):
    """Pauses are short, so that tests are."""
    monkeypatch.setattr(throttle, "_FIRST_WAIT", 0.01)
    monkeypatch.setattr(throttle, "_LONGEST_WAIT", 0.1)


@pytest.fixture
def stub():
    with Stub() as server:
        yield server


def write_queries(path: Path, n: int) -> Path:
    table = {
        "query_id": [f"{i:016x}" for i in range(n)],
        "source": ["sample"] * n,
        "text": [f"I feel sad about thing number {i} and nobody listens" for i in range(n)],
    }
    pq.write_table(pa.table(table), path)
    return path


class Runs:
    """Runs of the stage into one folder."""

    def __init__(self, folder: Path, stub: Stub, n: int) -> None:
        self.folder, self.stub = folder, stub
        self.out = folder / "out"
        self.queries = write_queries(folder / "queries.parquet", n)
        self.overrides: list[str] = []

    def recipe(self, *overrides: str):
        return load_recipe(
            "paper-gpt3",
            [
                f"generate.backend.base_url={self.stub.url}",
                f"generate.backend.model={MODEL}",
                "generate.shard_size=4",
                *self.overrides,
                *overrides,
            ],
        )

    def __call__(self, *overrides: str) -> list[dict]:
        progress = Progress(quiet=True)
        stage.standalone(self.recipe(*overrides), self.queries, None, self.out, progress)
        return rows_of(self.out)

    def journal(self) -> list[dict]:
        """Give its lines; a kill may leave a torn one at the end."""
        path = self.out / "requests.jsonl"
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith(b"\n")]

    def events(self) -> Counter[str]:
        return Counter(line["event"] for line in self.journal())

    def facts(self) -> dict:
        return json.loads((self.out / "manifest.json").read_text())["stages"]["generate"][
            "requests"
        ]


@pytest.fixture
def runs(tmp_path, stub):
    return Runs(tmp_path, stub, 10)


def reasons(rows) -> Counter[str]:
    return Counter(row["finish_reason"] for row in rows)


def once(reply: Reply, times: int = 1):
    """Behave as usual, but for the first requests."""
    left = [times]

    def behave(asked: Asked) -> Reply:
        left[0] -= 1
        return reply if left[0] >= 0 else usual(asked)

    return behave


# -- what is asked, and what comes of it -----------------------------------------------------------


def test_a_completion_is_the_papers_template(runs, stub):
    rows = runs()
    recipe = runs.recipe()
    template = PromptTemplate(recipe.prompt.instruction)
    prompts = {template.for_query(row["query"]): row["text"] for row in rows}
    assert {asked.body["prompt"] for asked in stub.asked} == prompts.keys()
    for asked in stub.asked:
        assert asked.path == "/v1/completions"
        assert asked.body["max_tokens"] == 400
        assert (asked.body["top_p"], asked.body["temperature"]) == (0.9, 0.9)
        assert "stop" not in asked.body
        assert prompts[asked.body["prompt"]] == conversation(asked.body["prompt"])
    assert len({asked.body["seed"] for asked in stub.asked}) == len(rows)
    assert all(PLAIN.parse(PLAIN.for_query(row["query"]) + row["text"]) for row in rows)
    assert {(row["n_tokens"], row["n_prompt_tokens"]) for row in rows} == {(None, None)}
    assert reasons(rows) == {"eos": 10}


def test_the_first_request_goes_alone_and_never_more_than_the_recipe_says(runs, stub):
    def behave(asked: Asked) -> Reply:
        waits = len(stub.asked) == 4  # when three may be under way, until the others are there
        return Reply(usual(asked).body, delay=3 if waits else 0.02)

    stub.behave = behave
    runs("generate.backend.concurrency=3")
    assert stub.most_at_once == 3
    runs.out = runs.folder / "other"
    with Stub(lambda _: failure(401)) as other, pytest.raises(EndpointError):
        runs(f"generate.backend.base_url={other.url}")
    assert len(other.asked) == 1


@pytest.mark.parametrize(
    ("said", "text", "reason"),
    [
        ("AI: Hello.\nHuman: Hi.", " Hello.\nHuman: Hi.", "eos"),
        ("\n\nHuman: QUERY\nAI: Hello.\n", " Hello.", "eos"),
        ("Human: But wait.\nAI: Yes?", "\nHuman: But wait.\nAI: Yes?", "eos"),
        ("Sure! Here it is:\nAI: Hello.", "\nSure! Here it is:\nAI: Hello.", "wrong_format"),
        ("  ", "  ", "empty"),
    ],
)
def test_a_chat_answers_in_the_form_that_was_asked_for(tmp_path, stub, said, text, reason):
    runs = Runs(tmp_path, stub, 1)
    query = "I feel sad about thing number 0 and nobody listens"
    stub.behave = lambda _: Reply(chat(said.replace("QUERY", query)))
    (row,) = runs(CHAT, "generate.backend.examples=2", "finetune.sessions=sample")
    assert (row["text"], row["finish_reason"]) == (text, reason)
    system, user = stub.asked[0].body["messages"]
    assert (system["role"], user["role"]) == ("system", "user")
    assert system["content"].startswith(runs.recipe().prompt.instruction)
    assert system["content"].count("An example of such a conversation:") == 2
    assert user["content"].endswith(f"\n\nHuman: {query}")
    messages = PLAIN.parse(PLAIN.for_query(query) + row["text"])
    assert (messages is None) == (reason == "wrong_format")


TURNS = (
    "generate.backend.turns={max: 6, last_words: [take care, bye], request: Write the next line.}"
)


def test_a_chat_line_by_line_takes_turns_until_a_last_word_or_the_limit(tmp_path, stub):
    runs = Runs(tmp_path, stub, 3)

    def behave(asked: Asked) -> Reply:
        said = asked.body["messages"][1]["content"]
        n = said.count("\n")
        if "number 2" in said:
            return Reply(chat("Bye-bye is no word of these. Take care!"))
        if "number 1" in said and n >= 5:
            return Reply(chat("AI: Thank you, bye!\nHuman: I go on and on"))
        return Reply(chat(f"  goodbye is no key {n} \nHuman: ignored" if n % 2 else f"line {n}"))

    stub.behave = behave
    found = {row["query"][30]: row for row in runs(CHAT, TURNS)}
    assert found["0"]["finish_reason"] == "length"
    assert found["1"]["finish_reason"] == "eos"
    messages = PLAIN.parse(PLAIN.for_query(found["0"]["query"]) + found["0"]["text"])
    assert [m["role"] for m in messages] == ["user", "assistant"] * 3
    assert found["2"]["finish_reason"] == "eos"
    assert len(stub.asked) == 5 + found["1"]["text"].count("\n") + 1 + 1
    assert all(asked.body["stop"] == ["\n"] for asked in stub.asked)
    assert found["1"]["text"].endswith("AI: Thank you, bye!")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (completion(" Hello", finish="length"), "length"),
        (completion("", finish="stop"), "empty"),
        (completion(" Hel", finish="content_filter"), "content_filter"),
        (completion(" Hello", finish="\x1b[31mmischief"), "other"),
        (completion(" Hello", finish=None), "eos"),
    ],
)
def test_every_end_is_a_row_with_its_reason(runs, stub, body, reason):
    stub.behave = lambda _: Reply(body)
    assert reasons(runs()) == {reason: 10}
    assert not (runs.out / ".work").exists()


def test_a_refusal_is_one(runs, stub):
    stub.behave = lambda _: Reply(chat(None, refusal="I will not."))
    assert reasons(runs(CHAT)) == {"refused": 10}


def test_an_endpoint_that_ignores_a_stop_is_cut(runs, stub):
    stub.behave = lambda _: Reply(completion(" Hello.\nEND\nmore", finish="length"))
    rows = runs('generate.backend.stop=["\\nEND"]')
    assert {row["text"] for row in rows} == {" Hello."}
    assert reasons(rows) == {"eos": 10}


def test_what_an_endpoint_writes_is_hostile(runs, stub):
    text = " Hi \x1b[2J\x00 \u2028 <|im_end|>\nHuman: x\r\n\ud800AI: y"
    stub.behave = lambda _: Reply(completion(text))
    (shown,) = {row["text"] for row in runs()}
    assert shown == text.replace("\ud800", "\n\ufffd ")
    assert PLAIN.parse(PLAIN.for_query("q") + shown) is None
    lines = (runs.out / "requests.jsonl").read_bytes()
    assert lines.isascii()
    assert b"\x1b" not in lines


# -- faults ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "event"),
    [
        (failure(429, retry_after="0"), "refused"),
        (failure(500), "refused"),
        (failure(503, retry_after="0.01"), "refused"),
        (Reply(completion(" x"), cut=True), "lost"),
        (Reply(raw=b'{"choices": [{"text": "x"'), "lost"),
        (Reply(raw=b"[" * 100_000), "lost"),
        (Reply(raw=b"\xff\xfe\x00"), "lost"),
        (Reply({"choices": []}), "lost"),
        (Reply({"choices": [{"text": ["x"]}]}), "lost"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_request_that_fails_is_sent_again(runs, stub, reply, event):
    stub.behave = once(reply, 2)
    rows = runs()
    assert reasons(rows) == {"eos": 10}
    assert runs.events() == {"asked": 12, event: 2, "answered": 10}
    assert len(stub.asked) == 12
    assert len(stub.answered) == 10 + 2 * (
        reply.status == 200 and not reply.cut and reply.raw is None
    )
    assert runs.facts()["of_unknown_end"] == 2 * (event == "lost")


def test_an_answer_that_does_not_come_in_time_is_asked_for_again(runs, stub):
    stub.behave = once(Reply(completion(" x"), delay=30))
    runs("generate.backend.timeout=2")
    assert runs.events() == {"asked": 11, "lost": 1, "answered": 10}


def test_too_many_requests_make_it_slower_and_it_recovers(tmp_path, stub):
    runs = Runs(tmp_path, stub, 120)
    at_once = [0]

    def behave(asked: Asked) -> Reply:
        at_once[0] = max(at_once[0], stub._at_once)
        if stub._at_once > 5:
            return failure(429, retry_after="0")
        return Reply(usual(asked).body, delay=0.01)

    stub.behave = behave
    assert reasons(runs("generate.backend.concurrency=64")) == {"eos": 120}
    refused = runs.events()["refused"]
    assert 0 < refused < 120
    assert at_once[0] > 5


# The stub is torn down in the middle of its connections, and leaves their sockets.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("mend", ["dies", "hangs"])
def test_a_server_that_dies_and_comes_back(tmp_path, stub, mend):
    runs = Runs(tmp_path, stub, 30)
    seen = []

    def behave(asked: Asked) -> Reply:
        seen.append(asked)
        if len(seen) == 12 and mend == "dies":
            again()
        return Reply(usual(asked).body, delay=30 if mend == "hangs" and len(seen) == 12 else 0.005)

    def again() -> None:
        def go() -> None:
            stub.stop()
            time.sleep(0.3)
            stub.start()

        threading.Thread(target=go).start()

    stub.behave = behave
    assert reasons(runs("generate.backend.timeout=3")) == {"eos": 30}
    events = runs.events()
    assert events["answered"] == 30
    assert len(stub.asked) <= events["asked"]


def test_a_prompt_that_is_never_answered_while_others_are_is_kept_as_failed(runs, stub):
    def behave(asked: Asked) -> Reply:
        bad = "number 7" in asked.body["prompt"]
        return failure(400, "this prompt is not allowed") if bad else usual(asked)

    stub.behave = behave
    rows = runs()
    assert reasons(rows) == {"eos": 9, "failed": 1}
    (row,) = (row for row in rows if row["finish_reason"] == "failed")
    assert (row["text"], "number 7" in row["query"]) == ("", True)
    (line,) = (line for line in runs.journal() if line["event"] == "refused")
    assert "not allowed" in line["reason"]
    assert runs.facts()["answers"] == len(stub.answered) == 9
    assert (
        Journal(runs.out / "requests.jsonl", None).spent.answers == 9
    )  # as a resumed run reads it


def test_an_answer_that_is_never_of_use_is_paid_for_three_times_at_most(runs, stub):
    def behave(asked: Asked) -> Reply:
        return Reply(raw=b"{") if "number 7" in asked.body["prompt"] else usual(asked)

    stub.behave = behave
    assert reasons(runs("generate.backend.deadline=5")) == {"eos": 9, "failed": 1}
    assert runs.facts()["of_unknown_end"] == 3


@pytest.mark.parametrize("status", [400, 500])
def test_where_nothing_is_ever_answered_the_run_stops_in_one_line(runs, stub, status):
    stub.behave = lambda _: failure(status, "out of order\nTwo lines \x1b[31m")
    with pytest.raises(EndpointError) as error:
        runs("generate.backend.deadline=0.5")
    assert f"answers {status}: out of order" in str(error.value)
    assert str(error.value).isprintable()
    assert not runs.out.exists()


@pytest.mark.parametrize(
    ("models", "says"),
    [
        ([MODEL + "-2", "b"], f"the endpoint names {MODEL}-2"),
        (None, "check generate.backend.model"),
    ],
)
def test_an_unknown_model_is_told_by_one_request_that_costs_nothing(runs, stub, models, says):
    stub.models = models
    stub.behave = lambda asked: failure(404, f"no model {asked.body['model']}")
    with pytest.raises(EndpointError, match=says):
        runs()
    assert len(stub.asked) == 1
    assert not runs.out.exists()


def test_an_account_with_nothing_left_is_not_asked_again(runs, stub):
    said = {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}
    stub.behave = lambda _: Reply(said, 429)
    with pytest.raises(EndpointError, match="nothing left to spend"):
        runs()
    assert len(stub.asked) == 1


def test_a_wait_beyond_the_deadline_ends_the_run(runs, stub):
    stub.behave = once(failure(429, retry_after="3600"), 99)
    with pytest.raises(EndpointError, match=r"429.*run the same command again"):
        runs()
    assert len(stub.asked) == 1


def test_an_endpoint_that_is_not_there_is_one_line(runs, refused):
    runs.stub.stop()
    line = refused(
        *("generate", runs.queries, "--out", runs.out, "--recipe", "paper-gpt3"),
        *("--set", f"generate.backend.base_url={runs.stub.url}"),
    )
    assert f"{runs.stub.url}: nothing answers there" in line
    assert not runs.out.exists()


@pytest.mark.parametrize("at_once", [1, 2, 8])
def test_a_budget_stops_the_run_and_a_larger_one_goes_on(at_once, runs, stub):
    """What is spent beyond it is what was under way when it was reached."""
    stub.behave = lambda asked: Reply(usual(asked).body, delay=0.005)
    prices = "generate.backend.prices={prompt: 10, completion: 100}"
    money = (40 * 10 + len(conversation("x")) // 5 * 100) / 1e6
    limit = f"generate.backend.budget.money={3.5 * money}"
    with pytest.raises(BudgetError, match=r"budget.money is .* raise it and run the same command"):
        runs(prices, limit, f"generate.backend.concurrency={at_once}")
    n_asked = len(stub.asked)
    assert 4 <= len(stub.answered) == n_asked <= 3 + at_once
    with pytest.raises(BudgetError):
        runs(prices, limit)
    assert len(stub.asked) == n_asked
    assert len(runs(prices)) == 10
    assert len(stub.asked) == len(stub.answered) == 10
    assert runs.facts()["money"] == pytest.approx(10 * money, rel=0.1)


def test_a_budget_may_be_spent_to_the_last_token_and_not_beyond(runs, stub):
    each = 40 + len(conversation("x")) // 5
    stub.behave = lambda _: Reply(completion(conversation("x")))
    one = "generate.backend.concurrency=1"
    for budget, n_answered in ((2 * each, 2), (2 * each + 1, 3)):
        with pytest.raises(BudgetError, match=rf"tokens is {budget}, and {n_answered * each} are"):
            runs(one, f"generate.backend.budget.tokens={budget}")
        assert len(stub.answered) == n_answered


@pytest.mark.parametrize(
    ("limit", "spent"), [("money=0.8", r"0\.8"), ("tokens=850", r"\d{3}"), ("tokens=401", r"\d{3}")]
)
def test_what_may_have_been_paid_for_counts_against_the_budget(runs, stub, limit, spent):
    """Answers that broke off, with the most that they can have been."""
    stub.behave = once(Reply(completion(" x"), cut=True), 2)
    n = 1 if limit == "tokens=401" else 2  # the 400 of an answer, and those of its prompt
    prices = "generate.backend.prices={prompt: 0, completion: 1000}"
    for _ in ("the run", "and the next, by its journal"):
        with pytest.raises(BudgetError, match=rf"{spent} are spent in 0 answers and {n} requests"):
            runs(prices, f"generate.backend.budget.{limit}")
        assert len(stub.asked) == n
    assert len(runs(prices)) == 10
    assert runs.facts()["of_unknown_end"] == 2


def test_a_budget_in_tokens_counts_what_the_endpoint_does_not(runs, stub):
    stub.behave = lambda asked: Reply(completion(conversation("x"), usage=False), delay=0.005)
    with pytest.raises(BudgetError, match=r"budget\.tokens is 500"):
        runs("generate.backend.budget.tokens=500")
    lines = [line for line in runs.journal() if line["event"] == "answered"]
    assert {line["counted"] for line in lines} == {False}
    assert all(line["completion_tokens"] == -(-len(line["text"]) // 4) for line in lines)


def test_the_ledger_is_the_servers_own_count(tmp_path, stub):
    """Of requests that fail up to twice: a third answer that broke off would be the last."""
    runs, seen = Runs(tmp_path, stub, 60), Counter()

    def behave(asked: Asked) -> Reply:
        prompt = asked.body["prompt"]
        seen[prompt] += 1
        bad = [failure(429, retry_after="0"), failure(502), Reply(usual(asked).body, cut=True)]
        number = int(re.findall(r"number (\d+)", prompt)[-1])
        return bad[(number // 3 + seen[prompt]) % 3] if seen[prompt] <= number % 3 else usual(asked)

    stub.behave = behave
    runs("generate.backend.prices={prompt: 1, completion: 2}")
    facts = runs.facts()
    usage = [asked.usage for asked in stub.answered]
    assert facts["answers"] == len(usage) == 60
    for name in ("prompt_tokens", "completion_tokens"):
        assert facts[name] == sum(counts[name] for counts in usage)
    lost = [asked for asked in stub.asked if asked.status == 200 and not asked.answered]
    assert facts["of_unknown_end"] == len(lost) == 21
    assert len(stub.asked) == 60 + 60
    ended = {line["id"]: line["event"] for line in runs.journal() if line["event"] != "asked"}
    assert ended == {
        asked.id: "answered" if asked.answered else "lost" if asked.status == 200 else "refused"
        for asked in stub.asked
    }


# -- the key ---------------------------------------------------------------------------------------


def test_the_key_is_in_no_file_and_no_message(runs, stub, monkeypatch, augesc, tmp_path):
    stub.key = KEY
    stub.behave = lambda _: Reply(completion(f" Your key is {KEY}.{conversation('x')}"))
    command = (
        *("generate", runs.queries, "--out", runs.out, "--recipe", "paper-gpt3"),
        *("--set", f"generate.backend.base_url={stub.url}"),
        *("--set", f"generate.backend.model={MODEL}"),
        *("--set", "generate.backend.key_env=STUB_KEY"),
    )
    code, out, err = augesc(*command)
    assert (code, "the environment has no STUB_KEY" in err) == (2, True)
    monkeypatch.setenv("STUB_KEY", "sk-a-wrong-one-9876")
    code, out, err = augesc(*command)
    assert (code, "check the key in STUB_KEY" in err) == (2, True)
    assert "sk-a-wrong-one" not in out + err
    monkeypatch.setenv("STUB_KEY", KEY)
    code, out, err = augesc(*command)
    assert code == 0, err
    said = out + err
    for path in runs.out.rglob("*"):
        if path.is_file():
            said += path.read_bytes().decode("latin-1")
    assert "Your key is [key]." in {row["text"][1:19] for row in rows_of(runs.out)}
    assert KEY not in said
    assert not stub.asked[0].headers["authorization"].endswith("none")


@pytest.mark.parametrize(
    ("kept", "says"), [(KEY, None), (None, "has no STUB_KEY"), (OSError("locked"), "locked")]
)
def test_a_key_may_be_kept_in_the_keyring(runs, stub, monkeypatch, kept, says):
    """In the place of the package, which asks the desktop."""
    keyring, asked = ModuleType("keyring"), []

    def get_password(*names):
        asked.append(names)
        if isinstance(kept, OSError):
            raise kept
        return kept

    keyring.get_password, keyring.errors = get_password, SimpleNamespace(KeyringError=OSError)
    monkeypatch.setitem(sys.modules, "keyring", keyring)
    stub.key = KEY
    runs.overrides = ["generate.backend.key_env=STUB_KEY", "generate.backend.keyring=augesc"]
    if says is None:
        assert len(runs()) == 10
    else:
        with pytest.raises(EndpointError, match=says):
            runs()
        assert not stub.asked
    assert asked[0] == ("augesc", "STUB_KEY")
    monkeypatch.setenv("STUB_KEY", KEY)  # which comes first
    asked.clear()
    runs.out = runs.folder / "other"
    assert len(runs()) == 10
    assert not asked


def test_without_the_package_of_the_keyring_it_is_named(runs, monkeypatch):
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(MissingExtraError, match="pip install keyring"):
        runs("generate.backend.key_env=STUB_KEY", "generate.backend.keyring=augesc")


@pytest.mark.parametrize(
    ("override", "says"),
    [
        (f"generate.backend.key_env={KEY}", "never the key itself"),
        (f"generate.backend.base_url=https://x:{KEY}@h/v1", "an address holds no key"),
        (f"generate.backend.base_url=https://h/v1?api_key={KEY}", "an address holds no key"),
        ("generate.backend.base_url=ftp://h/v1", "expected the address of an endpoint"),
        ("generate.backend.base_url=http://[", "expected the address of an endpoint"),
        ("generate.backend.examples=1", "go with mode: chat only"),
        ("generate.backend.budget.money=1", "budget.money needs prices"),
        ("generate.backend.extra_body={n: 2}", "extra_body holds n, which other keys decide"),
        ("generate.backend.keyring=augesc", "keyring needs key_env"),
        ("generate.repetition_penalty=1.05", "OpenAI's protocol has no such parameter"),
        ("generate.top_k=5", "generate.top_k=5: OpenAI's protocol has no such parameter"),
    ],
)
def test_settings_that_cannot_be_are_refused_without_repeating_a_key(runs, refused, override, says):
    line = refused(
        *("generate", runs.queries, "--out", runs.out, "--recipe", "paper-gpt3", "--set", override)
    )
    assert says in line
    assert KEY not in line


# -- resuming --------------------------------------------------------------------------------------


def test_a_run_resumes_at_another_address_and_asks_for_nothing_twice(runs, stub):
    answered = []

    def behave(asked: Asked) -> Reply:
        answered.append(asked.body["prompt"])
        return usual(asked) if len(answered) <= 6 else failure(401)

    stub.behave = behave
    with pytest.raises(EndpointError, match="401"):
        runs()
    with Stub() as other:
        rows = runs(f"generate.backend.base_url={other.url}", "generate.backend.concurrency=2")
        assert len(rows) == 10
        assert not {asked.body["prompt"] for asked in other.asked} & set(answered[:6])
        assert len(other.asked) == 4


@pytest.mark.parametrize("left", [0, 1, 30, -1])
def test_a_torn_last_line_is_taken_off_and_a_torn_other_one_refused(runs, stub, left):
    numbers = [*range(100)]
    stub.behave = lambda asked: usual(asked) if numbers.pop(0) < 5 else failure(401)
    with pytest.raises(EndpointError):
        runs()
    journal = runs.out / "requests.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    last = max(i for i, line in enumerate(lines) if b'"answered"' in line)
    journal.write_bytes(b"".join(lines[:last]) + lines[last][:left])
    stub.behave = usual
    assert reasons(runs()) == {"eos": 10}
    assert all(json.loads(line) for line in journal.read_text().splitlines())


def test_a_damaged_journal_is_refused(runs, stub):
    left = [5]

    def behave(asked: Asked) -> Reply:
        left[0] -= 1
        return usual(asked) if left[0] >= 0 else failure(401)

    stub.behave = behave
    with pytest.raises(EndpointError):
        runs()
    journal = runs.out / "requests.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    n_asked = len(stub.asked)
    journal.write_bytes(b"".join([lines[0], b'{"event": "answered"}\n', *lines[1:]]))
    with pytest.raises(RunFolderError, match="line 2: not as a run writes it"):
        runs()
    assert len(stub.asked) == n_asked


@pytest.fixture
def at_sync(monkeypatch):
    """Do something each time that the journal is about to be on disk; ``None`` no more."""
    sync, found = os.fsync, [None]

    def noted(descriptor):
        name = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        if found[0] is not None and name.endswith("requests.jsonl"):
            found[0](descriptor)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    return lambda do: found.__setitem__(0, do)


def test_what_is_answered_is_on_disk_before_more_is_asked_for(runs, stub, at_sync):
    synced = [0]
    at_sync(lambda descriptor: synced.__setitem__(0, os.fstat(descriptor).st_size))
    kept = []

    def behave(asked: Asked) -> Reply:
        journal = (runs.out / "requests.jsonl").read_bytes()[: synced[0]]
        kept.append((journal.count(b'"answered"'), len(stub.answered)))
        return usual(asked)

    stub.behave = behave
    runs("generate.backend.concurrency=1")
    assert kept == [(n, n) for n in range(10)]


def test_a_full_disk_ends_the_run_and_what_was_answered_is_not_asked_for_again(runs, stub, at_sync):
    def full(_):
        if len(stub.answered) > 3:
            raise OSError(errno.ENOSPC, "no space")

    at_sync(full)
    with pytest.raises(DiskError, match=r"requests.jsonl: no space left"):
        runs("generate.backend.concurrency=1")
    assert len(stub.asked) == 4
    at_sync(None)
    assert len(runs()) == 10
    assert len(stub.asked) == 10  # the fourth is in the file, though nobody knew


def test_an_interrupt_keeps_answers_that_wait_for_the_disk(runs, stub, at_sync):
    goes_on = threading.Event()

    def interrupt():
        seen = -1
        while len(stub.answered) < 4 or len(stub.answered) != seen:
            seen = len(stub.answered)
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.5)
        goes_on.set()

    at_sync(lambda _: len(stub.answered) < 4 or goes_on.wait(60))
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        runs("generate.backend.concurrency=8")
    thread.join()
    n = len(stub.answered)
    assert 4 <= n <= 10  # of ten; all, where the disk was slower than the endpoint
    assert runs.events()["answered"] == n
    assert len(runs()) == 10
    assert len(stub.asked) == 10


SETTINGS = (
    "generate.shard_size=7",
    "generate.backend.concurrency=8",
    "generate.backend.prices={prompt: 1, completion: 1}",
)


def run_with_kills(runs: Runs, n_kills: int, draw: random.Random) -> int:
    """Run the command until it is done, killed on the way so often at most; give how often."""
    command = [sys.executable, "-m", "augesc_builder", "generate", runs.queries]
    command += ["--out", runs.out, "--recipe", "paper-gpt3", "--quiet"]
    for override in (
        f"generate.backend.base_url={runs.stub.url}",
        f"generate.backend.model={MODEL}",
        *SETTINGS,
    ):
        command += ["--set", override]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    received, n_killed = runs.stub.asked, 0
    while True:
        on_disk = {line["prompt"] for line in runs.journal() if line["event"] == "answered"}
        before = len(received)
        wanted = draw.randrange(1, 20) if n_killed < n_kills else 10_000
        with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}) as child:
            while child.poll() is None and len(received) - before < wanted:
                time.sleep(0.002)
            child.kill()
        prompts = {line["id"]: line["prompt"] for line in runs.journal()}
        assert on_disk.isdisjoint(prompts[asked.id] for asked in received[before:])
        if child.returncode == 0:
            return n_killed
        assert child.returncode == -signal.SIGKILL
        n_killed += 1


@pytest.mark.parametrize(
    "n_kills", [pytest.param(SOAK or 2, marks=[pytest.mark.slow, pytest.mark.soak])]
)
def test_kills_at_random_moments_cost_only_what_is_in_flight(n_kills, tmp_path):
    """The ledger names every request that the server has seen, and no answer is asked for twice."""
    draw = random.Random() if SOAK else random.Random(5)
    left = n_kills
    while left > 0:
        folder = tmp_path / str(left)
        folder.mkdir()
        with Stub(lambda asked: Reply(usual(asked).body, delay=draw.random() * 0.05)) as stub:
            runs = Runs(folder, stub, 60)
            n_killed = run_with_kills(runs, min(left, 3), draw)
        assert n_killed
        assert len(rows_of(runs.out)) == 60
        events: dict[str, set[str]] = {}
        for line in runs.journal():
            events.setdefault(line["event"], set()).add(line["id"])
        assert len(events["answered"]) == 60
        assert events["answered"] <= {asked.id for asked in stub.answered}
        assert {asked.id for asked in stub.asked} <= events["asked"]
        in_flight = events["asked"] - events["answered"]
        assert len(in_flight) <= 8 * n_killed
        assert runs.facts()["of_unknown_end"] == len(in_flight)
        left -= n_killed


@pytest.mark.parametrize(
    "n", [pytest.param(10_000 if SOAK else 2_000, marks=[pytest.mark.slow, pytest.mark.soak])]
)
def test_thousands_of_requests_at_two_hundred_at_a_time(tmp_path, stub, n):
    runs = Runs(tmp_path, stub, n)

    def behave(_: Asked) -> Reply:
        waits = 300 <= len(stub.asked) < 500  # until all 200 are there
        return Reply(completion(" Hello."), delay=20 if waits else 0.05)

    stub.behave = behave
    rows = runs("generate.backend.concurrency=200", "generate.shard_size=1000")
    assert len(rows) == len(stub.asked) == n
    assert stub.most_at_once == 200
    assert runs.facts()["answers"] == n


# -- the rest of a build ---------------------------------------------------------------------------


@pytest.fixture
def build_options(stub, built):
    return [
        f"generate.backend.base_url={stub.url}",
        f"generate.backend.model={MODEL}",
        "queries.sources=[{source: sample}]",
        "queries.max_per_source=12",
        "statistics.beside={}",
        f"requirements.tokenizer={{name: {built / 'checkpoint'}, revision: null}}",
    ]


def test_a_build_ends_in_a_corpus_and_a_card_that_promises_nothing(tmp_path, stub, build_options):
    from augesc_builder.pipeline.build import build

    recipe = load_recipe("paper-gpt3", build_options)
    assert build(recipe, tmp_path / "run", Progress(quiet=True))
    assert not build(recipe, tmp_path / "run", Progress(quiet=True))
    assert not (tmp_path / "run" / "checkpoint").exists()
    card = (tmp_path / "run" / "corpus" / "README.md").read_text()
    assert f"Model: `{MODEL}`, prompted at `127.0.0.1`" in card
    assert "Not reproducible: the same recipe gives other texts" in card
    assert "at most 400 new tokens" in card
    assert "fine-tuned" not in card.split("## Citation")[0].replace("not fine-tuned", "")
    assert "None" not in card.split("<details>")[0]
    sessions = rows_of(tmp_path / "run" / "corpus" / "data")
    assert sessions
    assert all(row["n_tokens"] > 50 for row in sessions)
    published = load_recipe(tmp_path / "run" / "recipe.yaml")
    assert published.generate.backend.model == MODEL


def test_session_length_is_counted_by_the_recipes_tokenizer_whoever_wrote(built, tiny, tmp_path):
    """Other tokens than the model counted are taken for its rows, too."""
    from augesc_builder.models.token_counter import load_counter
    from augesc_builder.pipeline.filter import stage as filter_stage

    checkpoint = built / "checkpoint"
    words = tmp_path / "words"
    words.mkdir()
    text = (checkpoint / "tokenizer.json").read_text()
    spec = json.loads(text)
    spec["model"]["merges"] = []  # a token a byte
    (words / "tokenizer.json").write_text(json.dumps(spec))
    (words / "config.json").write_text((checkpoint / "config.json").read_text())
    if (checkpoint / "tokenizer_config.json").exists():
        copied = (checkpoint / "tokenizer_config.json").read_text()
        (words / "tokenizer_config.json").write_text(copied)
    counter = load_counter(words)
    chosen = tiny.model_copy(
        update={
            "requirements": load_recipe(
                "paper", [f"requirements.tokenizer={{name: {words}, revision: null}}"]
            ).requirements
        }
    )
    progress = Progress(quiet=True)
    filter_stage.standalone(chosen, built / "generations", tmp_path / "out", progress)
    measured = {
        (row["query_id"], row["sample"]): row["total_tokens"]
        for row in rows_of(tmp_path / "out" / "measured")
    }
    template = PromptTemplate(tiny.prompt.instruction)
    for row in rows_of(built / "generations"):
        (n,) = counter.count([read_text(row["query"], row["text"], template)])
        assert measured[row["query_id"], row["sample"]] == n
        assert n > row["n_prompt_tokens"] + row["n_tokens"]


def test_the_dry_run_estimates_tokens_and_money_and_asks_nobody(runs, stub, augesc, tmp_path):
    given = (
        *("--recipe", "paper-gpt3", "--set", f"generate.backend.base_url={stub.url}"),
        *("--set", "generate.backend.prices={prompt: 60, completion: 60}"),
        *("--set", "generate.backend.budget.money=0.01"),
    )
    code, out, _ = augesc("generate", runs.queries, "--out", runs.out, *given, "--dry-run")
    assert code == 0
    assert "10 conversations of 10 queries" in out
    assert "at most 10 requests" in out
    assert "at most 4,000 tokens of answers" in out
    assert "0.29 at the recipe's prices" in out
    assert "less than that; the run stops there" in out
    assert not stub.asked
    assert not runs.out.exists()
    lines = [
        "queries.sources=[{source: sample}]",
        "queries.max_per_source=12",
        "statistics.beside={}",
    ]
    code, out, err = augesc(
        *("build", *given, "--out", tmp_path / "x", "--dry-run"),
        *(word for line in lines for word in ("--set", line)),
    )
    assert code == 0, err
    assert "at most 12 requests" in out
    assert "| finetune" not in out


def test_the_papers_recipe_for_gpt3_differs_from_the_paper_in_its_model_alone():
    from augesc_builder.choices import differences_from_paper

    recipe = load_recipe("paper-gpt3")
    said = differences_from_paper(backend_of(recipe).settings_used(recipe))
    (line,) = (line for line in said if not line.startswith("ours: "))
    assert line.startswith("`generate.backend.model`")
    assert not [line for line in said if "fine-tuning" in line or "null" in line]
    assert [line for line in said if "temperature is `0.9`; the paper gives none for GPT-3" in line]


# -- small parts -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "-3"}, 0),
        ({"retry-after": "nan"}, 0),
        ({"retry-after": "inf"}, 0),
        ({"retry-after": "soon"}, 0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0),
        ({"retry-after": "Fri, 99 Foo 99999 00:00:00 GMT"}, 0),
    ],
)
def test_retry_after_is_seconds_or_a_date(headers, seconds):
    assert retry_after(headers) == seconds


def test_retry_after_as_a_date_to_come():
    when = datetime.now(timezone.utc) + timedelta(hours=1)
    assert 3500 < retry_after({"retry-after": format_datetime(when, usegmt=True)}) <= 3600


def test_nobody_waits_for_an_hour_where_the_run_ends():
    """A request that found a place while the endpoint wants to be left alone."""

    async def ended() -> None:
        stopping = asyncio.Event()

        async def pause(seconds: float) -> None:
            await asyncio.wait_for(stopping.wait(), seconds)
            raise Stopped

        gate = throttle.Throttle(2, pause)
        gate.congested(0, 3600)

        async def ask() -> None:
            async with gate.slot():
                pytest.fail("it was sent")

        waiting = asyncio.create_task(ask())
        await asyncio.sleep(0)
        stopping.set()
        with pytest.raises(Stopped):
            await asyncio.wait_for(waiting, 60)
        assert gate.under_way == 0

    asyncio.run(ended())
