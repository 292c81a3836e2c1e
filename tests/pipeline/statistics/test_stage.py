"""``augesc stats``: several sets in columns, in processes, with figures, on good and bad input."""

from __future__ import annotations

import json
import re
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from augesc_builder.config.recipe import load_recipe
from augesc_builder.errors import InputError
from augesc_builder.metrics.query_effect.counts import QueryCounts
from augesc_builder.metrics.tokenized import spoken
from augesc_builder.metrics.topic_correlates.counts import stop_words
from augesc_builder.paper import TABLE_2
from augesc_builder.pipeline.card.render import render_card
from augesc_builder.pipeline.inputs import check_inputs, input_digests
from augesc_builder.pipeline.statistics import plan, stage
from augesc_builder.pipeline.statistics.sets import (
    given_tests,
    queries_before_filtering,
    sets_beside,
    sets_tested_on,
)
from augesc_builder.pipeline.summary import summary
from augesc_builder.run.folder import RunFolder, read_manifest
from augesc_builder.run.progress import Progress
from augesc_builder.sources.sessions import iterate_sessions
from augesc_builder.text.prompts import PLAIN, whole_text
from tests.conftest import mark_anew, rows_of, shared
from tests.pipeline.filter.test_filter import EMOJI, HOSTILE, lines, table

FIGURES = ("session_statistics", "lexical_diversity", "query_effect", "duplication")


def found_in(folder):
    return json.loads((folder / "statistics.json").read_text())


@pytest.mark.slow
def test_sets_stand_in_columns_with_the_papers(augesc, built, tmp_path):
    published = [["usr", "I feel lost."], ["sys", "What happened?"], ["usr", "I lost my job."]]
    file = tmp_path / "augesc.txt"
    file.write_text(json.dumps(published) + "\n")
    out = tmp_path / "s"
    code, text, err = augesc(
        *("stats", built, f"ESConv={shared('esconv/test.txt')}", file, "--out", out, "--paper"),
        *("--finetuned-on", shared("esconv/train.txt")),
        *("--tested-on", f"held={shared('esconv/test.txt')}"),
    )
    assert code == 0, err
    text = text[text.index("|") :]  # behind lines of progress
    header = [cell.strip() for cell in text.splitlines()[0].split("|")[2:-1]]
    papers = ["paper: ESConv", "paper: AugESC ED", "paper: AugESC Reddit", "paper: AugESC"]
    assert header == ["run", "ESConv", "AugESC", "all", *papers]
    last = [cell.strip() for cell in text.splitlines()[12].split("|")[1:-1]]
    assert last[0] == "supporter: unique words"
    assert last[-4:] == [cells[-1] for cells in TABLE_2.values()]
    total = [line.split("|")[-2].strip() for line in text.splitlines()[2:5]]
    assert total == ["102K", "-", "84K"]  # section 5
    found = found_in(out)
    assert list(found["by_source"]) == ["run", "ESConv", "augesc"]
    assert found["by_source"]["augesc"]["seeker"]["utterances"] == 2
    assert found["by_source"]["ESConv"]["novelty"]["ngrams"] > 0
    assert found["by_source"]["ESConv"]["overlap"]["held"]["near_duplicate_share"] == 1
    shared_rows = [
        [cell.strip() for cell in line.split("|")[1:4]]
        for line in text[text.index("shared with 195 test sessions of held") :].splitlines()[2:6]
    ]
    assert [row[0] for row in shared_rows] == ["run", "ESConv", "AugESC", "all"]
    assert shared_rows[1][2] == "195 (100.0%)"
    assert set(found["topic_correlates"]) == {"run", "ESConv", "augesc"}
    names = (*FIGURES, "novelty", "topic_correlates")
    assert {p.name for p in (out / "figures").iterdir()} == {
        f"{name}.{form}" for name in names for form in ("png", "svg")
    }


