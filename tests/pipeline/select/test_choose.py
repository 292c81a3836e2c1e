"""Which candidates are kept: by score, ties by sample number, and no more than asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from augesc_builder.config.generate import Quota
from augesc_builder.config.quality import WITHOUT_A_MODEL
from augesc_builder.config.recipe import load_recipe
from augesc_builder.config.select import NUMBERS
from augesc_builder.errors import RecipeError
from augesc_builder.pipeline.quality.measures import measures_of
from augesc_builder.pipeline.select.choose import Candidate, choose, ranked
from augesc_builder.text.strategies import GROUPS


def make(scores):
    """Give the candidates of queries by their scores, sample by sample."""
    return [
        Candidate(f"q{i}-{n}", f"q{i}", "b" if i % 2 else "a", n, score)
        for i, of in enumerate(scores)
        for n, score in enumerate(of)
    ]


def kept(verdicts):
    return {key for key, verdict in verdicts.items() if verdict.reason is None}


def test_the_best_is_kept_ties_by_sample_and_no_score_last():
    some = make([[0.5, 0.2, 0.2], [None, 0.9], [None, None], [float("nan"), 3.0]])
    assert kept(choose(some, "lowest", 1)) == {"q0-1", "q1-1", "q2-0", "q3-1"}
    assert kept(choose(some, "highest", 1)) == {"q0-0", "q1-1", "q2-0", "q3-1"}
    found = choose(some, "lowest", 1)
    assert found["q0-2"].reason == "score"
    assert found["q0-2"].best.session_id == "q0-1"
    assert kept(choose(some, "lowest", None)) == {one.session_id for one in some}


def test_enough_are_kept_by_source_or_in_all():
    some = make([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]])
    found = choose(some, "lowest", 2, [Quota(None, 3, 9)])
    assert kept(found) == {"q0-0", "q0-1", "q1-0"}
    assert found["q1-1"].reason == "beyond_keep"
    found = choose(some, "lowest", 1, [Quota("a", 1, 9), Quota("b", 2, 9)])
    assert kept(found) == {"q0-0", "q1-0"}
    assert {key for key, v in found.items() if v.reason == "beyond_keep"} == {"q2-0"}


scores = st.one_of(st.none(), st.just(float("nan")), st.integers(-2, 2).map(float))


@given(
    st.lists(st.lists(scores, min_size=1, max_size=5), max_size=6),
    st.sampled_from(["lowest", "highest"]),
    st.integers(1, 3),
    st.integers(1, 9),
    st.randoms(use_true_random=False),
)
def test_every_candidate_has_a_verdict_and_no_better_one_is_left(of, order, per_query, n, draw):
    some = make(of)
    found = choose(some, order, per_query)
    assert set(found) == {one.session_id for one in some}
    for i, group in enumerate(of):
        best_first = ranked([one for one in some if one.query_id == f"q{i}"], order)
        ids = [one.session_id for one in best_first]
        assert kept({key: found[key] for key in ids}) == set(ids[:per_query])
        assert len(ids[:per_query]) == min(per_query, len(group))
        assert {found[key].best.session_id for key in ids} == {ids[0]}
    limited = choose(some, order, per_query, [Quota(None, n, 99)])
    assert len(kept(limited)) == min(n, len(kept(found)))
    assert kept(limited) <= kept(found)
    # The order of the samples within a query says nothing.
    shuffled = [one for i in range(len(of)) for one in _mixed(some, f"q{i}", draw)]
    assert {k: v.reason for k, v in choose(shuffled, order, per_query).items()} == {
        k: v.reason for k, v in found.items()
    }


def _mixed(some, query, draw):
    found = [one for one in some if one.query_id == query]
    draw.shuffle(found)
    return found


def test_what_can_be_chosen_by_is_what_measures_say():
    session = [
        {"role": "user", "content": "My dog is ill and I am afraid."},
        {"role": "assistant", "content": "I am sorry to hear that about your dog."},
    ]
    quality = load_recipe("tiny").quality
    assert set(NUMBERS["support_strategies"]) == {*GROUPS.values(), "strategies"}
    for measure in measures_of(quality, WITHOUT_A_MODEL):
        (found,) = measure.score([session])
        assert set(found.session) - {"change_point"} == set(NUMBERS[measure.name])


def chosen_by(by, measures="consistency,topic_drift,informativeness"):
    given = [f"quality.measures=[{measures}]", "generate.samples_per_query=2"]
    return load_recipe("paper", [*given, f"select={{by: {by}, per_query: 1}}"]).select


def test_a_score_is_a_number_or_a_weighted_sum_of_several():
    numbers = {
        "topic_drift.drift": 0.5,
        "consistency.contradiction": 1,
        "informativeness.new_words": None,
    }
    assert chosen_by("topic_drift.drift").score(numbers) == 0.5
    two = chosen_by("{topic_drift.drift: -2, consistency.contradiction: 0.25}")
    assert two.score(numbers) == -0.75
    assert two.measures == {"topic_drift", "consistency"}
    assert chosen_by("informativeness.new_words").score(numbers) is None
    assert chosen_by("{topic_drift.drift: 1, informativeness.new_words: 1}").score(numbers) is None
    assert chosen_by("{topic_drift.drift: 1, informativeness.new_share: 1}").score(numbers) is None


@pytest.mark.parametrize(
    ("by", "says"),
    [
        (
            "{topic_drift.drifts: 1}",
            r"select\.by: unknown number .*did you mean topic_drift\.drift",
        ),
        ("{topic_drift.drift: 0}", "a weight of 0 says nothing"),
        ("{}", r"select\.by: no number"),
        ("{topic_drift.drift: 1000001}", "less than or equal to 1000000"),
        ("{topic_drift.drift: .nan}", "finite"),
        ("{topic_drift.drift: 1, support_strategies.asks: 1}", "select goes by support_strategies"),
    ],
)
def test_what_no_choice_can_go_by(by, says):
    with pytest.raises(RecipeError, match=says):
        chosen_by(by)
