"""What `augesc status` tells of real runs while they work, and of those that ended."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

import pytest

from augesc_builder.config.recipe import load_recipe
from augesc_builder.errors import InputError, RunFolderError
from augesc_builder.hub.publish import corpus_files, model_files
from augesc_builder.pipeline.build import build
from augesc_builder.run import status as status_module
from augesc_builder.run.disk import sealed
from augesc_builder.run.folder import RunFolder
from augesc_builder.run.heartbeat import Status, StatusFile, Work
from augesc_builder.run.layout import STAGES
from augesc_builder.run.progress import Progress
from augesc_builder.run.status import _COMMANDS, Overview, overview, told

OFTEN = (
    "from augesc_builder.run import heartbeat, progress\n"
    "heartbeat.TICK, progress.FIRST, progress.EVERY = 0.02, 0.1, 0.1\n"
    "from augesc_builder.cli.app import main\n"
    "if __name__ == '__main__':\n"
    "    main()\n"
)
"""The command line that says how far it is ten times a second."""

LINE = re.compile(
    r"  (?P<stage>[a-z ]+)(, (?P<what>[a-z -]+))?: "
    r"((?P<done>[\d,]+)( of (?P<total>[\d,]+))? [a-z]+s( \(\d+%\))?, )?"
    r"(at work for [\d:]+|[\d.,]+ (a|an) (second|minute|hour))(, [\d:]+ left)?"
    r"(, [a-z ]+ [\d.,]+)*"
)
SAID = {
    *("checking what is done", *STAGES),
    *("fine-tuning", "generating", "judging", "counting words"),
}
"""What a build may say that it is at: on a slow machine, also what is soon done."""


@contextmanager
def working(folder: Path, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run a command of the program, its output a pipe, in a process group of its own."""
    script = folder.with_name("often.py")
    script.write_text(OFTEN)
    command = [sys.executable, str(script), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True, env=environment
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def until(folder: Path, holds) -> Overview:
    """Look again and again until something holds."""
    while True:
        try:
            found = overview(folder)
        except RunFolderError:  # not begun yet
            found = None
        if found is not None and holds(found):
            return found
        time.sleep(0.01)


def generation(built: Path, recipe: Path, out: Path) -> list[object]:
    """Give a command that works for a while."""
    return [
        *("generate", built / "queries", "--checkpoint", built / "checkpoint", "--out", out),
        *("--recipe", recipe, "--set", "generate.samples_per_query=300"),
    ]


def is_generating(found: Overview) -> bool:
    work = found.status.work if found.status else None
    return found.state == "running" and work is not None and bool(work.done)


# -- while it works -------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_build_says_how_far_it_is_in_a_log_and_to_others(augesc, tiny_file, tmp_path):
    folder = tmp_path / "run"
    seen: list[Overview] = []
    with working(folder, "build", "--recipe", tiny_file, "--out", folder) as process:
        until(folder, lambda found: found.state == "running")
        while process.poll() is None:
            seen.append(overview(folder))
            time.sleep(0.02)
        log = process.stdout.read()
        assert process.returncode == 0
        pid = process.pid
    lines = [line for line in log.splitlines() if LINE.fullmatch(line)]
    said = {LINE.fullmatch(line)["stage"] for line in lines}
    assert {"finetune", "statistics"} <= said <= SAID
    steps = [found["done"] for found in map(LINE.fullmatch, lines) if found["total"] == "8"]
    assert steps == sorted(steps)
    at_work = [found for found in seen if found.state == "running"]
    assert {found.status.pid for found in at_work} == {pid}
    order = [found.status.work.stage for found in at_work if found.status.work.stage]
    names = [stage.name for stage in seen[-1].stages]
    assert order == sorted(order, key=names.index)
    for found in at_work:
        work = found.status.work
        states = [stage.state for stage in found.stages]
        assert states.count("at work") <= 1
        assert work.done is None or work.total is None or 0 <= work.done <= work.total
    code, text, _ = augesc("status", folder)
    assert code == 0
    assert text.rstrip().endswith("Complete.")
    assert overview(folder).status.state == "finished"


@pytest.mark.slow
def test_a_run_is_told_by_another_process_and_its_kill_too(augesc, built, tiny_file, tmp_path):
    folder = tmp_path / "run"
    command = generation(built, tiny_file, folder)
    with working(folder, *command) as process:
        first = until(folder, is_generating)
        first = until(folder, lambda found: "judged" in found.status.work.facts)
        assert first.stages[0].state == "at work"
        assert first.to_go_on is None
        other = subprocess.run(
            [sys.executable, "-m", "augesc_builder", "status", str(folder), "--json"],
            stdout=subprocess.PIPE,
            check=True,
        )
        then = json.loads(other.stdout)
        work = then["status"]["work"]
        assert (then["state"], then["kind"]) == ("running", "generate")
        assert then["status"]["pid"] == process.pid
        assert first.status.work.done <= work["done"] <= work["total"] == 3600
        assert work["facts"]["kept"] <= work["facts"]["judged"] <= work["done"]
        until(folder, lambda found: found.status.work.rate is not None)
        text = told(overview(folder))
        assert f"Process {process.pid} on " in text
        assert "is at work; it was heard of 00:0" in text
        said = [process.stdout.readline() for _ in range(3)]
        assert all(LINE.fullmatch(line.rstrip("\n")) for line in said), said
        os.killpg(process.pid, signal.SIGKILL)
        # Whoever began it has not asked for its exit code yet.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        found = overview(folder)
        assert (found.state, found.stages[0].state) == ("gone", "begun")
    code, text, _ = augesc("status", folder)
    assert code == 0
    assert re.search(r"It had come to generate, generating: [\d,]+ of 3,600 sessions", text)
    assert " left" not in text
    assert f"Process {process.pid} on " in text
    assert "is gone, and was heard of 00:" in text
    assert f"To go on: the same command again, `augesc generate` with --out {folder}" in text


@pytest.mark.slow
def test_an_interrupted_run_says_so(augesc, built, tiny_file, tmp_path):
    folder = tmp_path / "run"
    with working(folder, *generation(built, tiny_file, folder)) as process:
        until(folder, is_generating)
        process.send_signal(signal.SIGINT)
        process.communicate()
        assert process.returncode == 130
    assert overview(folder).state == "interrupted"
    assert "It was interrupted 00:" in augesc("status", folder)[1]


def test_looking_writes_nothing_and_takes_no_lock(built, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(built, folder)
    (folder / ".lock").unlink()
    before = {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}
    told(overview(folder))
    assert {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]} == before
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert overview(folder).state == "complete"


# -- how it ended ---------------------------------------------------------------------------------


def test_a_build_goes_on_by_the_command_that_is_told(augesc, tiny_file, tmp_path):
    folder = tmp_path / "a run; rm"
    build(load_recipe(tiny_file), folder, Progress(quiet=True), until="queries")
    found = overview(folder)
    assert (found.state, found.recipe) == ("stopped", "tiny")
    assert [stage.state for stage in found.stages] == ["done"] + ["to do"] * 6
    assert found.stages[0].made == {"queries": 12}

    class Fails(Progress):
        def bar(self, *args, **kwargs):
            if args[1] == "fine-tuning":
                raise InputError("no such session", "sessions.txt")
            return super().bar(*args, **kwargs)

    with pytest.raises(InputError):
        build(load_recipe(tiny_file), folder, Fails(quiet=True))
    found = overview(folder)
    assert (found.state, found.stages[1].state) == ("failed", "begun")
    assert re.search(r"It failed 00:\d\d ago: sessions.txt: no such session", told(found))
    program, *arguments = shlex.split(found.to_go_on)
    assert program == "augesc"
    code, _, err = augesc(*arguments, "--until", "queries", "--quiet")
    assert code == 0, err
    assert overview(folder).state == "stopped"


def test_a_run_that_failed_before_anything_was_done_leaves_no_status(tmp_path):
    with (
        pytest.raises(InputError),
        RunFolder(tmp_path / "run", {"stage": "filter"}, Progress(quiet=True)) as run,
    ):
        run.begin("filter")
        raise InputError("empty", "g.jsonl")
    assert not (tmp_path / "run").exists()


def test_what_is_made_again_is_at_work_though_it_is_marked(tmp_path):
    settings = {"stage": "filter"}
    with RunFolder(tmp_path, settings, Progress(quiet=True)) as run:
        run.complete("filter", tables={"sessions": 3, "rejected": 4})
    assert overview(tmp_path).state == "complete"
    with RunFolder(tmp_path, settings, Progress(quiet=True)) as run:
        assert told(overview(tmp_path)).splitlines()[-2].startswith("checking what is done: at ")
        run.begin("filter")
        found = overview(tmp_path)
        assert (found.state, found.stages[0].state) == ("running", "at work")
    found = overview(tmp_path)
    assert (found.state, found.stages[0].made) == ("complete", {"sessions": 3, "rejected": 4})


def test_a_run_that_ends_between_two_looks_is_not_told_as_killed(tmp_path, monkeypatch):
    (tmp_path / "manifest.json").write_text(
        sealed({"kind": "augesc run", "settings": {"stage": "filter"}})
    )
    file = StatusFile(tmp_path)
    file.write(Work(stage="filter", since=datetime.now(timezone.utc), seconds=0.0))

    def ends(_: Status) -> bool:
        file.end(InputError("empty", "g.jsonl"))
        return False

    monkeypatch.setattr(status_module, "is_at_work", ends)
    assert overview(tmp_path).state == "failed"


def test_a_run_of_an_earlier_version_has_no_status(built, tmp_path):
    shutil.copytree(built, tmp_path / "run")
    (tmp_path / "run" / ".status.json").unlink()
    assert overview(tmp_path / "run").state == "complete"
    (tmp_path / "run" / ".complete" / "card.json").unlink()
    found = overview(tmp_path / "run" / "corpus")
    assert (found.state, found.to_go_on) == ("unknown", None)
    assert "whether a process is at work does not show" in told(found)


def test_elsewhere_and_long_silent_is_not_told_as_alive_or_dead(tmp_path):
    with RunFolder(tmp_path, {"stage": "train"}, Progress(quiet=True)) as run:
        run.begin("train")
        path = tmp_path / ".status.json"
        status = json.loads(path.read_text()) | {"written": "2026-01-01T00:00:00Z", "host": "far"}
        path.write_text(json.dumps(status))
        found = overview(tmp_path)
    assert (found.state, found.to_go_on) == ("silent", None)
    assert "only there it shows whether it is at work" in told(found)


# -- every stage counts ---------------------------------------------------------------------------


def test_every_stage_counts_what_it_does(tiny, tmp_path):
    """Its bar is at its total in the end, and what was kept is what the reports say."""

    class Keeps(Progress):
        def bar(self, total, what, unit, *, done=0):
            bar = super().bar(total, what, unit, done=done)
            bars[what] = bar
            return bar

    bars = {}
    build(tiny, tmp_path, Keeps(quiet=True))
    assert set(bars) == {
        *("judging", "fine-tuning", "generating", "measuring quality"),
        *("counting words", "comparing sessions"),
    }
    assert all(bar.done == bar.total for bar in bars.values())
    report = json.loads((tmp_path / "corpus" / "filter_report.json").read_text())
    assert bars["judging"].facts == {"kept": report["retained"], "judged": report["total"]}
    assert bars["fine-tuning"].facts["loss"] > 0
    assert "tokens_a_second" in bars["generating"].facts
    status = json.loads((tmp_path / ".status.json").read_text())
    assert (status["state"], status["work"]["stage"]) == ("finished", "card")


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("manifest", "says"),
    [
        (None, "no manifest.json there; give the folder of a run"),
        ("[", "unreadable"),
        ('{"name": "app"}', "is not that of a run"),
        ({"kind": "augesc run"}, "settings: Field required"),
        ({"kind": "augesc run", "settings": {"stage": "\x1b[2J"}}, "a kind that is not known"),
        ({"kind": "augesc run", "settings": {}, "tables": {"queries": -1}}, "tables.queries: "),
        ({"kind": "augesc run", "settings": {}, "seconds": {"card": "x"}}, "seconds.card: "),
        ({"kind": "augesc run", "settings": {}, "stages": {"card": 3}}, "stages.card: "),
    ],
)
def test_what_is_no_run_is_one_line(refused, tmp_path, manifest, says):
    if manifest is not None:
        text = manifest if isinstance(manifest, str) else sealed(manifest)
        (tmp_path / "manifest.json").write_text(text)
    assert says in refused("status", tmp_path)