def test_a_set_with_several_sources_has_a_column_for_each(augesc, tmp_path):
    rows = [{"messages": EMOJI, "source": s} for s in ("reddit", "reddit", "empathetic_dialogues")]
    table(tmp_path / "mine.parquet", rows)
    one = ("stats", tmp_path / "mine.parquet", "--basic", "--out")
    code, text, _ = augesc(*one, tmp_path / "a")
    assert code == 0
    assert re.search(r"\| +ED +\| +Reddit +\| +all +\|", text)
    assert not (tmp_path / "a" / "figures").exists()
    assert "lexical_diversity" not in found_in(tmp_path / "a")
    code, text, _ = augesc(*one, tmp_path / "b", f"again={tmp_path / 'mine.parquet'}")
    assert "mine: reddit" in text
    assert "again: empathetic_dialogues" in text


def test_processes_and_pieces_change_nothing(augesc, tmp_path, monkeypatch):
    file = shared("esconv/valid.txt")
    augesc("stats", file, "--out", tmp_path / "one")
    monkeypatch.setattr(plan, "_SMALL", 17)
    monkeypatch.setattr(plan, "_CHUNK", 5)
    code, _, err = augesc("stats", file, "--out", tmp_path / "two", "--num-proc", "2")
    assert code == 0, err
    assert found_in(tmp_path / "one") == found_in(tmp_path / "two")


def test_near_duplicates_on_request(augesc, tmp_path):
    file = lines(tmp_path / "s.jsonl", [{"messages": EMOJI}] * 2)
    for options, expected in (((), None), (("--near-duplicates",), 2)):
        out = tmp_path / f"out{expected}"
        code, _, err = augesc("stats", file, "--out", out, *options)
        assert code == 0, err
        assert found_in(out)["duplication"]["near_duplicate_sessions"] == expected


@pytest.mark.parametrize("name", [name for name in HOSTILE if name != "no utterance"])
@pytest.mark.parametrize("write", [lines, table])
def test_hostile_sessions_are_counted_right(augesc, tmp_path, name, write):
    messages = HOSTILE[name]
    suffix = "jsonl" if write is lines else "parquet"
    file, out = write(tmp_path / f"s.{suffix}", [{"messages": messages}]), tmp_path / "out"
    code, text, err = augesc("stats", file, "--out", out)
    assert code == 0, err
    found = found_in(out)
    assert found["sessions"] == 1
    seeker = [m for m in messages if m["role"] == "user"]
    assert found["seeker"]["utterances"] == len(seeker)
    assert found["supporter"]["utterances"] == len(messages) - len(seeker)
    assert not re.search("nan", (out / "statistics.json").read_text(), re.IGNORECASE)
    if name == "one speaker only":
        assert found["supporter"]["mean_utterance_words"] is None
        assert re.search(r"supporter: words an utterance +\| +- \|", text)
    if name == "a huge utterance":
        assert found["seeker"]["utterance_words"] == [[375_000, 1]]


