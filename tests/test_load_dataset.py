"""load_dataset("augesc"), under whichever version of datasets runs this (tests/versions.py)."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest

import augesc
from augesc_builder import builder_configs, tables
from augesc_builder.errors import DownloadError, InputError, RecipeError, SettingsChangedError
from augesc_builder.sources import published, sample
from tests.conftest import ROOT, mark_anew, rows_of, shared
from tests.hub_stub import Fault, serving

SCRIPTS = datasets.__version__.startswith("3.")
"""Loading scripts run up to 3.x."""

NEWEST = datasets.Version(datasets.__version__) >= "5.0.0"

PAIRS = [
    [["usr", "I lost my job."], ["sys", "I am sorry. What happened?"], ["usr", "They closed."]],
    [["usr", "Caf\u00e9 \u2028 and \U0001f600"], ["sys", ""]],
    [["usr", "One."], ["usr", "Two."], ["sys", "Three."]],
]


def write(path: Path, *lines: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def messages(pairs: list[list[str]]) -> list[dict[str, str]]:
    roles = {"usr": "user", "sys": "assistant"}
    return [{"role": roles[who], "content": text} for who, text in pairs]


def python(code: str, cwd: Path, **environment: object) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k != "HF_TOKEN"}
    env |= {"PYTHONPATH": str(ROOT), "HF_HUB_DISABLE_TELEMETRY": "1"}
    for name, value in environment.items():
        env.pop(name, None)
        env |= {name: str(value)} if value is not None else {}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


def ok(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def load(tmp_path):
    """augesc.load_dataset with a cache of its own."""

    def call(*arguments, **options):
        return augesc.load_dataset(*arguments, cache_dir=str(tmp_path / "cache"), **options)

    return call


class TestByName:
    CODE = """
