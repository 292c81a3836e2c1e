from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from augesc_builder.metrics.session_statistics.counts import SessionCounts, count_sessions
from augesc_builder.metrics.session_statistics.session_statistics import SessionStatistics
from augesc_builder.pipeline.statistics.report import statistics_table
from augesc_builder.sources.sessions import iterate_sessions
from augesc_builder.text import words
from tests.conftest import shared


def test_esconv_gives_the_papers_table_2():
    counts = SessionCounts()
    for split in ("train", "valid", "test"):
        sessions = iterate_sessions(shared(f"esconv/{split}.txt"))
        counts.merge(count_sessions(messages for _, messages in sessions))
    found = counts.statistics()
    assert found["sessions"] == 1300
    assert round(found["mean_session_words"], 1) == 543.8
    assert found["unique_words"] == 15_467
    seeker, supporter = found["seeker"], found["supporter"]
    assert (seeker["utterances"], supporter["utterances"]) == (19_989, 17_645)
    assert round(seeker["mean_utterances"], 2) == 15.38
    assert round(supporter["mean_utterances"], 2) == 13.57
    assert round(seeker["mean_utterance_words"], 2) == 16.80
    assert round(supporter["mean_utterance_words"], 2) == 21.03
    assert (seeker["unique_words"], supporter["unique_words"]) == (11_190, 10_602)


MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant"]), "content": st.text("aB .", max_size=12)}
)
SESSIONS = st.lists(st.lists(MESSAGE, max_size=4), max_size=6)


@given(SESSIONS, st.integers(0, 6), st.randoms())
def test_counts_may_be_made_in_pieces_and_in_any_order(sessions, cut, rng):
    whole = count_sessions(sessions).statistics()
    shuffled = list(sessions)
    rng.shuffle(shuffled)
    counts = count_sessions(shuffled[:cut])
    counts.merge(count_sessions(shuffled[cut:]))
    assert counts.statistics() == whole


def test_a_small_corpus_by_hand():
    found = count_sessions(
        [
            [
                {"role": "user", "content": "I can't sleep. Sleep!"},
                {"role": "assistant", "content": "Why?"},
            ],
            [{"role": "user", "content": "I am sad."}],
        ]
    ).statistics()
    # I ca n't sleep . Sleep ! | Why ? | I am sad .
    assert found == {
        "sessions": 2,
        "mean_session_words": 6.5,
        "unique_words": 11,
        "session_utterances": [[1, 1], [2, 1]],
        "seeker": {
            "utterances": 2,
            "mean_utterances": 1.0,
            "mean_utterance_words": 5.5,
            "unique_words": 9,
            "session_utterances": [[1, 2]],
            "utterance_words": [[4, 1], [7, 1]],
        },
        "supporter": {
            "utterances": 1,
            "mean_utterances": 0.5,
            "mean_utterance_words": 2.0,
            "unique_words": 2,
            "session_utterances": [[0, 1], [1, 1]],
            "utterance_words": [[2, 1]],
        },
    }


def test_nothing_is_undefined_and_shown_as_a_dash():
    found = SessionCounts().statistics()
    assert found["mean_session_words"] is None
    assert found["seeker"]["mean_utterance_words"] is None
    lines = statistics_table({"by_source": {"x": found}}, with_paper=False).splitlines()
    assert lines[3].split("|")[1:3] == [" words a session                 ", "   - "]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_measurement_gives_the_same(tmp_path):
    messages = [[{"role": "user", "content": "I am sad."}]]
    measurement = SessionStatistics(cache_dir=str(tmp_path))
    assert measurement.compute(messages=messages) == count_sessions(messages).statistics()


def test_words_are_case_sensitive_and_punctuation_counts():
    assert words.tokenize('He said "no". It\'s 5:30, OK?') == [
        *("He", "said", "``", "no", "''", ".", "It", "'s", "5:30", ",", "OK", "?")
    ]
    assert words.count("") == 0
