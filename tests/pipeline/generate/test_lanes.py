"""The order of candidates, and the one that generation ends with."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from augesc_builder.config.generate import CANDIDATES_EACH, Quota
from augesc_builder.config.recipe import load_recipe
from augesc_builder.errors import RecipeError
from augesc_builder.pipeline.generate.lanes import Lane, lanes_of

QUERIES = [{"query_id": f"q{i}", "source": "a" if i % 3 else "b"} for i in range(6)]

BY = "consistency.contradiction"
BEST_OF_4 = [
    "quality.measures=[consistency]",
    f"select={{by: {BY}, per_query: 1}}",
    "generate.samples_per_query=4",
]


def order(lane):
    return [(task.query["query_id"], task.sample) for task in lane.tasks]


def test_with_keep_every_query_has_its_first_sample_before_one_has_its_second():
    recipe = load_recipe("tiny", ["generate.keep=2", "generate.keep_budget=8"])
    (lane,) = lanes_of(QUERIES, recipe)
    assert order(lane) == [*((f"q{i}", 0) for i in range(6)), ("q0", 1), ("q1", 1)]
    (lane,) = lanes_of(QUERIES, load_recipe("tiny", ["generate.keep=2"]))
    assert len(lane.tasks) == 2 * CANDIDATES_EACH


def test_each_source_has_a_lane_and_no_two_share_a_shard():
    recipe = load_recipe("tiny", ["generate.keep={b: 3, a: 2}", "generate.shard_size=7"])
    b, a = lanes_of(QUERIES, recipe)
    assert {t.query["source"] for t in b.tasks} == {"b"}
    assert {t.query["source"] for t in a.tasks} == {"a"}
    assert not set(b.shards) & set(a.shards)
    assert sorted({*b.shards, *a.shards})[:4] == [0, 1, 2, 3]
    assert [sum(lane.shards.values()) for lane in (b, a)] == [60, 40]


def test_the_best_of_some_need_whole_queries():
    recipe = load_recipe("tiny", [*BEST_OF_4, "generate.keep=2", "generate.keep_budget=11"])
    (lane,) = lanes_of(QUERIES, recipe)
    assert order(lane) == [(f"q{i}", n) for i in range(2) for n in range(4)]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["generate.keep={zzz: 2}"], "zzz has no query; the queries are from a, b"),
        (
            [*BEST_OF_4, "generate.keep=7"],
            "7 sessions are more than select.per_query 1 of 6 queries can give",
        ),
    ],
)
def test_what_no_candidate_can_give_is_refused(overrides, said):
    with pytest.raises(RecipeError, match=said) as error:
        lanes_of(QUERIES, load_recipe("tiny", overrides))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["generate.keep_budget=9"], "give keep, or null here"),
        (["generate.keep=10", "generate.keep_budget=9"], "keep_budget 9 is less than the 10"),
        (["generate.keep={a: 1}", "generate.keep_budget=9"], "give both a number, or both"),
        (["generate.keep={a: 1}", "generate.keep_budget={b: 9}"], "name the same sources"),
        (["generate.keep={a: 2}", "generate.keep_budget={a: 1}"], "budget 1 of a is less than"),
        (["generate.keep=0"], "greater than or equal to 1"),
        (["generate.keep=1000001"], "less than or equal to 1000000"),
        (["generate.keep={}"], "at least 1"),
        (BEST_OF_4[:2], "the best 1 of generate.samples_per_query 1 is no choice"),
        ([*BEST_OF_4[:2], "generate.samples_per_query={a: 1}"], "is no choice"),
        (BEST_OF_4[1:], "goes by consistency, and quality.measures has none; add it there"),
        (["select={cut_at_drift: true}"], "goes by topic_drift, and quality.measures has none"),
        ([f"select={{by: {BY}}}"], "by and per_query go together"),
        (["select={}"], "asks for nothing"),
        (["select={by: a, per_query: 1}"], "unknown number 'a'; expected one of consistency"),
        (["select={by: consistency.contradictin, per_query: 1}"], f"did you mean {BY}"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_in_a_line(overrides, said):
    with pytest.raises(RecipeError, match=said) as error:
        load_recipe("tiny", overrides)
    assert "\n" not in str(error.value)


def test_as_many_candidates_as_are_kept_may_do():
    load_recipe("tiny", ["generate.keep=10", "generate.keep_budget=10"])
    load_recipe("tiny", [*BEST_OF_4, "generate.samples_per_query=2"])


@given(
    met=st.lists(st.lists(st.booleans(), min_size=1, max_size=4), min_size=1, max_size=12),
    size=st.integers(1, 9),
    keep=st.integers(1, 12),
    per_query=st.sampled_from([None, 1, 2]),
    arrival=st.randoms(use_true_random=False),
)
def test_the_end_is_the_same_whatever_comes_first(met, size, keep, per_query, arrival):
    queries = [{"query_id": str(i)} for i in range(len(met))]
    candidates = [(q, n) for q, of in zip(queries, met, strict=True) for n in range(len(of))]
    lane = Lane(candidates, size, quota=Quota(None, keep, 99), per_query=per_query)
    verdicts = dict(zip(candidates_of(candidates), (v for of in met for v in of), strict=True))
    n_kept = end = at = 0
    for of in met:
        steps = [(1, int(v)) for v in of]
        if per_query is not None:
            steps = [(len(of), min(sum(of), per_query))]
        for n, more in steps:
            at += n
            n_kept += more
            if n_kept >= keep and not end:
                end, enough = at, n_kept
    tasks = list(lane.tasks)
    arrival.shuffle(tasks)
    for task in tasks:
        lane.note(task, [] if verdicts[task.query["query_id"], task.sample] else ["format"])
    assert lane.end == (end or None)
    assert lane.n_kept == (enough if end else n_kept)
    needed = [lane.needed(number) for number in lane.shards]
    assert sum(needed) == (end or len(candidates))
    assert needed == sorted(needed, key=lambda n: n == 0)  # no gap


def candidates_of(candidates):
    return [(query["query_id"], sample) for query, sample in candidates]


def test_the_end_waits_for_what_comes_before_it():
    lane = Lane([({"query_id": str(i)}, 0) for i in range(4)], 2, quota=Quota(None, 2, 4))
    a, b, c, d = lane.tasks
    assert [lane.note(t, f) for t, f in ((d, []), (b, []), (c, ["format"]))] == [0, 0, 0]
    assert lane.end is None
    assert lane.note(a, []) == 2
    assert lane.end == 2
    assert lane.written == [0]


def test_what_is_spent_says_what_failed():
    lane = Lane(
        [({"query_id": str(i)}, 0) for i in range(4)],
        *(2,),
        quota=Quota("reddit", 3, 4),
        mended_by="raise it",
    )
    for task in lane.tasks:
        lane.note(task, ["format"] if task.row else [])
    assert str(lane.spent()).startswith(
        "generate.keep: 2 of 3 sessions of reddit are kept of all 4 candidates; what most of them "
        "failed: format (50%). Nothing of it is lost: raise it, or lower generate.keep, and run"
    )