import json, sys
import augesc, datasets
from datasets import load_dataset
found = {
    "names": datasets.get_dataset_config_names("augesc"),
    "whole": len(load_dataset("augesc", "sample")["train"]),
    "slice": len(load_dataset("augesc", "sample", split="train[:10%]", num_proc=2)),
    "streamed": sum(1 for _ in load_dataset("augesc", "sample", split="train", streaming=True)),
    "file": load_dataset("augesc", "sample", split="train").cache_files[0]["filename"],
    "splits": datasets.get_dataset_split_names("augesc", "sample"),
    "made": len(load_dataset("augesc", "regenerated", recipe=sys.argv[1], split="train"))
}
print(json.dumps(found))
"""

    @pytest.mark.parametrize(
        "kind",
        [
            pytest.param("empty", marks=pytest.mark.slow),
            "strangers",
            pytest.param("read_only", marks=pytest.mark.slow),
        ],
    )
    def test_from_any_working_directory(self, kind, tmp_path, built, tiny_file):
        cwd = tmp_path / "here"
        cwd.mkdir()
        if kind == "strangers":
            write(cwd / "train.csv", "a,b", "1,2")
            write(cwd / "test.jsonl", {"x": 1})
            write(cwd / "data" / "validation.txt", "text")
        home = tmp_path / "home"
        # A finished run of this recipe is there already: what is there is resumed.
        runs = home / "datasets" / "augesc-runs"
        config = augesc.AugESCConfig(name="regenerated", recipe=str(tiny_file))
        shutil.copytree(built, runs / f"tiny-{augesc.builder_configs.content_of(config)}")
        before = sorted(cwd.rglob("*"))
        if kind == "read_only":
            cwd.chmod(0o555)
        code = f"import sys; sys.argv = ['x', {str(tiny_file)!r}]\n{self.CODE}"
        found = json.loads(ok(python(code, cwd, HF_HOME=home, HF_HUB_OFFLINE=1)))
        assert found["names"] == ["published", "regenerated", "sample", "esconv"]
        assert found["whole"] == found["streamed"] == 100
        assert found["slice"] == 10
        assert found["splits"] == ["train"]
        assert found["made"] == len(rows_of(built / "corpus" / "data"))
        # Nothing of the working directory is in the cache's key.
        place = f"augesc/sample/{augesc.__version__}/{augesc._CODE}/augesc-train.arrow"
        assert found["file"] == str(home / "datasets" / place)
        assert sorted(cwd.rglob("*")) == before

    def test_relative_files_of_the_user_are_found(self, tmp_path):
        write(tmp_path / "mine" / "augesc.txt", *PAIRS)
        write(tmp_path / "train.csv", "a,b", "1,2")
        code = (
            "import augesc; from datasets import load_dataset\n"
            "print(len(load_dataset('augesc', data_dir='mine', split='train')),"
            "len(load_dataset('augesc', data_files='mine/augesc.txt', split='train')),"
            "len(load_dataset('augesc', data_files={'test': 'mine/*.txt'}, split='test')))"
        )
        out = ok(python(code, tmp_path, HF_HOME=tmp_path / "home", HF_HUB_OFFLINE=1))
        assert out.split() == ["3", "3", "3"]

    def test_without_the_private_names_there_is_a_way_and_a_word_about_it(self, monkeypatch, load):
        monkeypatch.delattr(datasets.load, "PackagedDatasetModuleFactory")
        with pytest.warns(UserWarning, match=r"use augesc\.load_dataset\(\.\.\.\) instead"):
            augesc._be_found()
        assert len(load("sample", split="train")) == 100

    def test_all_private_names_stand_in_one_function(self):
        text = (ROOT / "augesc.py").read_text()
        before, _, behind = text.partition("def _be_found")
        assert "Packaged" not in before
        assert "_PACKAGED" in behind
        for path in (ROOT / "augesc_builder").rglob("*.py"):
            assert "PACKAGED" not in path.read_text(), path


class TestEveryConfiguration:
    @pytest.fixture
    def options(self, tmp_path, tiny_file, built):
        write(tmp_path / "published" / "augesc.txt", *PAIRS)
        (tmp_path / "esconv").mkdir()
        shutil.copy(sample.SESSIONS, tmp_path / "esconv" / "train.txt")
        shutil.copytree(built, tmp_path / "run")
        return {
            "published": {"data_dir": str(tmp_path / "published")},
            "regenerated": {"recipe": str(tiny_file), "work_dir": str(tmp_path / "run")},
            "sample": {},
            "esconv": {"data_dir": str(tmp_path / "esconv")},
        }

    def test_all_have_the_same_features_and_say_what_they_are(self, load, options):
        for name, given in options.items():
            found = load(name, split="train", **given)
            by_people = name in {"sample", "esconv"}
            assert found.features == (tables.ESCONV if by_people else tables.SESSIONS), name
            assert set(tables.SESSIONS) <= set(found.features)
            assert found.info.version == datasets.Version(augesc.__version__)
            assert found.info.license == ("Apache-2.0" if name == "sample" else "CC BY-NC 4.0")
            assert found.info.homepage == "https://arxiv.org/abs/2202.13047"
            assert "@" in found.info.citation
            assert found.info.description
            assert all(row["messages"][0]["role"] == "user" for row in found)

    def test_the_published_one_says_that_it_is_not_all_of_the_papers(self):
        (published,) = (c for c in augesc.AugESC.BUILDER_CONFIGS if c.name == "published")
        said = published.description.partition("65,000")
        assert "102K" in said[2]

    def test_the_builder_class_does_the_same(self, load, options, tmp_path):
        for name, given in options.items():
            builder = augesc.AugESC(config_name=name, cache_dir=str(tmp_path / "cache"), **given)
            builder.download_and_prepare()
            assert (
                builder.as_dataset(split="train").to_list()
                == load(name, split="train", **given).to_list()
            )

    def test_streaming_gives_the_same_rows(self, load, options):
        for name, given in options.items():
            streamed = load(name, split="train", streaming=True, **given)
            assert list(streamed) == load(name, split="train", **given).to_list()

    @pytest.mark.parametrize("name", ["published", "sample", "esconv"])
    def test_options_of_another_configuration_are_refused(self, load, name):
        with pytest.raises(RecipeError, match="recipe= is an option of regenerated"):
            load(name, recipe="tiny")
        with pytest.raises(RecipeError, match=r"data_dir= is an option of (esconv|published) and"):
            load("regenerated", data_dir="x")

    def test_it_tokenizes_through_a_chat_template(self, load, options, built):
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(built / "checkpoint")
        tokenizer.chat_template = (
            "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
        )
        for name, given in options.items():
            rows = load(name, split="train[:3]", **given)
            for row in rows.map(
                lambda row: {"text": tokenizer.apply_chat_template(row["messages"], tokenize=False)}
            ):
                said = [f"{m['role']}: {m['content']}\n" for m in row["messages"]]
                assert row["text"] == "".join(said)
            ids = tokenizer.apply_chat_template(rows[0]["messages"], return_dict=True)["input_ids"]
            assert len(ids) > len(rows[0]["messages"])

    @pytest.mark.slow
    @pytest.mark.skipif(not NEWEST, reason="TRL wants a newer datasets")
    def test_it_trains_with_trl_as_it_is(self, built, tmp_path):
        code = f"""
