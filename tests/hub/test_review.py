"""The sessions that a person has to look at, and what is shown of them."""

from __future__ import annotations

import json
import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from augesc_builder.errors import InputError, PublishError
from augesc_builder.hub.publish import check_flags
from augesc_builder.hub.review import mark_reviewed, show_flags
from augesc_builder.run.progress import Progress
from augesc_builder.tables import SESSIONS, to_table
from tests.conftest import ROOT


@pytest.fixture
def corpus(tmp_path):
    """Write a corpus of sessions that carry these flags, as far as looking at them needs one."""

    def write(
        *flags: list[dict[str, object]] | None, content: str = "I want to die", without: str = ""
    ):
        folder = tmp_path / "corpus"
        (folder / "data").mkdir(parents=True)
        (tmp_path / "recipe.yaml").touch()
        rows = [
            {
                "session_id": f"s{n}",
                "messages": [{"role": "user", "content": content}],
                "safety_flags": found,
                "background": "I have a knife at home.",
            }
            for n, found in enumerate(flags)
        ]
        columns = {**dict.fromkeys(SESSIONS), "n_tokens": 1, "source": "x", "query_id": "q"}
        table = to_table([{**columns, **row} for row in rows], SESSIONS)
        table = table.select([name for name in table.column_names if name != without])
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


def test_a_flag_on_a_background_is_shown_there(corpus, capsys):
    folder = corpus([{"flag": "crisis", "utterance": -1, "start": 9, "end": 14}], CRISIS)
    show_flags(folder, Progress())
    assert capsys.readouterr().out.splitlines()[:2] == [
        "s0, background, crisis: I have a [knife] at home.",
        "s1, utterance 0, crisis: [I wa]nt to die",
    ]


def test_a_corpus_of_before_backgrounds_is_shown(corpus, capsys):
    show_flags(corpus(CRISIS, without="background"), Progress())
    assert "s0, utterance 0, crisis: [I wa]nt to die" in capsys.readouterr().out


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


def test_two_people_lose_nothing_of_each_other(corpus):
    """Each notes its own sessions, one after the other, while the other does."""
    import subprocess
    import sys

    folder = corpus(*([CRISIS] * 40))
    (folder.parent / "recipe.yaml").unlink()  # a corpus, and no build with a card
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from augesc_builder.hub.review import mark_reviewed\n"
        "from augesc_builder.run.progress import Progress\n"
        "for n in range(int(sys.argv[2]), 40, 2):\n"
        "    mark_reviewed(Path(sys.argv[1]), [f's{n}'], Progress(quiet=True))\n"
    )
    people = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(folder), str(first)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for first in (0, 1)
    ]
    assert [person.wait() for person in people] == [0, 0]
    noted = json.loads((folder / "safety_review.json").read_text())
    assert sorted(noted) == sorted(f"s{n}" for n in range(40))


def test_a_review_is_not_written_while_a_run_is_at_work(corpus, monkeypatch):
    from filelock import FileLock

    from augesc_builder.errors import RunFolderError
    from augesc_builder.hub import review

    folder = corpus(CRISIS)
    monkeypatch.setattr(review, "_PATIENCE", 0.1)
    with (
        FileLock(folder.parent / ".lock"),
        pytest.raises(RunFolderError, match="another run is at work"),
    ):
        mark_reviewed(folder, ["s0"], Progress(quiet=True))
    assert not (folder / "safety_review.json").exists()


class TestAnyFolderWithFlags:
    @pytest.fixture
    def filtered(self, tmp_path, augesc):
        """A folder of `augesc filter`: one session with a flag, one without."""
        said = ("I want to die", "I lost my job")
        lines = [
            {
                "messages": [
                    {"role": r, "content": c} for r, c in (("user", text), ("assistant", "I"))
                ]
            }
            for text in said
        ]
        generations = tmp_path / "g.jsonl"
        generations.write_text("".join(json.dumps(line) + "\n" for line in lines))
        out = tmp_path / "filtered"
        lenient = [f"requirements.{key}={value}" for key, value in LENIENT.items()]
        code, _, err = augesc(
            *("filter", generations, "--out", out, "--num-proc", 1),
            *(part for option in lenient for part in ("--set", option)),
        )
        assert code == 0, err
        return out

    def test_that_of_augesc_filter(self, filtered, augesc):
        code, text, err = augesc("safety", filtered)
        assert code == 0, err
        assert "crisis: I [want to die]" in text
        assert "1 of 2 sessions are flagged, 0 were looked at" in text
        (name,) = {line.split(",")[0] for line in text.splitlines() if "crisis" in line}
        code, _, err = augesc("safety", filtered, "--reviewed", name)
        assert code == 0, err
        assert "1 were looked at" in augesc("safety", filtered)[1]

    def test_a_corpus_that_no_run_is_around(self, filtered, augesc, refused, tmp_path):
        (tmp_path / "there").mkdir()
        shutil.copytree(filtered / "data", tmp_path / "there" / "data")
        assert "1 of 2 sessions are flagged" in augesc("safety", tmp_path / "there")[1]
        assert "no data/*.parquet there" in refused("safety", tmp_path)

    def test_flags_of_another_make(self, refused, tmp_path):
        (tmp_path / "data").mkdir()
        row = {"session_id": "a", "messages": [{"role": "user", "content": "x"}]}
        for flags, said in ((None, "no column safety_flags"), ([{"flag": "x"}], "filter it again")):
            table = pa.Table.from_pylist([row if flags is None else {**row, "safety_flags": flags}])
            pq.write_table(table, tmp_path / "data" / "train.parquet")
            assert said in refused("safety", tmp_path)

    def test_its_card_asks_for_what_no_file_says(self, filtered, augesc, refused):
        assert "give --title, --licence, --about" in refused("card", filtered)
        said = refused("card", filtered, "--title", "Mine", "--about", "By a model")
        assert "give --licence" in said
        told = ("--title", "Mine <b>", "--licence", "cc-by-4.0", "--about", "By a\nmodel")
        code, _, err = augesc("card", filtered, *told)
        assert code == 0, err
        card = (filtered / "README.md").read_text()
        assert "# Mine &lt;b>" in card
        assert "\nBy a model\n" in card
        assert "license: cc-by-4.0" in card
        assert "1 of 2 sessions carry a flag" in card
        assert str(filtered) not in card
        code, _, err = augesc("card", filtered, "--title", "Ours")  # the rest was told before
        assert code == 0, err
        assert "# Ours" in (filtered / "README.md").read_text()

    def test_a_build_is_asked_nothing(self, built, refused):
        assert "knows its title" in refused("card", built, "--title", "Mine")


LENIENT = {
    "total_utterances.min": 1,
    "balanced_utterances.max_ratio": 50,
    "seeker_utterance_length.mean.min": 1,
    "seeker_utterance_length.max_short_share": 1,
    "supporter_utterance_length.mean.min": 1,
    "supporter_utterance_length.max_short_share": 1,
}


def test_a_table_that_the_run_did_not_write_is_not_looked_through(built, tmp_path, augesc):
    run = tmp_path / "run"
    shutil.copytree(built, run)
    (shard,) = (run / "corpus/data").glob("*.parquet")
    shutil.copy(shard, shard.with_name("train-00001-of-00002.parquet"))
    code, _, err = augesc("safety", run)
    assert code == 2
    assert "is no file of the run" in err
