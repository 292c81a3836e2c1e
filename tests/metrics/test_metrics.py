"""Every measurement against one that is written another way, and merged in any order."""

from __future__ import annotations

import importlib
import json
import math
import os
import pickle
import random
import re
import statistics as plain_statistics
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import evaluate
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
from augesc_builder.metrics.overlap.counts import OverlapCounts, known_sessions, said_in
from augesc_builder.metrics.query_effect.counts import QueryCounts
from augesc_builder.metrics.query_effect.query_effect import QueryEffect
from augesc_builder.metrics.sample import Sample, rank_of
from augesc_builder.metrics.tokenized import spoken
from augesc_builder.metrics.topic_correlates.agreement import agreement, rank_correlation
from augesc_builder.metrics.topic_correlates.counts import (
    TopicCounts,
    correlates,
    stop_words,
    z_scores,
)
from augesc_builder.metrics.topic_correlates.priors import Prior
from augesc_builder.metrics.topic_correlates.topic_correlates import TopicCorrelates
from augesc_builder.pipeline.statistics.measure import Counts, Measuring, merged, statistics
from augesc_builder.pipeline.statistics.report import figure_4_text
from augesc_builder.sources.sessions import iterate_sessions
from augesc_builder.text.strategies import STRATEGIES
from augesc_builder.text.words import tokenize
from tests import classifiers
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


def test_there_is_a_room_for_each():
    assert [
        *("consistency", "duplication", "informativeness", "lexical_diversity", "novelty"),
        *("overlap", "query_effect", "session_statistics", "support_strategies"),
        *("topic_correlates", "topic_drift", "vendi"),
    ] == NAMES


MORE = {
    "topic_correlates": {"sets": ["a", "a", "b", "b"]},
    "novelty": {"trained_on": SMALL[:1]},
    "overlap": {"tested_on": SMALL[:2]},
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


def is_measurement(kind):
    """Whether something is a class of measurements, and no base of all of them."""
    is_one = isinstance(kind, type) and issubclass(kind, evaluate.Measurement)
    return is_one and kind is not evaluate.Measurement


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_each_loads_from_its_folder_and_gives_what_the_class_gives(tmp_path):
    classifier = classifiers.classifier(tmp_path / "strategies", STRATEGIES)
    more = {**MORE, "support_strategies": {"model": str(classifier)}}
    paths = [(str(METRICS / name), more.get(name, {})) for name in NAMES]
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
        [kind] = filter(is_measurement, vars(module).values())
        direct = kind(cache_dir=str(tmp_path)).compute(messages=SMALL, **more.get(name, {}))
        assert loaded[str(METRICS / name)] == json.loads(json.dumps(direct))


# -- whatever the chunks --------------------------------------------------------------------------


@settings(max_examples=often(60))
@given(SESSIONS, st.integers(0, 8), st.randoms(), st.sampled_from([None, 1, 2, 8]))
def test_pieces_and_order_change_nothing(sessions, cut, rng, sample):
    what = Measuring(
        trained_on=("a B a", "B. a a B"),
        tested_on={"t": (("a B a", "B"), ("aaa",))},
        query_sample=sample,
        topic_sample=sample,
    )
    whole = Counts(what)
    whole.add([spoken(s) for s in sessions])
    shuffled = list(sessions)
    rng.shuffle(shuffled)
    parts = []
    for part in (shuffled[:cut], shuffled[cut:]):
        counts = Counts(what)
        counts.add([spoken(s) for s in part])
        parts.append(pickle.loads(pickle.dumps(counts)))  # as processes hand it over
    together = merged(parts, what)
    found = together.statistics()
    assert found == whole.statistics()
    json.dumps(found, allow_nan=False)
    words = [counts.parts["topic_correlates"].of_sample().words for counts in (together, whole)]
    assert words[0] == words[1]


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


@given(
    st.lists(st.integers(0, 40), max_size=30), st.integers(1, 9), st.integers(0, 30), st.randoms()
)
def test_a_sample_is_the_lowest_ranks_whatever_the_pieces(ranks, size, cut, rng):
    parts = [Sample(size), Sample(size)]
    offered = [(rank, (rank * 7,)) for rank in ranks]
    rng.shuffle(offered)
    for i, (rank, item) in enumerate(offered):
        parts[i < cut].add(rank, item)
    parts[0].merge(parts[1])
    assert list(parts[0]) == [(rank * 7,) for rank in sorted(ranks)[:size]]


def test_samples_are_drawn_evenly_and_anew_by_each_seed():
    sessions = [spoken(session(f"number {i}", "yes")) for i in range(40)]
    drawn = [0] * len(sessions)
    for seed in range(400):
        ranks = sorted((rank_of(s, seed), i) for i, s in enumerate(sessions))
        for _, i in ranks[:10]:
            drawn[i] += 1
    assert sum(drawn) == 4000
    # Each is in a quarter of the samples: 100, with a standard deviation of 8.7.
    assert all(60 < n < 140 for n in drawn)


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


PRIORS = st.one_of(
    st.just(("pooled", 1.0)),
    st.tuples(st.just("scaled"), st.floats(0.5, 1e8)),
    st.tuples(st.just("uninformative"), st.sampled_from([0.01, 0.1, 1.0])),
)


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 500), min_size=2),
    st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 500), min_size=2),
    PRIORS,
)
def test_z_with_each_prior_against_equations_16_and_22_in_arrays(here, there, given_prior):
    kind, amount = given_prior
    words = sorted(set(here) | set(there))
    y = np.array([[side.get(word, 0) for word in words] for side in (here, there)], float)
    pooled = y.sum(0)
    a = {
        "pooled": pooled,
        "scaled": amount * pooled / pooled.sum(),
        "uninformative": np.full(len(words), amount),
    }[kind]
    n, total = y.sum(1, keepdims=True), a.sum()
    odds = np.log((y + a) / (n + total - y - a))
    z = (odds[0] - odds[1]) / np.sqrt((1 / (y + a)).sum(0))
    counts = {word: int(count) for word, count in zip(words, pooled, strict=True)}
    found = z_scores(here, there, Prior(kind, amount).counts(counts))
    assert [found[word] for word in words] == pytest.approx(list(z), rel=1e-6, abs=1e-6)