import augesc
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer
at = {str(built / "checkpoint")!r}
tokenizer = AutoTokenizer.from_pretrained(at)
tokenizer.chat_template = (
    "{{% for m in messages %}}{{{{ m['role'] }}}}: {{{{ m['content'] }}}}\\n{{% endfor %}}"
)
trainer = SFTTrainer(
    AutoModelForCausalLM.from_pretrained(at),
    SFTConfig("out", max_steps=1, max_length=64, use_cpu=True, bf16=False, report_to=[]),
    train_dataset=augesc.load_dataset("sample", split="train[:8]"),
    processing_class=tokenizer,
)
first = tokenizer.decode(trainer.train_dataset[0]["input_ids"])
assert first.startswith("user: Two winters now"), first
print("trained", trainer.train().training_loss > 0)
"""
        out = ok(python(code, tmp_path, HF_HOME=tmp_path / "home", HF_HUB_OFFLINE=1))
        assert "trained True" in out


class TestPublished:
    def test_the_rows_are_the_lines(self, load, tmp_path):
        path = write(tmp_path / "augesc.txt", PAIRS[0], "", *PAIRS[1:])
        rows = load(data_files=str(path), split="train").to_list()
        assert [row["messages"] for row in rows] == [messages(pairs) for pairs in PAIRS]
        assert [row["session_id"] for row in rows] == ["augesc-1", "augesc-3", "augesc-4"]
        assert {row["source"] for row in rows} == {"augesc"}
        assert rows[0]["safety_flags"] is None

    def test_several_processes_read_it_in_pieces(self, load, tmp_path, monkeypatch):
        path = write(tmp_path / "augesc.txt", *(PAIRS * 40))
        cut = published.byte_ranges
        monkeypatch.setattr(published, "byte_ranges", lambda file: cut(file, 300))
        assert len(published.byte_ranges(path)) > 10
        rows = load(data_files=str(path), split="train", num_proc=2).to_list()
        assert [row["messages"] for row in rows] == [messages(p) for p in PAIRS * 40]
        assert [row["session_id"] for row in rows] == [f"augesc-{n}" for n in range(1, 121)]

    @pytest.mark.parametrize("n_bytes", [1, 7, 100, 1000, 1 << 20])
    def test_pieces_hold_every_line_once_wherever_they_are_cut(self, tmp_path, n_bytes):
        path = write(tmp_path / "augesc.txt", *PAIRS, "", PAIRS[0])
        pieces = published.byte_ranges(path, n_bytes)
        rows = [row for p in pieces for t in published.read_byte_range(p) for row in t.to_pylist()]
        assert [row["messages"] for row in rows] == [messages(p) for p in [*PAIRS, PAIRS[0]]]
        assert rows[-1]["session_id"] == "augesc-5"
        assert sum(piece.n_bytes for piece in pieces) == path.stat().st_size

    @pytest.mark.parametrize(
        ("line", "says"),
        [
            ("[[", "not JSON"),
            ('{"dialog": []}', "expected a list of pairs"),
            ("[]", "expected a list of pairs"),
            ('["usr", "hello"]', "utterance 1: expected a list of pairs"),
            ('[["usr", "a"], ["sys"]]', "utterance 2: expected a list of pairs"),
            ('[["usr", "a", "b"]]', "utterance 1"),
            ('[{"usr": "a", "sys": "b"}]', "utterance 1"),
            ('[["seeker", "a"]]', 'expected the speaker usr or sys, found "seeker"'),
            ('[[["usr"], "a"]]', "expected the speaker usr or sys"),
            ('[["usr", null]]', "utterance 1: expected a text, found null"),
            ('[["usr", 1], ["sys", "a"]]', "utterance 1: expected a text, found 1"),
            ('[["usr", "\\ud800"]]', "half a surrogate pair"),
            ("3", "expected a list of pairs"),
            ("[" * 100_000, "not JSON"),
        ],
    )
    def test_a_broken_line_is_named(self, load, tmp_path, line, says):
        path = write(tmp_path / "augesc.txt", PAIRS[0], line)
        with pytest.raises(InputError) as caught:
            load(data_files=str(path))
        assert str(caught.value).startswith(f"{path}, line 2: ")
        assert says in str(caught.value)

    def test_bytes_that_are_no_text_and_no_file(self, load, tmp_path):
        path = tmp_path / "augesc.txt"
        path.write_bytes(b'[["usr", "\xff"]]\n')
        with pytest.raises(InputError, match=r"line 1: not JSON"):
            load(data_files=str(path))
        path.write_bytes(b"")
        with pytest.raises(InputError, match="empty"):
            load(data_files=str(path))
        with pytest.raises(InputError, match=r"no augesc\.txt there"):
            load(data_dir=str(tmp_path / "nowhere"))

    def test_other_content_is_never_taken_for_it(self, load, tmp_path):
        path = write(tmp_path / "augesc.txt", *PAIRS)
        assert len(load(data_dir=str(tmp_path), split="train")) == 3
        write(path, *PAIRS, PAIRS[0])
        assert len(load(data_dir=str(tmp_path), split="train")) == 4


@pytest.fixture
def hub(tmp_path):
    root = tmp_path / "hub"
    write(root / "datasets" / published.REPO / "augesc.txt", *PAIRS)
    write(root / "datasets" / published.REPO / "README.md", "not to be downloaded")
    for name in ("train.txt", "valid.txt", "test.txt"):
        folder = root / "datasets" / "thu-coai" / "esconv"
        folder.mkdir(exist_ok=True)
        shutil.copy(sample.SESSIONS, folder / name)
    with serving(root) as server:
        server.options = {
            **{"HF_ENDPOINT": server.url, "HF_HOME": tmp_path / "home", "HF_HUB_OFFLINE": None},
            "HF_HUB_DISABLE_XET": "1",
        }
        yield server


class TestFromTheHub:
    CODE = "import augesc; from datasets import load_dataset\n"

    def test_the_published_file_at_its_revision(self, hub, tmp_path):
        code = f"{self.CODE}print(len(load_dataset('augesc', split='train')))"
        assert ok(python(code, tmp_path, **hub.options)).strip() == "3"
        assert any(published.REVISION in path for path in hub.requests)
        assert not [path for path in hub.requests if "README" in path]
        hub.requests.clear()
        offline = {**hub.options, "HF_HUB_OFFLINE": 1}
        assert ok(python(code, tmp_path, **offline)).strip() == "3"
        assert not hub.requests

    def test_a_damaged_download_is_found(self, hub, tmp_path):
        hub.faults.append(Fault("GET", "/augesc.txt", "corrupt", 9))
        code = f"{self.CODE}augesc.load_dataset()"
        done = python(code, tmp_path, **hub.options)
        assert done.returncode != 0
        assert "InputError" in done.stderr
        assert "damaged: its" in done.stderr

    def test_esconv_with_its_splits(self, hub, tmp_path):
        code = (
            f"{self.CODE}d = load_dataset('augesc', 'esconv')\n"
            "print({k: len(v) for k, v in d.items()})"
        )
        found = ok(python(code, tmp_path, **hub.options)).strip()
        assert found == "{'train': 100, 'validation': 100, 'test': 100}"

    def test_what_cannot_be_had_says_what_to_do_instead(self, hub, tmp_path):
        shutil.rmtree(hub.root / "datasets")
        for name, mend in (("published", "data_files=FILE"), ("esconv", "data_dir=FOLDER")):
            done = python(f"{self.CODE}load_dataset('augesc', {name!r})", tmp_path, **hub.options)
            assert DownloadError.__name__ in done.stderr
            assert mend in done.stderr.strip().splitlines()[-1]

    @pytest.mark.slow
    def test_the_stock_command_on_every_configuration(self, hub, built, tmp_path):
        stand_in_for_tiny(built, tmp_path / "home" / "datasets")
        command = (
            "import sys; from augesc_builder.cli.app import main; sys.argv = ['augesc', 'test']\n"
        )
        out = ok(python(f"{command}main()", tmp_path, **hub.options))
        assert "Test successful" in out
        for name in ("published", "regenerated", "sample", "esconv"):
            assert f"Testing builder '{name}'" in out

    @pytest.mark.slow
    def test_what_is_regenerated_can_be_pushed_by_its_name(self, hub, built, tmp_path):
        command = (
            "import sys; from augesc_builder.cli.app import main; sys.argv = ['augesc', 'push', "
            "'--config', 'regenerated', '--repo', 'me/it', '--dry-run', *{more}]\nmain()"
        )
        refused = python(command.format(more=[]), tmp_path, **hub.options)
        assert "not built yet, and --dry-run builds nothing; recipe tiny" in refused.stderr
        stand_in_for_tiny(built, tmp_path / "home" / "datasets")
        out = ok(python(command.format(more=["--allow-flagged"]), tmp_path, **hub.options))
        assert "me/it" in out
        refused = python(command.format(more=["a-folder"]), tmp_path, **hub.options)
        assert "give a FOLDER, or --config regenerated" in refused.stderr

    @pytest.mark.skipif(not SCRIPTS, reason="datasets 4 and later run no loading scripts")
    def test_it_is_a_loading_script(self, hub, built, tmp_path):
        stand_in_for_tiny(built, tmp_path / "home" / "datasets")
        script = shutil.copy(ROOT / "augesc.py", tmp_path / "augesc.py")
        code = (
            "from datasets import load_dataset\n"
            "d = load_dataset('./augesc.py', 'sample', split='train', trust_remote_code=True)\n"
            "print(len(d))"
        )
        assert ok(python(code, tmp_path, **hub.options)).strip() == "100"
        stock = (
            "import sys; from datasets.commands.datasets_cli import main\n"
            f"sys.argv = ['datasets-cli', 'test', {str(script)!r}, '--all_configs', "
            "'--trust_remote_code']\nmain()"
        )
        out = ok(python(stock, tmp_path, **hub.options))
        assert "Test successful" in out
        assert "Testing builder 'esconv' (4/4)" in out


def stand_in_for_tiny(built: Path, cache: Path) -> None:
    """Put a finished run where that of the default recipe would be, which takes minutes."""
    from augesc_builder.pipeline.inputs import run_settings

    config = augesc.AugESCConfig(name="regenerated", recipe="tiny")
    run = cache / "augesc-runs" / f"tiny-{augesc.builder_configs.content_of(config)}"
    shutil.copytree(built, run)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["settings"] = run_settings(augesc.load_recipe("tiny"))
    del manifest["checksum"]
    (run / "manifest.json").write_text(json.dumps(manifest))


class TestRegenerated:
    def test_it_goes_on_with_what_is_there(self, load, built, tmp_path, tiny_file):
        run = tmp_path / "run"
        shutil.copytree(built, run)
        for mark in ("filter", "filter-00000", "statistics", "card"):
            (run / ".complete" / f"{mark}.json").unlink()
        weights = run / "checkpoint" / "model.safetensors"
        before = weights.stat().st_mtime_ns
        found = load("regenerated", recipe=str(tiny_file), work_dir=str(run), split="train")
        key = lambda row: json.dumps(row, sort_keys=True)  # noqa: E731
        assert sorted(found.to_list(), key=key) == rows_of(built / "corpus" / "data")
        assert weights.stat().st_mtime_ns == before

    def test_with_its_rejected_texts(self, load, built, tiny_file):
        given = {"recipe": str(tiny_file), "work_dir": str(built)}
        found = load("regenerated", rejected=True, **given)
        assert set(found) == {"train", "rejected"}
        assert found["rejected"].features == found["train"].features
        assert found["rejected"].features == tables.SESSIONS_AND_REJECTED
        theirs = {
            f"{row['query_id']}-{row['sample']}": row
            for row in rows_of(built / "corpus" / "rejected")
        }
        assert len(found["rejected"]) == len(theirs)
        for row in found["rejected"]:
            assert row["violations"] == theirs[row["session_id"]]["violations"] != []
            assert row["text"] == theirs[row["session_id"]]["text"]
            assert (row["messages"] is None) == ("format" in row["violations"])
        assert all(row["violations"] == [] and row["text"] is None for row in found["train"])
        assert set(load("regenerated", **given)) == {"train"}

    def test_with_splits(self, load, built, tmp_path, tiny_file):
        run = tmp_path / "run"
        shutil.copytree(built, run)
        given = {"recipe": str(tiny_file), "work_dir": str(run)}
        n = len(rows_of(built / "corpus" / "data"))
        found = load("regenerated", set={"card.splits": {"test": 0.5}}, **given)
        assert set(found) == {"train", "test"}
        assert len(found["train"]) + len(found["test"]) == n
        parts = [set(part["query_id"]) for part in found.values()]
        assert not set.intersection(*parts)
        again = load("regenerated", **given)
        assert set(again) == {"train"}
        assert len(again["train"]) == n

    def test_overrides_and_other_settings(self, load, built, tiny_file):
        given = {"recipe": str(tiny_file), "work_dir": str(built)}
        with pytest.raises(SettingsChangedError, match=r"generate\.top_p"):
            load("regenerated", set={"generate.top_p": 0.5}, **given)
        with pytest.raises(SettingsChangedError, match="seed"):
            load("regenerated", set=["seed=7"], **given)
        with pytest.raises(RecipeError, match="did you mean"):
            load("regenerated", set={"generate.top_q": 0.5}, **given)
        same = load("regenerated", set={"seed": 13, "queries.max_per_source": 12}, **given)
        assert len(same["train"]) == len(rows_of(built / "corpus" / "data"))

    def test_other_recipes_have_other_places(self, tiny_file, tmp_path, monkeypatch):
        def config(**options):
            return augesc.AugESCConfig(name="regenerated", recipe=str(tiny_file), **options)

        names = [
            augesc.builder_configs.content_of(config(**options))
            for options in ({}, {"set": {"seed": 1}}, {"set": ["seed=2"]}, {"work_dir": "x"})
        ]
        assert len(set(names)) == 4
        assert names[1] == augesc.builder_configs.content_of(config(set=["seed=1"]))
        monkeypatch.chdir(tmp_path)
        assert augesc.builder_configs.content_of(config(work_dir="x")) != names[3]

    def test_nothing_kept_is_said(self, load, built, tmp_path, tiny_file):
        run = tmp_path / "run"
        shutil.copytree(built, run)
        for shard in (run / "corpus" / "data").glob("*.parquet"):
            pq.write_table(pq.read_table(shard).slice(0, 0), shard)
        mark_anew(run)
        for name in ("statistics", "card"):
            (run / f".complete/{name}.json").unlink()  # they were made from other sessions
        with pytest.raises(InputError, match="no conversation met all requirements"):
            load("regenerated", recipe=str(tiny_file), work_dir=str(run))


class TestABuiltCorpus:
    def test_by_its_folders_name_without_any_import(self, built, tmp_path):
        shutil.copytree(built / "corpus", tmp_path / "augesc")
        code = (
            "import sys; from datasets import load_dataset\n"
            "s, r = (load_dataset('augesc', n, split='train') for n in ('default', 'rejected'))\n"
            "print(len(s), len(r), len(load_dataset('augesc')['train']), 'augesc' in sys.modules)"
        )
        n, m = (len(rows_of(built / "corpus" / name)) for name in ("data", "rejected"))
        out = ok(python(code, tmp_path, HF_HOME=tmp_path / "home", HF_HUB_OFFLINE=1))
        assert out.split() == [str(n), str(m), str(n), "False"]

    @pytest.mark.skipif(SCRIPTS, reason="its test command takes no folder with configurations")
    def test_the_stock_command(self, built, tmp_path):
        import yaml

        shutil.copytree(built / "corpus", tmp_path / "augesc")
        card = tmp_path / "augesc" / "README.md"
        before = card.read_text()
        stock = (
            "import sys; from datasets.commands.datasets_cli import main\n"
            "sys.argv = ['datasets-cli', 'test', 'augesc', '--all_configs', '--save_info']\nmain()"
        )
        out = ok(python(stock, tmp_path, HF_HOME=tmp_path / "home", HF_HUB_OFFLINE=1))
        assert "Test successful" in out
        # What the library finds is what the card said already.
        heads = [yaml.safe_load(text.split("---\n")[1]) for text in (before, card.read_text())]
        assert heads[0]["dataset_info"] == heads[1]["dataset_info"]
        assert heads[0]["configs"] == heads[1]["configs"]
        assert card.read_text().split("---\n", 2)[2].strip() == before.split("---\n", 2)[2].strip()


def test_esconvs_labels_and_what_has_none(load, tmp_path):
    dialog = [
        {"speaker": "sys", "text": "Hi.", "strategy": "Others"},
        {"speaker": "usr", "text": "I lost my job."},
        {"speaker": "sys", "text": "When was that?", "strategy": "Question"},
    ]
    survey = {"seeker": {"empathy": "4"}, "supporter": {"relevance": "5"}}
    told = {
        **{"emotion_type": "fear", "problem_type": "Job Crisis", "situation": "I was let go."},
        **{"experience_type": "Current Experience", "survey_score": survey, "dialog": dialog},
    }
    bare = {"dialog": [dialog[1], {"speaker": "sys", "text": "When?"}]}
    write(tmp_path / "esconv" / "train.txt", told, bare)
    given = {"data_dir": str(tmp_path / "esconv"), "split": "train"}
    rows = load("esconv", **given).to_list()
    assert list(load("esconv", streaming=True, **given)) == rows
    first, second = rows
    assert first["strategies"] == [None, "Question"]  # one a message; the greeting's is gone
    assert (first["emotion"], first["problem_type"]) == ("fear", "job crisis")
    assert (first["situation"], first["experience_type"]) == ("I was let go.", "Current Experience")
    assert first["survey_score"]["seeker"]["empathy"] == 4
    assert first["survey_score"]["seeker"]["relevance"] is None
    assert first["survey_score"]["supporter"] == {"relevance": 5}
    labels = set(tables.ESCONV) - {"session_id", "source", "messages"}
    assert {name for name in labels if second[name] is not None} == set()


def test_tables_of_before_there_were_labels_are_read(built, tmp_path):
    readers = {
        "data": functools.partial(builder_configs._read_kept, wide=False),
        "rejected": builder_configs._read_rejected,
    }
    for place, read in readers.items():
        (file,) = (built / "corpus" / place).glob("*.parquet")
        whole = pq.read_table(file)
        pq.write_table(whole.drop_columns(["emotion", "subreddit"]), tmp_path / file.name)
        now = [row for table in read(str(file)) for row in table.to_pylist()]
        before = [row for table in read(str(tmp_path / file.name)) for row in table.to_pylist()]
        assert before == [{**row, "emotion": None} for row in now]
        assert [row["emotion"] for row in now] == whole["emotion"].to_pylist()
        assert len(now) > 0


def test_esconv_as_the_paper_counts_it(load):
    found = load("esconv", data_dir=str(shared("esconv")))
    assert {name: len(part) for name, part in found.items()} == {
        "train": 910,
        "validation": 195,
        "test": 195,
    }
    assert found["train"].features == tables.ESCONV
    for part in found.values():
        for name in ("emotion", "problem_type", "situation"):
            assert None not in part[name][:]
    told = [
        (message["role"], strategy)
        for row in found["test"]
        for message, strategy in zip(row["messages"], row["strategies"], strict=True)
    ]
    assert {role for role, strategy in told if strategy} == {"assistant"}
    assert all(strategy for role, strategy in told if role == "assistant")
    scores = found["test"]["survey_score"]
    assert all(score["seeker"]["initial_emotion_intensity"] in range(1, 6) for score in scores)
    assert sum(score["supporter"]["relevance"] is not None for score in scores) == 173
