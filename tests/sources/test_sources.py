from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from augesc_builder.errors import InputError
from augesc_builder.pipeline.filter.functions import measure
from augesc_builder.pipeline.filter.measure import conversations
from augesc_builder.pipeline.filter.requirements import decide
from augesc_builder.sources.esconv import read_esconv
from augesc_builder.sources.sample import read_sample_queries, read_sample_sessions
from augesc_builder.sources.sessions import iterate_sessions
from augesc_builder.text.safety import LexiconScanner
from augesc_builder.text.words import count
from tests.conftest import shared

GOOD = {
    "problem_type": "Job Crisis",
    "dialog": [
        {"speaker": "sys", "text": "Hello there."},
        {"speaker": "usr", "text": "I lost\n my  job."},
        {"speaker": "sys", "text": "I am sorry.", "strategy": "Question"},
    ],
}


def write(path: Path, *lines: object) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


class TestEsconv:
    def test_sessions_start_with_the_seeker(self, tmp_path):
        (session,) = read_esconv(write(tmp_path / "a.txt", GOOD))
        assert session.problem_type == "job crisis"
        assert list(session.messages) == [
            {"role": "user", "content": "I lost my job."},
            {"role": "assistant", "content": "I am sorry."},
        ]

    def test_the_original_releases_names_and_list(self, tmp_path):
        dialog = [
            {"speaker": "supporter", "annotation": {}, "content": "Hi.\n"},
            {"speaker": "seeker", "annotation": {}, "content": "I am sad.\n"},
        ]
        path = tmp_path / "ESConv.json"
        path.write_text(json.dumps([{"problem_type": "x", "dialog": dialog}], indent=1))
        (session,) = read_esconv(path)
        assert list(session.messages) == [{"role": "user", "content": "I am sad."}]

    def test_what_the_seeker_wrote_beforehand_and_the_supporters_strategies(self, tmp_path):
        told = {**GOOD, "situation": " I was let go\n in May. "}
        original = {
            "situation": "x",
            "dialog": [
                {"speaker": "seeker", "annotation": {}, "content": "I am sad."},
                {"speaker": "supporter", "annotation": {"strategy": "Others"}, "content": "Hi."},
            ],
        }
        first, second, third = read_esconv(write(tmp_path / "a.txt", told, original, GOOD))
        assert first.situation == "I was let go in May."
        assert first.strategies == (None, "Question")  # one a message, the greeting's is gone
        assert second.strategies == (None, "Others")
        assert third.situation is None
        without = {"situation": " ", "dialog": original["dialog"][:1]}
        (session,) = read_esconv(write(tmp_path / "b.txt", without))
        assert (session.situation, session.strategies) == (None, None)

    @pytest.mark.parametrize(
        ("line", "says"),
        [
            ('{"dialog": [', "not JSON"),
            ("[1, 2]", "expected an object with the key 'dialog'"),
            ({"problem_type": "x"}, "the key 'dialog' is missing, found problem_type"),
            ({"dialog": []}, "'dialog' must be a list with utterances, found []"),
            ({"dialog": "hello"}, "'dialog' must be a list"),
            ({"dialog": ["hello"]}, "utterance 1 must be an object"),
            ({"dialog": [{"speaker": "usr"}]}, "utterance 1 lacks 'text'"),
            (
                {"dialog": [{"speaker": "bob", "text": "hi"}]},
                'utterance 1 is of no known speaker: expected usr or sys, found "bob"',
            ),
            ({"dialog": [{"text": "hi"}]}, "expected usr or sys, found null"),
            ({"dialog": [{"speaker": "usr", "text": " "}]}, "utterance 1 has no words"),
            ({"dialog": [{"speaker": "sys", "text": "hi"}]}, "no utterance of the seeker"),
            ({"problem_type": 3, "dialog": GOOD["dialog"]}, "'problem_type' must be a text"),
            ({"situation": ["x"], "dialog": GOOD["dialog"]}, "'situation' must be a text"),
            (
                {"dialog": [*GOOD["dialog"], {"speaker": "sys", "text": "a", "strategy": 3}]},
                "utterance 4 needs a text as 'strategy', found 3",
            ),
        ],
    )
    def test_a_bad_line_is_named(self, tmp_path, line, says):
        path = write(tmp_path / "bad.txt", GOOD, GOOD, line)
        with pytest.raises(InputError) as error:
            read_esconv(path)
        assert str(error.value).startswith(f"{path}, line 3: ")
        assert says in str(error.value)
        assert error.value.line == 3

    def test_not_utf_8(self, tmp_path):
        path = tmp_path / "latin.txt"
        path.write_bytes(json.dumps(GOOD).encode() + b'\n{"dialog": "caf\xe9"}\n')
        with pytest.raises(InputError, match=r"line 2: not UTF-8 text: byte 0xe9 at column 16"):
            read_esconv(path)

    def test_an_empty_file_and_a_missing_one(self, tmp_path):
        with pytest.raises(InputError, match="empty"):
            read_esconv(write(tmp_path / "empty.txt", ""))
        with pytest.raises(InputError, match="no such file"):
            read_esconv(tmp_path / "nothing.txt")
        with pytest.raises(InputError, match="cannot be read"):
            read_esconv(tmp_path)

    def test_the_real_corpus(self):
        sessions = read_esconv(shared("esconv/train.txt"))
        assert len(sessions) == 910
        assert {session.messages[0]["role"] for session in sessions} == {"user"}
        assert len({session.problem_type for session in sessions}) == 13
        assert all(session.situation and session.strategies for session in sessions)
        told = [
            (message["role"], strategy)
            for session in sessions
            for message, strategy in zip(session.messages, session.strategies or (), strict=True)
        ]
        assert {role for role, strategy in told if strategy} == {"assistant"}
        assert len({strategy for role, strategy in told if role == "assistant"}) == 8


