"""The backend ``openai_api`` against real servers with the real small model."""

from __future__ import annotations

import json
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
from tests.model_servers import end, serve_with_transformers, serve_with_vllm
from tests.pipeline.generate.conftest import find_vllm
from tests.pipeline.generate.test_openai_api import write_queries

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["transformers", "vllm"])
def served(request, smollm2, tmp_path_factory):
    """The address of a server of the real model, in processes of its own."""
    pytest.importorskip("openai", reason="the extra api")
    log = tmp_path_factory.mktemp("served") / "log.txt"
    if request.param == "vllm":
        options = ("--max-model-len", 1024, "--max-num-seqs", 4)
        process, address = serve_with_vllm(find_vllm(), smollm2, log, *options)
    else:
        for package in ("fastapi", "uvicorn"):
            pytest.importorskip(package, reason="pip install 'transformers[serving]'")
        process, address = serve_with_transformers(smollm2, log)
    yield f"{address}/v1"
    end(process)


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


@pytest.mark.parametrize("served", ["vllm"], indirect=True)
def test_the_ledger_is_what_the_server_counted(served, smollm2, tmp_path):
    before = counted_by_vllm(served)
    queries, out = write_queries(tmp_path / "q.parquet", 6), tmp_path / "out"
    stage.standalone(recipe_for(served, smollm2), queries, None, out, Progress(quiet=True))
    after = counted_by_vllm(served)
    facts = json.loads((out / "manifest.json").read_text())["stages"]["generate"]["requests"]
    ours = {name: facts[name] for name in ("answers", "prompt_tokens", "completion_tokens")}
    assert ours == {name: after[name] - before[name] for name in ours}
    assert ours["answers"] == 6
    assert facts["of_unknown_end"] == 0


def counted_by_vllm(served: str) -> dict[str, int]:
    """Give what vLLM counted since it began."""
    with urllib.request.urlopen(served.removesuffix("/v1") + "/metrics") as response:
        lines = response.read().decode().splitlines()
    named = {
        "answers": "vllm:request_success_total{",
        "prompt_tokens": "vllm:prompt_tokens_total{",
        "completion_tokens": "vllm:generation_tokens_total{",
    }
    return {
        name: sum(int(float(line.rpartition(" ")[2])) for line in lines if line.startswith(begin))
        for name, begin in named.items()
    }


@pytest.mark.parametrize("served", ["vllm"], indirect=True)
def test_a_model_that_the_server_has_not_is_one_line(served, smollm2, tmp_path):
    queries = write_queries(tmp_path / "q.parquet", 2)
    recipe = recipe_for(served, smollm2, "generate.backend.model=another")
    with pytest.raises(EndpointError, match=r"check generate\.backend\.model.* names .*smollm2"):
        stage.standalone(recipe, queries, None, tmp_path / "out", Progress(quiet=True))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("served", ["transformers"], indirect=True)  # vLLM takes any
def test_a_parameter_that_the_server_does_not_take_is_one_line(served, smollm2, tmp_path):
    queries = write_queries(tmp_path / "q.parquet", 2)
    recipe = recipe_for(served, smollm2, "generate.backend.extra_body={no_such_thing: 1}")
    with pytest.raises(EndpointError, match="no_such_thing"):
        stage.standalone(recipe, queries, None, tmp_path / "out", Progress(quiet=True))
