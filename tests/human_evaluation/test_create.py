"""Creating a study: what is drawn, what is written, what is refused, and what changes later."""

from __future__ import annotations

import json
import stat
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from augesc_builder.errors import (
    AugescError,
    DiskError,
    InputError,
    RecipeError,
    RunFolderError,
    StudyError,
)
from augesc_builder.human_evaluation.create import create, draw, given_corpora, given_systems
from augesc_builder.human_evaluation.settings import load_settings, shipped_studies
from augesc_builder.human_evaluation.study import Study
from augesc_builder.sources.base import Session
from augesc_builder.tables import SESSIONS, to_table
from tests.conftest import shared
from tests.human_evaluation.studies import QUIET, corpus, make_study


def test_a_study_is_whole_and_blind(tmp_path):
    study = make_study(tmp_path / "study")
    assert Counter(item.set for item in study.items.values()) == {"A": 4, "B": 4, "C": 4}
    assert len(study.places) == 9
    assert len(study.tokens.links) == 9
    # No name tells which set an item is from, and neither do the numbers.
    assert list(study.items) == [f"s{i:03d}" for i in range(1, 13)]
    sets = [item.set for item in study.items.values()]
    assert sets != sorted(sets)
    for item in study.items.values():
        number = int(item.session_id.rpartition("-")[2])
        lines = (tmp_path / f"{item.set}.jsonl").read_text().splitlines()
        assert json.loads(lines[number - 1])["messages"] == list(item.messages)


def test_who_owns_a_study_alone_may_look_into_it(tmp_path):
    study = make_study(tmp_path / "study")
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in study.folder.iterdir()}
    assert modes["tokens.json"] == modes["events.sqlite"] == 0o600
    assert stat.S_IMODE(study.folder.stat().st_mode) == 0o700
    text = (study.folder / "study.json").read_text()
    assert study.tokens.secret not in text
    assert not any(token in text for token in study.tokens.links.values())


def test_the_same_seed_draws_the_same_study_with_other_links(tmp_path):
    one, two = (make_study(tmp_path / name) for name in ("one", "two"))
    assert one.items == two.items
    assert one.places == two.places
    assert not {*one.tokens.links} & {*two.tokens.links}
    other = make_study(tmp_path / "three", "seed=14")
    drawn, again = ({(i.set, i.session_id) for i in s.items.values()} for s in (one, other))
    assert drawn != again


def test_opened_again_it_is_the_same(tmp_path):
    study = make_study(tmp_path / "study")
    again = Study.open(tmp_path / "study")
    assert again == study
    assert again.sets == ("A", "B", "C")
    assert again.changed_corpora() == []


