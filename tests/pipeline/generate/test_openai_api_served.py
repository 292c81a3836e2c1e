"""The backend ``openai_api`` against ``transformers serve`` with the real small model."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from augesc_builder.config.recipe import load_recipe
from augesc_builder.errors import EndpointError
from augesc_builder.models.token_counter import load_counter
from augesc_builder.pipeline.generate import stage
from augesc_builder.run.progress import Progress
from augesc_builder.text.prompts import PromptTemplate
from tests.conftest import rows_of
from tests.pipeline.generate.test_openai_api import write_queries

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served(smollm2, tmp_path_factory):
    """The address of a server of the real model, in a process of its own."""
    for package in ("openai", "fastapi", "uvicorn"):
        pytest.importorskip(package, reason="pip install 'transformers[serving]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = shutil.which("transformers", path=str(Path(sys.executable).parent))
    assert program is not None
    log = tmp_path_factory.mktemp("served") / "log.txt"
    command = [program, "serve", str(smollm2), "--host", "127.0.0.1", "--port", str(port)]
    with log.open("w") as out:
        server = subprocess.Popen(
            [*command, "--device", "cpu"],
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
    try:
        deadline = time.monotonic() + 600
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=5).close()
                break
            except urllib.error.HTTPError:  # without a cache of the Hub it lists no models
                break
            except OSError:
                assert server.poll() is None, log.read_text()[-2000:]
                assert time.monotonic() < deadline, log.read_text()[-2000:]
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(60)


def recipe_for(served: str, model: Path, *overrides: str):
    return load_recipe(
        "paper-gpt3",
        [
            f"generate.backend.base_url={served}",
            f"generate.backend.model={model}",
            "generate.backend.concurrency=2",
            "generate.backend.max_new_tokens=24",
            *overrides,
        ],
    )


def test_completions_of_the_real_model(served, smollm2, tmp_path):
    queries, out = write_queries(tmp_path / "q.parquet", 3), tmp_path / "out"
    recipe = recipe_for(served, smollm2)
    stage.standalone(recipe, queries, None, out, Progress(quiet=True))
    rows = rows_of(out)
    assert {row["finish_reason"] for row in rows} <= {"length", "eos"}
    assert all(row["text"].strip() for row in rows)
    counter = load_counter(smollm2)
    template = PromptTemplate(recipe.prompt.instruction)
    lines = [json.loads(line) for line in (out / "requests.jsonl").read_text().splitlines()]
    answered = {line["query_id"]: line for line in lines if line["event"] == "answered"}
    for row in rows:
        line = answered[row["query_id"]]
        (n,) = counter.count([template.for_query(row["query"])])
        assert line["prompt_tokens"] == n
        assert line["counted"]
        assert 1 <= line["completion_tokens"] <= 24
    assert str(smollm2) not in json.dumps(rows)


def test_greedy_completions_are_those_of_the_model_itself(served, smollm2, tmp_path):
    from augesc_builder.models import causal_lm

    queries, out = write_queries(tmp_path / "q.parquet", 2), tmp_path / "out"
    recipe = recipe_for(served, smollm2, "generate.greedy=true", "generate.backend.send_seed=false")
    stage.standalone(recipe, queries, None, out, Progress(quiet=True))
    model, tokenizer = causal_lm.load(smollm2, revision=None, dtype="float32")
    for row in rows_of(out):
        prompt = PromptTemplate(recipe.prompt.instruction).for_query(row["query"])
        ids = tokenizer(prompt, return_tensors="pt")
        made = model.generate(**ids, max_new_tokens=24, do_sample=False)
        new = made[0, ids["input_ids"].shape[1] :]
        assert row["text"] == tokenizer.decode(new, skip_special_tokens=True)


@pytest.mark.parametrize("turns", ["null", "{max: 4, last_words: [bye], request: The next line.}"])
def test_chats_with_the_real_model(served, smollm2, tmp_path, turns):
    queries, out = write_queries(tmp_path / "q.parquet", 2), tmp_path / "out"
    recipe = recipe_for(
        served, smollm2, "generate.backend.mode=chat", f"generate.backend.turns={turns}"
    )
    stage.standalone(recipe, queries, None, out, Progress(quiet=True))
    rows = rows_of(out)
    assert len(rows) == 2
    known = {"eos", "length", "empty", "wrong_format"}
    assert {row["finish_reason"] for row in rows} <= known


def test_a_parameter_that_the_server_does_not_take_is_one_line(served, smollm2, tmp_path):
    queries = write_queries(tmp_path / "q.parquet", 2)
    recipe = recipe_for(served, smollm2, "generate.backend.extra_body={no_such_thing: 1}")
    with pytest.raises(EndpointError, match="no_such_thing"):
        stage.standalone(recipe, queries, None, tmp_path / "out", Progress(quiet=True))