def test_every_kind_of_run_has_a_command(augesc):
    assert set(_COMMANDS) == {"build", "train", "compare", "report", "simulate", *STAGES} - {"card"}
    for command in _COMMANDS.values():
        code, said, _ = augesc(*command.split(), "--help")
        assert (code, "--out" in said) == (0, True), command


def test_no_folder_is_one_line(refused, tmp_path):
    assert "is not there; give the folder that a run fills" in refused("status", tmp_path / "x")
    (tmp_path / "file").touch()
    assert "is a file; give the folder" in refused("status", tmp_path / "file")
    os.mkfifo(tmp_path / "manifest.json")
    assert "not a regular file" in refused("status", tmp_path)


def test_hostile_text_is_shown_as_text_and_json_stays_json(augesc, tmp_path):
    evil = "x\x7f\x9b2J\u202e\nProcess 1 on here is at work"
    settings = {"kind": "augesc run", "settings": {"stage": "generate"}, "name": evil}
    (tmp_path / "manifest.json").write_text(sealed(settings))
    with RunFolder(tmp_path, settings["settings"], Progress(quiet=True)) as run:
        run.record(name=evil)
        path = tmp_path / ".status.json"
        run.begin("generate")
        status = json.loads(path.read_text()) | {"state": "failed", "error": evil}
        status["work"] |= {"stage": evil, "what": evil, "unit": evil, "done": 3}
        path.write_text(json.dumps(status))
        code, text, _ = augesc("status", tmp_path)
        assert code == 0
        assert not any(line.startswith("Process") for line in text.splitlines())
        assert r"x\x7f\x9b2J\u202e Process 1 on here is at work" in text
        code, text, _ = augesc("status", tmp_path, "--json")
    assert code == 0
    assert text.isascii()
    assert "\x7f" not in text
    found = json.loads(text)
    assert (found["recipe"], found["status"]["error"]) == (evil, evil)


def test_a_damaged_status_file_is_one_line(refused, built, tmp_path):
    shutil.copytree(built, tmp_path / "run")
    (tmp_path / "run" / ".status.json").write_text("{")
    line = refused("status", tmp_path / "run")
    assert "remove it, the next run writes it anew" in line


def test_the_status_file_is_never_published(augesc, built, tmp_path):
    texts, out = tmp_path / "texts.jsonl", tmp_path / "out"
    text = " I am sorry to hear that. What happened?\nHuman: I lost my job."
    texts.write_text(json.dumps({"query": "I feel low.", "text": text}) + "\n")
    code, _, err = augesc("filter", texts, "--out", out, "--quiet")
    assert code == 0, err
    assert (out / ".status.json").is_file()
    manifest = json.loads((built / "manifest.json").read_text())
    pushed = [*corpus_files(out), *corpus_files(built / "corpus")]
    pushed += model_files(built, "me/model", manifest)
    assert "filter_report.json" in pushed
    assert not any("status" in name for name in pushed)