@given(
    texts=st.lists(st.text(max_size=3), max_size=30),
    n=st.integers(1, 9),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_a_sample_depends_on_the_texts_and_not_on_their_order(texts, n, seed, data):
    def sessions(order):
        return (Session(f"{i}", ({"role": "user", "content": t},)) for i, t in enumerate(order))

    def said(found):
        return [session.messages[0]["content"] for session in found]

    sample, count = draw(sessions(texts), n, "A", seed)
    assert count == len(texts)
    assert len(sample) == min(n, len(set(texts)))
    assert len(set(said(sample))) == len(sample)
    other, _ = draw(sessions(data.draw(st.permutations(texts))), n, "A", seed)
    assert said(other) == said(sample)
    more, _ = draw(sessions(texts), n + 1, "A", seed)
    assert said(more)[: len(sample)] == said(sample)


def test_every_session_is_as_likely():
    times: Counter[str] = Counter()
    for seed in range(400):
        sessions = (Session("", ({"role": "user", "content": f"{i}"},)) for i in range(10))
        times.update(s.messages[0]["content"] for s in draw(sessions, 3, "A", seed)[0])
    assert min(times.values()) > 80  # of 120, with a standard deviation of 9
    assert max(times.values()) < 160


def test_corpora_of_every_kind(tmp_path, built):
    """A run, a Parquet file, JSON lines, a source: all are read as everywhere else."""
    rows = [
        {
            "session_id": f"x-{i}",
            "source": "x",
            "messages": [{"role": "user", "content": f"Hello {i}"}],
        }
        for i in range(5)
    ]
    pq.write_table(to_table(rows, SESSIONS), tmp_path / "x.parquet")
    lines = corpus(tmp_path / "lines.jsonl", 5)
    names = [f"run={built}", str(tmp_path / "x.parquet"), str(lines), "sample"]
    corpora = given_corpora(names)
    assert list(corpora) == ["run", "x", "lines", "sample"]
    settings = load_settings("quality", ["sessions=2"])
    study = create(settings, corpora, tmp_path / "study", QUIET)
    assert Counter(item.set for item in study.items.values()) == dict.fromkeys(corpora, 2)
    assert [c.n_sessions for c in study.corpora][1:] == [5, 5, 100]


def test_esconv_as_it_is_published(tmp_path):
    corpora = {"ESConv": str(shared("esconv/test.txt"))}
    settings = load_settings("quality", ["sessions=60"])
    study = create(settings, corpora, tmp_path / "study", QUIET)
    assert len(study.items) == 60
    assert study.corpora[0].n_sessions == len(Path(corpora["ESConv"]).read_text().splitlines())
    # What a supporter says before the seeker's first words is left out, as everywhere.
    assert {item.messages[0]["role"] for item in study.items.values()} == {"user"}


def test_two_corpora_of_one_name_are_told_apart(tmp_path):
    with pytest.raises(StudyError, match="a second corpus called x"):
        given_corpora([f"{tmp_path}/x.jsonl", f"{tmp_path}/y/x.jsonl"])


def too_few(tmp_path):
    corpora = {"A": str(corpus(tmp_path / "a.jsonl", 3))}
    return load_settings("quality", ["sessions=4"]), corpora


def twice_the_same(tmp_path):
    path = corpus(tmp_path / "a.jsonl", 3)
    path.write_text(path.read_text() * 2)
    return load_settings("quality", ["sessions=4"]), {"A": str(path)}


@pytest.mark.parametrize("make", [too_few, twice_the_same])
def test_too_few_sessions_are_one_line(tmp_path, make):
    with pytest.raises(InputError, match="A holds 3 different sessions, and the study asks for 4"):
        create(*make(tmp_path), tmp_path / "study", QUIET)
    assert not (tmp_path / "study").exists()
    assert not list(tmp_path.glob(".study*"))


@pytest.mark.parametrize(
    ("config", "overrides", "error", "says"),
    [
        ("quality", [], StudyError, "no corpus to draw sessions from"),
        ("quality", ["form=interactive"], StudyError, "for a study of kind interactive"),
        ("quality", ["form=nope"], RecipeError, "no form 'nope'"),
        ("quality", ["ratings=0"], RecipeError, "ratings"),
        ("quality", ["sesions=3"], RecipeError, "did you mean sessions"),
        ("quality", ["attention_checks=16"], RecipeError, "do not fit into 15 sessions"),
        ("quality", ["expires=tomorrow"], RecipeError, "expected a date such as"),
        ("quality", ["comprehension.questions.0.right=4"], RecipeError, "there are 3 options"),
        ("quality", ["kind=interactive"], RecipeError, "interactive belongs to kind"),
        ("quality", ["crowd.completion_code='a b'"], RecipeError, "crowd.completion_code"),
        ("interactive", [], RecipeError, "interactive.systems"),
        (
            "interactive",
            ["interactive.systems.A.folder=x", "interactive.systems.B.base_url=http://x"],
            RecipeError,
            "needs the name of its model",
        ),
    ],
)
def test_settings_that_no_study_has_are_one_line(tmp_path, config, overrides, error, says):
    with pytest.raises(error, match=says):
        create(load_settings(config, overrides), {}, tmp_path / "study", QUIET)
    assert not (tmp_path / "study").exists()


def test_shipped_settings_are_the_papers():
    assert shipped_studies() == ["interactive", "quality"]
    found = load_settings("quality")
    assert (found.sessions, found.ratings, found.per_person) == (60, 3, 15)
    systems = [f"interactive.systems.{name}.folder=x" for name in "AB"]
    interactive = load_settings("interactive", systems).interactive
    assert (interactive.pairs, interactive.min_utterances) == (60, 8)


def test_pairs_are_balanced(tmp_path):
    systems = [f"interactive.systems.{name}.folder=x" for name in "ABC"]
    settings = load_settings("interactive", [*systems, "interactive.pairs=36"])
    study = create(settings, {}, tmp_path / "study", QUIET)
    assert Counter(item.systems for item in study.items.values()) == {
        ("A", "B"): 12,
        ("A", "C"): 12,
        ("B", "C"): 12,
    }
    for systems in {item.systems for item in study.items.values()}:
        items = [item for item in study.items.values() if item.systems == systems]
        assert sum(item.left == systems[0] for item in items) == 6
    assert all({item.left, item.right} == set(item.systems) for item in study.items.values())
    assert [place.items for place in study.places] == [(item,) for item in study.items]


def test_a_folder_in_use_is_left_alone(tmp_path):
    make_study(tmp_path / "study")
    before = (tmp_path / "study" / "study.json").read_bytes()
    with pytest.raises(RunFolderError, match="a study is there already"):
        make_study(tmp_path / "study")
    assert (tmp_path / "study" / "study.json").read_bytes() == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("x")
    with pytest.raises(RunFolderError, match="holds something else"):
        make_study(tmp_path / "other")
    (tmp_path / "empty").mkdir()
    assert make_study(tmp_path / "empty").folder == tmp_path / "empty"


def test_a_corpus_that_changed_is_told_and_the_study_is_still_whole(tmp_path):
    study = make_study(tmp_path / "study")
    with (tmp_path / "B.jsonl").open("a") as file:
        file.write("\n")
    (tmp_path / "C.jsonl").unlink()
    again = Study.open(study.folder)
    assert again.items == study.items
    changed = again.changed_corpora()
    assert len(changed) == 2
    assert changed[0].startswith("B: ")
    assert "has changed since the study was created" in changed[0]
    assert changed[1].startswith("C: ")
    assert "is gone" in changed[1]


def harm_items(folder: Path) -> None:
    path = folder / "items.jsonl"
    path.write_text(path.read_text().replace("hear", "mock", 1))


def harm_settings(folder: Path) -> None:
    path = folder / "study.json"
    path.write_text(path.read_text().replace('"ratings": 3', '"ratings": 2'))


def harm_kind(folder: Path) -> None:
    (folder / "study.json").write_text('{"kind": "augesc run"}')


def open_tokens(folder: Path) -> None:
    (folder / "tokens.json").chmod(0o644)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (harm_items, "not as `augesc study create` wrote it"),
        (harm_settings, "checksum"),
        (harm_kind, "not that of a study"),
        (lambda folder: (folder / "items.jsonl").unlink(), "not as `augesc study create`"),
        (lambda folder: (folder / "study.json").unlink(), r"no study.json there"),
        (lambda folder: (folder / "study.json").write_text("{"), "unreadable"),
        (open_tokens, "others may read these tokens; run: chmod 600"),
        (lambda folder: (folder / "tokens.json").unlink(), "unreadable"),
    ],
)
def test_a_study_that_was_tampered_with_is_refused(tmp_path, harm, says):
    study = make_study(tmp_path / "study")
    harm(study.folder)
    with pytest.raises(AugescError, match=says):
        assert Study.open(study.folder).tokens


