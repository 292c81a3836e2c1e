"""Simulated seekers: who talks to whom, what is kept, what a kill or an endpoint costs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest

from augesc_builder.errors import BudgetError, CheckpointError, EndpointError, SettingsChangedError
from augesc_builder.readers.parquet import read_table
from augesc_builder.run.progress import Progress
from augesc_builder.simulation.cards import read_cards
from augesc_builder.simulation.report import MARK
from augesc_builder.simulation.settings import load_simulation
from augesc_builder.simulation.simulate import plan, simulate
from augesc_builder.tables import SIMULATED, plain_schema
from tests.chat_models import chat_tokenizer, save_chat_model
from tests.conftest import SOAK
from tests.dialog_models import blender
from tests.endpoint_stub import MODEL, Asked, Reply, Stub, chat, failure

QUIET = Progress(quiet=True)
SMALL = (
    *("cards.path=sample:test", "cards.limit=3", "turns=2", "replies.max_tokens=6"),
    "seeker.prompt='You are looking for emotional support: {situation}'",
)
FAST = ("resamples=100", "quality.measures=[informativeness]")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A chat model that plays seekers, and two systems; all of them tiny and random."""
    folder = tmp_path_factory.mktemp("models")
    quiet = {"__end__": -9.0, "__null__": -9.0, "__start__": -9.0}
    return {
        "seeker": save_chat_model(folder / "player", chat_tokenizer()),
        "base": blender(folder / "base", 1, bias=quiet),
        "tuned": blender(folder / "tuned", 2, bias=quiet),
    }


def settings(seeker, systems, *more):
    given = [f"seeker={json.dumps(seeker)}"] if isinstance(seeker, dict) else []
    given += [f"systems={json.dumps(systems)}"]
    if isinstance(seeker, dict):
        shipped = load_simulation("simulation", ["seeker.folder=x", "systems={a: {folder: x}}"])
        values = shipped.seeker.model_dump(exclude={"folder", "base_url", "model", "key_env"})
        given[0] = f"seeker={json.dumps({**values, **seeker})}"
    return load_simulation("simulation", [*given, *SMALL, *FAST, *more])


def local(models, *more):
    systems = {name: {"folder": str(models[name])} for name in ("base", "tuned")}
    return settings({"folder": str(models["seeker"])}, systems, *more)


def rows(out, system):
    return read_table(out / "data" / f"simulated-{system}.parquet", [*SIMULATED]).to_pylist()


def journal(out, name="utterances.jsonl"):
    lines = [json.loads(line) for line in (out / name).read_text().splitlines()]
    return [(x["query_id"], x["sample"], x["turn"]) for x in lines if x["event"] == "answered"]


@pytest.fixture(scope="module")
def done(models, tmp_path_factory):
    out = tmp_path_factory.mktemp("simulated") / "out"
    simulate(local(models), out, QUIET)
    return out


# -- what is made ---------------------------------------------------------------------------------


def test_every_row_file_report_and_card_says_that_it_is_simulated(done):
    report = json.loads((done / "simulation.json").read_text())
    for system in ("base", "tuned"):
        table = pq.read_table(done / "data" / f"simulated-{system}.parquet")
        assert table.schema.equals(plain_schema(SIMULATED))
        found = table.to_pylist()
        assert len(found) == 3
        for row in found:
            assert row["simulated"] is True
            assert (row["system"], row["seeker"]) == (system, "player")
            assert row["source"] == f"simulated: {system}"
            assert row["session_id"] == f"{system}/{row['card_id']}"
            assert row["problem_type"]
            assert [m["role"] for m in row["messages"]] == ["user", "assistant"] * 2
            assert row["ended"] == "turns"
    card = (done / "README.md").read_text()
    markdown = (done / "simulation.md").read_text()
    assert markdown.startswith(MARK)
    assert "never in its place" in MARK
    assert MARK in card
    assert "- simulated\n" in card.split("---")[1]
    assert report["simulated"] is True
    assert report["note"] == MARK
    assert report["systems"]["base"]["ended"]["turns"] == 3
    assert report["seeker"] == {"model": "player", "told": True}


