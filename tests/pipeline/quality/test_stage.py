"""``augesc quality``: any sessions, in processes, killed and resumed, without models that lack."""

from __future__ import annotations

import itertools
import json
import math
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from augesc_builder.config.quality import WITHOUT_A_MODEL
from augesc_builder.config.recipe import load_recipe
from augesc_builder.errors import DownloadError, InputError, RecipeError
from augesc_builder.metrics.consistency.measure import THRESHOLD
from augesc_builder.pipeline.quality import measure, stage
from augesc_builder.pipeline.quality.measures import measures_of, own_judges, to_be_had
from augesc_builder.pipeline.quality.pairs import rescaled
from augesc_builder.pipeline.quality.report import BELIEVE, quality_markdown, quality_report
from augesc_builder.run.progress import Progress
from augesc_builder.sources.sample import SESSIONS
from augesc_builder.sources.sessions import iterate_sessions
from augesc_builder.tables import QUALITY, plain_schema, to_table
from augesc_builder.text.strategies import STRATEGIES
from tests.classifiers import causal_backbone, classifier
from tests.conftest import often

QUIET = Progress(quiet=True)
COMMIT = "a" * 40
RULES = ["topic_drift", "informativeness"]
NOBODYS = [
    *("quality.topic_drift.scorer=encoder", "quality.topic_drift.model=nobody/nothing"),
    f"quality.topic_drift.revision={COMMIT}",
]


def measured(out):
    """Give all that must not depend on how it was measured."""
    tables = [pq.read_table(path) for path in sorted((out / "quality").glob("*.parquet"))]
    report = json.loads((out / "quality.json").read_text())
    return pa.concat_tables(tables).to_pylist(), report, (out / "quality.md").read_text()