def test_priors_by_hand():
    # mturk: said 38 times in 335,849 words here and never in 5,442,100 there.
    here, there = {"mturk": 38, "*": 335_811}, {"*": 5_442_100}
    pooled = {"mturk": 38, "*": 5_777_911}
    plain = z_scores(here, there, Prior.parse("pooled").counts(pooled))["mturk"]
    # log(76 / 6,113,722) - log(38 / 11,220,011) over sqrt(1/76 + 1/38)
    assert plain == pytest.approx(6.5448, abs=0.0005)
    flat = z_scores(here, there, {"mturk": 0.1, "*": 0.1})["mturk"]
    # log(38.1 / 335,811.1) - log(0.1 / 5,442,100.1) over sqrt(1/38.1 + 1/0.1)
    assert flat == pytest.approx(2.7565, abs=0.0005)
    assert Prior.parse("scaled:46e6").counts(pooled)["mturk"] == pytest.approx(302.53, abs=0.01)
    assert Prior.parse("uninformative:0.01").counts(pooled) == {"mturk": 0.01, "*": 0.01}
    assert Prior.parse("scaled:46e6").label.endswith("scaled to 46,000,000 words")


def test_a_word_that_all_say_alone_has_no_score():
    for prior in ("pooled", "scaled:1e6", "uninformative:0.1"):
        assert z_scores({"a": 3}, {"a": 5}, Prior.parse(prior).counts({"a": 8})) == {}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_measurements_draw_samples_and_take_priors(tmp_path):
    messages = [session(f"word{i} here", f"other{i} there now") for i in range(30)]
    effect = QueryEffect(cache_dir=str(tmp_path))
    assert effect.compute(messages=messages)["sessions"] == 30
    assert effect.compute(messages=messages, sample=7, seed=3)["sessions"] == 7
    topics = TopicCorrelates(cache_dir=str(tmp_path))
    sets = ["a", "b"] * 15
    all_words = topics.compute(messages=messages, sets=sets, top=50)
    drawn = topics.compute(messages=messages, sets=sets, top=50, sample=4)
    assert (len(all_words["a"]["seeker"]), len(drawn["a"]["seeker"])) == (15, 4)
    flat = topics.compute(messages=messages, sets=sets, top=50, prior="uninformative:0.1")
    assert flat["a"]["seeker"][0][1] != all_words["a"]["seeker"][0][1]
    with pytest.raises(ValueError, match="unknown prior 'flat'"):
        topics.compute(messages=messages, sets=sets, prior="flat")


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


def test_the_query_is_one_of_the_utterances_where_that_is_asked(tmp_path):
    said = session("One two three four five six.", "Yes indeed.", "No.")
    for with_query, mean in ((False, 2.5), (True, 4)):  # words and marks: 7, 3, 2
        counts = QueryCounts(with_query=with_query)
        counts.add(spoken(said))
        counts.add(spoken(session("A query that nobody answers.")))
        found = counts.statistics()
        assert (found["sessions"], found["mean_query_words"]) == (1, 7)
        assert found["mean_utterance_words"] == mean
        assert (
            QueryEffect(cache_dir=str(tmp_path)).compute(messages=[said], with_query=with_query)
            == found
        )


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


# -- overlap --------------------------------------------------------------------------------------


def plain_shingles(texts):
    words = re.findall(r"\w+", " ".join(texts).casefold())
    return {tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))} if words else set()