def test_no_sessions_are_no_numbers(augesc, tmp_path):
    schema = pa.schema([("messages", pa.list_(pa.struct([("role", pa.string())])))])
    pq.write_table(schema.empty_table(), tmp_path / "none.parquet")
    code, text, err = augesc("stats", tmp_path / "none.parquet", "--out", tmp_path / "out")
    assert code == 0, err
    found = found_in(tmp_path / "out")
    assert found["sessions"] == 0
    assert found["mean_session_words"] is None
    assert found["by_source"] == {}
    assert re.search(r"words a session +\| +- \|", text)
    assert not (tmp_path / "out" / "figures").exists()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ({"messages": [{"role": "boss", "content": "x"}]}, "role user or assistant"),
        ({"messages": [{"role": "user", "content": None}]}, "line 1: expected messages"),
        ({"messages": None}, "line 1: column messages: expected a list of utterances"),
        ({"messages": [None]}, "line 1: expected messages"),
        ({"messages": []}, "line 1: a session without messages"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "line 1: half of a surrogate"),
        ([["usr", "x"], ["bot", "y"]], 'expected pairs ["usr" or "sys", text]'),
        ([], "line 1: a session without messages"),
        ({"dialog": []}, "'dialog' must be a list with utterances"),
        ({"text": "x"}, "the key 'dialog' is missing, found text"),
    ],
)
def test_what_is_refused(refused, tmp_path, line, says):
    file = tmp_path / "s.jsonl"
    file.write_text(json.dumps(line) + "\n")
    assert says in refused("stats", file, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_tables_without_messages_and_names_that_clash(refused, tmp_path):
    file = table(tmp_path / "s.parquet", [{"text": "x"}])
    assert "no column messages, nor query and text; found text" in refused(
        "stats", file, "--out", tmp_path / "out"
    )
    other = tmp_path / "other" / "s.parquet"
    other.parent.mkdir()
    table(other, [{"messages": EMOJI}])
    line = refused("stats", other, other, "--out", tmp_path / "out")
    assert "a second set called s; name it, as in other=" in line


# -- generations and rejected rows ----------------------------------------------------------------


def test_generations_and_rejected_rows_are_sets_too(augesc, built, tmp_path):
    strict = ("filter", built / "generations", "--out", tmp_path / "f", "--no-safety")
    assert augesc(*strict)[0] == 0  # by the paper's thresholds, which hardly anything meets
    both = (f"all={built / 'generations'}", f"out={tmp_path / 'f' / 'rejected'}")
    code, _, err = augesc("stats", *both, "--out", tmp_path / "s")
    assert code == 0, err
    found, of_build = found_in(tmp_path / "s"), found_in(built / "corpus")
    texts = rows_of(built / "generations")
    conversations = [PLAIN.parse(whole_text(row["query"], row["text"])) for row in texts]
    said = [messages for messages in conversations if messages]
    assert found["by_source"]["all"]["sessions"] == len(said)
    effect = found["by_source"]["all"]["query_effect"]
    assert effect == of_build["by_source"]["sample"]["query_effect"]
    assert effect["sessions"] == sum(len(messages) > 1 for messages in said)
    by_hand = QueryCounts(2_000, seed=13)
    for _, messages in iterate_sessions(built / "generations", generations=True):
        by_hand.add(spoken(messages))
    assert effect == by_hand.statistics()
    kept = of_build["by_source"]["sample"]["sessions"]
    assert 0 < kept < len(texts)  # so that it is not the kept sessions that were measured
    rejected = rows_of(tmp_path / "f" / "rejected")
    failed = sum("format" in row["violations"] for row in rejected)
    assert found["not_conversations"] == 2 * failed
    assert found["by_source"]["out"]["sessions"] == len(rejected) - failed > 0


def test_texts_that_are_no_conversations_are_told(augesc, tmp_path):
    rows = [
        {"query": "I feel  lost.", "text": " Why?\nHuman: No idea.", "source": "mine"},
        {"query": "I feel lost.", "text": " Why?\nHe said so.", "source": "mine"},
    ]
    for i, write in enumerate((lines, table)):
        file = write(tmp_path / ("g.jsonl", "g.parquet")[i], rows)
        code, text, err = augesc("stats", file, "--out", tmp_path / str(i))
        assert code == 0, err
        assert "1 texts are no conversations and are left out." in text
        found = found_in(tmp_path / str(i))
        assert found["by_source"]["mine"]["query_effect"]["mean_query_words"] == 4  # I feel lost .
        assert found["seeker"]["utterances"] == 2


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"query": None, "text": "x"}, "line 1: column query: expected a text, found None"),
        ({"query": " ", "text": "x"}, "line 1: column query: expected a text, found"),
        ({"query": "x", "text": 3}, "line 1: column text: expected a text, found 3"),
        ({"query": "x"}, "the key 'dialog' is missing, found query"),
    ],
)
def test_generations_that_are_refused(refused, tmp_path, row, says):
    file = lines(tmp_path / "g.jsonl", [row])
    assert says in refused("stats", file, "--out", tmp_path / "out")


# -- samples, stop words, the prior ---------------------------------------------------------------