def quality(*paths, out, measures=RULES, num_proc=1, overrides=()):
    asked = f"quality.measures={json.dumps(measures)}"
    stage.standalone(
        [str(path) for path in paths], out, QUIET, overrides=[asked, *overrides], num_proc=num_proc
    )
    return measured(out)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What is said of the bundled sessions by rules, in one process and one shard."""
    return quality(SESSIONS, out=tmp_path_factory.mktemp("quality") / "whole")


def lines(path, *sessions):
    path.write_text("".join(json.dumps(session) + "\n" for session in sessions))
    return path


def session(*said):
    roles = ("user", "assistant")
    return {
        "messages": [{"role": roles[i % 2], "content": text} for i, text in enumerate(said)],
    }


@pytest.mark.parametrize(
    ("num_proc", "chunk", "shard"),
    [(1, 7, 20), pytest.param(2, 9, 27, marks=pytest.mark.slow)],
)
def test_processes_and_shards_change_nothing(whole, monkeypatch, tmp_path, num_proc, chunk, shard):
    monkeypatch.setattr(stage, "_CHUNK", chunk)
    monkeypatch.setattr(stage, "_SHARD", shard)
    assert quality(SESSIONS, out=tmp_path / "out", num_proc=num_proc) == whole
    assert len(list((tmp_path / "out" / "quality").iterdir())) == math.ceil(100 / (chunk * 3))


def test_a_killed_run_goes_on_where_it_was(whole, monkeypatch, tmp_path):
    monkeypatch.setattr(stage, "_CHUNK", 7)
    monkeypatch.setattr(stage, "_SHARD", 20)
    part, taken = measure.Measuring.part, []

    def killed(self, one):
        taken.append(one)
        if len(taken) == 8:
            raise KeyboardInterrupt
        return part(self, one)

    monkeypatch.setattr(measure.Measuring, "part", killed)
    with pytest.raises(KeyboardInterrupt):
        quality(SESSIONS, out=tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/quality").iterdir()}
    assert len(before) == 2
    assert quality(SESSIONS, out=tmp_path / "out") == whole
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(taken) == 8 + math.ceil(100 / 7) - 2 * 3  # no shard that was whole is made again


@settings(max_examples=often(20))
@given(st.lists(st.integers(0, 100), max_size=5))
def test_a_report_is_the_same_of_any_pieces(whole, cuts):
    rows, report, _ = whole
    ends = [0, *sorted(cuts), len(rows)]
    pieces = [to_table(rows[a:b], QUALITY) for a, b in itertools.pairwise(ends)]
    found = quality_report(pieces, ["sessions"], 13)
    assert found == {key: report[key] for key in found}


def test_each_session_is_measured_as_it_would_be_alone(whole, tmp_path):
    rows, _, _ = whole
    texts = SESSIONS.read_text().splitlines()
    for number in (0, 41, 99):
        one = tmp_path / f"{number}.jsonl"
        one.write_text(texts[number] + "\n")
        (found,), _, _ = quality(one, out=tmp_path / f"out-{number}")
        same = ("n_utterances", "numbers", "utterances", "findings")
        assert {key: found[key] for key in same} == {key: rows[number][key] for key in same}


def test_numbers_are_means_of_sessions_with_intervals(whole):
    rows, report, text = whole
    (column,) = report["by_source"].values()
    for of, names in column["numbers"].items():
        for name, told in names.items():
            values = [
                number["value"]
                for row in rows
                for number in row["numbers"]
                if (number["measure"], number["name"]) == (of, name)
            ]
            known = [value for value in values if value is not None]
            assert len(values) == 100
            assert told["sessions"] == len(known)
            assert told["mean"] == pytest.approx(sum(known) / len(known))
            assert told["low"] <= told["mean"] <= told["high"]
    assert BELIEVE in text
    assert set(report["measures"]) == set(RULES)
    assert report["measures"]["topic_drift"]["scorer"] == "words"


def test_findings_are_counted_by_kind_role_and_progress(whole):
    rows, report, _ = whole
    (column,) = report["by_source"].values()
    found = [(row, finding) for row in rows for finding in row["findings"]]
    of = column["findings"]["topic_drift"]["off_topic"]
    off = [(row, finding) for row, finding in found if finding["kind"] == "off_topic"]
    assert of["findings"] == len(off) == of["supporter"] == sum(of["progress"])
    assert of["sessions"] == len({row["session_id"] for row, _ in off})
    assert of["seeker"] == 0
    first = sum(5 * finding["utterance"] < row["n_utterances"] for row, finding in off)
    assert of["progress"][0] == first
    for row, finding in found:
        assert 0 <= finding["utterance"] < row["n_utterances"]
        assert 0 <= finding["start"] < finding["end"]
        assert finding["role"] == "assistant"
        assert finding["reason"]


def test_rows_have_the_ids_of_the_corpus_and_the_columns_promised(built):
    ids = [i for p in built.glob("corpus/data/*.parquet") for i in pq.read_table(p)["session_id"]]
    files = sorted(built.glob("corpus/quality/*.parquet"))
    assert [i for path in files for i in pq.read_table(path)["session_id"]] == ids
    assert all(pq.read_schema(path).equals(plain_schema(QUALITY)) for path in files)
    report = json.loads((built / "corpus" / "quality.json").read_text())
    assert report["sessions"] == len(ids)
    assert list(report["measures"]) == ["informativeness"]


def test_sets_stand_in_columns(augesc, built, tmp_path):
    out = tmp_path / "out"
    mine = lines(
        tmp_path / "mine.jsonl", session("I lost my job.", "What happened?", "They fired me.")
    )
    code, text, err = augesc(
        *("quality", built, f"ours={mine}", "--out", out, "--measure", "informativeness")
    )
    assert code == 0, err
    header = next(line for line in text.splitlines() if line.startswith("| mean of sessions"))
    assert [cell.strip() for cell in header.split("|")[2:-1]] == ["run", "ours"]
    rows, report, _ = measured(out)
    assert list(report["by_source"]) == ["run", "ours"]
    assert report["by_source"]["ours"]["sessions"] == 1
    assert rows[-1]["session_id"] == "mine-1"
    code, text, _ = augesc(
        *("quality", built, f"ours={mine}", "--out", out, "--measure", "informativeness")
    )
    assert code == 0
    assert "nothing to do" in text
    assert "is in docs/quality.md" in text
    assert "begun with other settings" in augesc("quality", built, "--out", out)[2]


ODD = [
    session("Hello."),
    session(*["I feel sad today.", "What makes you sad?"] * 250),
    session("", "", ""),
    session("   ", "\n", "\u200b"),
    session("Мне очень грустно.", "Что случилось?", "我失业了。", "それは大変でしたね。"),
    session("\x1b[31mred\x1b[0m <script>alert(1)</script>", "| a | `b` |\n# c", "\u202eback"),
    {"messages": [{"role": "assistant", "content": "Hi, how can I help?"}]},
]


def test_odd_sessions_are_measured(tmp_path):
    rows, report, text = quality(
        lines(tmp_path / "odd.jsonl", *ODD), out=tmp_path / "out", measures=WITHOUT_A_MODEL
    )
    assert [row["n_utterances"] for row in rows] == [1, 500, 3, 3, 4, 3, 1]
    for row in rows:
        assert all(len(u["scores"]) == row["n_utterances"] for u in row["utterances"])
    assert report["bad_lines"]["count"] == 0
    assert "\x1b" not in text


def test_bad_lines_are_counted_and_texts_that_are_no_conversations(tmp_path, capsys):
    path = lines(tmp_path / "some.jsonl", session("I am lost.", "Why?"), {"messages": 3})
    with path.open("a") as file:
        file.write('{"query": "I am lost.", "text": "said\\nby nobody"}\n{broken\n')
    rows, report, _ = quality(path, out=tmp_path / "out")
    assert [row["session_id"] for row in rows] == ["some-1"]
    assert report["not_conversations"] == 1
    assert report["bad_lines"]["count"] == 2
    assert "some.jsonl, line 2" in report["bad_lines"]["examples"][0]


def test_nothing_to_measure_is_one_line(refused, tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    told = refused("quality", tmp_path / "empty.jsonl", "--out", tmp_path / "a")
    assert "no sessions to measure" in told
    bad = lines(tmp_path / "bad.jsonl", {"messages": []}, {"messages": 1})
    told = refused("quality", bad, "--out", tmp_path / "b")
    assert "none of the first 2 rows holds a session; " in told
    assert "bad.jsonl, line 1" in told
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()


# -- models that cannot be had --------------------------------------------------------------------


def test_what_needs_no_model_is_measured_without_the_hub(augesc, tmp_path):
    path = lines(tmp_path / "one.jsonl", session("I lost my job.", "What happened?"))
    asked = [part for override in NOBODYS for part in ("--set", override)]
    code, text, err = augesc(
        *("quality", path, "--out", tmp_path / "out", *asked),
        *("--measure", "informativeness", "--measure", "topic_drift"),
    )
    assert code == 0, err
    assert "topic_drift is not measured: config.json of nobody/nothing" in text
    assert "--set quality.topic_drift.model=PATH" in text
    rows, report, table = measured(tmp_path / "out")
    assert {number["measure"] for number in rows[0]["numbers"]} == {"informativeness"}
    assert list(report["not_measured"]) == ["topic_drift"]
    assert "Topic drift was not measured" in table
    # The same run again says the same, whatever can be had by then.
    assert (
        "Topic drift was not measured"
        in augesc(
            *("quality", path, "--out", tmp_path / "out", *asked),
            *("--measure", "informativeness", "--measure", "topic_drift"),
        )[1]
    )


def test_nothing_at_all_that_can_be_had_is_one_line(refused, tmp_path):
    path = lines(tmp_path / "one.jsonl", session("I lost my job.", "What happened?"))
    asked = [part for override in NOBODYS for part in ("--set", override)]
    told = refused("quality", path, "--out", tmp_path / "out", *asked, "--measure", "topic_drift")
    assert "nobody/nothing" in told
    assert "give its folder with --set quality.topic_drift.model=PATH" in told
    assert not (tmp_path / "out").exists()


def test_a_model_that_the_hub_does_not_know_is_a_mistake(monkeypatch):
    settings = load_recipe("paper", ["quality.measures=[topic_drift]", *NOBODYS]).quality
    assert list(to_be_had(settings)) == ["topic_drift"]
    monkeypatch.setattr("augesc_builder.readers.hub.hub_answers", lambda: True)
    with pytest.raises(DownloadError, match="nobody/nothing"):
        to_be_had(settings)


# -- with models ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Tiny models with random weights, by the measure that takes them."""
    folder = tmp_path_factory.mktemp("models")
    encoder = causal_backbone(folder / "encoder")
    return {
        "encoder": encoder,
        "causal": causal_backbone(folder / "causal"),
        "pairs": classifier(folder / "pairs", ["ENTAILMENT", "NEUTRAL", "CONTRADICTION"]),
        "moods": classifier(folder / "moods", ["glad", "sad"]),
        "strategies": classifier(folder / "strategies", STRATEGIES),
    }


