"""What leaves a study and what comes in: round trips, and every wrong line refused by its number."""

from __future__ import annotations

import csv
import json
import random
from xml.etree import ElementTree

import pyarrow.parquet as pq
import pytest
import yaml

from augesc_builder.errors import AugescError, InputError, RunFolderError, StudyError
from augesc_builder.human_evaluation.create import create
from augesc_builder.human_evaluation.exchange import export, units_of
from augesc_builder.human_evaluation.imports import import_ratings
from augesc_builder.human_evaluation.settings import load_settings
from augesc_builder.human_evaluation.store import Store
from augesc_builder.human_evaluation.study import Study
from tests.human_evaluation.studies import QUIET, Clock, enter, make_study, rate, rate_all

TABLES = ("csv", "parquet", "events", "people")
FOLDERS = ("potato", "label-studio")


@pytest.fixture(scope="module")
def rated(tmp_path_factory):
    """A study that nine people have done, each session in 40 seconds; nobody changes it."""
    clock, stream = Clock(), random.Random(3)
    study = make_study(tmp_path_factory.mktemp("rated") / "study")
    with Store.open(study, clock) as store:
        for name in study.tokens.links:
            enter(store, name)
            for item in store.assign(name).items:
                store.record("opened", name, item)
                clock.pass_(40)
                rate(store, name, item, lambda key: stream.randint(1, 4))
    return study


@pytest.fixture
def empty(tmp_path):
    """A study of the same sessions, which nobody has rated."""
    return make_study(tmp_path / "empty")


def ratings_of(study: Study) -> set:
    with Store.open(study) as store:
        return set(store.ratings())


def exported(study: Study, to: str, tmp_path):
    export(study, tmp_path / to, to, QUIET)
    return tmp_path / to


def test_csv_and_parquet_hold_every_rating(rated, tmp_path):
    rows = list(csv.DictReader(exported(rated, "csv", tmp_path).read_text().splitlines()))
    table = pq.read_table(exported(rated, "parquet", tmp_path)).to_pylist()
    assert len(rows) == len(table) == 12 * 3 * 7
    assert {row["session"] for row in rows} == set(rated.items)
    with Store.open(rated) as store:
        for rating, row, cells in zip(store.ratings(), table, rows, strict=True):
            assert row == {**vars(rating)}
            assert cells["value"] == str(rating.value)
            assert cells["set"] == rated.items[rating.session].set
            assert (cells["is_judge"], cells["turn"]) == ("false", "")
            assert rating.seconds == 40


def test_events_are_all_there_without_a_platforms_ids(tmp_path):
    study = make_study(tmp_path / "study", "crowd.enabled=true", "links=0")
    with Store.open(study) as store:
        name = store.enter("pid1", "study1", "visit1")
        enter(store, name)
        item = store.assign(name).items[0]
        rate(store, name, item)
        store.answer(name, item, {"empathy": 4})
    path = exported(study, "events", tmp_path)
    assert "pid1" not in path.read_text()
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert [e["kind"] for e in events] == [
        *("arrived", "consented", "comprehension", "placed", "answered", "answered"),
    ]
    people = exported(study, "people", tmp_path)
    assert people.stat().st_mode & 0o777 == 0o600
    ((row),) = csv.DictReader(people.read_text().splitlines())
    assert (row["annotator"], row["person"], row["via"]) == (name, "pid1", "crowd")
    assert (row["stage"], row["finished"], row["of"]) == ("working", "1", "4")


def test_csv_comes_back_as_it_left(rated, empty, tmp_path):
    path = exported(rated, "csv", tmp_path)
    assert import_ratings(empty, path, QUIET) == 36
    assert ratings_of(empty) == ratings_of(rated)
    # Once more adds nothing.
    assert import_ratings(empty, path, QUIET) == 0
    with Store.open(empty) as store:
        assert len([e for e in store.events() if e.kind == "answered"]) == 36
        (file,) = {e.body["file"] for e in store.events() if e.kind == "arrived"}
        assert file == "csv"


def test_label_studio_comes_back_as_it_left(rated, empty, tmp_path):
    folder = exported(rated, "label-studio", tmp_path)
    assert import_ratings(empty, folder / "tasks.json", QUIET) == 36
    assert ratings_of(empty) == ratings_of(rated)


