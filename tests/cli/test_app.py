"""The command line as a user meets it: what it prints, what it refuses, what it leaves behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from augesc_builder.choices import differences_from_paper
from augesc_builder.config.recipe import load_recipe
from augesc_builder.pipeline.inputs import stages_of
from tests.cli.wrong_calls import commands
from tests.conftest import ROOT, corpus_of, rows_of, shared

COMMANDS = (
    *("build", "queries", "finetune", "generate", "filter", "stats", "card"),
    *("push", "safety", "test", "train", "evaluate-model", "chat"),
)


# -- what works -----------------------------------------------------------------------------------


def test_every_command_and_option_has_help(augesc):
    code, out, _ = augesc("--help")
    assert code == 0
    for command in COMMANDS:
        assert f"\n  {command} " in out
    for command in commands():
        code, text, _ = augesc(*command.split(), "--help")
        assert code == 0
        options = dict(
            re.findall(r"^  (?:-h, )?(--[a-z-]+)(?: \S+)?\s+(\S.*)$", text, re.MULTILINE)
        )
        assert set(re.findall(r"^  (?:-h, )?(--[a-z-]+)", text, re.MULTILINE)) == set(options)
        assert "--help" in options


def test_no_command_shows_the_help(augesc):
    code, out, _ = augesc()
    assert code == 0
    assert "Commands:" in out


def test_version(augesc):
    from augesc_builder import __version__

    assert augesc("--version")[:2] == (0, f"{__version__}\n")


def test_readme_and_help_name_the_same_commands():
    readme = (ROOT / "README.md").read_text()
    for command in COMMANDS:
        assert f"augesc {command}" in readme, f"README does not mention `augesc {command}`"


def test_a_build_says_what_it_does_and_what_came_out(augesc, tiny_file, tmp_path):
    out = tmp_path / "run"
    code, text, err = augesc("build", "--recipe", tiny_file, "--out", out)
    assert code == 0, err
    stages = stages_of(load_recipe(tiny_file))
    for number, stage in enumerate(stages, 1):
        assert f"[{number}/{len(stages)}] {stage}\n" in text
    assert "paper: GPT-J (ED)" in text
    assert "paper: ESConv" in text
    assert "Its conversations do not make sense" in text
    commands = re.findall(r"^  (augesc .*)$", text, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:  # what it advises works
        code, _, err = augesc(*command.split()[1:])
        assert code == 0, err
    code, text, _ = augesc("build", "--recipe", tiny_file, "--out", out)
    assert code == 0
    assert text == f"{out} is complete: nothing to do. Its corpus is in {out / 'corpus'}\n"


def test_quiet_is_quiet(augesc, tiny_file, tmp_path):
    code, out, err = augesc("build", "--recipe", tiny_file, "--out", tmp_path / "run", "--quiet")
    assert (code, out, err) == (0, "", "")


def test_a_dry_run_changes_nothing(augesc, tiny_file, tmp_path):
    out = tmp_path / "run"
    code, text, _ = augesc("build", "--recipe", tiny_file, "--out", out, "--dry-run")
    assert code == 0
    assert not out.exists()
    for stage in stages_of(load_recipe(tiny_file)):
        assert f"| {stage} " in text
    assert "12 queries" in text
    assert "12 conversations" in text
    code, text, _ = augesc("build", "--recipe", "paper", "--out", out, "--dry-run")
    assert code == 0
    assert "6,050.9 million parameters" in text
    assert "107,400 conversations" in text
    for said in differences_from_paper(load_recipe("paper").settings()):
        assert f"- {said}" in text.splitlines()
    assert not out.exists()


def test_the_stages_alone_give_what_a_build_gives(augesc, tiny_file, built, tmp_path):
    def stage(*arguments: object) -> None:
        code, _, err = augesc(*arguments)
        assert code == 0, err
        code, text, _ = augesc(*arguments)  # again: nothing to do
        assert code == 0
        assert "is complete: nothing to do" in text

    recipe = ("--recipe", tiny_file)
    stage("queries", "--source", "sample", "--out", tmp_path / "q", *recipe)
    stage("finetune", "--out", tmp_path / "c", *recipe)
    queries = tmp_path / "q" / "queries-00000-of-00001.parquet"
    checkpoint = tmp_path / "c" / "checkpoint"
    stage("generate", queries, "--checkpoint", checkpoint, "--out", tmp_path / "g", *recipe)
    tokens = ("--tokenizer", checkpoint)
    stage("filter", tmp_path / "g", "--out", tmp_path / "f", *recipe, *tokens)
    stage("stats", tmp_path / "f", "--out", tmp_path / "s")
    stage("stats", tmp_path / "g", "--out", tmp_path / "raw")
    whole = corpus_of(built)
    assert rows_of(tmp_path / "q") == whole["queries"]
    assert rows_of(tmp_path / "g") == whole["generations"]
    assert rows_of(tmp_path / "f" / "data") == whole["sessions"]
    assert rows_of(tmp_path / "f" / "rejected") == whole["rejected"]
    assert (tmp_path / "f" / "filter_report.json").read_text() == whole["filter_report.json"]
    alone = json.loads((tmp_path / "s" / "statistics.json").read_text())
    of_build = json.loads(whole["statistics.json"])
    raw = json.loads((tmp_path / "raw" / "statistics.json").read_text())
    for part in (of_build, *of_build["by_source"].values()):
        assert part.pop("novelty")["ngrams"] > 0  # a build knows what it was trained on
        assert part.pop("query_effect") == raw["query_effect"]  # before any filtering
    del alone["query_effect"]
    assert of_build["beside"]
    assert of_build["settings"].pop("before_filtering")
    some = ("by_source", "beside", "topic_correlates", "not_conversations", "bad_lines")
    without = [{k: v for k, v in found.items() if k not in some} for found in (alone, of_build)]
    assert without[0] == without[1]


def test_filter_takes_one_file(augesc, built, tmp_path):
    (file, *_) = sorted((built / "generations").glob("*.parquet"))
    code, text, _ = augesc("filter", file, "--out", tmp_path / "f")
    assert code == 0
    assert "supporter length" in text
    assert json.loads((tmp_path / "f" / "filter_report.json").read_text())["total"] == 4


def test_the_card_can_be_written_again(augesc, built, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(built, folder)
    (folder / "corpus" / "README.md").unlink()
    assert augesc("card", folder)[0] == 0
    assert corpus_of(folder) == corpus_of(built)


def test_queries_of_empathetic_dialogues(augesc, tmp_path):
    path = shared("empathetic_dialogues/test.csv")
    code, text, _ = augesc(
        "queries", "--source", f"empathetic_dialogues={path}", "--out", tmp_path / "q"
    )
    assert code == 0
    assert re.search(r"\| queries +\| +1,115 \|", text)
    assert re.search(r"\| paper: queries +\| +8,950 \|", text)
    report = json.loads((tmp_path / "q" / "queries_report.json").read_text())
    assert report["empathetic_dialogues"]["queries"] == 1115


def test_strict_stops_at_the_first_bad_line(augesc, refused, tmp_path):
    dump, out = tmp_path / "RS.jsonl", tmp_path / "q"
    words = "and so I went home and cried about it for a while"
    dump.write_text(json.dumps({"selftext": words}) + "\n{broken\n")
    line = refused("queries", "--source", f"reddit={dump}", "--out", out, "--strict")
    assert f"{dump}, line 2: not JSON" in line
    assert not out.exists()
    code, text, _ = augesc("queries", "--source", f"reddit={dump}", "--out", out)
    assert code == 0
    assert f"unreadable: {dump}, line 2: not JSON" in text


@pytest.mark.parametrize(("quiet", "in_ci"), [(False, False), (True, False), (False, True)])
def test_bars_have_rate_and_time_left_but_not_in_ci(monkeypatch, quiet, in_ci):
    import io

    from augesc_builder.run.progress import Progress

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("CI", "true") if in_ci else monkeypatch.delenv("CI", raising=False)
    with Progress(quiet=quiet).bar(10, "fine-tuning", "step", done=4) as bar:
        bar.update(1, loss=2.5)
        bar._bar.refresh()
    drawn = terminal.getvalue()
    assert ("fine-tuning" in drawn) is not (quiet or in_ci)
    if drawn:
        assert "5/10" in drawn
        assert re.search(r"\d\d:\d\d<\d\d:\d\d, +[\d.]+ step/s, loss=2.50", drawn)


@pytest.mark.slow
def test_statistics_of_esconvs_files(augesc, tmp_path):
    files = [shared(f"esconv/{split}.txt") for split in ("train", "valid", "test")]
    code, text, _ = augesc("stats", *files, "--out", tmp_path / "s", "--paper")
    assert code == 0
    found = json.loads((tmp_path / "s" / "statistics.json").read_text())
    assert (found["sessions"], found["unique_words"]) == (1300, 15_467)
    assert set(found["by_source"]) == {"train", "valid", "test"}
    assert "543.8" in text
    assert "543.7" in text  # the paper's


@pytest.mark.slow
def test_real_sessions_train_it(augesc, tiny_file, tmp_path):
    sessions = shared("esconv/valid.txt")
    code, _, err = augesc(
        *("build", "--recipe", tiny_file, "--out", tmp_path / "run"),
        *("--set", f"finetune.sessions={sessions}", "--set", "generate.max_tokens=200"),
    )
    assert code == 0, err
    card = (tmp_path / "run" / "corpus" / "README.md").read_text()
    assert "license: cc-by-nc-4.0" in card
    assert "liu2021esconv" in card


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["buil"], "No such command 'buil'. Did you mean 'build'?"),
        (["build"], "Missing option '--out'"),
        (["build", "--otu", "x"], "No such option: --otu"),
        (["build", "--out", "OUT", "--until", "filtr"], "did you mean 'filter'?"),
        (["build", "--out", "OUT", "--set", "generate.topp=1"], "did you mean generate.top_p?"),
        (["build", "--out", "OUT", "--recipe", "papr"], "did you mean 'paper'?"),
        (["build", "--out", "OUT", "--set", "finetune.sessions=no/file"], "no/file"),
        (["build", "--out", "OUT", "--set", "queries.sources=[{source: twitter}]"], "'twitter'"),
        (["queries", "--out", "OUT", "--source", "redit"], "unknown source of queries 'redit'"),
        (["queries", "--out", "OUT", "--source", "sample="], "expected NAME or NAME=PATH"),
        (["generate", "no.parquet", "--checkpoint", "CKPT", "--out", "OUT"], "no.parquet"),
        (["filter", "no.parquet", "--out", "OUT"], "no.parquet"),
        (["stats", "no.parquet", "--out", "OUT"], "no.parquet"),
        (["card", "OUT"], "no data/*.parquet there"),
    ],
)
def test_mistakes_are_one_line(refused, built, tmp_path, arguments, says):
    out = tmp_path / "out"
    places = {"OUT": str(out), "CKPT": str(built / "checkpoint")}
    assert says in refused(*(places.get(a, a) for a in arguments))
    assert not out.exists()


GOOD_LINE = '{"problem_type": "x", "dialog": [{"speaker": "usr", "text": "hi"}]}'


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (f"{GOOD_LINE}\n{{broken\n".encode(), "line 2: not JSON"),
        (f'{GOOD_LINE}\n{{"x": 1}}\n'.encode(), "line 2: the key 'dialog' is missing"),
        (f'{GOOD_LINE}\n{{"dialog": []}}\n'.encode(), "line 2: 'dialog' must be a list"),
        (
            b'{"dialog": [{"speaker": "bob", "text": "x"}]}\n',
            "line 1: utterance 1 is of no known speaker",
        ),
        (f"{GOOD_LINE}\n".encode() + b"\xff\xfe\n", "line 2: not UTF-8"),
        (b"", "empty; expected a session a line"),
        (f"{GOOD_LINE}\n".encode(), "holds 1 sessions, and finetune.n_sessions asks for 13"),
    ],
)
@pytest.mark.parametrize("command", ["build", "finetune"])
def test_bad_sessions_files(refused, tiny_file, tmp_path, command, content, says):
    path, out = tmp_path / "sessions.txt", tmp_path / "out"
    path.write_bytes(content)
    override = f"finetune.sessions={path}"
    line = refused(command, "--recipe", tiny_file, "--out", out, "--set", override)
    assert line.startswith(f"augesc: {path}")
    assert says in line
    assert not out.exists()


def test_bad_sessions_after_the_queries_are_collected(refused, augesc, tiny_file, tmp_path):
    """A file that is mended is welcome, as long as nothing was made of the broken one."""
    path, out = tmp_path / "sessions.txt", tmp_path / "out"
    path.write_text(f"{GOOD_LINE}\n" * 13)
    command = ("build", "--recipe", tiny_file, "--out", out, "--set", f"finetune.sessions={path}")
    assert augesc(*command, "--until", "queries")[0] == 0
    path.write_text("{broken\n")
    assert "line 1: not JSON" in refused(*command)
    path.write_text(f"{GOOD_LINE}\n" * 14)
    assert "inputs.finetune.sessions" in refused(*command)


def queries_file(path: Path, **columns: list[object]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: p.write_bytes(b""), "not a readable Parquet file"),
        (lambda p: p.write_bytes(b"PAR1 but broken"), "not a readable Parquet file"),
        (lambda p: queries_file(p, query_id=["a"]), "no column source, text"),
        (
            lambda p: queries_file(
                p,
                query_id=pa.array([], pa.string()),
                source=pa.array([], pa.string()),
                text=pa.array([], pa.string()),
            ),
            "empty; expected a query a row",
        ),
        (lambda p: p.mkdir(), "no Parquet files of queries there"),
    ],
)
def test_bad_queries_files(refused, built, tiny_file, tmp_path, make, says):
    path, out = tmp_path / "queries.parquet", tmp_path / "out"
    make(path)
    line = refused(
        *("generate", path, "--checkpoint", built / "checkpoint", "--out", out),
        *("--recipe", tiny_file),
    )
    assert line.startswith(f"augesc: {path}")
    assert says in line
    assert not out.exists()


def test_bad_generations(augesc, refused, tmp_path):
    path, out = queries_file(tmp_path / "g.parquet", text=["x"]), tmp_path / "out"
    line = refused("filter", path, "--out", out)
    assert "line 1: column query must be filled" in line
    assert "--includes-query" in line
    columns = {
        "query_id": ["a", "b"],
        "sample": [0, 0],
        "source": ["s", "s"],
        "query": ["q", "q"],
        "text": ["t", None],
        "n_prompt_tokens": [1, 1],
        "n_tokens": [1, 1],
        "finish_reason": ["eos", "eos"],
        "seed": [1, 1],
    }
    queries_file(path, **columns)
    assert not out.exists()
    code, text, err = augesc("filter", path, "--out", out)
    assert code == 0, err
    assert "line 2: column text (or messages) must be filled, found null" in text


def test_a_checkpoint_without_weights(refused, built, tiny_file, tmp_path):
    checkpoint, out = tmp_path / "checkpoint", tmp_path / "out"
    shutil.copytree(built / "checkpoint", checkpoint)
    (checkpoint / "model.safetensors").unlink()
    line = refused(
        *("generate", built / "queries", "--checkpoint", checkpoint, "--out", out),
        *("--recipe", tiny_file),
    )
    assert "holds no weights" in line
    backbone = f"backbone={{name: '{checkpoint}', revision: null, from_scratch: null}}"
    assert "holds no weights" in refused(
        "build", "--recipe", tiny_file, "--out", out, "--set", backbone
    )
    assert not out.exists()


def test_an_output_folder_that_is_a_file(refused, tiny_file, tmp_path):
    (tmp_path / "out").write_text("mine")
    assert "is a file" in refused("build", "--recipe", tiny_file, "--out", tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_an_output_folder_with_other_files(refused, tiny_file, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    assert "no run left" in refused("build", "--recipe", tiny_file, "--out", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_output_folder_that_is_not_writable(refused, tiny_file):
    if not Path("/sys").is_dir():
        pytest.skip("no /sys: nowhere that even root may not write")
    assert "not writable" in refused("build", "--recipe", tiny_file, "--out", "/sys/augesc")


def test_changed_settings(refused, built, tiny_file):
    line = refused("build", "--recipe", tiny_file, "--out", built, "--set", "seed=14")
    assert "seed (13 there, 14 now)" in line


@pytest.mark.parametrize(
    "size",
    ["40k", *(pytest.param(size, marks=pytest.mark.slow) for size in ("300k", "700k"))],
)
def test_a_full_disk_loses_nothing(refused, augesc, built, tiny_file, tmp_path, size):
    mounted = tmp_path / "small"
    mounted.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(mounted)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a disk of this size can only be mounted by root")
    try:
        build = ("build", "--recipe", tiny_file, "--out", mounted / "run", "--quiet")
        assert "no space left to write it; free some" in refused(*build)
        subprocess.run(["mount", "-o", "remount,size=20m", str(mounted)], check=True)
        code, _, err = augesc(*build)
        assert code == 0, err
        assert corpus_of(mounted / "run") == corpus_of(built)
    finally:
        # Lazily: torch may still hold the file that it could not finish.
        subprocess.run(["umount", "-l", str(mounted)], check=True)


def test_debug_shows_the_traceback(tmp_path):
    command = [sys.executable, "-m", "augesc_builder", "stats", "no.parquet", "--out", "x"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    plain, debug = (
        subprocess.run(
            c, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        for c in (command, [*command, "--debug"])
    )
    assert plain.returncode == 2
    assert "Traceback" not in plain.stderr
    assert plain.stderr == "augesc: no.parquet: no such file; check the path\n"
    assert "Traceback" in debug.stderr


def test_an_interrupt_is_one_line(tiny_file, tmp_path):
    import signal
    import time

    out = tmp_path / "run"
    command = [sys.executable, "-m", "augesc_builder", "build", "--recipe", str(tiny_file)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [*command, "--out", str(out)], env=environment, stderr=subprocess.PIPE, text=True
    )
    while not (out / ".complete").exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert err == "augesc: stopped; run the same command again to resume\n"


def test_a_folder_may_be_called_as_a_scheme_is(augesc, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = augesc("queries", "--source", "sample", "--out", "sample:", "--quiet")
    assert (code, err) == (0, "")
    assert list((tmp_path / "sample:").glob("queries-*.parquet"))
    assert augesc("status", "sample:")[0] == 0
