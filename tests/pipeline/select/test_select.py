"""The best of several samples: what is kept, what is not, what it costs, and the pairs of both."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal

import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from augesc_builder import tables
from augesc_builder.config.recipe import load_recipe
from augesc_builder.hub.publish import check_corpus, corpus_files
from augesc_builder.pipeline.build import build
from augesc_builder.pipeline.card.croissant import croissant
from augesc_builder.pipeline.card.metadata import split_card
from augesc_builder.pipeline.compare.runs import find_runs
from augesc_builder.run.progress import Progress
from augesc_builder.sources.sample import read_sample_sessions
from tests.classifiers import causal_backbone, classifier
from tests.conftest import rows_of

QUIET = Progress(quiet=True)
BY = "topic_drift.drift"
BEST = (
    "quality.measures=[informativeness,topic_drift]",
    f"select={{by: {BY}, order: lowest, per_query: 1}}",
    "generate.samples_per_query=4",
    "queries.max_per_source=6",
)


@pytest.fixture(scope="module")
def chosen(tiny_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("chosen") / "run"
    assert build(load_recipe(tiny_file, BEST), folder, QUIET)
    return folder


def scores_of(folder):
    rows = rows_of(folder / "scored")
    return {
        row["session_id"]: {f"{n['measure']}.{n['name']}": n["value"] for n in row["numbers"]}[BY]
        for row in rows
    }


def rank(key, score):
    return score is None, score or 0, int(key.rpartition("-")[2])


def test_the_best_of_each_query_is_kept_and_the_others_have_a_table(chosen):
    scores = scores_of(chosen)
    candidates = rows_of(chosen / "candidates")
    kept, others = rows_of(chosen / "corpus/data"), rows_of(chosen / "corpus/not_selected")
    assert {row["session_id"] for row in candidates} == set(scores)
    assert len(kept) + len(others) == len(candidates)
    assert others
    by_query = {}
    for row in candidates:
        by_query.setdefault(row["query_id"], []).append(row["session_id"])
    best = {
        query: min(ids, key=lambda key: rank(key, scores[key])) for query, ids in by_query.items()
    }
    assert {row["session_id"] for row in kept} == set(best.values())
    for row in others:
        assert row["chosen"] == best[row["query_id"]]
        assert (row["score"], row["chosen_score"]) == (
            scores[row["session_id"]],
            scores[row["chosen"]],
        )
        assert row["reason"] == "score"
    for path in (chosen / "corpus/not_selected").glob("*.parquet"):
        assert pq.read_schema(path).equals(tables.plain_schema(tables.NOT_SELECTED))


def test_choosing_is_no_requirement(chosen):
    report = json.loads((chosen / "corpus/filter_report.json").read_text())
    assert report["retained"] == len(rows_of(chosen / "candidates"))
    assert report["total"] == 24
    selection = json.loads((chosen / "corpus/selection.json").read_text())
    assert selection["candidates"] == report["retained"]
    assert selection["chosen"] == len(rows_of(chosen / "corpus/data"))
    assert selection["not_selected"] == {"score": selection["candidates"] - selection["chosen"]}
    facts = json.loads((chosen / "manifest.json").read_text())["tables"]
    assert facts["candidates"] == selection["candidates"]
    assert facts["sessions"] == selection["chosen"]
    safety = json.loads((chosen / "corpus/safety_report.json").read_text())
    assert safety["sessions"] == selection["chosen"]
    card = (chosen / "corpus/README.md").read_text()
    assert f"{selection['chosen']:,} chosen of {selection['candidates']:,}" in card
    quality = json.loads((chosen / "corpus/quality.json").read_text())
    assert quality["sessions"] == selection["chosen"]


def test_the_cost_is_of_the_same_queries_at_every_point(chosen):
    points = json.loads((chosen / "corpus/selection.json").read_text())["cost"]
    assert [point["k"] for point in points] == [1, 2, 3, 4]
    assert len({point["compared"] for point in points}) == 1
    best = [point["numbers"][BY] for point in points]
    assert best == sorted(best, reverse=True)
    assert best[-1] < best[0]
    measured = rows_of(chosen / "measured")
    for point in points:
        tokens = sum(row["total_tokens"] for row in measured if row["sample"] < point["k"])
        assert point["tokens"] == pytest.approx(tokens / point["sessions"])
        assert 1 <= point["numbers"]["vendi"] <= point["compared"] + 1e-9
    assert points[-1]["sessions"] == len(rows_of(chosen / "corpus/data"))
    assert (chosen / "corpus/figures/selection.svg").exists()
    assert "| best of 4 |" in (chosen / "corpus/selection.md").read_text()


def test_the_corpus_loads_and_is_compared_as_others_are(chosen, tmp_path):
    sessions = load_dataset(str(chosen / "corpus"), split="train", cache_dir=str(tmp_path))
    assert sessions.num_rows == len(rows_of(chosen / "corpus/data"))
    others = load_dataset(
        str(chosen / "corpus"), "not_selected", split="train", cache_dir=str(tmp_path)
    )
    assert others.num_rows == len(rows_of(chosen / "corpus/not_selected"))
    copy = tmp_path / "copy"
    shutil.copytree(chosen, copy)
    runs = find_runs([str(chosen), f"copy={copy}"])
    assert [path.parent for path in runs[0].files("data")] == [chosen / "corpus" / "data"]


def test_nothing_is_done_twice_and_damage_is_mended(chosen, tiny_file, tmp_path):
    recipe, folder = load_recipe(tiny_file, BEST), tmp_path / "run"
    shutil.copytree(chosen, folder)
    assert not build(recipe, folder, QUIET)
    before = rows_of(folder / "corpus/data")
    next((folder / "corpus/data").glob("*.parquet")).unlink()
    assert build(recipe, folder, QUIET)
    assert rows_of(folder / "corpus/data") == before


def test_what_was_chosen_is_parted_and_pushed_and_described(chosen, tiny_file, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(chosen, folder)
    corpus = folder / "corpus"
    kept, others = rows_of(corpus / "data"), rows_of(corpus / "not_selected")
    assert build(load_recipe(tiny_file, [*BEST, "card.splits={test: 0.5}"]), folder, QUIET)
    parted = rows_of(corpus / "splits")
    assert {row["session_id"] for row in parted} == {row["session_id"] for row in kept}
    assert len(parted) == len(kept)
    for config, splits in (("default", {"train", "test"}), ("not_selected", {"train"})):
        loaded = load_dataset(str(corpus), config, cache_dir=str(tmp_path / "cache"))
        assert set(loaded) == splits
        rows = parted if config == "default" else others
        assert sum(part.num_rows for part in loaded.values()) == len(rows)
    check_corpus(corpus)
    tables = {name.partition("/")[0] for name in corpus_files(folder) if ".parquet" in name}
    assert tables == {"splits", "rejected", "not_selected"}
    assert {"selection.json", "quality.json"} <= set(corpus_files(folder))
    card = split_card((corpus / "README.md").read_text())[0]
    found = json.loads(croissant(corpus, card, "https://example.org", "2026-11-22"))
    assert {"default", "not_selected"} < {table["@id"] for table in found["recordSet"]}
    steps = {step["prov:label"]: step["description"] for step in found["prov:wasGeneratedBy"]}
    assert list(steps)[-3:] == ["filtering", "selection", "measuring quality"]
    assert steps["selection"].startswith(f"{len(kept)} sessions are kept of ")
    assert "`topic_drift`" in steps["measuring quality"]


def test_pairs_are_what_trl_takes(chosen, augesc, refused, tmp_path):
    code, said, _ = augesc("pairs", chosen, "--out", tmp_path / "pairs.jsonl")
    assert code == 0
    rows = load_dataset(
        "json", data_files=str(tmp_path / "pairs.jsonl"), cache_dir=str(tmp_path), split="train"
    ).to_list()
    assert f"{len(rows):,} pairs" in said
    others = {row["session_id"]: row for row in rows_of(chosen / "corpus/not_selected")}
    kept = {row["session_id"]: row for row in rows_of(chosen / "corpus/data")}
    for row in rows:
        assert row["prompt"] + row["chosen"] == kept[row["chosen_id"]]["messages"]
        assert row["prompt"] + row["rejected"] == others[row["rejected_id"]]["messages"]
        assert row["prompt"][0]["role"] == "user"
        assert row["chosen"][0]["role"] == row["rejected"][0]["role"] == "assistant"
        assert row["chosen"][0] != row["rejected"][0]
        assert row["chosen_score"] < row["rejected_score"]
    apart = sorted(row["rejected_score"] - row["chosen_score"] for row in rows)
    code, _, _ = augesc(
        "pairs", chosen, "--out", tmp_path / "far.parquet", "--margin", repr(apart[-1])
    )
    assert code == 0
    far = pq.read_table(tmp_path / "far.parquet").to_pylist()
    found = [row["rejected_score"] - row["chosen_score"] for row in far]
    assert found == [n for n in apart if n == apart[-1]]
    assert "there already" in refused("pairs", chosen, "--out", tmp_path / "far.parquet")
    assert "lower --margin" in refused(
        "pairs", chosen, "--out", tmp_path / "none.jsonl", "--margin", apart[-1] + 1
    )


def test_pairs_need_a_choice(built, refused, tmp_path):
    assert "nothing was chosen there" in refused("pairs", built, "--out", tmp_path / "x.jsonl")


def test_what_was_not_chosen_can_be_chosen_anew(chosen, augesc, refused, tmp_path):
    given = ["--set", "quality.measures=[consistency,informativeness]"]
    given += ["--set", "select={by: consistency.contradiction, per_query: 2}"]
    given += ["--set", "generate.samples_per_query=4"]
    code, said, err = augesc("select", chosen, "--out", tmp_path / "anew", *given)
    assert code == 0, err
    assert "consistency: contradiction (chosen by)" in said
    n = len(rows_of(tmp_path / "anew/data")) + len(rows_of(tmp_path / "anew/not_selected"))
    assert n == len(rows_of(chosen / "candidates"))
    assert "select is null" in refused("select", chosen, "--out", tmp_path / "no")


def test_a_choice_needs_what_it_goes_by(chosen, refused, tmp_path):
    """Offline the measure would be left out, and with it the choice."""
    given = ["quality.measures=[consistency,topic_drift]", "quality.topic_drift.scorer=encoder"]
    given += [
        "quality.topic_drift.model=nobody/nothing",
        f"quality.topic_drift.revision={'a' * 40}",
    ]
    given += [f"select={{by: {{{BY}: 1, consistency.contradiction: 1}}, per_query: 1}}"]
    given += ["generate.samples_per_query=4"]
    overrides = [part for one in given for part in ("--set", one)]
    told = refused("select", chosen, "--out", tmp_path / "no", *overrides)
    assert "select goes by topic_drift: config.json of nobody/nothing" in told
    assert "--set quality.topic_drift.model=PATH" in told


@pytest.mark.slow
def test_exactly_so_many_are_chosen(tiny_file, tmp_path):
    recipe = load_recipe(tiny_file, [*BEST, "generate.keep=3"])
    assert build(recipe, tmp_path / "run", QUIET)
    assert len(rows_of(tmp_path / "run/corpus/data")) == 3


@pytest.mark.slow
def test_exactly_so_many_are_chosen_of_those_with_backgrounds_and_turns_drawn_again(
    tiny_file, tmp_path
):
    """The same rows in other shards, and every token is paid for."""
    given = [
        *(*BEST, "prompt.background=true", "generate.background={max_tokens: 60, attempts: 2}"),
        *("generate.keep=3", "quality.topic_drift.threshold=0.56"),
        "generate.resample={by: [topic_drift.drifted], attempts: 2}",
    ]
    runs = []
    for size in (40, 3):
        runs.append(tmp_path / f"run-{size}")
        recipe = load_recipe(tiny_file, [*given, f"generate.shard_size={size}"])
        assert build(recipe, runs[-1], QUIET)
        if size == 3:
            assert not build(recipe, runs[-1], QUIET)
    for place in ("generations", "candidates", "corpus/data", "corpus/not_selected"):
        assert rows_of(runs[0] / place) == rows_of(runs[1] / place)
    kept, made = rows_of(runs[0] / "corpus/data"), rows_of(runs[0] / "generations")
    assert len(kept) == len({row["query_id"] for row in kept}) == 3
    backgrounds = {f"{row['query_id']}-{row['sample']}": row["background"] for row in made}
    assert any(backgrounds.values())
    assert all(row["background"] == backgrounds[row["session_id"]] for row in kept)
    assert any(row["resampled"] for row in made)
    measured = {(row["query_id"], row["sample"]): row for row in rows_of(runs[0] / "measured")}
    points = json.loads((runs[0] / "corpus/selection.json").read_text())["cost"]
    for point in points:
        tokens = sum(
            measured[row["query_id"], row["sample"]]["total_tokens"]
            + row["n_background_tokens"]
            + row["n_resampled_tokens"]
            for row in made
            if row["sample"] < point["k"]
        )
        each = tokens / point["sessions"] if point["sessions"] else None
        assert point["tokens"] == (each if each is None else pytest.approx(each))
    assert any(point["sessions"] for point in points)
    card = (runs[0] / "corpus/README.md").read_text()
    assert "were cut before a bad turn and drawn on from there" in card
    assert "ours: turns that measures find bad are drawn again" in card


def _die_in_select(recipe, folder):
    from augesc_builder.pipeline.select import stage

    stage.choose = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    build(recipe, folder, QUIET)


@pytest.mark.slow
def test_a_kill_while_choosing_costs_no_score(chosen, tiny_file, tmp_path, forking):
    recipe, folder = load_recipe(tiny_file, BEST), tmp_path / "run"
    context = forking("augesc_builder.pipeline.build")
    process = context.Process(target=_die_in_select, args=(recipe, folder))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    before = {p: p.stat().st_mtime_ns for p in (folder / "scored").glob("*")}
    assert before
    assert build(recipe, folder, QUIET)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    for place in ("corpus/data", "corpus/not_selected"):
        assert rows_of(folder / place) == rows_of(chosen / place)


@pytest.fixture(scope="module")
def talks(tmp_path_factory):
    """Sessions of people, of which some change their topic half way."""
    said = [session.messages for session in read_sample_sessions()][:8]
    mixed = [(a[:8] + b[8:])[:16] for a, b in itertools.pairwise(said)]
    rows = [
        {"session_id": f"q{i}-0", "source": "sample", "query_id": f"q{i}", "messages": messages}
        for i, messages in enumerate(mixed)
    ]
    path = tmp_path_factory.mktemp("talks") / "talks.parquet"
    pq.write_table(tables.to_table(rows, tables.SESSIONS), path)
    return path


def test_a_choice_may_go_by_a_weighted_sum_of_what_models_say(talks, augesc, tmp_path):
    rows = rows_of(talks.parent)
    for i, row in enumerate(rows):
        row |= {"session_id": f"q{i // 2}-{i % 2}", "query_id": f"q{i // 2}"}
    table = tmp_path / "two" / "talks.parquet"
    table.parent.mkdir()
    pq.write_table(tables.to_table(rows, tables.SESSIONS), table)
    pairs = classifier(tmp_path / "pairs", ["entailment", "neutral", "contradiction"])
    by = {"consistency.contradiction": 1, "topic_drift.drift": 0.5, "informativeness.new_words": -1}
    given = [
        "quality.measures=[consistency,topic_drift,informativeness]",
        f"quality.consistency.classifier={{model: {pairs}, revision: null, threshold: 0.5}}",
        "quality.topic_drift.scorer=encoder",
        f"quality.topic_drift.model={causal_backbone(tmp_path / 'encoder')}",
        f"select={{by: {json.dumps(by)}, order: highest, per_query: 1}}",
        "generate.samples_per_query=2",
    ]
    overrides = [part for one in given for part in ("--set", one)]
    code, said, err = augesc("select", table, "--out", tmp_path / "out", *overrides)
    assert code == 0, err
    assert "topic drift: drift (chosen by, times 0.5)" in said
    numbers = {
        row["session_id"]: {f"{n['measure']}.{n['name']}": n["value"] for n in row["numbers"]}
        for row in rows_of(tmp_path / "out/scored")
    }
    assert any(of["consistency.contradiction"] > 0 for of in numbers.values())
    scores = {
        key: sum(weight * of[name] for name, weight in by.items()) for key, of in numbers.items()
    }
    others = rows_of(tmp_path / "out/not_selected")
    assert len(others) == 3
    for row in others:
        assert row["score"] == pytest.approx(scores[row["session_id"]])
        assert row["chosen_score"] == pytest.approx(scores[row["chosen"]])
        assert row["score"] <= row["chosen_score"]


@pytest.mark.parametrize("least", [1, 30])
def test_sessions_end_where_their_topic_changes(talks, augesc, tmp_path, least):
    given = ["quality.measures=[topic_drift]", "quality.topic_drift.change=0"]
    given += [
        "select.cut_at_drift=true",
        f"requirements.total_utterances={{min: {least}, max: 50}}",
    ]
    given += ["requirements.balanced_utterances.max_ratio=50"]
    for role in ("seeker", "supporter"):
        free = "{mean: {min: 0, max: 99}, short: 1, max_short_share: 1, max: 200}"
        given.append(f"requirements.{role}_utterance_length={free}")
    overrides = [part for one in given for part in ("--set", one)]
    code, _, err = augesc("select", talks, "--out", tmp_path / "cut", *overrides)
    assert code == 0, err
    before = {row["session_id"]: row["messages"] for row in rows_of(talks.parent)}
    after = {row["session_id"]: row["messages"] for row in rows_of(tmp_path / "cut/data")}
    assert set(after) == set(before)
    points = {
        row["session_id"]: number["value"]
        for row in rows_of(tmp_path / "cut/scored")
        for number in row["numbers"]
        if number["name"] == "change_point"
    }
    which = json.loads((tmp_path / "cut/selection.json").read_text())["cut"]["which"]
    for key, messages in before.items():
        point = points[key]
        is_cut = least == 1 and point is not None and point > 0
        assert after[key] == (messages[: int(point)] if is_cut else messages)
        assert (key in which) == is_cut
        if is_cut:
            assert messages[int(point)]["role"] == "assistant"
            assert which[key] == {"utterances": len(messages), "left": int(point)}
    assert bool(which) == (least == 1)
    assert not rows_of(tmp_path / "cut/not_selected")