def test_labels_of_turns_come_back_as_they_left(tmp_path):
    one, two, three = (
        make_study(tmp_path / name, "form=behaviours", "attention_checks=0")
        for name in ("one", "two", "three")
    )
    with Store.open(one, Clock()) as store:
        rate_all(store, lambda key: 1 if key == "unsafe.3" else 2)
    import_ratings(two, exported(one, "csv", tmp_path), QUIET)
    import_ratings(three, exported(one, "label-studio", tmp_path) / "tasks.json", QUIET)
    plain = {(r.session, r.turn, r.annotator, r.question, r.value) for r in ratings_of(one)}
    for study in (two, three):
        found = {(r.session, r.turn, r.annotator, r.question, r.value) for r in ratings_of(study)}
        assert found == plain
    # A task shows what stands before its utterance, and nothing behind it.
    units = {unit.id: unit for unit in units_of(one)}
    item = next(iter(one.items))
    assert len(units[f"{item}.1"].messages) == 2
    assert len(units[f"{item}.3"].messages) == 4


def test_label_studio_has_the_form_and_the_sessions_and_no_sets(rated, tmp_path):
    folder = exported(rated, "label-studio", tmp_path)
    config = ElementTree.fromstring((folder / "config.xml").read_text())
    choices = {c.get("name"): [o.get("value") for o in c] for c in config.iter("Choices")}
    assert choices == {q.name: [option.label for option in q.options] for q in rated.form.questions}
    tasks = json.loads((folder / "tasks.json").read_text())
    assert [task["data"]["unit"] for task in tasks] == list(rated.items)
    for task in tasks:
        item = rated.items[task["data"]["unit"]]
        assert [u["text"] for u in task["data"]["dialogue"]] == [
            message["content"] for message in item.messages
        ]
        assert set(task["data"]) == {"unit", "dialogue"}
        assert len(task["annotations"]) == 3
        for annotation in task["annotations"]:
            assert len(annotation["result"]) == 7
            for result in annotation["result"]:
                assert result["value"]["choices"][0] in choices[result["from_name"]]


def test_potato_has_the_form_the_sessions_and_the_answers(rated, tmp_path):
    folder = exported(rated, "potato", tmp_path)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    labels = {scheme["name"]: scheme["labels"] for scheme in config["annotation_schemes"]}
    assert list(labels) == list(rated.form.question_names)
    assert {scheme["annotation_type"] for scheme in config["annotation_schemes"]} == {"radio"}
    lines = (folder / config["data_files"][0]).read_text().splitlines()
    items = [json.loads(line) for line in lines]
    assert [item["id"] for item in items] == list(rated.items)
    assert {u["speaker"] for item in items for u in item["conversation"]} == {
        *("Seeker", "Supporter")
    }
    scores = {q.name: dict(zip(labels[q.name], q.scores)) for q in rated.form.questions}
    found = set()
    for path in (folder / config["output_annotation_dir"]).glob("*/annotated_instances.jsonl"):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            for name, answer in row["label_annotations"].items():
                ((label, value),) = answer.items()
                assert value == "true"
                found.add((path.parent.name, row["id"], name, scores[name][label]))
    assert found == {(r.annotator, r.session, r.question, r.value) for r in ratings_of(rated)}


@pytest.mark.parametrize("to", FOLDERS)
def test_hostile_text_stays_text(tmp_path, to):
    evil = "</View><script>x</script> \u202e ]]> \" ' \x07 ```"
    path = tmp_path / "evil.jsonl"
    said = [{"role": r, "content": f"{evil} {r}"} for r in ("user", "assistant")]
    path.write_text(json.dumps({"messages": said}) + "\n")
    form = tmp_path / "form.yaml"
    questions = [
        {
            "name": "q",
            "title": "<b>&\"'",
            "definition": "]]>",
            "options": [{"label": "<"}, {"label": "'"}],
        }
    ]
    form.write_text(
        yaml.safe_dump(
            {
                "name": "f",
                "title": "t",
                "about": "session",
                "instruction": "i",
                "parts": [{"title": "p", "questions": questions}],
            }
        )
    )
    given = ["sessions=1", f"form={form}", "attention_checks=0"]
    study = create(load_settings("quality", given), {"A": str(path)}, tmp_path / "study", QUIET)
    folder = exported(study, to, tmp_path)
    if to == "label-studio":
        config = ElementTree.fromstring((folder / "config.xml").read_text())
        assert [c.get("value") for c in config.iter("Choice")] == ["<", "'"]
        (task,) = json.loads((folder / "tasks.json").read_text())
        assert task["data"]["dialogue"][0]["text"] == f"{evil} user"
    else:
        assert yaml.safe_load((folder / "config.yaml").read_text())["annotation_schemes"][0][
            "labels"
        ] == ["<", "'"]
        item = json.loads((folder / "data" / "items.jsonl").read_text())
        assert item["conversation"][1]["text"] == f"{evil} assistant"


