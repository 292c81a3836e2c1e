"""Background first: two steps of the same model, each drawn from a stream of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from augesc_builder.config.recipe import load_recipe
from augesc_builder.engine import Continuation, Prompt, Sampling
from augesc_builder.engine import generate as run_engine
from augesc_builder.engine.continuous import ContinuousBatchingEngine
from augesc_builder.engine.sampling import stream_key
from augesc_builder.errors import InputError, RecipeError, SettingsChangedError
from augesc_builder.pipeline.generate.backgrounds import contradicts
from augesc_builder.pipeline.generate.conversations import conversation_rows
from augesc_builder.pipeline.generate.generator import generation_rows
from augesc_builder.pipeline.generate.tasks import Task, with_personas
from augesc_builder.sources.personas import read_personas
from augesc_builder.text.prompt_form import prompt_form
from tests.chat_models import chat_tokenizer, save_chat_model
from tests.conftest import rows_of

GROUNDED = ("prompt.background=true", "generate.background={max_tokens: 80, attempts: 2}")
TEXTS = ["I lost my job in May and I cannot sleep.", "My friend moved away.", "I failed an exam."]
TASKS = [
    Task({"query_id": f"q{i}", "source": "sample", "text": text}, sample, 0, 2 * i + sample)
    for i, text in enumerate(TEXTS)
    for sample in range(2)
]


@pytest.fixture(scope="module", params=["paper", "chat"])
def small(request, tiny_file, small_llama, tmp_path_factory):
    """Give a recipe, a model and a form whose backgrounds end."""
    folder = small_llama
    if request.param == "chat":
        folder = save_chat_model(tmp_path_factory.mktemp("chat") / "model", chat_tokenizer())
    recipe = load_recipe(
        tiny_file,
        [
            *GROUNDED,
            f"prompt.form={request.param}",
            "prompt.instruction=Be kind.",
            f"backbone.name={folder}",
            "backbone.from_scratch=null",
            "generate.max_tokens=200",
        ],
    )
    form = prompt_form(recipe.prompt, AutoTokenizer.from_pretrained(folder), folder)
    return recipe, AutoModelForCausalLM.from_pretrained(folder).eval(), form


def rows(small, tasks=TASKS, slots=4, clash=lambda *_: False, **changes):
    recipe, _, form = small
    background = recipe.generate.background.model_copy(update=changes)
    settings = recipe.generate.model_copy(update={"background": background})
    recipe = recipe.model_copy(update={"generate": settings})
    steps = []
    found = conversation_rows(
        engine_of(small, slots), form, recipe, tasks, lambda *n: steps.append(n), clash
    )
    made = {(task.query["query_id"], task.sample): row for task, row in found}
    assert sum(ended for ended, _ in steps) == len(made) == len(tasks)
    assert sum(n for _, n in steps) >= sum(
        row["n_tokens"] + row["n_background_tokens"] for row in made.values()
    )
    return made


def engine_of(small, slots=4):
    recipe, model, form = small
    sampling = Sampling(max_tokens=recipe.generate.max_tokens, temperature=2.0)
    return ContinuousBatchingEngine(model, form.end, sampling, slots)


def test_a_row_is_the_same_in_any_company_and_order(small):
    made = rows(small)
    assert any(row["background"] for row in made.values())
    assert len({row["background"] for row in made.values()}) > 2
    assert rows(small, TASKS[::-1], slots=1) == made
    assert rows(small, TASKS[3:], slots=16) == {
        key: row for i, (key, row) in enumerate(sorted(made.items())) if i >= 3
    }


def test_both_steps_are_continuations_drawn_from_streams_of_their_own(small):
    """Every row again, a prompt at a time, from what the table says of it."""
    recipe, _, form = small
    for (query_id, sample), row in rows(small).items():
        drawn = []
        for attempt in range(len(row["background_faults"]) + (row["background"] is not None)):
            ids = form.for_background(row["query"])
            key = stream_key(recipe.seed, query_id, sample, "background", attempt)
            prompt = Prompt(ids, key, len(ids) + 80, form.line_ends)
            drawn += run_engine(engine_of(small), [prompt], lambda *_: None)
        assert row["n_background_tokens"] == sum(len(one.token_ids) for one in drawn)
        if row["background"] is not None:
            assert form.background(drawn[-1].token_ids) == row["background"]
        else:
            assert len(row["background_faults"]) == 2
        ids = form.for_query(row["query"], row["background"])
        (whole,) = run_engine(
            engine_of(small), [Prompt(ids, stream_key(13, query_id, sample))], lambda *_: None
        )
        assert form.text(whole.token_ids) == row["text"]
        assert row["n_prompt_tokens"] == len(ids)
        assert row["n_tokens"] == len(whole.token_ids)


def test_a_background_that_contradicts_the_query_is_drawn_again(small):
    first = rows(small, attempts=1)
    known = {row["background"] for row in first.values() if row["background"]}
    again = rows(small, clash=lambda _, background: background in known, attempts=5)
    for key, row in again.items():
        assert row["background"] not in known
        if first[key]["background"] is not None:
            assert row["background_faults"][0] == "contradiction"
            assert row["n_background_tokens"] > first[key]["n_background_tokens"]
        else:
            assert row["background_faults"][0] == first[key]["background_faults"][0]


def test_without_a_fit_background_a_conversation_is_what_it_is_without_backgrounds(small):
    recipe, _, form = small
    plain = generation_rows(engine_of(small), form, recipe.seed, TASKS, lambda *_: None)
    without = {(task.query["query_id"], task.sample): row for task, row in plain}
    made = rows(small, clash=lambda *_: True, attempts=3)
    for key, row in made.items():
        assert row.pop("background") is None
        assert row.pop("persona") is None
        assert len(row.pop("background_faults")) == 3
        assert row.pop("n_background_tokens") > 0
        assert row == without[key]


def test_a_query_that_leaves_no_room_ends_as_it_does_without_backgrounds(small):
    long = Task({"query_id": "long", "source": "sample", "text": "so sad, " * 300 + "so"}, 0, 0, 0)
    made = rows(small, [*TASKS[:1], long])
    assert made["long", 0]["finish_reason"] == "prompt_too_long"
    assert (made["long", 0]["background"], made["long", 0]["background_faults"]) == (None, [])
    assert made["q0", 0] == rows(small, TASKS[:1])["q0", 0]
    assert rows(small, [long]).keys() == {("long", 0)}


@pytest.mark.parametrize(
    ("query", "background", "clashes"),
    [
        ("My dog is 14 and he is ill.", "My dog is 13 years old.", True),
        ("My dog is 14 and he is ill.", "My dog is 14 years old and I am alone with him.", False),
        ("I lost my job.", "I was a cook for ten years.", False),
    ],
)
def test_what_contradicts_a_query(query, background, clashes):
    assert contradicts(query, background) == clashes


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ("I was let go after ten years.", None),
        ("\n", "empty"),
        ("I was let go after ten", "unfinished"),
        ("I LOST my job and cannot sleep.", "copy"),
        ("I lost my job and cannot breathe.", None),
        ("Human: I was let go.", "role_word"),
        ("I was let go. AI: Oh.", "role_word"),
        ("I never lost my job in May.", "contradiction"),
    ],
)
def test_why_a_background_is_drawn_again(small, said, fault):
    """By what an engine that says the same to every prompt gets written down."""
    recipe, _, form = small

    class Says:
        def stream(self, prompts, on_step):
            ids = tuple(form.codec.encode(f" {said}"))
            reason = "length" if fault == "unfinished" else "eos"
            for number, _ in enumerate(prompts):
                yield number, Continuation(ids, reason)

    def clash(query, background):
        return "never" in background

    ((_, row),) = conversation_rows(Says(), form, recipe, TASKS[:1], lambda *_: None, clash)
    assert row["background_faults"] == ([] if fault is None else [fault] * 2)
    assert row["background"] == (said if fault is None else None)


@pytest.fixture(scope="module")
def grounded(built, tiny_file, tmp_path_factory):
    """Give the rows of the stage alone, with the tiny build's checkpoint."""
    from augesc_builder.pipeline.generate import stage
    from augesc_builder.run.progress import Progress

    out = tmp_path_factory.mktemp("grounded") / "out"
    recipe = load_recipe(tiny_file, GROUNDED)
    stage.standalone(recipe, built / "queries", built / "checkpoint", out, Progress(quiet=True))
    return rows_of(out)


