"""Every measurement against one that is written another way, and merged in any order."""

from __future__ import annotations

import importlib
import json
import math
import os
import pickle
import random
import statistics as plain_statistics
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import augesc_builder.metrics
from augesc_builder.metrics.distinct import DistinctItems, hash_of
from augesc_builder.metrics.duplication.counts import DEFAULT, DuplicationCounts
from augesc_builder.metrics.duplication.duplication import Duplication
from augesc_builder.metrics.lexical_diversity.counts import DiversityCounts
from augesc_builder.metrics.novelty.counts import Automaton, NoveltyCounts
from augesc_builder.metrics.query_effect.counts import QueryCounts
from augesc_builder.metrics.tokenized import spoken
from augesc_builder.metrics.topic_correlates.counts import (
    TopicCounts,
    correlates,
    stop_words,
    z_scores,
)
from augesc_builder.pipeline.statistics.measure import Counts, Measuring, merged, statistics
from augesc_builder.sources.sessions import iterate_sessions
from tests.conftest import often, shared

METRICS = Path(augesc_builder.metrics.__file__).parent
NAMES = sorted(p.parent.name for p in METRICS.glob("*/*.py") if p.stem == p.parent.name)


def session(*texts):
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]


SMALL = [
    session("I am so very sad today.", "I am so very sorry."),
    session("My dog died.", "Oh. I am so very sad too.", "my  DOG died."),
    session("My dog died.", "Oh. I am so very sad too.", "my  DOG died."),
    session("Hello?"),
]
WORDS = st.text("aB .", max_size=14)
SESSIONS = st.lists(st.lists(WORDS, min_size=1, max_size=4).map(lambda t: session(*t)), max_size=8)


def test_the_issue_names_six():
    assert [
        *("duplication", "lexical_diversity", "novelty", "query_effect", "session_statistics"),
        "topic_correlates",
    ] == NAMES


MORE = {
    "topic_correlates": {"sets": ["a", "a", "b", "b"]},
    "novelty": {"trained_on": SMALL[:1]},
}

LOAD = """
import json, sys
import evaluate

found = {}
for path, more in json.loads(sys.argv[2]):
    metric = evaluate.load(path, module_type="measurement", cache_dir=sys.argv[3])
    texts = (metric.description, metric.inputs_description, metric.citation)
    assert all(len(text) > 40 for text in texts) and "Returns:" in texts[1], path
    found[path] = metric.compute(messages=json.loads(sys.argv[1]), **more)
print(json.dumps(found, allow_nan=False))
"""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_each_loads_from_its_folder_and_gives_what_the_class_gives(tmp_path):
    paths = [(str(METRICS / name), MORE.get(name, {})) for name in NAMES]
    arguments = [json.dumps(SMALL), json.dumps(paths), str(tmp_path / "cache")]
    env = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *arguments],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout.splitlines()[-1])
    for name in NAMES:
        module = importlib.import_module(f"augesc_builder.metrics.{name}.{name}")
        kind = getattr(module, "".join(part.capitalize() for part in name.split("_")))
        direct = kind(cache_dir=str(tmp_path)).compute(messages=SMALL, **MORE.get(name, {}))
        assert loaded[str(METRICS / name)] == json.loads(json.dumps(direct))


# -- whatever the chunks --------------------------------------------------------------------------


@settings(max_examples=often(60))
@given(SESSIONS, st.integers(0, 8), st.randoms())
def test_pieces_and_order_change_nothing(sessions, cut, rng):
    what = Measuring(trained_on=("a B a", "B. a a B"))
    whole = Counts(what)
    whole.add([spoken(s) for s in sessions])
    shuffled = list(sessions)
    rng.shuffle(shuffled)
    parts = []
    for part in (shuffled[:cut], shuffled[cut:]):
        counts = Counts(what)
        counts.add([spoken(s) for s in part])
        parts.append(pickle.loads(pickle.dumps(counts)))  # as processes hand it over
    found = merged(parts, what).statistics()
    assert found == whole.statistics()
    json.dumps(found, allow_nan=False)


def test_columns_stand_beside_all_of_them():
    what = Measuring()
    columns = {"a": Counts(what), "b": Counts(what)}
    columns["a"].add([spoken(s) for s in SMALL[:2]])
    columns["b"].add([spoken(s) for s in SMALL[2:]])
    found = statistics(columns, what)
    assert found["sessions"] == 4
    assert [part["sessions"] for part in found["by_source"].values()] == [2, 2]
    assert set(found["topic_correlates"]) == {"a", "b"}
    alone = statistics({"a": columns["a"]}, what)
    assert alone["topic_correlates"] is None
    assert alone["sessions"] == 2


# -- lexical diversity ----------------------------------------------------------------------------