def test_what_is_there_is_left_alone(rated, tmp_path):
    (tmp_path / "thesis.csv").write_text("mine")
    for to in (*TABLES, *FOLDERS):
        with pytest.raises(RunFolderError, match="is there already"):
            export(rated, tmp_path / "thesis.csv", to, QUIET)
    assert (tmp_path / "thesis.csv").read_text() == "mine"
    with pytest.raises(StudyError, match="expected one of csv, parquet"):
        export(rated, tmp_path / "x", "excel", QUIET)


def test_preferences_leave_as_tables(tmp_path):
    systems = [f"interactive.systems.{name}.folder=x" for name in "AB"]
    settings = load_settings("interactive", [*systems, "interactive.pairs=4"])
    study = create(settings, {}, tmp_path / "study", QUIET)
    with Store.open(study) as store:
        for name in study.tokens.links:
            enter(store, name)
            rate(store, name, store.assign(name).items[0], lambda key: 3 if key == "fluency" else 1)
    rows = list(csv.DictReader(exported(study, "csv", tmp_path).read_text().splitlines()))
    assert len(rows) == 4 * 5
    assert {row["winner"] for row in rows if row["question"] == "fluency"} == {""}
    for row in rows:
        if row["question"] != "fluency":
            assert row["winner"] == study.items[row["pair"]].left
    with pytest.raises(StudyError, match="take csv, parquet or events"):
        export(study, tmp_path / "x", "potato", QUIET)
    with pytest.raises(InputError, match="takes no ratings from files"):
        import_ratings(study, tmp_path / "csv", QUIET)


# -- what is refused -------------------------------------------------------------------------------

HEADER = "session,set,annotator,question,value,seconds,is_judge,turn\n"


def row(study: Study, **cells: object) -> str:
    item = study.items["s001"]
    usual = {
        "session": item.id,
        "set": item.set,
        "annotator": "ann",
        "question": "empathy",
        "value": 3,
        "seconds": "",
        "is_judge": "",
        "turn": "",
    }
    return ",".join(str(value) for value in {**usual, **cells}.values()) + "\n"


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        ({"session": "s999"}, "no session 's999'"),
        ({"session": ""}, "no session ''"),
        ({"question": "charm"}, "no question 'charm'"),
        ({"question": "attention_check"}, "no question"),
        ({"turn": "1"}, "no question 'empathy.1'"),
        ({"turn": "x"}, "no question 'empathy.x'"),
        ({"value": 4}, "value: expected one of 0, 1, 2, 3, found '4'"),
        ({"value": "-1"}, "value: expected one of"),
        ({"value": "3.0"}, "value: expected one of"),
        ({"value": ""}, "value: expected one of"),
        ({"annotator": ""}, "annotator: expected"),
        ({"annotator": "=cmd|x"}, "annotator: expected"),
        ({"annotator": "n" * 65}, "annotator: expected"),
        ({"seconds": "soon"}, "seconds: expected a number"),
        ({"seconds": "nan"}, "seconds: expected a number"),
        ({"seconds": "-1"}, "seconds: expected a number"),
        ({"is_judge": "maybe"}, "is_judge: expected"),
        ({"set": "Z"}, "is of the set"),
        ({"value": 2}, "a second answer of ann to empathy of s001"),
        ({"question": "logic", "is_judge": "true"}, "judge in some lines"),
        ({"value": "3,4"}, "expected 8 cells, found 9"),
        ({"value": '"3'}, "not a record of CSV"),
    ],
)
def test_a_wrong_line_is_named_and_nothing_is_taken(empty, tmp_path, cells, says):
    path = tmp_path / "ratings.csv"
    path.write_text(HEADER + row(empty) + row(empty, **cells) + row(empty, question="coherence"))
    with pytest.raises(InputError) as raised:
        import_ratings(empty, path, QUIET)
    assert "nothing was taken; line 3: " in str(raised.value)
    assert "line 2: " not in str(raised.value)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)
    with Store.open(empty) as store:
        assert list(store.events()) == []


def test_many_wrong_lines_are_counted(empty, tmp_path):
    path = tmp_path / "ratings.csv"
    path.write_text(HEADER + row(empty, value=9) * 30)
    with pytest.raises(InputError, match=r"line 11: .* and 20 more"):
        import_ratings(empty, path, QUIET)


def test_ratings_that_stand_against_what_is_there_are_refused(empty, tmp_path):
    path = tmp_path / "ratings.csv"
    path.write_text(HEADER + row(empty))
    assert import_ratings(empty, path, QUIET) == 1
    path.write_text(HEADER + row(empty, value=1))
    with pytest.raises(InputError, match="ann has answered empathy of s001 otherwise before"):
        import_ratings(empty, path, QUIET)
    # Nobody who takes part here is given answers by a file.
    name = next(iter(empty.tokens.links))
    path.write_text(HEADER + row(empty, annotator=name))
    with pytest.raises(InputError, match="takes part in the study itself"):
        import_ratings(empty, path, QUIET)
    with Store.open(empty) as store:
        assert store.answers("ann", "s001") == {"empathy": 1}


