"""Backend ``vllm``: the rows of our own engine from vLLM itself, in an environment of its own."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import replace
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from operator import itemgetter
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from scipy.stats import chi2_contingency

from augesc_builder.config.recipe import load_recipe
from augesc_builder.engine import Prompt, Sampling
from augesc_builder.engine import generate as run_engine
from augesc_builder.engine.continuous import ContinuousBatchingEngine
from augesc_builder.engine.sampling import stream_key
from augesc_builder.errors import (
    CheckpointError,
    EndpointError,
    MissingExtraError,
    RecipeError,
    RunFolderError,
)
from augesc_builder.models import causal_lm
from augesc_builder.pipeline.build import build
from augesc_builder.pipeline.finetune import stage as finetune
from augesc_builder.pipeline.generate.backends import backend_of
from augesc_builder.pipeline.generate.backends.vllm import VllmBackend
from augesc_builder.pipeline.generate.vllm import server
from augesc_builder.pipeline.generate.vllm.exchange import continuation_of, sampling_for
from augesc_builder.pipeline.generate.vllm.process import PYTHON, VllmProcess
from augesc_builder.pipeline.generate.vllm.server import VllmServer
from augesc_builder.run.progress import Progress
from augesc_builder.sources.sample import read_sample_sessions
from tests.conftest import SOAK
from tests.model_servers import Server, end, serve_with_vllm

slow = pytest.mark.slow
GREEDY = ("generate.greedy=true", "generate.max_tokens=288")
OURS = ("generate.backend.dtype=float32",)
VLLM = (
    "generate.backend.type=vllm",
    "generate.backend.dtype=float32",
    "generate.backend.enforce_eager=true",
    "generate.backend.kv_cache_gib=0.25",
    "generate.backend.max_num_seqs=8",
)


# -- the same rows --------------------------------------------------------------------------------


@slow
@pytest.mark.parametrize("family", ["small_llama", "small_gptj"])
def test_greedy_decoding_gives_the_same_rows(request, family, generate, vllm_python, noise):
    checkpoint = request.getfixturevalue(family)
    ours = generate(*OURS, *GREEDY, out="ours", checkpoint=checkpoint)
    theirs = generate(*VLLM, *GREEDY, out="theirs", checkpoint=checkpoint)
    assert theirs == ours
    assert max(row["n_tokens"] for row in ours) > 100


@pytest.fixture
def noise(tmp_path, monkeypatch):
    """Let every Python say things on stdout that nobody asked for, as libraries do."""
    place = tmp_path / "noise"
    place.mkdir()
    (place / "sitecustomize.py").write_text(
        'import os\nos.write(1, b\'["row", [0, [], "stop"]]\\n{\')\n'
    )
    monkeypatch.setenv("PYTHONPATH", str(place), prepend=os.pathsep)


@slow
def test_the_same_conversations_of_real_weights(smollm2, generate, vllm_python):
    """In float32, where both round too little to change a word soon."""
    settings = ("generate.greedy=true", "generate.max_tokens=192")
    ours = generate(*OURS, *settings, out="ours", checkpoint=smollm2)
    theirs = generate(*VLLM, *settings, out="theirs", checkpoint=smollm2)
    assert [row["text"] for row in theirs] == [row["text"] for row in ours]


@slow
def test_an_adapter_is_in_the_weights_that_it_gets(small_llama, generate, vllm_python, tmp_path):
    lora = "{rank: 4, alpha: 32, dropout: 0.0, target_modules: [q_proj, v_proj]}"
    recipe = load_recipe(
        "tiny",
        [
            *(f"backbone.name={small_llama}", "backbone.from_scratch=null"),
            *(f"finetune.lora={lora}", "finetune.n_sessions=4", "finetune.learning_rate=0.01"),
            *("finetune.epochs=1", "finetune.max_tokens=256", "finetune.warmup_steps=0"),
        ],
    )
    finetune.standalone(recipe, tmp_path / "tuned", Progress(quiet=True))
    tuned = tmp_path / "tuned" / "checkpoint"
    assert not list(tuned.glob("adapter*"))
    before = generate(*OURS, *GREEDY, out="before", checkpoint=small_llama)
    ours = generate(*OURS, *GREEDY, out="ours", checkpoint=tuned)
    assert ours != before
    assert generate(*VLLM, *GREEDY, out="theirs", checkpoint=tuned) == ours


SAMPLING = Sampling(max_tokens=64, top_p=0.9, temperature=0.9, repetition_penalty=1.3)
N_DRAWN = 6000
PROMPT = [session.messages[0]["content"] for session in read_sample_sessions()[:9]]


@pytest.fixture
def drawn(small_llama):
    """Draw the first tokens behind one prompt from our own engine, for any sampling."""
    model, tokenizer = causal_lm.load(small_llama, revision=None, dtype="float32")
    # Of many tokens, so that whether they are penalized tells.
    prompt = tuple(dict.fromkeys(tokenizer(" ".join(PROMPT))["input_ids"]))[:60]

    def prompts(seed):
        limit = len(prompt) + 3
        keys = (stream_key(seed, "q", sample) for sample in range(N_DRAWN))
        return [Prompt(prompt, key, limit) for key in keys]

    def draw(sampling, seed=1):
        engine = ContinuousBatchingEngine(model, tokenizer.eos_token_id, sampling, 64)
        return run_engine(engine, prompts(seed), lambda ended, made: None)

    draw.prompts, draw.end = prompts, tokenizer.eos_token_id
    return draw


def differ(ours, theirs, at):
    """Give the p-value of two samples having one distribution of the token number ``at``."""
    counts = [
        Counter(row.token_ids[at] if len(row.token_ids) > at else -1 for row in rows)
        for rows in (ours, theirs)
    ]
    often = [t for t in {*counts[0], *counts[1]} if counts[0][t] + counts[1][t] >= 20]
    table = np.array([[count[t] for t in often] for count in counts])
    rest = np.array([[sum(count.values())] for count in counts]) - table.sum(1, keepdims=True)
    table = np.hstack([table, rest]) if rest.sum() >= 20 else table
    assert table.shape[1] > 5
    return chi2_contingency(table).pvalue


@slow
def test_both_engines_draw_the_same_tokens_as_often(drawn, small_llama, vllm_python):
    """Chi-square over the first three tokens; other sampling would be told apart by it."""
    how = {
        "model": str(small_llama),
        "skip_tokenizer_init": True,
        "dtype": "float32",
        "enforce_eager": True,
        "max_model_len": SAMPLING.max_tokens,
        "kv_cache_memory_bytes": 1 << 28,
    }
    ours = drawn(SAMPLING)
    with VllmProcess(vllm_python, how, SAMPLING, drawn.end) as engine:
        theirs = run_engine(engine, drawn.prompts(2), lambda ended, made: None)
    for at in range(3):
        assert differ(ours, theirs, at) > 1e-4
    for change in ({"temperature": 1.1}, {"top_p": 1.0}, {"repetition_penalty": 1.0}):
        other = drawn(replace(SAMPLING, **change))
        assert min(differ(other, theirs, at) for at in range(3)) < 1e-6, change


@slow
def test_rows_end_as_ours_do(generate, small_llama, vllm_python):
    """By the end of a conversation, by the limit that counts the prompt too, or before both."""
    settings = ("generate.samples_per_query=12", "generate.temperature=2", "generate.top_p=1")
    ours = generate(*OURS, *settings, out="ours", checkpoint=small_llama)
    theirs = generate(*VLLM, *settings, out="theirs", checkpoint=small_llama)
    of_the_prompt = itemgetter("query_id", "sample", "n_prompt_tokens", "seed")
    assert sorted(map(of_the_prompt, theirs)) == sorted(map(of_the_prompt, ours))
    for rows in (ours, theirs):
        ended = Counter(row["finish_reason"] for row in rows)
        assert set(ended) == {"eos", "length"}
        for row in rows:
            n = row["n_prompt_tokens"] + row["n_tokens"]
            assert (n == 384) if row["finish_reason"] == "length" else (n < 384)
    lengths = [np.mean([row["n_tokens"] for row in rows]) for rows in (ours, theirs)]
    assert abs(lengths[0] - lengths[1]) < 40
    n_prompt_tokens = [row["n_prompt_tokens"] for row in ours]
    short = (f"generate.max_tokens={int(np.median(n_prompt_tokens))}",)
    ours = generate(*OURS, *short, out="ours-short", checkpoint=small_llama)
    theirs = generate(*VLLM, *short, out="theirs-short", checkpoint=small_llama)
    too_long = [row for row in ours if row["finish_reason"] == "prompt_too_long"]
    assert 0 < len(too_long) < len(ours)
    assert [row for row in theirs if row["finish_reason"] == "prompt_too_long"] == too_long


def test_a_row_is_told_in_our_words():
    assert continuation_of([4, 5, 9], "stop", 9).token_ids == (4, 5)
    assert continuation_of([4, 9, 9], "length", 9).token_ids == (4, 9, 9)
    assert continuation_of([4, 5], "not_finite", 9).token_ids == ()
    with pytest.raises(KeyError):
        continuation_of([4], "abort", 9)
    assert sampling_for(Sampling(9, greedy=True, temperature=0.7), 2)["temperature"] == 0
    assert sampling_for(Sampling(9, top_k=3), 2) == {
        **{"temperature": 1, "top_p": 1, "top_k": 3, "min_p": 0, "repetition_penalty": 1},
        **{"stop_token_ids": [2], "ignore_eos": True},
    }


@slow
def test_a_model_without_numbers_is_told(generate, small_llama, vllm_python, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(small_llama, broken)
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"][:] = float("nan")
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="non-finite logits, whatever the query"):
        generate(*VLLM, checkpoint=broken)


@slow
def test_a_build_says_who_wrote_its_texts(tiny_file, vllm_python, tmp_path):
    recipe = load_recipe(tiny_file, [*VLLM, "backbone.from_scratch.n_embd=64"])
    assert build(recipe, tmp_path / "run", Progress(quiet=True))
    facts = json.loads((tmp_path / "run" / "manifest.json").read_text())["generate"]
    assert facts["dtype"] == "float32"
    card = (tmp_path / "run" / "corpus" / "README.md").read_text()
    assert "- ours: the texts come from the backend `vllm`" in card
    assert "- Not reproducible: the same recipe gives other texts when it is run again." in card


# -- what cannot work -----------------------------------------------------------------------------


def test_what_vllm_samples_otherwise_is_refused():
    for overrides, said in (
        (["generate.temperature=2.5"], "vLLM takes up to 2"),
        (["generate.min_p=0.1"], "takes min_p first"),
    ):
        recipe = load_recipe("paper", ["generate.backend.type=vllm", *overrides])
        with pytest.raises(RecipeError, match=said):
            backend_of(recipe).check(recipe)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model=tuned"], "model is a name on the server"),
        (["address=http://h:1", "dtype=float16"], "dtype is for vllm serve to know"),
        (["address=h:1"], "generate.backend.address"),
        (["kv_cache_gb=1"], "did you mean generate.backend.kv_cache_gib"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(overrides, said):
    with pytest.raises(RecipeError, match=said):
        load_recipe(
            "paper", ["generate.backend.type=vllm", *(f"generate.backend.{o}" for o in overrides)]
        )


@pytest.mark.parametrize(
    ("python", "said"),
    [("/nowhere/python", "cannot be run"), (sys.executable, "has no vLLM"), (None, "has no vLLM")],
)
def test_an_interpreter_without_vllm_is_refused_before_anything_is_written(
    python, said, generate, monkeypatch, tmp_path
):
    monkeypatch.delenv(PYTHON, raising=False)
    if python is not None:
        monkeypatch.setenv(PYTHON, python)
    with pytest.raises(MissingExtraError, match=said):
        generate(*VLLM)
    assert not (tmp_path / "out").exists()


def test_what_is_no_interpreter_is_told(generate, monkeypatch):
    monkeypatch.setenv(PYTHON, "/bin/true")
    with pytest.raises(RunFolderError, match=r"ended \(exit code 0\): no word; all it said is in"):
        generate(*VLLM)


def test_positions_are_counted_before_anything_is_started(generate, monkeypatch):
    monkeypatch.setenv(PYTHON, "/bin/true")
    with pytest.raises(CheckpointError, match="the model has positions for 512"):
        generate(*VLLM, "generate.max_tokens=513")


@slow
def test_no_room_for_a_conversation_is_told_with_the_key_that_mends_it(
    generate, small_llama, vllm_python
):
    with pytest.raises(CheckpointError, match=r"vLLM: .*set generate.backend.kv_cache_gib") as told:
        generate(*VLLM, "generate.backend.kv_cache_gib=0.00001", checkpoint=small_llama)
    log = Path(str(told.value).rpartition(" ")[2])
    assert "Traceback" in log.read_text()
    log.unlink()


# -- kills ----------------------------------------------------------------------------------------


@pytest.fixture
def command(built, tiny_file, tmp_path, small_llama):
    """Start the command line; give the process."""

    def start(*overrides):
        words = [sys.executable, "-m", "augesc_builder", "generate", built / "queries", "--quiet"]
        words += ["--checkpoint", small_llama, "--recipe", tiny_file, "--out", tmp_path / "out"]
        for override in overrides:
            words += ["--set", override]
        return subprocess.Popen([*map(str, words)], stderr=subprocess.PIPE, text=True)

    return start


def worker_of(process: subprocess.Popen[str]) -> int | None:
    """Give the process in which vLLM is, once there is one."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    for pid in map(int, children.read_text().split() if children.exists() else ()):
        line = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if len(line) > 4 and line[2].endswith(b"worker.py"):  # with a channel: not the first look
            return pid
    return None