def test_distinct_n_and_growth_against_plain_sets():
    sessions = [spoken(messages) for _, messages in iterate_sessions(shared("esconv/valid.txt"))]
    counts = DiversityCounts(seed=3)
    counts.add(sessions)
    found = counts.statistics(points=20)
    for n in (1, 2, 3):
        grams = [
            tuple(said.words[i : i + n])
            for s in sessions
            for said in s
            for i in range(len(said.words) - n + 1)
        ]
        assert found[f"distinct_{n}"] == len(set(grams)) / len(grams)
    order = sorted(sessions, key=counts._rank)
    seen: set[tuple[str, str]] = set()
    curve = []
    for s in order:
        seen |= {pair for said in s for pair in pairwise(said.words)}
        curve.append(len(seen))
    assert found["bigram_growth"][-1] == [195, len(seen)]
    assert all(curve[n - 1] == unique for n, unique in found["bigram_growth"])
    assert found["exact"]


def test_another_seed_is_another_order_with_the_same_end():
    sessions = [spoken(messages) for _, messages in iterate_sessions(shared("esconv/test.txt"))]
    curves = []
    for seed in (0, 1):
        counts = DiversityCounts(seed)
        counts.add(sessions)
        curves.append(counts.statistics()["bigram_growth"])
    assert curves[0] != curves[1]
    assert curves[0][-1] == curves[1][-1]


@pytest.mark.parametrize(("limit", "exact"), [(5000, True), (4999, False)])
def test_beyond_the_limit_counts_are_estimates(limit, exact):
    hashes = np.array([hash_of(str(i)) for i in range(5000)], np.uint64)
    ranks = np.arange(5000, dtype=np.uint64)
    rng = random.Random(1)
    found = []
    for _ in range(3):
        order = rng.sample(range(5000), 5000)
        parts = [DistinctItems(limit), DistinctItems(limit)]
        for i, part in enumerate(parts):
            mine = np.array(order[i::2])
            part.add(hashes[mine], ranks[mine])
            part.add(hashes[mine[:50]], ranks[mine[:50]] + np.uint64(9))  # seen again, later
        parts[0].merge(parts[1])
        growth = parts[0].growth(np.array([999, 4999], np.uint64))
        found.append((parts[0].exact, parts[0].count(), growth))
    assert found[0] == found[1] == found[2]
    assert found[0][0] is exact
    if exact:
        assert found[0][1:] == (5000, [1000, 5000])
    else:
        assert abs(found[0][1] - 5000) < 250


def test_a_small_sample_still_tells_how_many_there_are():
    items = DistinctItems(limit=1000)
    for first in range(0, 100_000, 10_000):
        hashes = np.array([hash_of(str(i)) for i in range(first, first + 10_000)], np.uint64)
        items.add(hashes, np.full(len(hashes), first, np.uint64))
    assert abs(items.count() - 100_000) < 4 * 100_000 / math.sqrt(1000)
    half = items.growth(np.array([45_000], np.uint64))[0]
    assert abs(half - 50_000) < 8_000


# -- topics ---------------------------------------------------------------------------------------


def test_z_by_hand():
    # y + a is 7 here and 5 there, of 12 in all: log(7/5) - log(5/7) over sqrt(1/7 + 1/5).
    here, there = {"rain": 3, "sun": 1}, {"rain": 1, "sun": 3}
    found = z_scores(here, there, {"rain": 4, "sun": 4})
    assert found["rain"] == pytest.approx(1.14927, abs=1e-4)
    assert found["sun"] == pytest.approx(-1.14927, abs=1e-4)


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 500), min_size=2),
    st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 500), min_size=2),
)
def test_z_against_the_formula_in_arrays(here, there):
    words = sorted(set(here) | set(there))
    y = np.array([[side.get(word, 0) for word in words] for side in (here, there)], float)
    prior = y.sum(0)
    mass = y + prior
    odds = np.log(mass / (mass.sum(1, keepdims=True) - mass))
    z = (odds[0] - odds[1]) / np.sqrt((1 / mass).sum(0))
    pooled = {word: int(n) for word, n in zip(words, prior, strict=True)}
    found = z_scores(here, there, pooled)
    assert [found[word] for word in words] == pytest.approx(list(z), rel=1e-9, abs=1e-9)


def test_topics_of_two_sets_and_the_option_of_stop_words():
    counts = {"x": TopicCounts(), "y": TopicCounts()}
    counts["x"].add(spoken(session("Work, work! I hate my job.", "Is it the job?")))
    counts["y"].add(spoken(session("I miss my cat.", "Is it the cat?")))
    found = correlates(counts)
    assert [word for word, _ in found["x"]["seeker"]] == ["work", "hate", "job"]
    assert [word for word, _ in found["y"]["supporter"]] == ["cat"]
    kept = correlates(counts, top=50, keep_stop_words=True)
    assert {"!", ","} <= {word for word, _ in kept["x"]["seeker"]}
    assert {"the", "n't", "i"} <= stop_words()
    assert correlates({"x": counts["x"]})["x"] == {"seeker": [], "supporter": []}


# -- queries --------------------------------------------------------------------------------------