def test_the_table_of_the_stage(grounded, built):
    assert any(row["background"] for row in grounded)
    faults = [fault for row in grounded for fault in row["background_faults"]]
    assert set(faults) <= {"empty", "unfinished", "role_word", "copy", "contradiction"}
    plain = rows_of(built / "generations")
    for row in plain:
        assert row["background"] is row["background_faults"] is row["n_background_tokens"] is None
    assert {row["query_id"] for row in grounded} == {row["query_id"] for row in plain}


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(
            ["generate.backend.workers=2", "generate.shard_size=5"], marks=pytest.mark.slow
        ),
        ["generate.backend.engine=static"],
        ["generate.backend.slots=2"],
    ],
)
def test_neither_processes_nor_the_engine_nor_slots_change_a_row(grounded, generate, how):
    assert generate(*GROUNDED, *how) == grounded


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_rows(grounded, generate, built, tiny_file, tmp_path):
    overrides = [*GROUNDED, "generate.shard_size=1", "generate.backend.slots=2"]
    command = [sys.executable, "-m", "augesc_builder", "generate", built / "queries", "--quiet"]
    command += ["--checkpoint", built / "checkpoint", "--recipe", tiny_file]
    command += ["--out", tmp_path / "out"]
    for override in overrides:
        command += ["--set", override]
    marks = tmp_path / "out" / ".complete"
    process = subprocess.Popen([*map(str, command)], start_new_session=True)
    try:
        while process.poll() is None and len(list(marks.glob("generate-*"))) < 2:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.wait()
    assert list(marks.glob("generate-*"))
    assert generate(*overrides) == grounded