def asked_of(models, scorer="likelihood", threshold=0.5):
    drift = {"likelihood": "causal", "encoder": "encoder"}[scorer]
    return {
        "measures": ["consistency", "topic_drift", "support_strategies"],
        "overrides": [
            f"quality.consistency.classifier.model={models['pairs']}",
            "quality.consistency.classifier.revision=null",
            f"quality.consistency.classifier.threshold={threshold}",
            f"quality.topic_drift.scorer={scorer}",
            f"quality.topic_drift.model={models[drift]}",
            "quality.topic_drift.distractors=3",
            f"quality.support_strategies.model={models['strategies']}",
            "quality.batch_size=2",
        ],
    }


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """The first of the bundled sessions."""
    path = tmp_path_factory.mktemp("few") / "few.jsonl"
    path.write_text("".join(SESSIONS.read_text().splitlines(keepends=True)[:4]))
    return path


@pytest.mark.parametrize("scorer", ["likelihood", "encoder"])
def test_models_measure_in_one_process_and_are_named(few, models, tmp_path, scorer, monkeypatch):
    monkeypatch.setattr(stage, "_SHARD_OF_MODELS", 2)
    asked = asked_of(models, scorer)
    rows, report, text = quality(few, out=tmp_path / "out", num_proc=2, **asked)
    assert len(rows) == 4
    assert len(list((tmp_path / "out" / "quality").iterdir())) == 2
    told = report["measures"]
    assert told["consistency"]["classifier"]["model"] == str(models["pairs"])
    assert told["consistency"]["classifier"]["threshold"] == 0.5
    assert told["topic_drift"]["scorer"] == scorer
    assert told["support_strategies"]["model"] == str(models["strategies"])
    (column,) = report["by_source"].values()
    labels = column["labels"]["support_strategies"]
    assert set(labels) <= set(STRATEGIES)
    assert sum(of["share"] for of in labels.values()) == pytest.approx(1)
    roles = [m["role"] for m in next(iterate_sessions(few))[1]]
    (of,) = [u for u in rows[0]["utterances"] if u["measure"] == "support_strategies"]
    assert [label is not None for label in of["labels"]] == [r == "assistant" for r in roles]
    assert "## Support strategies by progress" in text
    inputs = json.loads((tmp_path / "out" / "manifest.json").read_text())["settings"]["inputs"]
    assert set(inputs) == {
        *("quality.consistency.classifier", "quality.topic_drift", "quality.support_strategies")
    }