def is_alive(pid: int | None) -> bool:
    """Whether a process is at work; one that has ended may wait for somebody to look."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(process, condition, *about):
    while process.poll() is None:
        if (found := condition(*about)) is not None:
            return found
        time.sleep(0.02)
    return None


@slow
@pytest.mark.soak
@pytest.mark.parametrize("whose", ["vllm", "ours"])
def test_a_kill_costs_no_finished_shard(
    whose, command, generate, small_llama, vllm_python, tmp_path
):
    """By turns behind the next finished shard, and while the model is loaded."""
    settings = (*GREEDY, "generate.samples_per_query=8", "generate.shard_size=2")
    marks, moment = tmp_path / "out" / ".complete", random.Random(whose)

    def finished():
        return {path: path.stat().st_mtime_ns for path in marks.glob("generate-*.json")}

    for number in range(SOAK or 2):
        before = finished()
        with command(*VLLM, *settings) as process:
            worker = until(process, worker_of, process)
            if number % 2 == 0:
                until(process, lambda n: len(finished()) > n or None, len(before))
            time.sleep(moment.random())
            if process.poll() is None:
                os.kill(worker if whose == "vllm" else process.pid, signal.SIGKILL)
            _, said = process.communicate()
        if whose == "vllm" and process.returncode:
            assert process.returncode == 2
            assert "vLLM's process was killed (SIGKILL), most likely out of memory" in said
        while is_alive(worker):
            time.sleep(0.02)
        assert before.items() <= finished().items()
    before = finished()
    assert before
    # What no text depends on may be another then.
    theirs = generate(*VLLM, *settings, "generate.backend.max_num_seqs=5", checkpoint=small_llama)
    assert before.items() <= finished().items()
    assert theirs == generate(*OURS, *settings, out="ours", checkpoint=small_llama)


# -- a server -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def serve(small_llama, tmp_path_factory):
    """Start the server of ``vllm serve``; give the process and its address."""
    folder, started = tmp_path_factory.mktemp("served"), []

    def start(python: str) -> Server:
        named = ("--served-model-name", "tuned", "--max-model-len", 288, "--max-num-seqs", 8)
        log = folder / f"{len(started)}.log"
        started.append(serve_with_vllm(python, small_llama, log, *named))
        return started[-1]

    yield start
    for process, _ in started:
        end(process)


@slow
def test_a_server_gives_the_same_rows_and_may_die_on_the_way(
    serve, generate, small_llama, vllm_python, monkeypatch, tmp_path
):
    ours = generate(*OURS, *GREEDY, out="ours", checkpoint=small_llama)
    process, address = serve(vllm_python)
    asked = ("generate.backend.type=vllm", f"generate.backend.address={address}/v1", *GREEDY)
    assert generate(*asked, out="theirs", checkpoint=small_llama) == ours
    with pytest.raises(EndpointError, match=r"serves 'tuned', not 'other'; set generate.backend.m"):
        generate(*asked, "generate.backend.model=other", checkpoint=small_llama)
    with pytest.raises(EndpointError, match=r"has room for 288 tokens a row, and generate.max_tok"):
        generate(*asked, "generate.max_tokens=320", checkpoint=small_llama)

    monkeypatch.setattr(server, "_TRIES", 2)
    many = ("generate.samples_per_query=8", "generate.shard_size=2")
    marks = tmp_path / "out" / ".complete"

    def kill():
        while not list(marks.glob("generate-*")):
            time.sleep(0.02)
        end(process)

    killing = threading.Thread(target=kill)
    killing.start()
    with pytest.raises(EndpointError, match="2 times; the same command resumes"):
        generate(*asked, *many, checkpoint=small_llama)
    killing.join()
    before = {path: path.stat().st_mtime_ns for path in marks.glob("generate-*")}
    assert before
    _, address = serve(vllm_python)
    asked = ("generate.backend.type=vllm", f"generate.backend.address={address}", *GREEDY)
    theirs = generate(*asked, *many, checkpoint=small_llama)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert theirs == generate(*OURS, *GREEDY, *many, out="all", checkpoint=small_llama)


class Scripted(BaseHTTPRequestHandler):
    """Answers completions as a script says, and then well."""

    script: ClassVar[list[tuple[int, bytes]]] = []
    asked: ClassVar[list[dict]] = []
    delay: ClassVar[float] = 0
    models: ClassVar[dict] = {"data": [{"id": "tuned", "max_model_len": 4096}]}

    def do_GET(self):
        found = {"/v1/models": self.models, "/version": {"version": "0.32.0"}}[self.path]
        self.answer(200, json.dumps(found).encode())

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append({**body, "key": self.headers["Authorization"]})
        time.sleep(self.delay)
        row = {"choices": [{"token_ids": self.made(body), "finish_reason": "stop"}]}
        self.answer(*(self.script.pop(0) if self.script else (200, json.dumps(row).encode())))

    def made(self, body):
        return [7, 8, 0]

    def answer(self, status, body):
        if status == 0:
            self.connection.close()
            return
        self.send_response(status)
        self.send_header("Retry-After", "0")
        self.send_header("Content-Length", str(len(body) + (status == 206)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def scripted(monkeypatch):
    """Give an engine of a server that answers by a script."""
    monkeypatch.setattr(server, "_pause", lambda number, error: 0)

    def engine(*script, models=None):
        Scripted.script, Scripted.asked = [*script], []
        Scripted.models = (
            {"data": [{"id": "tuned", "max_model_len": 4096}]} if models is None else models
        )
        httpd = ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
        started.append(httpd)
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        return VllmServer(f"http://127.0.0.1:{httpd.server_port}", None, 1, Sampling(64), 0)

    started: list[ThreadingHTTPServer] = []
    yield engine
    for httpd in started:
        httpd.shutdown()
        httpd.server_close()


@pytest.mark.slow
def test_a_run_at_an_address_that_is_killed_asks_for_no_finished_shard_again(
    scripted, command, generate, small_llama, tmp_path, monkeypatch
):
    """The server is a stub, so that this needs no vLLM; with one, the slow tests kill."""
    with scripted() as engine:
        address = engine.address
    monkeypatch.setattr(Scripted, "delay", 0.02)
    monkeypatch.setattr(Scripted, "made", lambda _, body: [body["seed"] % 300 + 5])
    asked = (
        *("generate.backend.type=vllm", f"generate.backend.address={address}"),
        *("generate.samples_per_query=4", "generate.shard_size=2"),
        "generate.backend.max_num_seqs=2",
    )
    whole = generate(*asked, out="whole", checkpoint=small_llama)
    assert len({row["text"] for row in whole}) > len(whole) / 2
    marks = tmp_path / "out" / ".complete"

    def finished():
        return {path: path.stat().st_mtime_ns for path in marks.glob("generate-*")}

    with command(*asked) as process:
        until(process, lambda: finished() or None)
        time.sleep(random.Random(5).random() / 5)
        process.kill()
    done = finished()
    assert process.returncode == -signal.SIGKILL
    assert 0 < len(done) < len(whole) / 2
    Scripted.asked.clear()
    assert generate(*asked, checkpoint=small_llama) == whole
    assert len(Scripted.asked) == len(whole) - 2 * len(done)
    assert done.items() <= finished().items()


def rows(engine, n=3):
    return run_engine(engine, [Prompt((5, 6), 2**100 + i) for i in range(n)], lambda *_: None)


@pytest.mark.parametrize(
    "fault",
    [(429, b"slowly"), (500, b"{}"), (503, b""), (0, b""), (200, b"{no json"), (206, b"{}")],
    ids=["429", "500", "503", "closed", "malformed", "cut"],
)
def test_what_fails_for_the_moment_is_asked_for_again(scripted, fault):
    with scripted(fault, fault) as engine:
        found = rows(engine)
    assert [(row.token_ids, row.finish_reason) for row in found] == [((7, 8), "eos")] * 3
    asked = Scripted.asked
    assert [body["seed"] for body in asked] == [0, 0, 0, 1, 2]
    assert all(body["prompt"] == [5, 6] and body["max_tokens"] == 62 for body in asked)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ((401, b'{"error": {"message": "Unauthorized"}}'), "status 401: Unauthorized"),
        ((404, b"nothing here"), "status 404: nothing here"),
        ((200, b'{"choices": [{"text": "Hi"}]}'), "expected an answer of vLLM with token_ids"),
        ((200, b'{"choices": []}'), "expected an answer of vLLM with token_ids"),
        ((200, b"[]"), "expected an answer of vLLM with choices"),
        (
            (200, b'{"choices": [{"token_ids": [1], "finish_reason": "abort"}]}'),
            "a row ended by 'abort'",
        ),
        (
            (200, b'{"choices": [{"token_ids": [-1], "finish_reason": "stop"}]}'),
            "a row ended by 'stop'",
        ),
    ],
)
def test_what_will_not_mend_is_told_at_once(scripted, fault, said):
    with scripted(fault) as engine, pytest.raises(EndpointError, match=said):
        rows(engine)
    assert len(Scripted.asked) == 1


def test_a_server_that_stays_away_is_given_up(scripted):
    with (
        scripted(*[(500, b"out of order")] * 9) as engine,
        pytest.raises(EndpointError, match="status 500: out of order, 7 times"),
    ):
        rows(engine)
    assert len(Scripted.asked) == 7


@pytest.mark.parametrize("models", [{"data": []}, {"data": [{}, 1]}, {}, []])
def test_a_server_without_a_model_is_refused(scripted, models):
    with pytest.raises(
        EndpointError, match=r"serves no model|expected an answer of vLLM with data"
    ):
        scripted(models=models)


def test_the_key_comes_from_the_environment(scripted, monkeypatch):
    monkeypatch.setenv(server.KEY, "secret")
    with scripted((401, b"no")) as engine, pytest.raises(EndpointError) as told:
        rows(engine)
    assert Scripted.asked[0]["key"] == "Bearer secret"
    assert "secret" not in str(told.value)


def test_pauses_grow_and_heed_the_server():
    def told(seconds):
        headers = Message()
        headers["Retry-After"] = seconds
        return urllib.error.HTTPError("http://h", 429, "", headers, None)

    assert 0.7 <= server._pause(1, OSError()) <= 1.3
    assert 11 < server._pause(5, OSError()) < 21
    assert server._pause(1, told("17")) == 17
    assert server._pause(9, OSError()) == server._pause(1, told("99999")) == 60
    assert server._pause(1, told("Wed, 21 Oct 2026 07:28:00 GMT")) < 2


def test_several_workers_load_once_each_and_do_as_the_first_chose(scripted, small_llama, tmp_path):
    with scripted() as engine:
        address = engine.address
    sets = ["generate.backend.type=vllm", f"generate.backend.address={address}"]
    recipe = load_recipe("tiny", [*sets, "executor.type=slurm", "generate.max_tokens=256"])
    backend = VllmBackend(recipe, small_llama, tmp_path)
    facts = backend.prepare({}, 4, 2)
    first = backend._engine
    assert backend.prepare(facts, 4, 2) == facts
    assert backend._engine is first
    assert backend.kind()["name"] == f"vLLM {facts['vllm']}"
    backend.prepare({**facts, "dtype": "another"}, 4, 2)
    assert (second := backend._engine) is not first
    backend.close()
    backend.prepare(facts, 4, 2)
    assert backend._engine is not second
    backend.close()
    backend.close()
