"""Other engines of the decoding benchmark: run in their own processes, left out with a reason.

Those of ``make bench-peers`` decode a tiny Llama where their environments are there.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks import generation_rivals
from benchmarks.generation_rivals import RIVALS, Field, Rival, RivalError, _Worker, save_for_others
from benchmarks.generation_task import Task, make_task
from tests.conftest import ROOT

MODULES = sorted({rival.module for rival in RIVALS})
TASK = Task([(5, 6, 7), (8, 9)], [4, 3])


@pytest.fixture(scope="module")
def llama():
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        rope_theta=100_000.0,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def field(llama, tmp_path_factory):
    return Field(tmp_path_factory.mktemp("field"), llama, 2)


@pytest.mark.slow
@pytest.mark.parametrize("rival", RIVALS, ids=lambda rival: "-".join([rival.module, rival.type]))
def test_a_rival_makes_the_tokens_that_are_asked_for(rival, field):
    if not rival.installed:
        pytest.skip(f"no environment of {rival.engine}: make bench-peers")
    task = make_task(5, scale=0.01, n_tokens=500)
    try:
        rate = field.decode(rival, [task])
    except RivalError as error:
        if "on this processor" not in str(error):
            raise
        pytest.skip(str(error))
    assert rate > 0
    assert rival.engine in field.versions[rival.engine]
    halves = [Task(task.prompts[i::2], task.lengths[i::2]) for i in range(2)]
    assert field.decode(rival, halves, by_clock=True) > 0


def test_a_rival_without_an_environment_is_left_out_with_a_reason(field, tmp_path, monkeypatch):
    monkeypatch.setattr(generation_rivals, "PEERS", tmp_path)
    assert field.best(TASK) == []
    for rival in RIVALS:
        assert f"{rival.engine} left out: no environment, make bench-peers" in field.about


def test_an_environment_that_does_not_work_is_left_out_with_its_last_words(
    field, tmp_path, monkeypatch
):
    """Here it is our own, which has none of the engines."""
    for module in MODULES:
        (tmp_path / module / "bin").mkdir(parents=True)
        (tmp_path / module / "installed").touch()
        (tmp_path / module / "bin" / "python").symlink_to(sys.executable)
    monkeypatch.setattr(generation_rivals, "PEERS", tmp_path)
    assert field.best(TASK) == []
    assert re.search(
        r"CTranslate2 in float32 left out: .*No module named 'ctranslate2'", field.about
    )
    assert re.search(r"vLLM in bfloat16 left out: .*No module named 'vllm'", field.about)
    assert "llama.cpp in Q8_0 left out: " in field.about


ENGINE = """
import contextlib
from benchmarks.peers.protocol import Engine, serve

@contextlib.contextmanager
def load(work):
    print("a line of the engine's own")
    yield Engine(f"{work.type} {work.threads}", lambda: [n + EXTRA for n in work.lengths])

serve(load)
"""


@pytest.mark.parametrize(("extra", "problem"), [(0, None), (1, "9 tokens instead of 7")])
def test_the_tokens_of_each_row_are_checked(extra, problem, field, monkeypatch):
    command = field._command(Rival("vLLM", "float32", 32), TASK, 0, 1)
    command = [sys.executable, "-c", ENGINE.replace("EXTRA", str(extra)), *command[3:]]
    monkeypatch.setattr(field, "_command", lambda *_: command)
    rival = Rival("engine", "float32", 32)
    if problem:
        with pytest.raises(RivalError, match=problem):
            field.decode(rival, [TASK], by_clock=True)
    else:
        assert field.decode(rival, [TASK, TASK], by_clock=True) > 0
        assert field.versions["engine"] == "float32 1"


def test_a_rival_that_is_not_asked_further_ends(field):
    command = field._command(Rival("vLLM", "float32", 32), TASK, 0, 1)
    with _Worker([sys.executable, "-c", ENGINE, *command[3:]], 1) as worker:
        worker.hear("ready")
    assert worker._process.returncode == 1


def test_a_checkpoint_for_others_says_the_base_of_positions_where_old_versions_look(
    llama, tmp_path
):
    save_for_others(llama, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["rope_theta"] == 100_000
    assert config["torch_dtype"] == "float32"


@pytest.mark.parametrize("module", MODULES)
def test_a_module_of_another_environment_needs_the_standard_library_alone(module):
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-m", f"benchmarks.peers.{module}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "task model type threads" in done.stderr
