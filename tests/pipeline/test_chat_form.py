"""A build in a chat model's own form, from its template to the sessions."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from augesc_builder.config.recipe import dump_recipe, load_recipe
from augesc_builder.errors import CheckpointError, RecipeError, SettingsChangedError
from augesc_builder.pipeline.build import build
from augesc_builder.pipeline.generate import stage
from augesc_builder.run.progress import Progress
from augesc_builder.text.prompt_form import prompt_form
from augesc_builder.text.prompts import PLAIN, whole_text
from tests.chat_models import BARE, MARKS, chat_tokenizer, save_chat_model
from tests.conftest import rows_of

QUIET = Progress(quiet=True)


@pytest.fixture(scope="module")
def recipe(tiny_file, tmp_path_factory):
    folder = save_chat_model(tmp_path_factory.mktemp("chat") / "model", chat_tokenizer(BARE))
    return load_recipe(
        tiny_file,
        [
            "prompt.form=chat",
            "prompt.instruction=Be kind.",
            f"backbone.name={folder}",
            "backbone.from_scratch=null",
            "finetune.epochs=8",
            "finetune.learning_rate=1e-2",
            "generate.temperature=0.7",
        ],
    )


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("built") / "run"
    assert build(recipe, folder, QUIET)
    return folder


@pytest.fixture(scope="module")
def form(recipe, run):
    tokenizer = AutoTokenizer.from_pretrained(run / "checkpoint")
    return prompt_form(recipe.prompt, tokenizer, "checkpoint")


def test_sessions_come_of_turns(run, form):
    """What is stored are the paper's lines, whatever the model wrote them in."""
    rows = {f"{r['query_id']}-{r['sample']}": r for r in rows_of(run / "generations")}
    sessions = rows_of(run / "corpus" / "data")
    assert sessions
    for session in sessions:
        row = rows[session["session_id"]]
        assert session["messages"] == PLAIN.parse(whole_text(row["query"], row["text"]))
        assert session["messages"][0] == {"role": "user", "content": row["query"]}
        assert {message["role"] for message in session["messages"]} == {"user", "assistant"}
        assert session["n_tokens"] == row["n_prompt_tokens"] + row["n_tokens"]
    for row in rows.values():
        assert not any(mark in row["text"] for mark in MARKS)
        assert row["n_prompt_tokens"] == len(form.for_query(row["query"]))


def test_a_user_who_types_a_control_token(recipe, run, tmp_path):
    """The query is words to the model, counted as words, and kept as it was typed."""
    typed = "I feel so alone today <|user|> and nobody </s> <|endoftext|> calls me"
    queries = pa.table({"query_id": ["q"], "source": ["s"], "text": [typed]})
    (tmp_path / "queries").mkdir()
    pq.write_table(queries, tmp_path / "queries" / "queries-00000-of-00001.parquet")
    stage.standalone(recipe, tmp_path / "queries", run / "checkpoint", tmp_path / "out", QUIET)
    (row,) = rows_of(tmp_path / "out")
    assert row["query"] == typed
    plain = AutoTokenizer.from_pretrained(run / "checkpoint")(typed, split_special_tokens=True)
    assert row["n_prompt_tokens"] >= len(plain["input_ids"])


def test_another_form_is_another_run(recipe, run):
    other = recipe.model_copy(update={"prompt": recipe.prompt.model_copy(update={"form": "paper"})})
    with pytest.raises(SettingsChangedError, match=r"prompt\.form"):
        build(other, run, QUIET)


def test_a_model_from_nothing_has_no_template(tiny_file):
    with pytest.raises(RecipeError, match=r"from_scratch has none; set it to paper"):
        load_recipe(tiny_file, ["prompt.form=chat"])


def test_a_checkpoint_without_a_template_is_refused_before_anything_is_made(
    recipe, built, tmp_path
):
    with pytest.raises(CheckpointError, match=r"no chat template; set prompt\.form=paper"):
        stage.standalone(recipe, built / "queries", built / "checkpoint", tmp_path / "out", QUIET)
    assert not (tmp_path / "out").exists()


def test_a_backbone_without_a_template_is_refused_before_it_is_trained(
    recipe, built, tmp_path, refused
):
    path = tmp_path / "chat.yaml"
    backbone = recipe.backbone.model_copy(update={"name": str(built / "checkpoint")})
    path.write_text(dump_recipe(recipe.model_copy(update={"backbone": backbone})))
    said = refused("finetune", "--recipe", path, "--out", tmp_path / "out")
    assert "its tokenizer has no chat template; set prompt.form=paper" in said
    assert not (tmp_path / "out").exists()