def test_query_effect_against_the_standard_library():
    sessions = [spoken(messages) for _, messages in iterate_sessions(shared("esconv/test.txt"))]
    counts = QueryCounts()
    for s in sessions:
        counts.add(s)
    found = counts.statistics()
    queries = [len(s[0].words) for s in sessions]
    means = [plain_statistics.mean(len(u.words) for u in s[1:]) for s in sessions]
    assert found["sessions"] == len(sessions)
    assert found["mean_query_words"] == pytest.approx(plain_statistics.mean(queries))
    assert found["mean_utterance_words"] == pytest.approx(plain_statistics.mean(means), abs=1e-6)
    assert found["correlation"] == pytest.approx(
        plain_statistics.correlation(queries, means), abs=1e-6
    )
    third = [m for q, m in zip(queries, means, strict=True) if 10 <= q <= 14]
    (part,) = (b for b in found["bins"] if b["from"] == 10)
    assert (part["to"], part["sessions"]) == (14, len(third))
    assert part["mean"] == pytest.approx(plain_statistics.mean(third), abs=1e-6)
    assert part["sd"] == pytest.approx(plain_statistics.stdev(third), abs=1e-5)


def test_what_has_no_answer_has_no_effect():
    counts = QueryCounts()
    counts.add(spoken(session("Hello?")))
    counts.add([])
    assert counts.statistics() == {
        "sessions": 0,
        "mean_query_words": None,
        "mean_utterance_words": None,
        "correlation": None,
        "bins": [],
    }
    counts.add(spoken(session("Hello there.", "Yes.")))
    assert counts.statistics()["correlation"] is None


# -- duplicates -----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_duplicates(tmp_path):
    found = Duplication(cache_dir=str(tmp_path)).compute(messages=SMALL)
    assert (found["sessions"], found["duplicate_sessions"]) == (4, 1)
    assert (found["utterances"], found["repeated_utterances"]) == (9, 2)
    assert (found["sessions_with_repetition"], found["repetition_share"]) == (2, 0.5)
    assert found["near_duplicate_sessions"] is None


def test_near_duplicates():
    rng = random.Random(2)
    words = [f"w{i}" for i in range(400)]
    texts = [" ".join(rng.choices(words, k=120)) for _ in range(20)]
    like = texts[0].replace(texts[0].split()[60], "other", 1)
    halves = [texts[:10], [*texts[10:], like]]
    counts = DuplicationCounts(DEFAULT)
    for half in halves:
        part = DuplicationCounts(DEFAULT)
        part.add([spoken(session(text)) for text in half])
        counts.merge(pickle.loads(pickle.dumps(part)))
    found = counts.statistics()
    assert found["near_duplicate_sessions"] == 2  # each has the other
    assert found["duplicate_sessions"] == 0


# -- novelty --------------------------------------------------------------------------------------


def brute_matches(known, words):
    """Return the longest span that ends at each word and stands in a known utterance."""

    def stands(span):
        return any(
            k[i : i + len(span)] == span for k in known for i in range(len(k) - len(span) + 1)
        )

    return [
        max(n for n in range(end + 1) if n == 0 or stands(words[end - n : end]))
        for end in range(1, len(words) + 1)
    ]


@settings(max_examples=often(300))
@given(
    st.lists(st.lists(st.sampled_from("ab"), max_size=7), max_size=4),
    st.lists(st.sampled_from("abc"), max_size=9),
)
def test_the_automaton_finds_the_longest_spans(known, words):
    assert Automaton(known).matches(words) == brute_matches(known, words)


def test_a_memorized_session_is_caught():
    known = ("I lost my job last week and I am afraid.", "That sounds hard.")
    counts = NoveltyCounts(known)
    counts.add(spoken(session("I lost my job last week and I am glad.", "Why would you say so?")))
    counts.add(spoken(session("Well, well.", "That sounds hard.")))
    found = counts.statistics()
    # I lost my job last week and I am | glad .
    assert found["ngrams"] == 8 + 3 + 1 + 1
    assert found["memorized_ngrams"] == 6 + 1
    assert found["longest_spans"] == [
        {"words": 9, "text": "I lost my job last week and I am"},
        {"words": 4, "text": "That sounds hard ."},
    ]
    assert found["longest_by_session"] == [[4, 1], [9, 1]]


def test_spans_inside_others_are_not_told_twice():
    known = ("a b c d e f g h", "c d e f x")
    counts = NoveltyCounts(known, top=5)
    counts.add(spoken(session("b c d e f g", "c d e f", "c d e f x")))
    assert [span["text"] for span in counts.statistics()["longest_spans"]] == [
        "b c d e f g",
        "c d e f x",
    ]


def test_sessions_recite_themselves_whole_and_others_little():
    sessions = [list(m) for _, m in iterate_sessions(shared("esconv/test.txt"))]
    known = tuple(m["content"] for s in sessions[:50] for m in s)
    mine, others = NoveltyCounts(known), NoveltyCounts(known)
    for s in sessions[:50]:
        mine.add(spoken(s))
    for s in sessions[50:]:
        others.add(spoken(s))
    assert mine.statistics()["memorized_share"] == 1.0
    assert others.statistics()["memorized_share"] < 0.2