def test_a_session_that_is_rated_in_part_counts_when_the_rest_is_there(empty, tmp_path):
    path, said = tmp_path / "ratings.csv", []
    questions = empty.form.question_names
    path.write_text(HEADER + "".join(row(empty, question=q) for q in questions[:3]))

    class Says:
        say = staticmethod(said.append)

    import_ratings(empty, path, Says())
    assert "1 of them lack answers" in said[1]
    assert ratings_of(empty) == set()
    path.write_text(HEADER + "".join(row(empty, question=q) for q in questions))
    assert import_ratings(empty, path, QUIET) == 1
    assert len(ratings_of(empty)) == 7


def task(unit: object = "s001", **changes: object) -> dict:
    result = {"from_name": "empathy", "value": {"choices": ["Minor understanding"]}}
    annotation = {"completed_by": 7, "lead_time": 3.5, "result": [{**result, **changes}]}
    return {"data": {"unit": unit}, "annotations": [annotation]}


def test_label_studios_own_users_are_named(empty, tmp_path):
    path = tmp_path / "export.json"
    other = task("s002")
    other["annotations"][0]["completed_by"] = {"id": 3, "email": "a@example.org"}
    cancelled = task("s003")
    cancelled["annotations"][0]["was_cancelled"] = True
    path.write_text(json.dumps([task(), other, cancelled]))
    assert import_ratings(empty, path, QUIET) == 2
    with Store.open(empty) as store:
        assert store.answers("labelstudio-7", "s001") == {"empathy": 3}
        assert store.answers("a@example.org", "s002") == {"empathy": 3}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (task("s999"), "no session 's999'"),
        (task(7), "data.unit: expected a text"),
        (task("s001.1"), "no question 'empathy.1'"),
        (task(from_name="charm"), "no question 'charm'"),
        (task(value={"choices": ["Great"]}), "expected one of"),
        (task(value={"choices": []}), "expected one of"),
        (task(value={"choices": ["Minor understanding", "x"]}), "expected one of"),
        (task(value={"choices": [["x"]]}), "expected one of"),
        (task(value={}), "cannot be read (KeyError"),
        ({}, "cannot be read (KeyError"),
        (7, "cannot be read (TypeError"),
        ({"data": {"unit": "s001"}, "annotations": [{"result": [], "completed_by": None}]}, "anno"),
    ],
)
def test_a_wrong_task_is_named_and_nothing_is_taken(empty, tmp_path, wrong, says):
    path = tmp_path / "export.json"
    path.write_text(json.dumps([task(), wrong]))
    with pytest.raises(InputError) as raised:
        import_ratings(empty, path, QUIET)
    assert "nothing was taken; task 2: " in str(raised.value)
    assert says in str(raised.value)
    with Store.open(empty) as store:
        assert list(store.events()) == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.csv", b""),
        ("x.csv", b"session,annotator\n"),
        ("x.csv", b"\xff\xfe\x00"),
        ("x.json", b""),
        ("x.json", b"{}"),
        ("x.json", b"["),
        ("x.json", b"[" * 100_000),
        ("x.json", b"\xff"),
        ("x.json", None),
        ("x.csv", None),
    ],
)
def test_a_file_that_is_none_is_one_line(empty, tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(AugescError, match=name):
        import_ratings(empty, tmp_path / name, QUIET)


def test_the_commands(augesc, refused, rated, empty, tmp_path):
    out = tmp_path / "ratings.csv"
    code, said, err = augesc("study", "export", rated.folder, "--out", out)
    assert code == 0, err
    assert "252 rows" in said
    code, said, err = augesc("study", "import", empty.folder, out)
    assert code == 0, err
    assert "36 rated sessions taken" in said
    assert ratings_of(empty) == ratings_of(rated)
    assert "expected one of csv" in refused(
        "study", "export", rated.folder, "--to", "excel", "--out", tmp_path / "x"
    )
    assert "no study.json there" in refused("study", "export", tmp_path, "--out", tmp_path / "x")
    assert "columns session, annotator" in refused(
        "study", "import", empty.folder, empty.folder / "items.jsonl"
    )


def test_an_export_says_that_a_corpus_has_changed(augesc, tmp_path):
    study = make_study(tmp_path / "study")
    (tmp_path / "A.jsonl").write_text("")
    code, said, _ = augesc("study", "export", study.folder, "--out", tmp_path / "x.csv")
    assert code == 0
    assert "A: " in said
    assert "has changed since the study was created" in said
