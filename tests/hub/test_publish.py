"""Publishing, to a Hub on loopback by the real clients."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from augesc_builder.errors import InputError, PublishError
from augesc_builder.hub.push import check_token
from augesc_builder.pipeline.card.metadata import BEGIN, END, merge_cards, split_card
from tests.conftest import mark_anew, rows_of
from tests.hub.conftest import environment, push, refused
from tests.hub_stub import Fault


def touch(run: Path) -> None:
    """Change a file that is pushed, and nothing that it says."""
    path = run / "corpus" / "safety_review.json"
    path.write_text(path.read_text() + "\n")


def changes(done: subprocess.CompletedProcess[str], what: str = r"\w+") -> dict[str, str]:
    rows = re.findall(rf"^\| (\S+) +\| +[\d,]+ \| +({what}) \|$", done.stdout, re.MULTILINE)
    return dict(rows)


def test_a_corpus_there_and_back(hub, run):
    planned = push(hub, run, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert not hub.commits
    assert not list(hub.root.iterdir())
    done = push(hub, run)
    assert done.returncode == 0, done.stderr
    assert changes(done) == changes(planned)
    assert set(changes(done).values()) == {"new"}
    assert hub.commits == {hub.repo: 1}
    files = hub.files("datasets", hub.repo)
    assert set(files) == set(changes(done))
    assert {
        *("README.md", "recipe.yaml", "manifest.json", "filter_report.json", "statistics.json"),
        *("safety_report.json", "safety_review.json", "data/train-00000-of-00001.parquet"),
    } <= set(files)
    assert not [name for name in files if name.endswith(".py")]
    assert f'load_dataset("{hub.repo}"' in files["README.md"].decode()

    code = (
        "import json; from datasets import load_dataset\n"
        f"s, r = (load_dataset('{hub.repo}', n, split='train') for n in ('default', 'rejected'))\n"
        f"f = list(load_dataset('{hub.repo}', split='train', streaming=True))\n"
        "print(json.dumps([s.to_list(), r.to_list(), f]))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(hub, hub.home),
        capture_output=True,
        text=True,
        check=True,
    )
    sessions, rejected, streamed = json.loads(loaded.stdout)
    key = lambda row: json.dumps(row, sort_keys=True)  # noqa: E731
    assert sorted(sessions, key=key) == rows_of(run / "corpus" / "data")
    assert sorted(rejected, key=key) == rows_of(run / "corpus" / "rejected")
    assert streamed == sessions

    again = push(hub, run)
    assert again.returncode == 0
    assert "nothing to do" in again.stdout
    assert hub.commits == {hub.repo: 1}


def test_a_push_after_a_change_leaves_nothing_stale(hub, run):
    assert push(hub, run).returncode == 0
    there = hub.root / "datasets" / hub.repo
    (there / f"{hub.repo.split('/')[1]}.py").write_text("raise SystemExit")
    (there / "augesc.py").write_text("raise SystemExit")
    (there / "dataset_infos.json").write_text("{}")
    (there / "notes.md").write_text("mine")
    (there / "figures" / "old.png").write_bytes(b"png")
    card = (there / "README.md").read_text()
    values, body = split_card(card)
    values["tags"].append("mine")
    values["annotations"] = "none"
    values["configs"].append({"config_name": "extra", "data_files": "notes.md"})
    values["dataset_info"][0]["splits"][0]["num_examples"] = 999
    (there / "README.md").write_text(
        f"---\n{yaml.safe_dump(values)}---\nWords of mine.\n\n{body}\nAnd a last one.\n"
    )
    # The corpus is parted anew.
    data = run / "corpus" / "data"
    (shard,) = data.glob("*.parquet")
    table = pq.read_table(shard).slice(0, 6)
    shard.unlink()
    new = {f"data/train-0000{i}-of-00002.parquet" for i in range(2)}
    for i, name in enumerate(sorted(new)):
        pq.write_table(table.slice(3 * i, 3), data.parent / name)
    claim(run, table.num_rows)

    script = f"{hub.repo.split('/')[1]}.py"
    line = refused(push(hub, run))
    assert f"holds dataset_infos.json, {script}, which no push" in line  # they hide the data
    assert hub.commits == {hub.repo: 1}
    done = push(hub, run, "--replace")
    assert done.returncode == 0, done.stderr
    files = hub.files("datasets", hub.repo)
    assert {n for n in files if n.startswith("data/")} == new
    assert {"notes.md", "augesc.py", "figures/old.png"} <= set(files)  # the owner's own
    assert not {"dataset_infos.json", script} & set(files)
    assert hub.commits == {hub.repo: 2}
    values, body = split_card(files["README.md"].decode())
    assert values["dataset_info"][0]["splits"][0]["num_examples"] == table.num_rows
    assert [c["config_name"] for c in values["configs"]] == ["default", "rejected", "extra"]
    assert [i["config_name"] for i in values["dataset_info"]] == ["default", "rejected"]
    assert "mine" in values["tags"]
    assert values["annotations"] == "none"
    assert body.startswith("Words of mine.")
    assert body.rstrip().endswith("And a last one.")
    assert body.count(BEGIN) == body.count(END) == 1


def test_a_change_of_the_same_size_is_seen(hub, run):
    names = ["figures/novelty.png", "safety_review.json"]  # named by LFS's digest, and by git's
    paths = [run / "corpus" / name for name in names]
    paths[1].write_text(paths[1].read_text() + " ")
    assert push(hub, run).returncode == 0
    paths[1].write_text(paths[1].read_text()[:-1] + "\n")
    data = paths[0].read_bytes()
    paths[0].write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    mark_anew(run)
    done = push(hub, run)
    assert done.returncode == 0, done.stderr
    found = changes(done)
    changed = [name for name, what in found.items() if what == "changed"]
    assert changed == [".augesc.json", *names]
    assert set(found.values()) == {"changed", "same"}
    record = hub.files("datasets", hub.repo)[".augesc.json"]
    sizes = sum(path.stat().st_size for path in paths) + len(record)
    assert f"{sizes:,} bytes to send" in done.stdout
    assert f"{hub.repo} (there already)" in done.stdout
    files = hub.files("datasets", hub.repo)
    assert [files[name] for name in names] == [path.read_bytes() for path in paths]


def claim(run: Path, n: int) -> None:
    """Make the reports say what the changed data has, and write the card again."""
    from augesc_builder.pipeline.card import stage
    from augesc_builder.run.progress import Progress
    from augesc_builder.text.safety import count_flags

    corpus = run / "corpus"
    report = json.loads((corpus / "filter_report.json").read_text())
    report["total"] += n - report["retained"]
    report["retained"] = n
    (corpus / "filter_report.json").write_text(json.dumps(report))
    statistics = json.loads((corpus / "statistics.json").read_text())
    statistics["sessions"] = statistics["by_source"]["sample"]["sessions"] = n
    (corpus / "statistics.json").write_text(json.dumps(statistics))
    quality = json.loads((corpus / "quality.json").read_text())
    (corpus / "quality.json").write_text(json.dumps({**quality, "sessions": n}))
    flags = [row["safety_flags"] for row in rows_of(corpus / "data")]
    (corpus / "safety_report.json").write_text(json.dumps(count_flags(flags)))
    mark_anew(run)
    stage.standalone(run, Progress(quiet=True))


@pytest.mark.parametrize(
    ("method", "path", "how", "times"),
    [
        ("POST", "/commit/", "drop", 99),
        ("POST", "/commit/", 429, 99),
        ("POST", "/commit/", 500, 99),
        ("POST", "/preupload/", 400, 99),
        ("PUT", "/lfs/", "corrupt", 99),
        ("PUT", "/lfs/", 400, 99),
        ("GET", "whoami", "drop", 99),
    ],
)
def test_what_does_not_go_through_changes_nothing(hub, run, method, path, how, times):
    assert push(hub, run).returncode == 0
    before = hub.files("datasets", hub.repo)
    hub.objects.clear()
    (run / "corpus" / "safety_review.json").write_text("[]")  # a change, and then a larger one
    shard = sorted((run / "corpus" / "data").glob("*.parquet"))[0]
    pq.write_table(pq.read_table(shard), shard, compression="gzip")
    mark_anew(run)
    from augesc_builder.pipeline.card import stage
    from augesc_builder.run.progress import Progress

    stage.standalone(run, Progress(quiet=True))
    hub.faults.append(Fault(method, path, how, times))
    line = refused(push(hub, run, "--allow-flagged"))
    assert f"{hub.repo} was not changed" in line
    assert "run the same command again" in line
    assert hub.files("datasets", hub.repo) == before
    assert hub.commits == {hub.repo: 1}
    hub.faults.clear()
    done = push(hub, run, "--allow-flagged")
    assert done.returncode == 0, done.stderr
    assert hub.commits == {hub.repo: 2}


@pytest.mark.parametrize(
    ("method", "path", "how"),
    [
        ("PUT", "/lfs/", 500),
        ("PUT", "/lfs/", "drop"),
        ("POST", "/preupload/", 429),
        ("POST", "/objects/batch", 503),
    ],
)
def test_a_passing_fault_is_passed_over(hub, run, method, path, how):
    hub.faults.append(Fault(method, path, how))
    done = push(hub, run)
    assert done.returncode == 0, done.stderr
    assert hub.commits == {hub.repo: 1}
    for name, data in hub.files("datasets", hub.repo).items():
        if name.endswith(".parquet"):
            assert data == (run / "corpus" / name).read_bytes()


def test_the_answer_to_a_commit_that_gets_lost_is_told(hub, run):
    hub.faults.append(Fault("POST", "/commit/", "lose the answer"))
    line = refused(push(hub, run))
    assert "has a new commit, but the Hub's answer was lost" in line
    assert "nothing to do" in push(hub, run).stdout


def test_a_push_in_between_is_not_overwritten(hub, run):
    assert push(hub, run).returncode == 0
    touch(run)
    hub.faults.append(Fault("POST", "/preupload/", "let somebody else push"))
    line = refused(push(hub, run))
    assert "somebody else pushed meanwhile" in line
    assert hub.commits == {hub.repo: 2}


def test_a_repo_of_somebody_else_keeps_every_file(hub, run):
    """We have never pushed there: what has our names is listed, what has others stays."""
    there = hub.root / "datasets" / hub.repo
    theirs = {
        "README.md": "My own data.\n",
        "recipe.yaml": "flour: 500 g\n",
        "statistics.json": "{}",
        "data/my_own_sessions.parquet": "PAR1",
        "figures/mine.png": "png",
        "notes/a.md": "mine",
        "mine.py": "print()",
        "manifest.json": "{}",
    }
    for name, text in theirs.items():
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_text(text)
    hub.private[hub.repo] = False
    planned = push(hub, run, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    blocked = {name for name, what in changes(planned, "in the way").items()}
    assert blocked == {"recipe.yaml", "statistics.json", "manifest.json"}
    assert "removed" not in changes(planned).values()
    line = refused(push(hub, run))
    assert "holds manifest.json, recipe.yaml, statistics.json, which no push of augesc" in line
    assert "--replace" in line
    assert hub.files("datasets", hub.repo) == {n: t.encode() for n, t in theirs.items()}
    assert push(hub, run, "--replace").returncode == 0
    files = hub.files("datasets", hub.repo)
    for name in ("data/my_own_sessions.parquet", "figures/mine.png", "notes/a.md", "mine.py"):
        assert files[name] == theirs[name].encode()
    assert files["README.md"].decode().endswith("---\n") is False
    assert "My own data." in files["README.md"].decode()


def test_what_somebody_changed_behind_our_push_is_theirs(hub, run):
    assert push(hub, run).returncode == 0
    there = hub.root / "datasets" / hub.repo
    (there / "statistics.json").write_text("{}")
    (there / "figures/novelty.png").write_bytes(b"better")
    for path in (run / "corpus/figures").glob("novelty.*"):
        path.unlink()
    mark_anew(run)
    assert "holds statistics.json, which no push" in refused(push(hub, run))
    assert push(hub, run, "--replace").returncode == 0
    files = hub.files("datasets", hub.repo)
    assert files["figures/novelty.png"] == b"better"  # changed since: not ours to remove
    assert "figures/novelty.svg" not in files  # ours, and of the corpus no more


@pytest.mark.parametrize("record", ["[]", "{", '{"kind": "other"}', '{"kind": "augesc push"}'])
def test_a_record_that_is_none(hub, run, record):
    there = hub.root / "datasets" / hub.repo
    there.mkdir(parents=True)
    (there / ".augesc.json").write_text(record)
    hub.private[hub.repo] = False
    assert "holds .augesc.json, which no push" in refused(push(hub, run))


def test_a_folder_of_augesc_filter(hub, built, tiny_file, tmp_path, augesc):
    """It goes with the card that its owner gave it, and nothing that names this machine."""
    out = tmp_path / "filtered"
    code, _, err = augesc("filter", built / "generations", "--out", out, "--recipe", tiny_file)
    assert code == 0, err
    assert rows_of(out / "data")
    no_card = push(hub, out, "--allow-flagged")
    assert "write one with `augesc card" in no_card.stderr
    told = ("--title", "Mine", "--licence", "cc-by-nc-4.0", "--about", "By a tiny model.")
    code, _, err = augesc("card", out, *told)
    assert code == 0, err
    done = push(hub, out, "--allow-flagged")
    assert done.returncode == 0, done.stderr
    there = {p.relative_to(hub.root / "datasets" / hub.repo) for p in _files(hub)}
    assert {str(p) for p in there if p.suffix == ".json" and p.name[0] != "."} == {
        "croissant.json",
        "filter_report.json",
        "safety_report.json",
    }
    assert not any(str(tmp_path).encode() in p.read_bytes() for p in _files(hub))
    (out / "data" / "train-00000-of-00001.parquet").write_bytes(b"x")
    assert push(hub, out, "--allow-flagged").returncode == 2


def _files(hub) -> list[Path]:
    return [p for p in (hub.root / "datasets" / hub.repo).rglob("*") if p.is_file()]


class TestRefusals:
    def test_a_token_that_may_only_read(self, hub, run):
        line = refused(push(hub, run, token="hf_read"))
        assert "may not write" in line
        assert "hf auth login" in line
        assert not list(hub.root.iterdir())

    def test_no_token_and_a_wrong_one(self, hub, run):
        assert "hf auth login" in refused(push(hub, run, token=None))
        assert "hf auth login" in refused(push(hub, run, token="hf_unknown"))
        assert not list(hub.root.iterdir())

    @pytest.mark.parametrize(
        ("scope", "fits"),
        [
            ({"permissions": ["repo.write"], "entity": {"name": "someone"}}, True),
            ({"permissions": ["repo.write"], "entity": {"name": "someone/mine"}}, True),
            ({"permissions": ["repo.write"], "entity": {"name": "someone-else"}}, False),
            ({"permissions": ["repo.content.read"], "entity": {"name": "someone"}}, False),
        ],
    )
    def test_a_token_of_fine_grain(self, scope, fits):
        who = {
            "name": "someone",
            "auth": {"accessToken": {"role": "fineGrained", "fineGrained": {"scoped": [scope]}}},
        }
        if fits:
            check_token(who, "someone/mine")
        else:
            with pytest.raises(PublishError, match="may not write"):
                check_token(who, "someone/mine")

    def test_flags_that_nobody_has_looked_at(self, hub, run):
        shard = sorted((run / "corpus" / "data").glob("*.parquet"))[0]
        flag(shard)
        claim(run, sum(1 for _ in rows_of(run / "corpus" / "data")))
        (run / "corpus" / "safety_review.json").unlink()
        line = refused(push(hub, run))
        (name,) = pq.read_table(shard)["session_id"].to_pylist()[:1]
        assert "safety flags that nobody has looked at" in line
        shown = hub.child.run("safety", run)
        assert f"{name}, utterance 0, crisis: [" in shown.stdout
        flagged = set(re.findall(r"^(\S+), utterance", shown.stdout, re.MULTILINE))
        done = hub.child.run("safety", run, *(f"--reviewed={n}" for n in flagged))
        assert done.returncode == 0, done.stderr
        assert "let them stand" in (run / "corpus" / "README.md").read_text()
        assert push(hub, run, "--dry-run").returncode == 0
        line = refused(hub.child.run("safety", run, "--reviewed", "nobody"))
        assert "no flagged session 'nobody'" in line

    def test_they_go_where_it_is_said(self, hub, run):
        flag(sorted((run / "corpus" / "data").glob("*.parquet"))[0])
        claim(run, sum(1 for _ in rows_of(run / "corpus" / "data")))
        assert push(hub, run, "--allow-flagged").returncode == 0

    @pytest.mark.parametrize(
        ("file", "key", "says"),
        [
            ("filter_report.json", "retained", "filter_report.json, retained"),
            ("statistics.json", "sessions", "statistics.json, sessions"),
            ("safety_report.json", "flagged", "safety_report.json, flagged"),
        ],
    )
    def test_a_report_that_is_not_of_this_data(self, hub, run, file, key, says):
        path = run / "corpus" / file
        report = json.loads(path.read_text())
        report[key] += 1
        path.write_text(json.dumps(report))
        assert "bytes" in refused(push(hub, run))
        mark_anew(run)
        line = refused(push(hub, run))
        assert says in line
        assert "put the files of the run back" in line

    def test_a_card_of_other_data_of_the_same_size(self, hub, run):
        shard = sorted((run / "corpus" / "data").glob("*.parquet"))[0]
        table = pq.read_table(shard)
        ids = [name[::-1] for name in table["session_id"].to_pylist()]
        pq.write_table(table.set_column(0, table.schema.field(0), [ids]), shard)
        mark_anew(run)
        assert "README.md, default" in refused(push(hub, run, "--allow-flagged"))

    def test_an_unfinished_build_and_no_build(self, hub, run, tmp_path):
        (run / ".complete/card.json").unlink()
        assert "not finished" in refused(push(hub, run))
        (tmp_path / "empty").mkdir()
        assert "give the folder of `augesc build`" in refused(push(hub, tmp_path / "empty"))

    def test_a_repo_without_owner_and_a_public_one(self, hub, run):
        line = refused(hub.child.run("push", run, "--repo", "alone"))
        assert "expected USER/NAME" in line
        assert push(hub, run, "--public").returncode == 0
        assert "is public, and --private is for new repos" in refused(push(hub, run, "--private"))
        hub.private[hub.repo] = True
        assert "is private, and --public is for new repos" in refused(push(hub, run, "--public"))

    def test_private(self, hub, run):
        assert push(hub, run, "--private").returncode == 0
        assert hub.private == {hub.repo: True}
        # It stays so, whether that is said again or not.
        touch(run)
        assert push(hub, run, "--private").returncode == 0
        touch(run)
        assert push(hub, run).returncode == 0
        assert hub.private == {hub.repo: True}
        assert hub.commits == {hub.repo: 3}

    def test_private_unless_it_is_said(self, hub, run):
        assert push(hub, run).returncode == 0
        assert hub.private == {hub.repo: True}

    @pytest.mark.parametrize(("option", "private"), [(None, True), ("--public", False)])
    def test_the_model_too(self, hub, run, option, private):
        assert push(hub, run, "--model", *([option] if option else [])).returncode == 0
        assert hub.private == {hub.repo: private}

    def test_so_it_is_from_python(self, hub, run):
        """The defaults of the functions are those of the command."""
        code = (
            "import sys; from pathlib import Path\n"
            "from augesc_builder.hub.publish import push_corpus, push_model\n"
            "from augesc_builder.run.progress import Progress\n"
            "for push in (push_corpus, push_model):\n"
            "    push(Path(sys.argv[1]), f'{sys.argv[2]}-{push.__name__}', Progress())\n"
        )
        subprocess.run(
            [sys.executable, "-c", code, str(run), hub.repo],
            env={**environment(hub, hub.home), "HF_TOKEN": "hf_write"},
            check=True,
        )
        repos = {f"{hub.repo}-push_corpus", f"{hub.repo}-push_model"}
        assert hub.private == dict.fromkeys(repos, True)
        assert hub.commits == dict.fromkeys(repos, 1)


def flag(shard: Path) -> None:
    """Flag the first session of a shard."""
    table = pq.read_table(shard)
    rows = table.to_pylist()
    rows[0]["safety_flags"] = [{"flag": "crisis", "utterance": 0, "start": 0, "end": 4}]
    pq.write_table(type(table).from_pylist(rows, schema=table.schema), shard)


def test_the_model_with_its_card(hub, run):
    done = push(hub, run, "--model")
    assert done.returncode == 0, done.stderr
    files = hub.files("models", hub.repo)
    assert set(files) >= {"README.md", "recipe.yaml", "config.json", "model.safetensors"}
    assert files["model.safetensors"] == (run / "checkpoint" / "model.safetensors").read_bytes()
    values, body = split_card(files["README.md"].decode())
    assert values["pipeline_tag"] == "text-generation"
    assert values["license"] == "apache-2.0"
    assert "must\n  not be used as one without human supervision" in body
    assert not re.search(r"{{|}}|{%|%}|\bNone\b|Undefined", body.split("```bibtex")[0])
    assert "nothing to do" in push(hub, run, "--model").stdout
    code = (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f"m = AutoModelForCausalLM.from_pretrained('{hub.repo}')\n"
        f"print(len(AutoTokenizer.from_pretrained('{hub.repo}')) <= m.config.vocab_size)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(hub, hub.home),
        capture_output=True,
        text=True,
        check=False,
    )
    assert loaded.stdout.strip() == "True", loaded.stderr


class TestMerging:
    OURS = (
        "---\nlicense: x\nlanguage: [en]\nconfigs: []\ndataset_info: []\n---\n"
        f"{BEGIN}\nnew\n{END}\n"
    )

    def test_a_card_without_marks_keeps_its_text_in_front(self):
        merged = merge_cards(self.OURS, "---\nlicense: y\nlanguage: de\n---\nBy hand.\n")
        values, body = split_card(merged)
        assert values["license"] == "x"
        assert values["language"] == ["en", "de"]
        assert body == f"By hand.\n\n{BEGIN}\nnew\n{END}\n"

    def test_our_part_takes_its_own_place(self):
        old = f"---\n---\nBefore {BEGIN}\nold\n{END} after"
        assert split_card(merge_cards(self.OURS, old))[1] == f"Before {BEGIN}\nnew\n{END} after"

    def test_a_card_without_metadata_and_an_empty_one(self):
        assert split_card(merge_cards(self.OURS, "Text only"))[1].startswith("Text only\n\n")
        assert split_card(merge_cards(self.OURS, ""))[1] == f"{BEGIN}\nnew\n{END}\n"

    @pytest.mark.parametrize("metadata", ["a: [", "- a list"])
    def test_metadata_that_is_none(self, metadata):
        with pytest.raises(InputError, match="mend it"):
            merge_cards(self.OURS, f"---\n{metadata}\n---\ntext")
