"""A source, a requirement and a backend from outside the package, by a plugin in a few lines.

CONTRIBUTING shows the plugin below as its example; it is installed as users would, found by its
entry point, and looked for wherever a user would look.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, rows_of

PLUGIN = Path(__file__).with_name("data") / "augesc_toy.py"

POSTS = (
    "I have not slept for a week since my sister moved out of our flat",
    "Nobody at work talks to me any more and I do not know what I did",
    "Why does every day feel like this ? Is there nothing that helps me ?",
)


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the plugin, installed as pip would leave it."""
    site = tmp_path_factory.mktemp("site")
    shutil.copy(PLUGIN, site)
    info = site / "augesc_toy-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: augesc-toy\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[augesc.plugins]\ntoy = augesc_toy\n")
    (site / "diary.txt").write_text("\n".join(POSTS) + "\n")
    return site


@pytest.fixture(scope="module")
def run(plugin: Path):
    """Run the command line where the plugin is installed; give what it prints."""

    def command(*arguments: object, code: int = 0) -> str:
        path = os.pathsep.join([str(plugin), str(ROOT)])
        done = subprocess.run(
            [sys.executable, "-m", "augesc_builder", *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "COLUMNS": "400"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return command


@pytest.fixture(scope="module")
def options(plugin: Path, tiny_file: Path) -> list[object]:
    return [
        *("--recipe", tiny_file),
        *("--set", f"queries.sources=[{{source: diary, path: {plugin / 'diary.txt'}}}]"),
        *("--set", "requirements.few_questions.max=1"),
        *("--set", "generate.backend.type=echo"),
        *("--set", "generate.backend.turns=7"),
    ]


@pytest.fixture(scope="module")
def corpus(run, options, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A build with all three additions, and what it printed."""
    out = tmp_path_factory.mktemp("additions") / "run"
    return out, run("build", *options, "--out", out)


def test_contributing_shows_this_very_plugin():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    parts = re.findall(
        r"^## Adding a (?:source|requirement|backend)\n.*?```python\n(.*?)```", text, re.M | re.S
    )
    code = PLUGIN.read_text()
    assert len(parts) == 3
    for part in parts:
        assert part.strip() in code
    shown = "".join(parts) + "".join(re.findall(r'^(?:"""|import|from) ?.*$', code, re.M))
    left_out = [line for line in code.splitlines() if line.strip() and line not in shown]
    assert not left_out


def test_the_help_names_them(run):
    assert "diary=PATH" in run("queries", "--help")
    assert re.search(r"Backends .*local, .*echo", run("build", "--help"))
    assert "few_questions" in run("filter", "--help")


@pytest.mark.slow
def test_the_dry_run_names_them(run, options, tmp_path):
    plan = run("build", *options, "--out", tmp_path / "x", "--dry-run")
    assert "diary (3)" in plan
    assert "the backend echo" in plan
    assert "few_questions" in plan
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_a_backend_that_needs_no_checkpoint_is_not_fine_tuned_for(corpus, run, options, tmp_path):
    out, printed = corpus
    assert not (out / "checkpoint").exists()
    assert "finetune" not in json.loads((out / "manifest.json").read_text())["stages"]
    assert "[1/6] queries" in printed
    assert "finetune" not in run("build", *options, "--out", tmp_path / "x", "--dry-run")
    assert "| finetune" not in run("status", out)
    assert "Complete." in run("status", out)
    assert "nothing to do" in run("build", *options, "--out", out)
    told = run("build", *options, "--out", tmp_path / "x", "--until", "finetune", code=2)
    assert "unknown stage 'finetune'" in told
    assert "fine-tuning is not finished" in run("push", out, "--repo", "a/b", "--model", code=2)
    card = (out / "corpus" / "README.md").read_text()
    assert "Model: the supporter repeats what the seeker says" in card
    assert "Fine-tuning:" not in card
    assert "fine-tuned" not in card
    assert "demonstration" not in card
    assert "Not reproducible" not in card


@pytest.mark.slow
def test_generating_alone_takes_a_checkpoint_where_one_is_needed(run, options, corpus, tmp_path):
    queries = corpus[0] / "queries"
    run("generate", queries, *options, "--out", tmp_path / "x")
    assert rows_of(tmp_path / "x") == rows_of(corpus[0] / "generations")
    given = ("generate", queries, "--out", tmp_path / "y", "--checkpoint", tmp_path)
    assert "leave --checkpoint out" in run(*given, *options, code=2)
    assert "needs a checkpoint; give --checkpoint DIR" in run(*given[:-2], code=2)


def test_the_funnel_has_the_source(corpus):
    out, printed = corpus
    funnel = json.loads((out / "queries" / "queries_report.json").read_text())
    assert funnel["diary"]["queries"] == 3
    assert funnel["diary"]["paper"] is None
    assert "diary" in printed


def test_the_backend_wrote_the_texts(corpus):
    out, _ = corpus
    rows = rows_of(out / "generations")
    assert {row["source"] for row in rows} == {"diary"}
    assert all(row["text"].count(row["query"]) == 14 for row in rows)


def test_table_1_counts_the_ninth_requirement(corpus):
    out, printed = corpus
    report = json.loads((out / "corpus" / "filter_report.json").read_text())
    assert list(report["violations"])[-1] == "few_questions"
    assert report["violations"]["few_questions"] == {"count": 1, "share": 1 / 3}
    assert "few_questions" not in report["paper"]["GPT-J (ED)"]["violations"]
    (header,) = {line for line in printed.splitlines() if "% of texts" in line}
    assert re.search(r"supporter length \| +questions \| RETAINED", header)
    assert "(Diary)" in printed
    measured = rows_of(out / "measured")
    assert sorted(row["n_questions"] for row in measured) == [0, 0, 30]
    (rejected,) = (row for row in rows_of(out / "corpus" / "rejected") if "Why" in row["query"])
    assert "few_questions" in rejected["violations"]


def test_the_card_has_them_all(corpus):
    out, _ = corpus
    card = (out / "corpus" / "README.md").read_text()
    assert "The posts of the diary were written by one person" in card
    assert "@misc{diary" in card
    assert "CC-BY-4.0, inherited from `diary`." in card
    assert "license: cc-by-4.0" in card
    assert "| questions |" in card
    assert "- ours: the texts come from the backend `echo` (`generate.backend.type`)" in card
    assert "- ours: the requirement `few_questions`" in card


def test_other_thresholds_take_no_measuring(run, corpus):
    out, _ = corpus
    again = run("filter", "--reuse", out, "--set", "requirements.few_questions.max=100")
    row = next(line for line in again.splitlines() if "(Diary)" in line)
    assert row.split("|")[-3].strip() == "0.0"


def test_it_judges_only_where_the_recipe_says_so(run, corpus, tmp_path):
    """An installed plugin changes nothing for those who do not use it."""
    out, _ = corpus
    printed = run("filter", out / "generations", "--out", tmp_path / "paper")
    assert "questions" not in printed
    manifest = json.loads((tmp_path / "paper" / "manifest.json").read_text())
    assert "few_questions" not in manifest["settings"]["requirements"]


def test_several_processes_know_it_too(run, corpus, tmp_path):
    out, _ = corpus
    recipe = out / "recipe.yaml"
    run(
        *("filter", out / "generations", "--recipe", recipe),
        *("--num-proc", "2", "--out", tmp_path / "two"),
    )
    assert rows_of(tmp_path / "two" / "measured") == rows_of(out / "measured")


def test_without_the_plugin_its_key_is_unknown(plugin, options, refused, tmp_path):
    line = refused("build", *options, "--out", tmp_path / "x")
    assert "unknown key requirements.few_questions" in line or "echo" in line
    assert not (tmp_path / "x").exists()


def test_a_plugin_that_fails_is_named_and_left_out(run, plugin):
    (plugin / "augesc_toy.py").rename(plugin / "away.py")
    try:
        said = run("queries", "--help")
    finally:
        (plugin / "away.py").rename(plugin / "augesc_toy.py")
    assert "the plugin 'toy' (augesc_toy) cannot be imported" in said
    assert "empathetic_dialogues=PATH" in said


def test_a_name_of_ours_is_refused():
    import augesc

    with pytest.raises(ValueError, match="sample is a source of augesc"):
        augesc.register(
            augesc.SourceInfo("sample", "x", "x", "mit", "x", read=lambda path, bad: iter(()))
        )
    with pytest.raises(ValueError, match="format is a requirement of the paper"):
        augesc.register(augesc.Requirement("format", "x", lambda batch, limits: []))
    with pytest.raises(ValueError, match="settings must be a section"):
        augesc.register(augesc.Requirement("tenth", "x", lambda batch, limits: []))
    with pytest.raises(TypeError, match="expected a SourceInfo"):
        augesc.register("diary")