def test_no_path_of_this_disk_is_in_card_and_report(done, models):
    for name in ("README.md", "simulation.md", "simulation.json"):
        text = (done / name).read_text()
        for folder in models.values():
            assert str(folder.parent) not in text


def test_a_seeker_may_begin_with_its_situation(done, models, tmp_path):
    """For models that do not keep to a role when they speak first."""
    begun = local(models, "seeker.first_words=situation")
    simulate(begun, tmp_path / "out", QUIET)
    situations = {card.card_id: card.situation for card in read_cards(begun.cards, begun.seed)}
    found = {r["card_id"]: r["messages"][0]["content"] for r in rows(tmp_path / "out", "base")}
    assert found == situations
    assert not set(found.values()) & {r["messages"][0]["content"] for r in rows(done, "base")}


def test_all_systems_hear_the_same_first_words(done):
    first = [[row["messages"][0] for row in rows(done, name)] for name in ("base", "tuned")]
    assert first[0] == first[1]
    assert len({one["content"] for one in first[0]}) == 3
    later = [[row["messages"][1:] for row in rows(done, name)] for name in ("base", "tuned")]
    assert later[0] != later[1]


@pytest.mark.slow
def test_a_system_under_two_names_differs_in_nothing(models, tmp_path):
    """What is drawn belongs to the card, whichever system it is for."""
    systems = {name: {"folder": str(models["base"])} for name in ("one", "two")}
    simulate(settings({"folder": str(models["seeker"])}, systems), tmp_path / "out", QUIET)
    one, two = (rows(tmp_path / "out", name) for name in systems)
    assert [row["messages"] for row in one] == [row["messages"] for row in two]
    report = json.loads((tmp_path / "out" / "simulation.json").read_text())
    (tests,) = report["differences"].values()
    for numbers in tests.values():
        for test in numbers.values():
            assert test["difference"] in {0, None}
            assert test["p"] == 1


# -- resuming -------------------------------------------------------------------------------------


class StopsAfter(Progress):
    """Interrupts after so many conversations."""

    def __init__(self, n):
        super().__init__(quiet=True)
        self.left = n

    def bar(self, *args, **kwargs):
        bar = super().bar(*args, **kwargs)
        update = bar.update

        def count(n, **facts):
            update(n, **facts)
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt

        bar.update = count
        return bar