class TestSample:
    def test_a_hundred_sessions_spread_evenly_over_esconvs_problem_types(self):
        sessions = read_sample_sessions()
        kinds = Counter(session.problem_type for session in sessions)
        assert set(kinds) == {
            *("ongoing depression", "job crisis", "breakup with partner"),
            *("problems with friends", "academic pressure", "sleep problems"),
            *("procrastination", "appearance anxiety", "alcohol abuse"),
            *("conflict with parents", "issues with children", "issues with parents"),
            "school bullying",
        }
        assert len(sessions) == 100
        assert set(kinds.values()) == {7, 8}
        assert all(10 <= len(session.messages) <= 30 for session in sessions)

    def test_what_the_safety_pass_flags_was_read_and_is_harmless(self):
        scanner = LexiconScanner()
        sessions = read_sample_sessions()
        flagged = {i for i, s in enumerate(sessions) if scanner.scan(list(s.messages))}
        assert flagged == {13, 26, 31, 34, 40, 45, 52, 55}  # "he does not want to live with her"

    def test_every_session_meets_every_requirement(self, paper):
        from augesc_builder.text.prompts import render

        sessions = read_sample_sessions()
        first = [session.messages[0]["content"] for session in sessions]
        rest = [render(session.messages[1:]) for session in sessions]
        rest = [t.removeprefix("AI:") if t.startswith("AI:") else f"\n{t}" for t in rest]
        zeros = [0] * len(sessions)
        batch = {"query": first, "text": rest, "n_prompt_tokens": zeros, "n_tokens": zeros}
        measured = measure(batch, paper.requirements)
        assert conversations(batch) == [list(session.messages) for session in sessions]
        judged = decide(measured, paper.requirements.settings())
        assert {name for names in judged["violations"] for name in names} == set()

    def test_no_utterance_stands_twice(self):
        said = [m["content"].casefold() for s in read_sample_sessions() for m in s.messages]
        assert len(set(said)) == len(said)

    def test_queries(self, paper):
        posts = list(read_sample_queries())
        assert len(posts) >= 120
        assert len({post.text.casefold() for post in posts}) == len(posts)
        assert all(10 <= count(post.text) <= 60 for post in posts)
        assert {post.emotion for post in posts} == set(paper.queries.negative_emotions)


def test_sessions_tables_are_checked(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "s.parquet"
    good = [{"role": "user", "content": "hi"}]

    def read(*messages):
        pq.write_table(pa.table({"messages": list(messages)}), path)
        return list(iterate_sessions(path))

    assert read(good) == [("s", good)]
    with pytest.raises(InputError, match="line 2: a session without messages"):
        read(good, [])
    with pytest.raises(InputError, match="line 1: expected messages with role user or assistant"):
        read([{"role": "system", "content": "hi"}])
    with pytest.raises(InputError, match="line 1: expected messages"):
        read([{"role": "user", "content": None}])