@pytest.mark.parametrize("backend", ["openai_api", "self_chat", "vllm"])
def test_other_backends_refuse_backgrounds(backend):
    recipe = {"openai_api": "paper-gpt3", "self_chat": "paper-blender", "vllm": "paper"}[backend]
    chosen = [f"generate.backend.type={backend}"] if backend == "vllm" else []
    assert load_recipe(recipe, chosen).generate.backend.type == backend
    with pytest.raises(RecipeError, match=rf"prompt\.background .* the backend {backend} cannot"):
        load_recipe(recipe, [*chosen, "prompt.background=true"])


def test_a_persona_of_its_row_begins_each_background(small):
    bank = [f"I am a nurse of {age}." for age in range(20, 60)]
    some = with_personas(TASKS, bank, seed=13)
    assert some == with_personas(TASKS[::-1], bank, seed=13)[::-1]
    assert len({task.persona for task in some}) > 2
    made = rows(small, some)
    assert rows(small, some[::-1], slots=1) == made
    assert any(row["background"] for row in made.values())
    for task in some:
        row = made[task.query["query_id"], task.sample]
        assert row["persona"] == task.persona
        assert row["background"] is None or row["background"].startswith(f"{task.persona} ")


@pytest.fixture
def bank(tmp_path):
    path = tmp_path / "personas.txt"
    path.write_text("I am a nurse.\n\n  I drive   a bus. \n", encoding="utf-8")
    return path


def test_a_bank_is_drawn_from_and_known_by_its_bytes(generate, bank):
    overrides = [*GROUNDED, f"prompt.personas={bank}"]
    made = generate(*overrides)
    assert {row["persona"] for row in made} == {"I am a nurse.", "I drive a bus."}
    bank.write_text("I am a cook.\n")
    with pytest.raises(SettingsChangedError, match=r"prompt\.personas"):
        generate(*overrides)


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_banks_of_rows(tmp_path, suffix):
    told = [{"persona": "I am a nurse."}, {"persona": "I drive\n a bus."}]
    path = tmp_path / f"bank.{suffix}"
    if suffix == "jsonl":
        lists = [{"persona": ["I am a cook.", "I live alone."]}]
        path.write_text("".join(json.dumps(row) + "\n" for row in [*told, *lists]))
        assert read_personas(str(path))[2:] == ["I am a cook. I live alone."]
    else:
        pq.write_table(pa.Table.from_pylist(told), path)
    assert read_personas(str(path))[:2] == ["I am a nurse.", "I drive a bus."]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.txt", b"\n \n", "no persona there; expected one a line"),
        ("a.txt", b"I am a cook.\n\xe9\n", "line 2: not UTF-8 text"),
        ("a.jsonl", b'{"text": "x"}\n', "line 1: expected a text .* as persona, found"),
        ("a.jsonl", b'{"persona": [3]}\n', "line 1: expected a text"),
        ("a.jsonl", b'{"persona": []}\n', "line 1: expected a text"),
    ],
)
def test_what_is_no_bank(tmp_path, name, text, says):
    (tmp_path / name).write_bytes(text)
    with pytest.raises(InputError, match=says):
        read_personas(str(tmp_path / name))
    with pytest.raises(InputError, match="no such file"):
        read_personas(str(tmp_path / "nothing.txt"))


def test_a_bank_needs_backgrounds_and_on_the_hub_a_commit():
    commit = "0123456789" * 4
    address = f"prompt.personas=hf://datasets/someone/personas@{commit}"
    found = load_recipe("paper-grounded", [address])
    assert found.prompt.personas == f"hf://datasets/someone/personas@{commit}"
    with pytest.raises(RecipeError, match="personas begin backgrounds"):
        load_recipe("paper", [address])
    for wrong in (address.replace(commit, "main"), address.partition("@")[0], "https://x/y"):
        with pytest.raises(RecipeError, match="with a commit of 40 hex digits"):
            load_recipe(
                "paper-grounded", [f"prompt.personas={wrong.removeprefix('prompt.personas=')}"]
            )