@pytest.mark.slow
def test_figure_4_says_how_it_compares(augesc, tmp_path):
    sets = (shared("esconv/valid.txt"), shared("esconv/test.txt"))
    plain = ("stats", *sets, "--out", tmp_path / "plain")
    code, text, err = augesc(*plain)
    assert code == 0, err
    assert (
        "at most 10,000 sessions of a set, seed 13; stop words kept; prior: the counts of all "
        "sets together." in text
    )
    other = ("--stop-words", "drop", "--prior", "scaled:46e6", "--topic-sample", "20")
    code, text, err = augesc("stats", *sets, "--out", tmp_path / "other", *other, "--seed", "2")
    assert code == 0, err
    assert "at most 20 sessions of a set, seed 2; stop words left out" in text
    assert "prior: the counts of all sets together, scaled to 46,000,000 words." in text
    svg = (tmp_path / "other" / "figures" / "topic_correlates.svg").read_text()
    assert "46,000,000 words" in svg.replace("\n", " ")
    words = {w for w, _ in found_in(tmp_path / "other")["topic_correlates"]["test"]["seeker"]}
    assert not words & stop_words()
    words = {w for w, _ in found_in(tmp_path / "plain")["topic_correlates"]["test"]["seeker"]}
    assert words & stop_words()


@pytest.mark.slow
def test_samples_are_of_the_size_asked_for_and_drawn_by_the_seed(augesc, tmp_path):
    def effect(*options):
        out = tmp_path / "-".join(options)
        code, _, err = augesc("stats", shared("esconv/valid.txt"), "--out", out, *options)
        assert code == 0, err
        return found_in(out)["query_effect"]

    one = effect("--query-sample", "50", "--seed", "1")
    assert one["sessions"] == 50
    assert effect("--query-sample", "50", "--seed", "1", "--num-proc", "2") == one
    assert effect("--query-sample", "50", "--seed", "2") != one
    assert effect("--query-sample", "0")["sessions"] == 195
    assert effect("--seed", "1") == effect("--query-sample", "0")  # 195 are fewer than 2,000


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        (
            "--prior",
            "flat",
            "statistics.prior: unknown prior 'flat'; expected pooled, scaled:WORDS",
        ),
        ("--prior", "scaled", "unknown prior 'scaled'"),
        ("--prior", "scaled:0", "unknown prior 'scaled:0'"),
        ("--prior", "uninformative:1e999", "unknown prior"),
        ("--prior", "uninformative:1.2.3", "unknown prior"),
        ("--prior", "pooled:3", "unknown prior"),
        ("--stop-words", "some", "statistics.stop_words: Input should be 'keep' or 'drop'"),
    ],
)
def test_options_that_are_refused(refused, tmp_path, option, value, says):
    file = lines(tmp_path / "s.jsonl", [{"messages": EMOJI}])
    assert says in refused("stats", file, "--out", tmp_path / "out", option, value)
    assert not (tmp_path / "out").exists()


# -- what stands beside a build's corpus ----------------------------------------------------------


def test_a_build_measures_its_fine_tuning_sessions_beside_its_corpus(built):
    found = found_in(built / "corpus")
    assert list(found["by_source"]) == ["sample"]
    beside = found["beside"]["sample (sessions)"]
    assert beside["sessions"] == 100
    assert set(beside) >= {"lexical_diversity", "seeker"}
    assert not {"novelty", "query_effect", "duplication"} & set(beside)
    assert set(found["topic_correlates"]) == {"sample", "sample (sessions)"}
    assert found["sessions"] == found["by_source"]["sample"]["sessions"]  # the corpus alone
    table = (built / "corpus" / "README.md").read_text()
    assert re.search(r"\| +sample \| +sample \(sessions\) \| +paper: ESConv \|", table)
    assert (built / "corpus" / "figures" / "topic_correlates.png").is_file()


def test_a_build_draws_figure_3_from_its_generations(built, tmp_path):
    (whole,) = queries_before_filtering([*(built / "measured").glob("*.parquet")], None, 0).values()
    assert whole.statistics()["sessions"] > 5
    table = pa.concat_tables(
        pq.read_table(file) for file in sorted((built / "measured").glob("*.parquet"))
    )
    drawn = []
    for i, rows in enumerate((table, table.take(list(range(len(table)))[::-1]))):
        half = len(rows) // 2
        parts = [tmp_path / f"{i}-{j}.parquet" for j in range(2)]
        pq.write_table(rows.slice(0, half), parts[0])
        pq.write_table(rows.slice(half), parts[1])
        drawn.append(queries_before_filtering(parts, 5, 7)["sample"].statistics())
    assert drawn[0] == drawn[1]
    assert drawn[0]["sessions"] == 5
    assert drawn[0]["bins"] != whole.statistics()["bins"]


