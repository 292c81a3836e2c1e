"""Runs beside each other: numbers by hand, refusals in one line, strangers' names, one outcome."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from augesc_builder.metrics.tokenized import spoken
from augesc_builder.metrics.vendi.score import vendi_score
from augesc_builder.paper import TABLE_1
from augesc_builder.pipeline.compare.runs import find_runs
from augesc_builder.pipeline.generate import backends
from augesc_builder.pipeline.generate.backends.base import Backend
from augesc_builder.run.disk import load_sealed, measured, sealed
from augesc_builder.text.prompts import PLAIN, whole_text
from tests.conftest import mark_anew

LENIENT = {
    "session_length": {"max": 100},
    "total_utterances": {"min": 2, "max": 50},
    **{
        f"{role}_utterance_length": {
            "mean": {"min": 1, "max": 900},
            "short": 1,
            "max_short_share": 1,
            "max": 900,
        }
        for role in ("seeker", "supporter")
    },
}

QUERIES = ("I am sad.", "I feel low.", "I am alone.", "My job is bad.")

FIRST = (
    (" Why?\nHuman: My dog died.", 5),
    (" Oh no.\nHuman: Oh no.", 7),  # an utterance is repeated
    (" Yes.", 200),  # too long
    (" I am an AI.", 6),  # a role word
)
SECOND = ((" Why?\nHuman: My dog died.", 5), (" You can call 555-123-4567.", 9), (" Yes.", 4))


def generations(path: Path, texts, sources) -> Path:
    """Write generations of the first queries, with prompts of 10 tokens."""
    rows = [
        {
            **{"query_id": f"q{i}", "sample": 0, "source": source, "query": query},
            **{"text": text, "n_prompt_tokens": 10, "n_tokens": n},
        }
        for i, (query, (text, n), source) in enumerate(zip(QUERIES, texts, sources, strict=False))
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.fixture
def judged(augesc, tmp_path):
    """Give a folder of ``augesc filter`` of some texts."""
    recipe = tmp_path / "lenient.yaml"
    lenient = {"extends": "paper", "name": "lenient", "requirements": LENIENT}
    recipe.write_text(json.dumps(lenient))

    def judge(name: str, texts, sources=("sample",) * 4, options=()) -> Path:
        file = generations(tmp_path / f"{name}.parquet", texts, sources)
        out = tmp_path / name
        code, _, err = augesc("filter", file, "--out", out, "--recipe", recipe, *options)
        assert code == 0, err
        return out

    return judge


@pytest.fixture
def compared(augesc, tmp_path):
    """Compare runs; give all numbers, and what was printed."""

    def compare(*runs: object) -> tuple[dict, str]:
        out = tmp_path / "compared"
        shutil.rmtree(out, ignore_errors=True)
        code, said, err = augesc("compare", *runs, "--out", out)
        assert code == 0, err
        return json.loads((out / "comparison.json").read_text()), said

    return compare


def said_in(texts):
    """Give the sessions of texts behind the first queries."""
    return [
        spoken(PLAIN.parse(whole_text(query, text)))
        for query, (text, _) in zip(QUERIES, texts, strict=False)
    ]


def values(run: dict) -> dict:
    return {name: number["value"] for name, number in run["numbers"].items()}


# -- numbers --------------------------------------------------------------------------------------


NAMES = [name for name in TABLE_1["GPT-3 (ED)"] if name != "retention"]


def test_every_number_is_the_one_that_is_counted_by_hand(judged, compared):
    found, said = compared(judged("first", FIRST), judged("second", SECOND))
    assert (found["reference"], found["queries"], found["diversity_sessions"]) == ("first", 4, 2)
    first, second = found["runs"]["first"], found["runs"]["second"]
    assert (first["texts"], first["kept"], second["texts"], second["kept"]) == (4, 2, 3, 3)
    assert (first["queries_of_reference"], second["queries_of_reference"]) == (4, 3)
    expected = {
        **dict.fromkeys((f"violations.{name}" for name in NAMES), 0.0),
        "violations.session_length": 1 / 4,
        "violations.role_words": 1 / 4,
        "retention": 2 / 4,
        "session_tokens": (15 + 17) / 2,
        "session_words": (4 + 2 + 4 + 4 + 3 + 3) / 2,
        "session_utterances": 6 / 2,
        "seeker_utterances": 4 / 2,
        "seeker_words": (4 + 4 + 4 + 3) / 4,
        "supporter_utterances": 2 / 2,
        "supporter_words": (2 + 3) / 2,
        "duplicate_share": 0.0,
        "repetition_share": 1 / 2,
        "repeated_share": 1 / 6,
        "memorized_share": None,
        "flagged_share": 0.0,
        "flags.personal_data": 0.0,
        "tokens_for_each": (15 + 17 + 210 + 16) / 2,
        "distinct_1": 13 / 20,  # I am sad . Why ? My dog died feel low Oh no
        "distinct_2": 12 / 14,  # "Oh no" and "no ." are said twice
        "distinct_3": 7 / 8,
        "vendi": vendi_score(said_in(FIRST[:2])),
    }
    for name, value in values(first).items():
        assert value == pytest.approx(expected.pop(name)), name
    assert not expected
    theirs = values(second)
    assert theirs["retention"] == 1
    assert theirs["flagged_share"] == theirs["flags.personal_data"] == pytest.approx(1 / 3)
    assert theirs["tokens_for_each"] == pytest.approx((15 + 19 + 14) / 3)
    less = {name: number["value"] for name, number in second["differences"].items()}
    for name in ("retention", "seeker_words", "tokens_for_each", "distinct_1"):
        assert less[name] == pytest.approx(theirs[name] - values(first)[name])
    assert {n["value"] for n in first["differences"].values()} == {0, None}
    assert "| retained, % " in said
    assert "| memorized 4-grams" not in said  # nothing is known of it


def test_who_never_varies_has_no_interval(judged, compared):
    found, said = compared(judged("first", FIRST), judged("second", SECOND))
    first, second = found["runs"]["first"]["numbers"], found["runs"]["second"]["numbers"]
    less = found["runs"]["second"]["differences"]
    assert first["retention"]["low"] < 0.5 < first["retention"]["high"]
    assert (second["retention"]["low"], less["retention"]["low"]) == (None, None)  # all were kept
    assert (first["flagged_share"]["low"], less["flagged_share"]["low"]) == (None, None)
    assert less["seeker_words"]["low"] <= less["seeker_words"]["value"]
    (row,) = [line for line in said.splitlines() if line.startswith("| retained, % ")]
    assert re.fullmatch(r"\| retained, % +\| +50\.0 \[.*\] \| +100\.0 \| +\+50\.0 \|", row)


def test_tables_are_those_of_the_runs_own_reports(built, tmp_path, compared):
    other = shutil.copytree(built, tmp_path / "other")
    found, said = compared(built, other)
    report = json.loads((built / "corpus" / "filter_report.json").read_text())
    statistics = json.loads((built / "corpus" / "statistics.json").read_text())
    for run in found["runs"].values():
        told = values(run)
        for name, part in report["violations"].items():
            assert told[f"violations.{name}"] == pytest.approx(part["share"])
        assert told["retention"] == pytest.approx(report["retention"])
        assert run["table_2"] == {key: statistics[key] for key in run["table_2"]}
        assert told["session_words"] == pytest.approx(statistics["mean_session_words"])
        for role in ("seeker", "supporter"):
            assert told[f"{role}_utterances"] == pytest.approx(statistics[role]["mean_utterances"])
            assert told[f"{role}_words"] == pytest.approx(statistics[role]["mean_utterance_words"])
        for name in ("duplicate_share", "repetition_share", "repeated_share"):
            assert told[name] == pytest.approx(statistics["duplication"][name])
        assert told["memorized_share"] == pytest.approx(statistics["novelty"]["memorized_share"])
        for n in (1, 2, 3):
            assert told[f"distinct_{n}"] == pytest.approx(
                statistics["lexical_diversity"][f"distinct_{n}"]
            )
        # The same run does not differ from itself, whatever is drawn.
        for number in run["differences"].values():
            assert set(number.values()) <= {0.0, None}
    assert "0.0 [+0.0, +0.0] \\*" not in said
    assert not any(line.rstrip(" |").endswith("*") for line in said.splitlines())


def test_quality_is_compared_where_it_was_measured_alike(built, judged, tmp_path, compared):
    other = shutil.copytree(built, tmp_path / "other")
    found, said = compared(built, other)
    report = json.loads((built / "corpus" / "quality.json").read_text())
    (column,) = report["by_source"].values()
    for name, number in column["numbers"]["informativeness"].items():
        key = f"quality.informativeness: {name}"
        for run in found["runs"].values():
            assert run["numbers"][key]["value"] == pytest.approx(number["mean"])
            assert run["differences"][key]["value"] == 0
    assert re.search(r"\| informativeness: new words +\| +\d+\.\d\d ", said)
    assert "is in docs/quality.md" in said
    path = other / "corpus" / "quality.json"
    changed = json.loads(path.read_text())
    changed["measures"]["informativeness"]["rules"] = "others"
    path.write_text(json.dumps(changed))
    mark_anew(other)
    found, said = compared(built, other)
    assert "other: informativeness was measured with other settings than in run" in said
    number = found["runs"]["other"]["numbers"]["quality.informativeness: new_words"]
    assert number["value"] is None
    found, said = compared(judged("first", FIRST), judged("second", SECOND))
    assert not any(key.startswith("quality.") for key in found["compared"])
    assert "docs/quality.md" not in said


def test_one_source_alone(judged, augesc, refused, tmp_path):
    mixed = judged("mixed", FIRST, ("sample", "sample", "reddit", "reddit"))
    second = judged("second", SECOND)
    said = augesc("compare", mixed, second)[1]
    assert "Their queries are of other sources: mixed: reddit, sample; second: sample." in said
    assert re.search(r"\| mixed +\| +- \| +- \| +- \| +4 \| +4 \| +2 \|", said)
    said = augesc("compare", mixed, second, "--source", "sample")[1]
    assert "Only texts of the source sample." in said
    assert re.search(r"\| mixed +\| +- \| +- \| +- \| +2 \| +2 \| +2 \|", said)
    said = refused("compare", mixed, second, "--source", "reddit")
    assert "second: no text of source reddit; found sample" in said


def test_seconds_and_money_are_for_each_kept_session(built, tmp_path, compared, augesc):
    other = shutil.copytree(built, tmp_path / "other")
    manifest = load_sealed(other / "manifest.json")
    manifest["seconds"]["generate"] = 90.0
    manifest["stages"]["generate"]["requests"] = {"money": 0.3}
    (other / "manifest.json").write_text(sealed(manifest))
    found, said = compared(built, other, "--paper")
    run, kept = found["runs"]["other"], found["runs"]["other"]["kept"]
    assert (run["seconds"], run["money"]) == (90.0, 0.3)
    assert found["runs"]["run"]["money"] is None
    (row,) = [
        line
        for line in said.splitlines()
        if line.startswith("| other ") and "%" not in line and line.count("|") == 6
    ]
    cells = [cell.strip() for cell in row.split("|")[4:6]]
    assert cells == [f"{90 / kept:,.2f}", f"{0.3 / kept:.4f}"]
    assert re.search(r"\| paper: GPT-3 \(ED\) +\| +5\.8 \| +- \| +- \| +0\.1453 \|", said)
    for name in ("Blender (ED)", "AugESC Reddit", "ESConv"):
        assert re.search(rf"\| {re.escape(name)} +\| +\d\.\d\d ", said)  # Table 3
    # What a folder of `augesc filter` was made of is told by the build that its texts lie in.
    again = tmp_path / "again"
    assert augesc("filter", "--reuse", other, "--out", again)[0] == 0
    found, _ = compared(built, again)
    assert (found["runs"]["again"]["seconds"], found["runs"]["again"]["money"]) == (90.0, 0.3)
    assert found["runs"]["again"]["recipe"] == "tiny"
    # Of one source alone they are not known.
    assert augesc("compare", built, again, "--source", "sample")[1].count(" 90") == 0


def test_measures_of_other_requirements_are_compared_over_kept_texts(judged, compared, tmp_path):
    runs = [judged("first", FIRST), judged("second", SECOND)]
    for run, numbers in zip(runs, ([1.0, None, 7.0, 7.0], [2.0, 4.0, 6.0]), strict=True):
        (file,) = (run / "measured").glob("*.parquet")
        table = pq.read_table(file)
        pq.write_table(table.append_column("n_questions", pa.array(numbers, pa.float64())), file)
        for mark in (run / ".complete").glob("filter-*.json"):
            body = load_sealed(mark)
            body["files"][f"measured/{file.name}"] = measured(file).model_dump()
            mark.write_text(sealed(body))
    found, said = compared(*runs)
    first, second = (values(run)["measures.n_questions"] for run in found["runs"].values())
    assert (first, second) == (1.0, 4.0)  # of kept texts that have it
    assert re.search(r"\| n questions +\| +1\.0 ", said)


# -- one outcome ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_same_comes_out_each_time_and_another_seed_draws_others(judged, augesc, tmp_path):
    runs = judged("first", FIRST), judged("second", SECOND)
    texts = {}
    few = ("--resamples", 100)
    for name, options in {"a": (), "b": ("--num-proc", 2), "c": ("--seed", 14)}.items():
        out = tmp_path / name
        assert augesc("compare", *runs, "--out", out, *few, *options)[0] == 0
        files = [path for path in out.rglob("*") if path.suffix in {".json", ".md", ".tex", ".svg"}]
        texts[name] = {
            path.relative_to(out): path.read_bytes()
            for path in files
            if path.name != "manifest.json" and ".complete" not in path.parts
        }
    texts["a"].pop(Path(".status.json"), None), texts["b"].pop(Path(".status.json"), None)
    assert texts["a"] == texts["b"]
    assert len(texts["a"]) == 7
    of = (json.loads(texts[name][Path("comparison.json")])["runs"]["first"] for name in "ac")
    drawn, others = of
    assert values(drawn) == values(others)
    assert drawn["numbers"] != others["numbers"]
    # What is there already is not made again.
    said = augesc("compare", *runs, "--out", tmp_path / "a", *few)[1]
    assert "is complete: nothing to do" in said
    assert "## Differences" in said
    assert augesc("compare", *runs, "--out", tmp_path / "a", *few, "--seed", 15)[0] == 2


def test_a_run_that_kept_nothing_has_no_numbers_of_sessions(judged, compared):
    none = judged("none", [(" I am an AI.", 6), (" I am Human.", 6)])
    found, said = compared(judged("first", FIRST), none)
    told = values(found["runs"]["none"])
    assert told["retention"] == 0
    assert {told[name] for name in ("session_words", "flagged_share", "tokens_for_each")} == {None}
    assert told["distinct_1"] is None
    assert found["diversity_sessions"] == 2
    found, said = compared(none, judged("nothing", [(" I am an AI.", 6)]))
    assert "| retained, % " in said


# -- what is refused ------------------------------------------------------------------------------


def test_what_cannot_be_compared_is_refused_in_a_line(judged, refused, augesc, tmp_path):
    first, second = judged("first", FIRST), judged("second", SECOND)
    assert "one run alone; give two or more" in refused("compare", first)
    assert "given twice" in refused("compare", first, f"again={first}")
    assert "a second run called x; name it" in refused("compare", f"x={first}", f"x={second}")
    assert "is a file; give the folder" in refused("compare", first, tmp_path / "first.parquet")
    assert "is not there; give the folder" in refused("compare", first, tmp_path / "nowhere")
    assert "no manifest.json there" in refused("compare", first, tmp_path)
    assert augesc("stats", first, "--out", tmp_path / "s", "--basic")[0] == 0
    assert "a folder of another stage (statistics)" in refused("compare", first, tmp_path / "s")
    (second / ".complete" / "filter.json").unlink()
    said = refused("compare", first, second)
    assert "its filtering is not finished" in said
    assert f"augesc status {second}" in said


@pytest.mark.parametrize("file", ["manifest.json", "data", "measured", "filter_report.json"])
def test_a_damaged_run_is_refused(judged, refused, file):
    first, second = judged("first", FIRST), judged("second", SECOND)
    path = second / file
    if path.is_dir():
        (path,) = path.glob("*.parquet")
    content = path.read_bytes()
    path.write_bytes(content[:-9] + b"x" + content[-8:])
    said = refused("compare", second, first)
    assert str(path) in said


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seconds": {"generate": "long"}}, "seconds.generate"),
        ({"settings": {"requirements": 3}}, "settings.requirements"),
        ({"settings": []}, "settings"),
        ({"stages": {"generate": {"requests": {"money": -1}}}}, "stages.generate.requests.money"),
        ({"files": 7}, "files"),
    ],
)
def test_a_manifest_of_another_form_is_refused(judged, refused, change, says):
    first, second = judged("first", FIRST), judged("second", SECOND)
    manifest = load_sealed(second / "manifest.json")
    (second / "manifest.json").write_text(sealed({**manifest, **change}))
    assert f"not as a run writes it: {says}: " in refused("compare", first, second)


def test_a_manifest_of_before_tells_less(built, tmp_path, compared):
    other = shutil.copytree(built, tmp_path / "other")
    manifest = load_sealed(other / "manifest.json")
    for key in ("seconds", "recipe", "plan"):
        manifest.pop(key, None)
    (other / "manifest.json").write_text(sealed(manifest))
    found, _ = compared(built, other)
    run = found["runs"]["other"]
    assert (run["seconds"], run["recipe"], run["money"]) == (None, None, None)


# -- judged alike ---------------------------------------------------------------------------------


def command_in(said: str) -> list[str]:
    """Give the words of the command that a refusal names, without the program."""
    (command,) = re.findall(r"`(augesc filter .*?)`", said)
    return shlex.split(command)[1:]


@pytest.mark.parametrize(
    ("option", "key"),
    [
        ("requirements.session_length.max=99", "requirements.session_length.max (99"),
        ("requirements.role_words.words=[Bot]", "requirements.role_words.words (['Bot']"),
    ],
)
def test_other_requirements_are_refused_with_the_command_that_mends_it(
    judged, refused, augesc, tmp_path, monkeypatch, option, key
):
    first, second = judged("first", FIRST), judged("second", SECOND, options=("--set", option))
    said = refused("compare", first, second)
    assert "judged by other requirements than first" in said
    assert key in said
    monkeypatch.chdir(tmp_path)
    code, _, err = augesc(*command_in(said))
    assert code == 0, err
    code, _, err = augesc("compare", first, "second-alike")
    assert code == 0, err


def test_other_tokens_are_refused_with_the_command_that_mends_it(
    built, augesc, refused, tmp_path, monkeypatch, compared
):
    counted = tmp_path / "counted"
    tokenizer = tmp_path / "tokenizer"
    shutil.copytree(built / "checkpoint", tokenizer)
    definition = json.loads((tokenizer / "tokenizer.json").read_text())
    definition["model"]["merges"] = definition["model"]["merges"][:50]
    (tokenizer / "tokenizer.json").write_text(json.dumps(definition))
    options = ("--recipe", built / "recipe.yaml")
    named = f"requirements.tokenizer.name={tokenizer}"
    assert augesc("filter", built, "--out", counted, *options, "--set", named)[0] == 0
    said = refused("compare", built, counted)
    assert "its session length is counted in other tokens (tokenizer) than that of run" in said
    monkeypatch.chdir(tmp_path)
    code, _, err = augesc(*command_in(said))
    assert code == 0, err
    found, _ = compared(built, tmp_path / "counted-alike")
    assert found["runs"]["counted-alike"]["texts"] == found["runs"]["run"]["texts"]


@pytest.mark.parametrize("has_the_backbone", [True, False])
def test_whose_tokens_are_counted_is_told_by_the_backend(
    has_the_backbone, built, tmp_path, monkeypatch
):
    """By what it says of itself, not by its name: also that of a plugin."""

    class Mine(Backend):
        needs_checkpoint = has_the_backbone

    monkeypatch.setitem(backends._added, "mine", Mine)
    other = shutil.copytree(built, tmp_path / "other")
    manifest = load_sealed(other / "manifest.json")
    manifest["settings"]["generate"]["backend"]["type"] = "mine"
    (other / "manifest.json").write_text(sealed(manifest))
    (other / "recipe.yaml").unlink()
    ours, theirs = find_runs([str(built), str(other)])
    assert theirs.counter.counts_as(ours.counter) is has_the_backbone
    assert (theirs.model == ours.model) is has_the_backbone
    if not has_the_backbone:
        assert theirs.counter.label == "as the backend mine counts"


# -- strangers' names -----------------------------------------------------------------------------


def test_names_are_text_wherever_they_are_shown(judged, augesc, tmp_path):
    first, second = judged("first", FIRST), judged("second", SECOND, ("<b>|$x$",) * 3)
    odd = "\x1b[2J\\input{x} | $a_1$ *b* [c](http://d) %\u202e"
    out = tmp_path / "out"
    code, said, err = augesc("compare", f"{odd}={first}", second, "--out", out)
    assert code == 0, err
    assert "\x1b" not in said
    assert "\u202e" not in said
    markdown = (out / "comparison.md").read_text()
    assert "\\*b\\*" in markdown
    assert "](http" not in markdown.replace("\\](http", "")
    tex = (out / "comparison.tex").read_text()
    assert "\\input{x}" not in tex
    assert r"\textbackslash{}input\{x\}" in tex
    assert r"\$a\_1\$ {*}b{*}" in tex
    for file in (out / "figures").glob("*.svg"):
        assert "input{x}" in "".join(e.text or "" for e in ElementTree.parse(file).iter())
