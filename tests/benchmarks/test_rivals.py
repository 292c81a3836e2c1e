"""Other engines of the decoding benchmark: run in their own processes, left out with a reason.

Those of ``make bench-peers`` decode a tiny Llama where their environments are there.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks import generation_rivals
from benchmarks.generation_rivals import RIVALS, Field, Rival, RivalError, save_for_others
from benchmarks.generation_task import PENALTY, TEMPERATURE, TOP_P, Task, make_task
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
        tie_word_embeddings=False,
    )
    torch.manual_seed(1)
    model = LlamaForCausalLM(config).eval()
    model.model.norm.weight.data *= 15  # so that a nucleus is a small part of the vocabulary
    return model


@pytest.fixture(scope="module")
def field(llama, tmp_path_factory):
    task = make_task(8, scale=0.05, n_tokens=500)
    with Field(tmp_path_factory.mktemp("field"), llama, 2, task) as field:
        yield field


def _or_skip(rival, measure):
    if not rival.installed:
        pytest.skip(f"no environment of {rival.engine}: make bench-peers")
    try:
        return measure()
    except RivalError as error:
        if "on this processor" not in str(error):
            raise
        pytest.skip(str(error))


@pytest.mark.slow
@pytest.mark.parametrize("rival", RIVALS, ids=lambda rival: "-".join([rival.module, rival.type]))
def test_a_rival_makes_the_tokens_that_are_asked_for(rival, field):
    task = make_task(5, scale=0.01, n_tokens=500)
    greedy = _or_skip(rival, lambda: field.check(rival))
    assert greedy == 8 * 16 if rival.bits == 32 else greedy > 0
    assert field.decode(rival, [task]) > 0
    assert rival.engine in field.versions[rival.engine]
    halves = [Task(task.prompts[i::2], task.lengths[i::2]) for i in range(2)]
    assert field.decode(rival, halves, by_clock=True) > 0


@pytest.mark.slow
@pytest.mark.parametrize("engine", sorted({rival.engine for rival in RIVALS}))
def test_a_rival_samples_from_the_same_nucleus(engine, field, llama):
    """Chi-square of the first tokens of many rows with one prompt, against exact probabilities."""
    rival = next(one for one in RIVALS if one.engine == engine and one.bits == 32)
    n, prompt = 2000, tuple(range(100, 120))
    rows = _or_skip(rival, lambda: field.sample(rival, Task([prompt] * n, [1] * n)))
    penalised = [] if engine == "CTranslate2" else prompt  # what a row made is
    expected = n * _probabilities(llama, prompt, penalised)
    found = torch.bincount(torch.tensor([row[0] for row in rows]), minlength=len(expected))
    assert found[expected == 0].sum() == 0
    within = expected > 0
    assert within.sum() < len(expected)
    chi = ((found - expected)[within] ** 2 / expected[within]).sum()
    assert torch.special.gammaincc((within.sum() - 1) / 2, chi / 2) > 1e-4


@torch.inference_mode()
def _probabilities(model, prompt, penalised):
    """Return next-token probabilities after penalty, temperature and nucleus, in this order."""
    logits = model(torch.tensor([prompt])).logits[0, -1].double()
    seen = torch.tensor(penalised, dtype=torch.long)
    logits[seen] = torch.where(logits[seen] > 0, logits[seen] / PENALTY, logits[seen] * PENALTY)
    ranked, order = (logits / TEMPERATURE).softmax(0).sort(descending=True)
    kept = ranked.where(ranked.cumsum(0) - ranked < TOP_P, 0)
    return torch.zeros_like(kept).scatter_(0, order, kept / kept.sum())


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
def load(setup):
    print("a line of the engine's own")
    version = f"{setup.type} {setup.threads}"
    yield Engine(version, lambda work: [[7] * (n + EXTRA) for n in work.lengths])

serve(load)
"""


@pytest.fixture
def engine(field, monkeypatch):
    """Put an engine that makes the same token over and over in the place of all others."""

    def put(extra=0, module=None):
        def command(rival, threads):
            run = ["-m", module] if module else ["-c", ENGINE.replace("EXTRA", str(extra))]
            return [sys.executable, *run, given(rival, threads)[-1]]

        given = field._command
        monkeypatch.setattr(field, "_command", command)
        return Rival("engine", f"float32 {extra} {module}", 32)

    return put


def test_an_engine_stays_for_more_than_one_task(engine, field):
    rival = engine()
    assert field.decode(rival, [TASK, TASK], by_clock=True) > 0
    first = list(field._workers.values())
    assert field.sample(rival, TASK) == [[7] * 4, [7] * 3]
    assert list(field._workers.values()) == first
    assert field.versions["engine"] == f"{rival.type} 1"


def test_the_tokens_of_each_row_are_counted(engine, field):
    with pytest.raises(RivalError, match="9 tokens instead of 7"):
        field.decode(engine(extra=1), [TASK])


@pytest.mark.parametrize("bits", [32, 16])
def test_an_engine_that_makes_other_tokens_is_not_measured(bits, engine, field, monkeypatch):
    rival = replace(engine(), bits=bits)
    monkeypatch.setattr(Rival, "installed", True)
    monkeypatch.setattr(generation_rivals, "RIVALS", [rival])
    assert field.best(TASK) == []
    assert "engine in float32 0 None left out: only 0 of 128 greedy tokens" in field.about


def test_an_engine_that_ends_says_why(engine, field):
    with pytest.raises(RivalError, match="No module named benchmarks"):
        field.decode(engine(module="benchmarks.peers.none"), [TASK])


def test_a_field_ends_its_processes(llama, engine, field, tmp_path, monkeypatch):
    rival = engine()
    with Field(tmp_path, llama, 2, TASK) as other:
        monkeypatch.setattr(other, "_command", field._command)
        other.decode(rival, [TASK])
        (worker,) = other._workers.values()
    assert worker._process.returncode is not None


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
    assert "required: setup" in done.stderr
