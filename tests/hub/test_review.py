"""The sessions that a person has to look at, and what is shown of them."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from augesc_builder.errors import InputError, PublishError
from augesc_builder.hub.publish import check_flags
from augesc_builder.hub.review import mark_reviewed, show_flags
from augesc_builder.run.progress import Progress
from augesc_builder.tables import SESSIONS, to_table


@pytest.fixture
def corpus(tmp_path):
    """Write a corpus of sessions that carry these flags, as far as looking at them needs one."""

    def write(*flags: list[dict[str, object]] | None, content: str = "I want to die"):
        folder = tmp_path / "corpus"
        (folder / "data").mkdir(parents=True)
        (tmp_path / "recipe.yaml").touch()
        rows = [
            {
                "session_id": f"s{n}",
                "messages": [{"role": "user", "content": content}],
                "safety_flags": found,
            }
            for n, found in enumerate(flags)
        ]
        columns = {**dict.fromkeys(SESSIONS), "n_tokens": 1, "source": "x", "query_id": "q"}
        table = to_table([{**columns, **row} for row in rows], SESSIONS)
        pq.write_table(table, folder / "data" / "train-00000-of-00001.parquet")
        counts = {"flagged": sum(bool(found) for found in flags), "sessions": len(flags)}
        (folder / "safety_report.json").write_text(json.dumps(counts))
        return folder

    return write


CRISIS = [{"flag": "crisis", "utterance": 0, "start": 0, "end": 4}]


def test_sessions_without_flags_may_go(corpus):
    check_flags(corpus([], []), allow_flagged=False)


@pytest.mark.parametrize(("n", "more"), [(1, False), (5, False), (6, True)])
def test_five_flagged_sessions_are_named(corpus, n, more):
    folder = corpus([], *([CRISIS] * n))
    with pytest.raises(PublishError) as error:
        check_flags(folder, allow_flagged=False)
    names = ", ".join(f"s{i}" for i in range(1, min(n, 5) + 1)) + (", ..." if more else "")
    assert f"{n} sessions carry safety flags that nobody has looked at ({names});" in str(
        error.value
    )
    check_flags(folder, allow_flagged=True)
    (folder / "safety_review.json").write_text(json.dumps([f"s{i}" for i in range(1, n)]))
    with pytest.raises(PublishError, match=rf"1 sessions carry .*\(s{n}\)"):
        check_flags(folder, allow_flagged=False)
    (folder / "safety_review.json").write_text(json.dumps([f"s{i}" for i in range(1, n + 1)]))
    check_flags(folder, allow_flagged=False)


def test_sessions_that_no_pass_has_looked_at_count_as_flagged(corpus):
    with pytest.raises(PublishError, match=r"\(s1\)"):
        check_flags(corpus([], None), allow_flagged=False)


def test_nothing_kept_is_nothing_to_publish(corpus):
    with pytest.raises(PublishError, match="no session was kept"):
        check_flags(corpus(), allow_flagged=True)


def test_a_table_without_flags_is_refused(corpus):
    folder = corpus([])
    (path,) = (folder / "data").glob("*.parquet")
    pq.write_table(pa.table({"session_id": ["s0"]}), path)
    with pytest.raises(InputError, match="no column safety_flags"):
        check_flags(folder, allow_flagged=False)


@pytest.mark.parametrize(
    ("before", "behind", "shown"),
    [
        (0, 0, "[harm]"),
        (40, 40, "a" * 40 + "[harm]" + "b" * 40),
        (41, 41, "a" * 40 + "[harm]" + "b" * 40),
        (1, 39, "a[harm]" + "b" * 39),
    ],
)
def test_a_span_is_shown_with_what_stands_around_it(corpus, capsys, before, behind, shown):
    flag = {"flag": "crisis", "utterance": 0, "start": before, "end": before + 4}
    folder = corpus([flag], content="a" * before + "harm" + "b" * behind)
    show_flags(folder, Progress())
    assert capsys.readouterr().out.splitlines() == [
        f"s0, utterance 0, crisis: {shown}",
        "1 of 1 sessions are flagged, 0 were looked at",
    ]


def test_what_was_looked_at_is_marked(corpus, capsys):
    folder = corpus(CRISIS, [], CRISIS, None)
    (folder / "safety_review.json").write_text('["s2"]')
    show_flags(folder.parent, Progress())
    assert capsys.readouterr().out.splitlines() == [
        "s0, utterance 0, crisis: [I wa]nt to die",
        "s2 (looked at), utterance 0, crisis: [I wa]nt to die",
        "2 of 4 sessions are flagged, 1 were looked at",
    ]


@pytest.mark.parametrize("name", ["s1", "s3", "nobody"])
def test_only_flagged_sessions_can_be_let_stand(corpus, name):
    folder = corpus(CRISIS, [], CRISIS, None)
    with pytest.raises(InputError, match=f"no flagged session '{name}' there"):
        mark_reviewed(folder, ["s0", name], Progress(quiet=True))
    assert not (folder / "safety_review.json").exists()
