"""From queries to generations: shards in one stream, processes, the live line, what resumes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from augesc_builder.config.requirements import Requirements
from augesc_builder.engine import memory
from augesc_builder.errors import CheckpointError, RunFolderError
from augesc_builder.pipeline.generate import capacity, stage
from augesc_builder.pipeline.generate.progress import LiveLine
from augesc_builder.pipeline.generate.workers import Listener
from augesc_builder.run.progress import Progress
from tests.conftest import SOAK, rows_of

QUIET = Progress(quiet=True)


def test_two_processes_give_the_same_rows(generate, built, monkeypatch):
    """Shards are shared between processes with models of their own; rows are counted, then told."""
    counted, told = [], []
    step, row = LiveLine.step, LiveLine.row

    def counting(self, ended, *others):
        counted.append(ended)
        step(self, ended, *others)

    def telling(self, found):
        told.append(found)
        assert len(told) <= sum(counted)
        row(self, found)

    monkeypatch.setattr(LiveLine, "step", counting)
    monkeypatch.setattr(LiveLine, "row", telling)
    rows = generate("generate.backend.workers=2", "generate.shard_size=5")
    assert rows == rows_of(built / "generations")
    assert len(told) == len(rows) == sum(counted)


def test_static_batching_gives_the_same_rows(generate, built):
    assert generate("generate.backend.engine=static") == rows_of(built / "generations")


def test_a_device_map_changes_no_row(generate, built):
    assert generate("generate.backend.device_map=auto") == rows_of(built / "generations")


def test_slots_change_no_token(generate, built):
    assert generate("generate.backend.slots=2", out="two") == rows_of(built / "generations")
    manifest = json.loads((built / "manifest.json").read_text())
    assert manifest["generate"]["slots"] == 16


@pytest.mark.parametrize(
    "n_kills", [pytest.param(SOAK or 1, marks=[pytest.mark.slow, pytest.mark.soak])]
)
def test_a_killed_process_ends_the_others_and_the_rest_is_made_later(
    built, tiny_file, tmp_path, generate, n_kills
):
    overrides = ["generate.backend.workers=2", "generate.shard_size=1"]
    command = [sys.executable, "-m", "augesc_builder", "generate", built / "queries", "--quiet"]
    command += ["--checkpoint", built / "checkpoint", "--recipe", tiny_file]
    command += ["--out", tmp_path / "out"]
    for override in overrides:
        command += ["--set", override]
    marks = tmp_path / "out" / ".complete"
    for _ in range(n_kills):
        before = {path: path.stat().st_mtime_ns for path in marks.glob("generate-*")}
        if len(before) > 6:  # of 12: too little is left to be killed in
            shutil.rmtree(tmp_path / "out")
            before = {}
        process = subprocess.Popen([*map(str, command)], start_new_session=True)
        try:
            while process.poll() is None and len(list(marks.glob("generate-*"))) < len(before) + 2:
                time.sleep(0.02)
            os.kill(process.pid, signal.SIGKILL)
        finally:
            process.wait()
        assert {path: path.stat().st_mtime_ns for path in before} == before
    before = {path: path.stat().st_mtime_ns for path in marks.glob("generate-*")}
    assert before
    assert generate(*overrides) == rows_of(built / "generations")
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_worker_that_fails_says_why(generate, built, tmp_path):
    broken = tmp_path / "checkpoint"
    shutil.copytree(built / "checkpoint", broken)
    config = json.loads((broken / "tokenizer_config.json").read_text())
    del config["eos_token"]
    (broken / "tokenizer_config.json").write_text(json.dumps(config))
    for workers in (1, 2):
        with pytest.raises(CheckpointError, match="no end-of-sequence token"):
            generate(f"generate.backend.workers={workers}", checkpoint=broken)


@pytest.fixture
def at_work(built, tiny_file, tmp_path):
    """Start a long generation in two processes; give it, and its workers, when rows come."""
    command = [sys.executable, "-m", "augesc_builder", "generate", built / "queries", "--quiet"]
    command += ["--checkpoint", built / "checkpoint", "--recipe", tiny_file]
    command += ["--out", tmp_path / "out", "--set", "generate.backend.workers=2"]
    command += ["--set", "generate.samples_per_query=300", "--set", "generate.shard_size=1"]
    with subprocess.Popen(
        [*map(str, command)], stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            marks = tmp_path / "out" / ".complete"
            while process.poll() is None and not list(marks.glob("generate-*")):
                time.sleep(0.02)
            workers = _spawned(process.pid)
            assert len(workers) == 2
            yield process, workers
        finally:
            process.kill()


def _spawned(pid):
    """Give the processes that a process has begun for its work."""
    found = []
    for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        with contextlib.suppress(OSError):
            if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text():
                found.append(child)
    return found


@pytest.mark.slow
def test_workers_are_replaced_where_one_is_killed(at_work, tmp_path):
    """As the system does to a process that takes too much memory."""
    process, workers = at_work
    os.kill(workers[0], signal.SIGKILL)
    while len(set(_spawned(process.pid)) - {*workers}) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    notes = [path.read_text() for path in (tmp_path / "out/.work/attempts").iterdir()]
    assert any("a process that generated was killed, most likely" in note for note in notes)


def test_a_death_is_told_however_much_the_others_say(monkeypatch):
    class Dead:
        exitcode = -9

    class Talkative:
        """Says something whenever it is asked."""

        def get(self, timeout):
            return ("step", 0, 1, 1.0)

    monkeypatch.setattr("augesc_builder.pipeline.generate.workers._PATIENCE", 0.2)
    listener = Listener(Talkative(), [Dead()])
    heard = 0
    with pytest.raises(RunFolderError, match="a process that generated was killed"):
        while heard < 10**9:
            listener.next_word()
            heard += 1
    assert heard  # what had been said before is given


@pytest.mark.slow
def test_an_interrupt_from_the_keyboard_ends_all_without_a_traceback(at_work):
    process, workers = at_work
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 130
    assert said == "augesc: stopped; run the same command again to resume\n"
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


def test_a_row_without_numbers_is_named_and_the_others_are_made(generate, built, tmp_path, capsys):
    rows = rows_of(built / "generations")
    broken = tmp_path / "checkpoint"
    shutil.copytree(built / "checkpoint", broken)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(broken))
    asked = [set(tokenizer(row["query"])["input_ids"]) for row in rows]
    cursed = min(
        {token for ids in asked for token in ids},
        key=lambda token: (sum(token in ids for ids in asked), token),
    )
    weights = load_file(broken / "model.safetensors")
    name = next(n for n in weights if n.endswith("wte.weight"))
    weights[name][cursed] = float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    made = generate(checkpoint=broken, progress=Progress())
    out = capsys.readouterr().out
    known = {row["query_id"]: row for row in rows}
    bad = [row for row in made if row["finish_reason"] == "not_finite"]
    assert 0 < len(bad) < len(made) == len(rows)
    for row in bad:
        assert (row["text"], row["n_tokens"]) == ("", 0)
        assert f"query {row['query_id']}, sample 0" in out
    for row in made:
        assert row in bad or row == known[row["query_id"]]
    for row, ids in zip(rows, asked, strict=True):
        assert cursed not in ids or row["query_id"] in {one["query_id"] for one in bad}


def test_a_model_without_numbers_is_an_error(generate, built, tmp_path):
    broken = tmp_path / "checkpoint"
    shutil.copytree(built / "checkpoint", broken)
    weights = load_file(broken / "model.safetensors")
    for tensor in weights.values():
        tensor.fill_(float("nan"))
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"non-finite logits.*backend\.dtype=float32"):
        generate(checkpoint=broken)
    assert not (tmp_path / "out").exists()


def test_prompts_that_are_too_long_have_a_row_that_says_so(generate):
    rows = generate("generate.max_tokens=60")
    assert {row["finish_reason"] for row in rows} == {"prompt_too_long"}
    assert all(row["n_tokens"] == 0 and row["n_prompt_tokens"] >= 60 for row in rows)


def test_how_many_processes(tiny, built, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(capacity, "cores", lambda: 4)
    monkeypatch.setattr(capacity, "_OWN", 1_000_000)
    monkeypatch.setattr(capacity, "bytes_of_weights", lambda *_: 2_000_000)
    monkeypatch.setattr(memory, "bytes_per_slot", lambda *_: 1_000_000)

    def n(**changes):
        backend = tiny.generate.backend.model_copy(update={"dtype": "float32", **changes})
        generate = tiny.generate.model_copy(update={"backend": backend})
        recipe = tiny.model_copy(update={"generate": generate})
        return capacity.most_processes(recipe, built / "checkpoint")

    def memory_for(n_bytes):
        monkeypatch.setattr(memory, "available_memory", lambda: n_bytes)

    # Each of several: 3 MB for weights and interpreter, 16 for as many slots, as many left free.
    memory_for(4 * 35_000_000)
    assert n() == 4
    memory_for(4 * 35_000_000 - 4)
    assert (n(), n(slots=16)) == (3, 4)
    memory_for(2 * 19_000_000)
    assert n(slots=16) == 2
    memory_for(2 * 19_000_000 - 2)
    assert n(slots=16) == 1
    # One slot fits, and all that several would have is less than one.
    memory_for(4_000_000)
    assert n() == 1
    memory_for(2 * 4_000_000)
    assert (n(), n(slots=1)) == (1, 2)
    assert (n(workers=3), n(tensor_parallel=5)) == (3, 5)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert n() == 3
    assert n(device_map="auto") == 1


def test_the_live_line(paper, monkeypatch):
    shown = []

    class Bar:
        def update(self, n, **facts):
            shown.append((n, facts))

        def __exit__(self, *_):
            shown.append("closed")

    monkeypatch.setattr(Progress, "bar", lambda *_, **__: Bar())
    line = "\n".join(["AI: one two three four five six seven eight nine ten"] * 3)
    speech = f"{line}\nHuman: one two three four five six seven eight\n"
    text = (speech * 3).removeprefix("AI:")
    row = {"query": "one two three four five six seven eight", "text": text}
    row |= {"n_prompt_tokens": 9, "n_tokens": 99}
    limits = Requirements.model_validate(
        {
            **paper.requirements.model_dump(),
            "balanced_utterances": {"max_ratio": 9},
            "seeker_utterance_length": {
                **paper.requirements.seeker_utterance_length.model_dump(),
                "max_short_share": 1,
            },
        }
    )
    with LiveLine(QUIET, limits, 10, 0) as live:
        live.step(0, 16, 0.5)
        live.row(row)
        live.row({**row, "text": "no role"})
        live.row({**row, "n_tokens": 5000})
        while "kept" not in live.facts() or live.facts()["judged"] < 3:
            time.sleep(0.01)
        live.step(3, 16, 0.75)
    assert shown[-1] == "closed"
    n, facts = shown[-2]
    assert n == 3
    assert (facts["slots_in_use"], facts["kept"], facts["judged"]) == (0.75, 1, 3)
    assert facts["tokens_a_second"] > 0


def test_nothing_is_loaded_when_nothing_is_missing(generate, built, monkeypatch):
    first = generate()
    monkeypatch.setattr(stage, "_generate", lambda *_: pytest.fail("generated again"))
    assert generate() == first == rows_of(built / "generations")


def test_the_largest_seed_is_one_like_any_other(generate):
    assert {row["seed"] for row in generate(f"seed={2**63 - 1}")} == {2**63 - 1}