def test_test_sessions_are_named_as_sets_are(refused, tmp_path):
    test = shared("esconv/test.txt")
    assert given_tests([str(test)]) == {"test": [test]}
    assert given_tests([f"held={test}"]) == {"held": [test]}
    given = ("stats", test, "--out", tmp_path / "out", "--tested-on")
    assert "a second set called test; name it" in refused(*given, test, "--tested-on", test)
    assert "sample: has no split that models are tested on" in refused(*given, "sample")
    assert "no such file" in refused(*given, "nowhere.txt")


def test_by_default_it_is_the_test_split_of_what_the_model_learned_from(tmp_path, tiny_file):
    with RunFolder(tmp_path / "run", {}) as folder:
        assert sets_tested_on(folder, load_recipe(tiny_file)) == {}  # the sample has none
        held = [f"statistics.tested_on={{a: {shared('esconv/test.txt')}}}"]
        assert list(sets_tested_on(folder, load_recipe(tiny_file, held))) == ["a"]
        on_esconv = "finetune.sessions=esconv"
        none = [on_esconv, "statistics.tested_on={}"]
        assert sets_tested_on(folder, load_recipe(tiny_file, none)) == {}


def test_a_recipe_names_what_stands_beside(built, tiny_file, tmp_path):
    esconv = [
        f"statistics.beside={{{split}: {shared(f'esconv/{split}.txt')}}}" for split in ("test",)
    ]
    recipe = load_recipe(tiny_file, esconv)
    assert list(sets_beside(recipe, None, ["sample"])) == ["test"]
    assert sets_beside(load_recipe(tiny_file, ["statistics.beside={}"]), None, ["sample"]) == {}
    missing = load_recipe(tiny_file, ["statistics.beside={ESConv: nowhere.txt}"])
    with pytest.raises(InputError, match=r"nowhere\.txt: no such file"):
        sets_beside(missing, None, ["sample"])
    with pytest.raises(InputError, match=r"nowhere\.txt: no such file"):
        check_inputs(missing)
    assert "statistics.beside.test" in input_digests(recipe)


def test_one_source_is_compared_with_what_stands_beside_it(built, tiny_file, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(built, folder)
    test = shared("esconv/test.txt")
    recipe = load_recipe(
        tiny_file,
        [f"statistics.beside={{ESConv: {test}}}", f"statistics.tested_on={{ESConv: {test}}}"],
    )
    with RunFolder(folder, read_manifest(folder)["settings"]) as run:
        stage.run(run, recipe, Progress(quiet=True))
    found = found_in(folder / "corpus")
    overlap = found["overlap"]["ESConv"]
    assert overlap["sessions"] == found["sessions"]
    assert (overlap["test_sessions"], overlap["near_duplicate_sessions"]) == (195, 0)
    assert overlap == found["by_source"]["sample"]["overlap"]["ESConv"]
    row = f"| {found['sessions']:,} | 0 (0.0%) | 0 | "
    for text in (
        render_card(folder, folder / "corpus", read_manifest(folder)),
        summary(folder),
    ):
        assert "shared with 195 test sessions of ESConv" in text
        assert row in re.sub(" +", " ", text)
    assert found["beside"]["ESConv"]["sessions"] == 195
    assert set(found["topic_correlates"]) == {"sample", "ESConv"}
    assert found["beside"]["ESConv"]["lexical_diversity"]["bigram_growth"][-1][0] == 195


def test_figure_3_of_a_build_has_the_sources_of_which_nothing_was_kept(built, tiny_file, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(built, folder)
    for file in (folder / "corpus" / "data").glob("*.parquet"):
        pq.write_table(pq.read_table(file).slice(0, 0), file)
    mark_anew(folder)
    with RunFolder(folder, read_manifest(folder)["settings"]) as run:
        stage.run(run, load_recipe(tiny_file), Progress(quiet=True))
    before, found = found_in(built / "corpus"), found_in(folder / "corpus")
    assert found["by_source"]["sample"]["sessions"] == 0
    effect = before["by_source"]["sample"]["query_effect"]
    assert found["by_source"]["sample"]["query_effect"] == effect
    assert (folder / "corpus" / "figures" / "query_effect.svg").is_file()