@pytest.mark.parametrize("scorer", ["likelihood", "encoder"])
def test_odd_sessions_are_measured_by_models_too(models, tmp_path, scorer):
    odd = [session(*["I feel sad today.", "What makes you sad?"] * 250), *ODD[:1], *ODD[2:]]
    path = lines(tmp_path / "odd.jsonl", *odd)
    rows, report, _ = quality(path, out=tmp_path / "out", **asked_of(models, scorer))
    assert [row["n_utterances"] for row in rows] == [500, 1, 3, 3, 4, 3, 1]
    assert report["bad_lines"]["count"] == 0
    for row in rows:
        assert {number["measure"] for number in row["numbers"]} == set(report["measures"])
        for number in row["numbers"]:
            assert number["value"] is None or math.isfinite(number["value"])


def test_models_go_on_where_they_were_killed(few, models, tmp_path, monkeypatch):
    asked = asked_of(models)
    alone = quality(few, out=tmp_path / "whole", **asked)
    monkeypatch.setattr(stage, "_SHARD_OF_MODELS", 2)
    part, taken = measure.Measuring.part, []

    def killed(self, one):
        taken.append(one)
        if len(taken) == 2:
            raise KeyboardInterrupt
        return part(self, one)

    monkeypatch.setattr(measure.Measuring, "part", killed)
    with pytest.raises(KeyboardInterrupt):
        quality(few, out=tmp_path / "out", **asked)
    assert quality(few, out=tmp_path / "out", **asked) == alone
    assert len(taken) == 2 + 1