@given(SESSIONS, st.lists(st.lists(WORDS, min_size=1, max_size=4), max_size=4))
def test_similarity_and_spans_are_exact(sessions, tests):
    tests = tuple(map(tuple, tests))
    known = known_sessions(tests, span=3)
    for one in map(spoken, sessions):
        mine = plain_shingles(said.text for said in one)
        found = known.similarities(said.text for said in one)
        for n, test in enumerate(tests):
            theirs = plain_shingles(test)
            both = len(mine & theirs)
            assert found.get(n, 0) == (both / len(mine | theirs) if both else 0)
        shared = {
            n
            for n, test in enumerate(tests)
            for said in one
            for text in test
            if plain_grams(said.words, 3) & plain_grams(tokenize(text), 3)
        }
        assert known.with_spans_of(said.words for said in one) == shared
        longest = known.longest_span(said.words for said in one)
        assert (longest >= 3) == bool(shared)


def plain_grams(words, n):
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def test_sessions_at_a_threshold_count_and_those_below_do_not():
    test = ("a b c d e f g h",)  # four shingles of five words
    near = spoken(session("a b c d e f g", "h i"))  # these four and one more
    counts = OverlapCounts((test, ("x y z",)), similarity=0.8, span=7)
    counts.add(near)
    counts.add(spoken(session("A b c d e f", "g h i")))  # the same, and a span of five words
    counts.add(spoken(session("a b c d e f g", "h i j")))  # four and two
    counts.add(spoken(session("well", "hm")))
    found = counts.statistics()
    assert (found["sessions"], found["test_sessions"]) == (4, 2)
    assert (found["near_duplicate_sessions"], found["near_duplicated_test_sessions"]) == (2, 1)
    assert (found["span_sessions"], found["span_test_sessions"]) == (2, 1)
    assert found["near_duplicate_share"] == found["span_share"] == 0.5
    assert found["longest_by_session"] == [[0, 1], [5, 1], [7, 2]]
    less = OverlapCounts((test,), similarity=0.801, span=8)
    less.add(near)
    found = less.statistics()
    assert (found["near_duplicate_sessions"], found["span_sessions"]) == (0, 0)
    empty = OverlapCounts((test,)).statistics()
    assert empty["near_duplicate_share"] is empty["span_share"] is empty["shared_share"] is None


def test_esconvs_splits_share_phrases_and_no_session():
    tests, valid = (
        [list(m) for _, m in iterate_sessions(shared(f"esconv/{split}.txt"))]
        for split in ("test", "valid")
    )
    known = said_in(tests)
    mine, others = OverlapCounts(known), OverlapCounts(known)
    for one in tests[:60]:
        mine.add(spoken(one))
    for one in valid:
        others.add(spoken(one))
    found = mine.statistics()
    assert found["near_duplicate_share"] == found["span_share"] == found["shared_share"] == 1
    assert found["near_duplicated_test_sessions"] == 60
    found = others.statistics()
    assert (found["near_duplicate_sessions"], found["span_sessions"]) == (0, 1)
    assert found["shared_share"] == pytest.approx(0.119, abs=0.001)


# -- figure 4 as printed --------------------------------------------------------------------------


def test_ranks_are_compared_as_by_spearman():
    assert rank_correlation([1, 2, 3], [10, 20, 90]) == pytest.approx(1)
    assert rank_correlation([3, 2, 1], [10, 20, 90]) == pytest.approx(-1)
    # by hand: ranks 1, 2.5, 2.5, 4 and 1, 2, 4, 3
    assert rank_correlation([5, 7, 7, 9], [0, 1, 3, 2]) == pytest.approx(0.6324555)
    assert rank_correlation([1, 2], [1, 2]) is None
    assert rank_correlation([1, 2, 3], [4, 4, 4]) is None


def test_words_are_compared_with_those_that_are_printed():
    scores = {"covid": 9.0, "zoom": 4.0, "the": 3.0, "virus": 2.0, "car": -3.0}
    printed = {"covid": 8, "zoom": 3, "mturk": 3, "virus": 2}
    assert agreement(scores, printed) == {
        "printed": 4,
        "shared": 3,
        "rank_correlation": pytest.approx(1),
    }
    assert agreement({}, printed) == {"printed": 4, "shared": 0, "rank_correlation": None}


def test_figure_4_is_compared_where_the_papers_sets_are_at_hand():
    def said(name, seeker, supporter):
        counts = Counts(Measuring(names=("topic_correlates", "session_statistics")))
        counts.add([spoken(session(seeker, supporter))] * 5)
        return {name: counts}

    esconv = said("ESConv", "covid covid pandemic zoom", "pandemic pandemic covid")
    ed = said("empathetic_dialogues", "my car, my dog", "a dog or a car")
    what = Measuring(keep_stop_words=True)
    found = statistics(ed, what, beside=esconv)["figure_4"]
    assert set(found) == {"ESConv", "AugESC ED"}
    assert found["ESConv"]["seeker"]["shared"] == 3
    assert found["AugESC ED"]["supporter"]["shared"] == 2
    text = figure_4_text({"figure_4": found})
    assert "ESConv, seeker: 3 of 10, rank correlation" in text
    assert "AugESC ED, supporter: 2 of 10;" in text or text.endswith("supporter: 2 of 10")
    for columns, beside in ((ed, {}), (said("mine", "a", "b"), esconv)):
        assert statistics(columns, what, beside=beside)["figure_4"] is None
    assert figure_4_text({"figure_4": None}) is None
