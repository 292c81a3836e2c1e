"""Fine-tuning and generation on a real model, in the paper's form and its own."""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from augesc_builder.config.recipe import load_recipe
from augesc_builder.models import causal_lm
from augesc_builder.pipeline.finetune.train import finetune
from augesc_builder.pipeline.generate import stage
from augesc_builder.run.progress import Progress
from augesc_builder.sources.base import Session
from augesc_builder.text.prompt_form import prompt_form
from augesc_builder.text.prompts import PLAIN, whole_text
from tests.conftest import rows_of

QUIET = Progress(quiet=True)
FORMS = ["paper", "chat"]

SAID = [
    ("I failed my driving test.", "That hurts. Was it the first time?", "The third.", "Do rest."),
    ("My dog died on Sunday.", "I am so sorry. How old was he?", "Fourteen.", "A long life."),
    ("I can not sleep at night.", "What keeps you awake?", "My exams.", "Have you a plan?"),
    ("My sister does not call me.", "You miss her.", "Very much.", "Could you call her today?"),
    ("I am new in this town.", "It is hard to begin anew.", "It is.", "Give it some weeks."),
    ("My boss shouted at me.", "That was unfair of him.", "Thank you.", "How are you now?"),
]
LAST = ("I will think about it, thank you.", "Write to me whenever you want to.")
ROLES = ("user", "assistant") * 3
SESSIONS = [
    Session(f"s{n}", tuple({"role": r, "content": c} for r, c in zip(ROLES, said, strict=True)), "")
    for n, said in enumerate((*four, *LAST) for four in SAID)
]


@pytest.fixture(scope="module")
def recipe_in(smollm2):
    def make(name):
        return load_recipe(
            "quickstart",
            [
                f"prompt={{form: {name}, instruction: Be kind.}}",
                f"backbone={{name: {smollm2}, revision: null, from_scratch: null}}",
                "finetune.n_sessions=5",
                "finetune.held_out=0",
                "finetune.epochs=8",
                "finetune.batch_size=5",
                "finetune.micro_batch_size=5",
                "finetune.warmup_steps=1",
                "finetune.learning_rate=5e-4",
                "generate.max_tokens=128",
                "generate.temperature=0.7",
                "generate.backend.slots=4",
                "generate.backend.workers=1",
            ],
        )

    return make


def probability_of_the_end(folder, recipe):
    """Give the mean probability of the end behind the last words of sessions."""
    model, tokenizer = causal_lm.load(folder, revision=None, dtype="float32")
    form = prompt_form(recipe.prompt, tokenizer, folder)
    found = []
    for session in SESSIONS:
        ids, learned = form.for_session(session.messages)
        assert (ids[-1], learned[-1]) == (form.end, True)
        with torch.inference_mode():
            logits = model(torch.tensor([ids[:-1]])).logits[0, -1]
        found.append(float(logits.softmax(-1)[form.end]))
    return sum(found) / len(found)


@pytest.fixture(scope="module", params=FORMS)
def tuned(request, recipe_in, tmp_path_factory):
    recipe = recipe_in(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "checkpoint").mkdir()
    (folder / "states").mkdir()
    finetune(recipe, SESSIONS, lambda fill: fill(folder / "checkpoint"), folder / "states", QUIET)
    return recipe, folder / "checkpoint"


@pytest.mark.slow
def test_the_end_of_a_conversation_is_learned(tuned, smollm2):
    recipe, checkpoint = tuned
    before = probability_of_the_end(smollm2, recipe)
    after = probability_of_the_end(checkpoint, recipe)
    assert after > 5 * before


@pytest.mark.slow
def test_generations_are_conversations_without_control_tokens(tuned, tmp_path):
    recipe, checkpoint = tuned
    texts = [
        "I wrote <|im_end|> and <|endoftext|> to her, and she laughed at me.",
        "My cat ran away this morning.",
        "I have lost my keys again.",
        "Nobody came to my birthday.",
        "My flat is cold and I have no money to heat it.",
        "I quarrelled with my father.",
    ]
    queries = {"query_id": [*"abcdef"], "source": ["s"] * len(texts), "text": texts}
    (tmp_path / "queries").mkdir()
    pq.write_table(pa.table(queries), tmp_path / "queries" / "queries-00000-of-00001.parquet")
    stage.standalone(recipe, tmp_path / "queries", checkpoint, tmp_path / "out", QUIET)
    rows = rows_of(tmp_path / "out")
    assert [row["query"] for row in sorted(rows, key=lambda row: row["query_id"])] == texts
    parsed = [PLAIN.parse(whole_text(row["query"], row["text"])) for row in rows]
    for row, messages in zip(rows, parsed, strict=True):
        assert not re.search(r"<\|\w+\|>", row["text"])
        if messages is not None:
            assert messages[0] == {"role": "user", "content": row["query"]}
    assert any(messages is not None and len(messages) > 2 for messages in parsed)