def test_labels_of_another_kind_of_model_are_refused(refused, few, models, tmp_path):
    wrong = asked_of({**models, "pairs": models["moods"]})["overrides"]
    asked = [part for override in wrong for part in ("--set", override)]
    told = refused("quality", few, "--out", tmp_path / "a", "--measure", "consistency", *asked)
    assert "its labels are glad, sad; expected contradiction, neutral and entailment" in told
    wrong = asked_of({**models, "strategies": models["pairs"]})["overrides"]
    asked = [part for override in wrong for part in ("--set", override)]
    told = refused(
        "quality", few, "--out", tmp_path / "a", "--measure", "support_strategies", *asked
    )
    assert "expected ESConv's strategies" in told
    assert not (tmp_path / "a").exists()


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_pair_at_the_threshold_is_as_sure_as_a_rule_at_its_own(probability, threshold):
    score = rescaled(probability, threshold)
    assert 0 <= score <= 1
    assert (score >= THRESHOLD) == (probability >= threshold)
    assert rescaled(threshold, threshold) == (THRESHOLD if threshold < 1 else 1.0)
    assert rescaled(probability, THRESHOLD) == pytest.approx(probability)


def test_the_threshold_of_the_classifier_decides_what_is_found(few, models, tmp_path):
    found = {}
    for threshold in (0.0, 1.0):
        rows, _, _ = quality(
            few, out=tmp_path / str(threshold), **asked_of(models, threshold=threshold)
        )
        kinds = [finding["kind"] for row in rows for finding in row["findings"]]
        found[threshold] = kinds.count("model")
    assert found[0.0] > found[1.0]


# -- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["quality.measures=[support_strategies]"], "support_strategies needs quality.support"),
        (["quality.measures=[informativeness, informativeness]"], "are each taken once"),
        (["quality.measures=[charm]"], "quality.measures.0: Input should be 'consistency'"),
        (["quality.topic_drift.scorer=encoder"], "the scorer encoder needs a model"),
        (["quality.topic_drift.model=somewhere"], "the scorer words takes none, found 'somewhere'"),
        (["quality.topic_drift.distractors=0"], "greater than or equal to 1"),
        (["quality.topic_drift.distractors=1001"], "less than or equal to 1000"),
        ([*NOBODYS, "quality.topic_drift.gguf_file=a.gguf"], "which likelihood alone takes"),
        (["quality.topic_drfit=1"], "did you mean quality.topic_drift"),
    ],
)
def test_wrong_settings_say_what_mends_them(overrides, said):
    with pytest.raises(RecipeError, match=r"^recipe: ") as refused:
        load_recipe("paper", overrides)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"model": "package:some_model"}, "package:some_model needs gguf_file"),
        ({"model": "package:some_model", "gguf_file": "a.gguf"}, "needs gguf_file"),
        ({"model": "someone/model", "sha256": "a" * 64}, "sha256 is that of gguf_file"),
    ],
)
def test_keys_of_a_causal_model_go_together(refused, tmp_path, keys, said):
    asked = {"scorer": "likelihood", **keys}
    options = [part for k, v in asked.items() for part in ("--set", f"quality.topic_drift.{k}={v}")]
    told = refused(
        *("quality", SESSIONS, "--out", tmp_path / "out", "--measure", "topic_drift", *options)
    )
    assert told.startswith("augesc: recipe: quality.topic_drift: ")
    assert said in told
    assert not (tmp_path / "out").exists()


