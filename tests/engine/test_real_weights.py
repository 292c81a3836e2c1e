"""The engine on a real model: against transformers, and a row in any company."""

from __future__ import annotations

import pytest
import torch

from augesc_builder.config.recipe import Prompt as PromptSettings
from augesc_builder.engine import Prompt, Sampling, generate
from augesc_builder.engine.continuous import ContinuousBatchingEngine
from augesc_builder.models import causal_lm
from augesc_builder.text.prompt_form import prompt_form

QUERIES = [
    "I lost my job today and I do not know how to tell my wife.",
    "My best friend moved to another city last week, and the flat is so quiet now.",
    "I failed the exam again, although I had studied for it every evening for two months.",
    "My mother is ill, and I lie awake at night.",
    "I shouted at my little brother this morning and I feel awful about it.",
    "Since we broke up I see her everywhere.",
    "Nobody at school talks to me, I eat my lunch alone behind the gym every single day.",
    "I have to give a talk on Friday.",
]


@pytest.fixture(
    scope="module", params=[pytest.param("float32", marks=pytest.mark.slow), "bfloat16"]
)
def loaded(request, smollm2):
    model, tokenizer = causal_lm.load(smollm2, revision=None, dtype=request.param)
    return model.eval(), tokenizer


def prompts_in(name, tokenizer, queries=QUERIES):
    settings = PromptSettings(form=name, instruction="Be kind and helpful.")
    form = prompt_form(settings, tokenizer, "smollm2")
    return form, [Prompt(form.for_query(query), 7919 * n) for n, query in enumerate(queries)]


@pytest.mark.parametrize("name", ["paper", "chat"])
@pytest.mark.parametrize("loaded", ["float32"], indirect=True)
def test_greedy_tokens_are_those_of_transformers(loaded, name):
    model, tokenizer = loaded
    form, prompts = prompts_in(name, tokenizer, QUERIES[:2])
    limit = max(len(prompt.token_ids) for prompt in prompts) + 12
    sampling = Sampling(max_tokens=limit, greedy=True, repetition_penalty=1.05)
    engine = ContinuousBatchingEngine(model, form.end, sampling, 2)
    results = generate(engine, prompts, lambda *_: None)
    for prompt, result in zip(prompts, results, strict=True):
        ids = torch.tensor([prompt.token_ids])
        theirs = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=limit - ids.shape[1],
            repetition_penalty=1.05,
            eos_token_id=form.end,
            pad_token_id=form.end,
        )[0, ids.shape[1] :].tolist()
        ours = [*result.token_ids, *[form.end] * (result.finish_reason == "eos")]
        assert ours == theirs
        assert len(ours) > 8


def test_a_row_is_the_same_in_any_company(loaded):
    """To the bit: alone, beside others, in other slots, and with the keys of a like prompt."""
    model, tokenizer = loaded
    form, prompts = prompts_in("chat", tokenizer)
    longest = max(len(prompt.token_ids) for prompt in prompts)
    sampling = Sampling(longest + 8, top_p=0.9, temperature=0.9, repetition_penalty=1.05)

    def rows(order):
        engine = ContinuousBatchingEngine(model, form.end, sampling, 8)
        made = generate(engine, [prompts[i] for i in order], lambda *_: None)
        return dict(zip(order, made, strict=True))

    all_of_them = rows(range(8))
    for order in ([0], [0, 5, 0], [7, 3, 5, 0, 6, 1, 4, 2]):
        assert rows(order) == {i: all_of_them[i] for i in order}
    assert len({result.token_ids for result in all_of_them.values()}) == len(prompts)