@pytest.mark.parametrize("at_once", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_stopped_one_goes_on_where_it_was(models, done, tmp_path, at_once):
    out, given = tmp_path / "out", local(models, f"endpoints.concurrency={at_once}")
    with pytest.raises(KeyboardInterrupt):
        simulate(given, out, StopsAfter(2))
    before = journal(out)
    assert 0 < len(before) < len(journal(done))
    simulate(given, out, QUIET)
    said = journal(out)
    assert said[: len(before)] == before
    assert sorted(said) == sorted(set(said)) == sorted(journal(done))
    for name in ("base", "tuned"):
        assert rows(out, name) == rows(done, name)
    assert (out / "simulation.md").read_text() == (done / "simulation.md").read_text()


def test_other_settings_are_another_simulation(models, done):
    with pytest.raises(SettingsChangedError, match="turns"):
        simulate(local(models, "turns=3"), done, QUIET)
    simulate(local(models, "endpoints.concurrency=1"), done, QUIET)  # nothing to do


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.parametrize("n_kills", [4 if SOAK else 2])
def test_kills_at_any_moment_lose_nothing_and_double_nothing(models, done, tmp_path, n_kills):
    out, n_killed = tmp_path / "out", 0
    given = tmp_path / "given.json"
    given.write_text(json.dumps(local(models).model_dump(mode="json")))
    code = (
        "import sys, json; from pathlib import Path;"
        "from augesc_builder.simulation.settings import SimulationSettings as S;"
        "from augesc_builder.simulation.simulate import simulate;"
        "from augesc_builder.run.progress import Progress;"
        "simulate(S.model_validate(json.loads(Path(sys.argv[1]).read_text())), Path(sys.argv[2]),"
        " Progress(quiet=True))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    kept: list[tuple[str, int, int]] = []
    while not (out / "simulation.md").exists():
        command = [sys.executable, "-c", code, str(given), str(out)]
        with subprocess.Popen(command, env=environment) as process:
            n_now = len(kept) + 2
            while process.poll() is None:
                text = out / "utterances.jsonl"
                said = text.read_bytes().count(b'"answered"') if text.exists() else 0
                if said >= n_now and n_killed < n_kills:
                    process.send_signal(signal.SIGKILL)
                    n_killed += 1
                    break
                time.sleep(0.002)
            process.wait()
        found = journal_of_whole_lines(out)
        assert found[: len(kept)] == kept
        kept = found
    assert n_killed == n_kills
    assert sorted(kept) == sorted(journal(done))
    for name in ("base", "tuned"):
        assert rows(out, name) == rows(done, name)


def journal_of_whole_lines(out):
    raw = (out / "utterances.jsonl").read_bytes()
    lines = [json.loads(line) for line in raw[: raw.rfind(b"\n") + 1].splitlines()]
    return [(x["query_id"], x["sample"], x["turn"]) for x in lines if x["event"] == "answered"]


# -- endpoints ------------------------------------------------------------------------------------


def acting(asked: Asked) -> Reply:
    """Answer as a seeker who was told of a card, or as a system."""
    messages = asked.body["messages"]
    n = len(messages)
    if messages[0]["role"] == "system" and "looking for emotional support" in str(messages[0]):
        return Reply(chat(f"I say the {n}th thing, and I am still sad."))
    return Reply(chat(f"I hear you, and {n} things more."))


def at(stub, **more):
    return {"base_url": stub.url, "model": MODEL, **more}


def test_a_seeker_at_an_address_is_told_of_its_card_and_sees_itself_as_the_assistant(tmp_path):
    with Stub(acting) as stub:
        given = settings(at(stub), {"big": at(stub, system_prompt="Be kind.")})
        simulate(given, tmp_path / "out", QUIET)
    told = [a.body["messages"] for a in stub.asked if "looking for" in str(a.body["messages"][0])]
    answers = [
        a.body["messages"] for a in stub.asked if a.body["messages"][0]["content"] == "Be kind."
    ]
    assert len(told) == 3 * 2
    assert len(answers) == 3 * 2
    for messages in told:
        assert [m["role"] for m in messages] == ["system", "user", "assistant", "user"][
            : len(messages)
        ]
        assert "{" not in messages[0]["content"]
    for messages in answers:
        assert [m["role"] for m in messages[1:]] == ["user", "assistant", "user"][
            : len(messages) - 1
        ]
    assert {a.body["max_tokens"] for a in stub.asked} == {6}
    assert len({a.body["seed"] for a in stub.asked}) > 3
    assert not (tmp_path / "out" / "utterances.jsonl").exists()
    for row in rows(tmp_path / "out", "big"):
        assert row["seeker"] == MODEL
        assert row["messages"][1]["content"] == "I hear you, and 2 things more."


@pytest.mark.slow
def test_no_more_cards_at_once_than_the_settings_say(tmp_path):
    def slow(asked: Asked) -> Reply:
        reply = acting(asked)
        reply.delay = 0.01
        return reply

    with Stub(slow) as stub:
        given = settings(at(stub), {"big": at(stub)}, "cards.limit=8", "endpoints.concurrency=2")
        simulate(given, tmp_path / "out", QUIET)
        assert stub.most_at_once == 2


def test_an_endpoint_that_dies_leaves_what_was_paid_for_and_nothing_half_written(tmp_path, models):
    out, n = tmp_path / "out", [0]

    def dying(asked: Asked) -> Reply:
        n[0] += 1
        return acting(asked) if n[0] <= 4 else failure(401, "no more")

    with Stub(dying) as stub:
        systems = {"base": {"folder": str(models["base"])}}
        given = settings(at(stub), systems, "endpoints.concurrency=1")
        with pytest.raises(EndpointError, match="401: no more") as error:
            simulate(given, out, QUIET)
        assert "\n" not in str(error.value)
        assert not (out / "data").exists()
        assert not (out / "simulation.md").exists()
        paid = journal(out, "requests.jsonl")
        assert len(paid) == 4
        stub.behave = acting
        before = len(stub.asked)
        simulate(given, out, QUIET)
        assert len(stub.asked) == before + 2  # of six
    assert journal(out, "requests.jsonl")[:4] == paid
    assert len(rows(out, "base")) == 3


def test_an_endpoint_that_is_not_there_leaves_nothing(tmp_path, models):
    given = settings(
        {"base_url": "http://127.0.0.1:9/v1", "model": "m"},
        {"base": {"folder": str(models["base"])}},
        "endpoints.deadline=0.1",
    )
    with pytest.raises(EndpointError, match="nothing answers there") as error:
        simulate(given, tmp_path / "out", QUIET)
    assert "seeker.base_url" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_budget_is_of_all_endpoints_together(tmp_path):
    with Stub(acting) as stub:
        given = settings(at(stub), {"big": at(stub)}, "endpoints.budget.tokens=150")
        with pytest.raises(BudgetError, match=r"endpoints\.budget\.tokens is 150"):
            simulate(given, tmp_path / "out", QUIET)
        assert len(stub.asked) < 12


# -- silence, and the end -------------------------------------------------------------------------


def test_who_says_nothing_is_asked_again_and_then_the_conversation_ends(tmp_path):
    def shy(asked: Asked) -> Reply:
        messages = asked.body["messages"]
        is_system = messages[0]["content"] == "Be kind."
        return Reply(chat("\u200b ")) if is_system and len(messages) > 2 else acting(asked)

    with Stub(shy) as stub:
        given = settings(at(stub), {"big": at(stub, system_prompt="Be kind.")}, "tries=3")
        simulate(given, tmp_path / "out", QUIET)
        asked = [a.body["messages"] for a in stub.asked]
        silent = [m for m in asked if len(m) == 4 and m[0]["content"] == "Be kind."]
        assert len(silent) == 3 * 3
    for row in rows(tmp_path / "out", "big"):
        assert row["ended"] == "silent_system"
        assert [m["role"] for m in row["messages"]] == ["user", "assistant", "user"]
    report = json.loads((tmp_path / "out" / "simulation.json").read_text())
    assert report["systems"]["big"]["ended"]["silent_system"] == 3
    assert report["systems"]["big"]["numbers"]["talk"]["replies"]["mean"] == 1


@pytest.mark.parametrize("who", ["seeker", "systems.big"])
def test_who_never_says_anything_is_an_error(who, tmp_path):
    def mute(asked: Asked) -> Reply:
        is_seeker = "looking for" in str(asked.body["messages"][0])
        return Reply(chat("")) if is_seeker == (who == "seeker") else acting(asked)

    with Stub(mute) as stub:
        given = settings(at(stub), {"big": at(stub)})
        with pytest.raises(EndpointError, match="says nothing, on any of 3 cards") as error:
            simulate(given, tmp_path / "out", QUIET)
    assert str(error.value).startswith(f"{who}: ")
    assert not (tmp_path / "out" / "data").exists()


@pytest.mark.slow
def test_a_seeker_who_says_goodbye_ends_it(tmp_path):
    def leaving(asked: Asked) -> Reply:
        is_later = len(asked.body["messages"]) > 2 and "looking for" in str(asked.body)
        return Reply(chat("Thanks, bye!")) if is_later else acting(asked)

    with Stub(leaving) as stub:
        given = settings(at(stub), {"big": at(stub)}, "turns=9")
        simulate(given, tmp_path / "out", QUIET)
    for row in rows(tmp_path / "out", "big"):
        assert row["ended"] == "seeker"
        assert row["messages"][-1] == {"role": "user", "content": "Thanks, bye!"}
        assert len(row["messages"]) == 3


def test_danger_in_what_seekers_say_is_counted(tmp_path):
    def despairing(asked: Asked) -> Reply:
        if "looking for" in str(asked.body["messages"][0]):
            return Reply(chat("I am not okay, I want to end my life."))
        return acting(asked)

    with Stub(despairing) as stub:
        simulate(settings(at(stub), {"big": at(stub)}), tmp_path / "out", QUIET)
    report = json.loads((tmp_path / "out" / "simulation.json").read_text())
    danger = report["systems"]["big"]["danger"]
    assert danger["conversations"] == 3
    assert sum(danger["kinds"].values()) >= 3
    assert report["systems"]["big"]["numbers"]["talk"]["danger"]["mean"] == 1
    assert "3 of 3 conversations hold something" in " ".join(
        (tmp_path / "out" / "README.md").read_text().split()
    )
    assert rows(tmp_path / "out", "big")[0]["safety_flags"]


# -- a dry run ------------------------------------------------------------------------------------


def test_a_plan_counts_what_would_be_said(models, tmp_path):
    with Stub(acting) as stub:
        given = settings(at(stub), {"base": {"folder": "nowhere"}, "big": at(stub)}, "turns=4")
        lines = plan(given)
        assert stub.asked == []
    assert "at most 6 conversations, 21 utterances of the seeker and 24 replies" in lines[0]
    assert len(lines) == 3
    assert "at most 42 requests" in lines[1]
    assert "at most 24 requests" in lines[2]


# -- models that do not fit -----------------------------------------------------------------------


def test_models_that_play_no_part(models, tmp_path, augesc, refused):
    (tmp_path / "hollow").mkdir()
    cases = (
        (tmp_path / "hollow", models["base"], "seeker.folder: "),
        (models["seeker"], tmp_path / "hollow", "systems.a.folder: "),
        (models["seeker"], tmp_path / "nowhere", "systems.a.folder: "),
    )
    for seeker, system, said in cases:
        line = refused(
            *("simulate", "--seeker", seeker, "--system", f"a={system}", "--cards", "sample:test"),
            *("--out", tmp_path / "out"),
        )
        assert said in line
        assert not (tmp_path / "out").exists()


def test_a_model_that_supports_is_no_seeker_and_the_other_way_round(models, tmp_path):
    from augesc_builder.config.training import load_config
    from augesc_builder.dialog.folder import write_facts

    for role, seeker in (("supporter", True), ("seeker", False)):
        folder = tmp_path / role
        folder.mkdir()
        for file in models["base"].iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        write_facts(folder, load_config("tiny", [f"examples.role={role}"]), "first", 1, 1.0)
        name = str(folder)
        given = (
            settings({"folder": name}, {"a": {"folder": str(models["base"])}})
            if seeker
            else settings({"folder": str(models["seeker"])}, {"a": {"folder": name}})
        )
        with pytest.raises(CheckpointError) as error:
            simulate(given, tmp_path / "out", QUIET)
        assert ("learned the supporter's" if seeker else "supports nobody") in str(error.value)
        assert not (tmp_path / "out").exists()


def test_a_trained_seeker_begins_with_the_situation(models, tmp_path):
    from augesc_builder.simulation.cards import read_cards

    given = settings({"folder": str(models["tuned"])}, {"a": {"folder": str(models["base"])}})
    simulate(given, tmp_path / "out", QUIET)
    cards = {card.card_id: card for card in read_cards(given.cards, given.seed)}
    for row in rows(tmp_path / "out", "a"):
        assert row["messages"][0]["content"] == cards[row["card_id"]].situation
        assert len(row["messages"]) == 4
    report = json.loads((tmp_path / "out" / "simulation.json").read_text())
    assert report["seeker"]["told"] is False


# -- other commands read it -----------------------------------------------------------------------


@pytest.mark.slow
def test_quality_filter_compare_and_studies_take_the_tables(done, tmp_path, augesc):
    tables = [done / "data" / f"simulated-{name}.parquet" for name in ("base", "tuned")]
    code, text, err = augesc("quality", done, "--out", tmp_path / "quality")
    assert code == 0, err
    assert "simulated: base" in text
    assert "simulated: tuned" in text
    for name, table in zip("ab", tables, strict=True):
        code, _, err = augesc("filter", table, "--out", tmp_path / name)
        assert code == 0, err
    code, text, err = augesc(
        "compare", f"a={tmp_path / 'a'}", f"b={tmp_path / 'b'}", "--resamples", 100
    )
    assert code == 0, err
    code, text, err = augesc(
        *("study", "create", *tables, "--out", tmp_path / "study", "--sessions", 2)
    )
    assert code == 0, err
    items = (tmp_path / "study" / "items.jsonl").read_text()
    assert "simulated-base" in items