def test_one_server_at_a_time(tmp_path):
    study = make_study(tmp_path / "study")
    with study.serving():
        with pytest.raises(StudyError, match="another server") as raised, study.serving():
            pass
        assert raised.value.reason == "at_work"
    with study.serving():
        pass


def test_an_unwritable_place_is_one_line(tmp_path):
    if not Path("/sys").is_dir():
        pytest.skip("no /sys: nowhere that even root may not write")
    with pytest.raises(DiskError, match="not writable"):
        corpora = {"A": str(corpus(tmp_path / "a.jsonl", 3))}
        create(load_settings("quality", ["sessions=2"]), corpora, Path("/sys/study"), QUIET)


def test_the_command_says_who_rates_what_and_what_it_can_show(augesc, tmp_path):
    for name in "AB":
        corpus(tmp_path / f"{name}.jsonl", 6, name)
    code, out, err = augesc(
        *("study", "create", tmp_path / "A.jsonl", f"Other={tmp_path / 'B.jsonl'}"),
        *("--out", tmp_path / "study", "--sessions", 5, "--ratings", 2, "--per-person", 5),
    )
    assert code == 0, err
    assert "4 people rate 10 sessions: 5 sessions a person, 2 people a session" in out
    assert "Other: 2 to 3 of them for each person" in out
    assert "What it can show" in out
    assert "with 4 personal links" in out
    assert Study.open(tmp_path / "study").sets == ("A", "Other")


def test_the_command_creates_an_interactive_study(augesc, refused, tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    systems = [f"--system={name}={tmp_path / name}" for name in "ab"]
    folder = tmp_path / "study"
    command = ("study", "create", "--config", "interactive", *systems, "--out", folder)
    code, out, err = augesc(*command)
    assert code == 0, err
    assert "60 people talk with two of 2 systems: a, b" in out
    assert "power 0.6" in out  # of 52 or so decided pairs, at two thirds
    assert Study.open(folder).sets == ("a", "b")
    assert "leave them out" in refused(*command[:-1], tmp_path / "x", "sample")
    assert "expected NAME=DIR" in refused(*command, "--system", "c")


def test_systems_are_folders_or_endpoints_with_the_name_of_a_model():
    assert given_systems(["A=model-a", "B=http://127.0.0.1:8000/v1#tiny"]) == [
        'interactive.systems.A.folder="model-a"',
        'interactive.systems.B.base_url="http://127.0.0.1:8000/v1"',
        'interactive.systems.B.model="tiny"',
    ]
    for wrong in ("A", "=x", "A=", "a.b=x", "B=http://127.0.0.1:8000/v1", "B=http://127.0.0.1/v1#"):
        with pytest.raises(StudyError, match="expected NAME=DIR, or NAME=URL#MODEL"):
            given_systems([wrong])