def test_a_recipe_that_names_no_measures_has_no_such_stage(paper, tiny):
    from augesc_builder.pipeline.inputs import stages_of

    assert "quality" not in stages_of(paper)
    assert stages_of(tiny).index("quality") == stages_of(tiny).index("filter") + 1


def test_distractors_of_a_file_are_an_input(tmp_path):
    path = tmp_path / "others.jsonl"
    shutil.copy(SESSIONS, path)
    where = f"quality.topic_drift.sessions={path}"
    _, report, _ = quality(
        SESSIONS, out=tmp_path / "a", measures=["topic_drift"], overrides=[where]
    )
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert set(manifest["settings"]["inputs"]) == {"quality.topic_drift.sessions"}
    pool = report["measures"]["topic_drift"]["distractors"]
    (plain,) = measures_of(load_recipe("paper", ["quality.measures=[topic_drift]"]).quality)
    assert pool == plain.settings()["distractors"]
    with pytest.raises(InputError, match="no such file"):
        quality(
            SESSIONS,
            out=tmp_path / "b",
            measures=["topic_drift"],
            overrides=[f"quality.topic_drift.sessions={tmp_path / 'none.jsonl'}"],
        )


def test_a_threshold_of_the_recipe_is_that_of_the_measure(whole, tmp_path):
    scores = {u["scores"][i] for row in whole[0] for u in row["utterances"] for i in (3,) if i}
    some = sorted(score for score in scores if score is not None and 0 < score < 1)[0]
    found = []
    for threshold in (some, math.nextafter(some, 1)):
        rows, _, _ = quality(
            SESSIONS,
            out=tmp_path / str(threshold),
            measures=["topic_drift"],
            overrides=[f"quality.topic_drift.threshold={threshold!r}"],
        )
        at = [f["score"] for row in rows for f in row["findings"] if f["kind"] == "off_topic"]
        assert min(at) >= threshold
        found.append(at.count(some))
    assert found[0] > 0 == found[1]


def test_the_model_that_wrote_a_corpus_is_its_own_judge(built, tmp_path):
    files = {"theirs": [tmp_path / "x.parquet"], "ours": [*built.glob("corpus/data/*.parquet")]}
    for model, judged in ((built / "checkpoint", ["ours"]), ("someone/else", [])):
        settings = load_recipe(
            "paper",
            [
                *("quality.measures=[topic_drift]", "quality.topic_drift.scorer=likelihood"),
                f"quality.topic_drift.model={model}",
            ],
        ).quality
        assert own_judges(settings, files) == judged


# -- strangers' text ------------------------------------------------------------------------------


def test_what_findings_quote_is_shown_as_text(augesc, tmp_path):
    evil = "\x1b]0;title\x07 | **x** [a](http://evil) <img src=x onerror=alert(1)> \u202e\n# y"
    finding = {
        **{"measure": "consistency", "kind": "number", "role": "user", "utterance": 0, "start": 0},
        **{"end": 1, "score": 1.0, "reason": evil},
    }
    row = {
        **{"session_id": evil, "corpus": evil, "source": "x", "n_utterances": 1},
        **{"numbers": [], "utterances": [], "findings": [finding]},
    }
    found = quality_report([to_table([row], QUALITY)], [evil], 0)
    report = {**found, "not_measured": {"topic_drift": evil}, "own_judge": [evil]}
    text = quality_markdown(report)
    from markdown_it import MarkdownIt

    html = MarkdownIt("gfm-like", {"linkify": False}).render(text)
    assert "<img" not in html
    assert "<a " not in html
    assert "<strong>" not in html
    assert html.count("<h1>") == 0
    assert not any(sign in text for sign in "\x1b\x07\u202e")
    table = next(part for part in text.split("\n\n") if "first findings" in part)
    assert len(table.splitlines()) == 3
