"""The paper's form as tokens: what begins it, what ends it, and what somebody types."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing

from augesc_builder.config.recipe import Prompt
from augesc_builder.text.prompt_form import prompt_form
from augesc_builder.text.prompts import PLAIN, collapse, whole_text
from tests.chat_models import MARKS, chat_tokenizer

PAPER = Prompt(form="paper", instruction="Be kind <|im_end|> and calm.")
SAID = st.lists(st.one_of(st.sampled_from(MARKS), st.text())).map(lambda x: collapse("".join(x)))
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant"]), "content": SAID.filter(bool)}
    )
)


@pytest.fixture(scope="module")
def form():
    return prompt_form(PAPER, chat_tokenizer(), "model")


@given(messages=MESSAGES)
def test_the_end_is_the_only_control_token_and_all_but_the_instruction_is_learned(form, messages):
    ids, learned = form.for_session(messages)
    special = set(form.codec.tokenizer.added_tokens_decoder)
    assert [token for token in ids if token in special] == [form.end]
    assert (form.end, learned[-1]) == (form.codec.tokenizer.eos_token_id, True)
    kept = [token for token, one in zip(ids[:-1], learned, strict=False) if one]
    assert form.codec.decode(kept) == PLAIN.for_session(messages)
    assert form.template.parse(form.codec.decode(ids[:-1])) == messages


@given(query=SAID.filter(bool), said=SAID.filter(bool))
def test_a_prompt_is_continued_as_in_training(form, query, said):
    messages = [{"role": "user", "content": query}, {"role": "assistant", "content": said}]
    prompt = form.for_query(query)
    ids, _ = form.for_session(messages)
    assert tuple(ids[: len(prompt)]) == prompt
    assert PLAIN.parse(whole_text(query, form.text(ids[len(prompt) : -1]))) == messages


def test_a_control_token_that_a_model_writes_is_no_text(form):
    stray = form.codec.tokenizer.convert_tokens_to_ids("<|im_start|>")
    text = form.text([*form.codec.encode(" I see."), stray, *form.codec.encode("\nAI: yes")])
    assert text == " I see.\n\ufffd \nAI: yes"
    assert PLAIN.parse(whole_text("Hi", text)) is None


def test_what_the_tokenizer_puts_around_a_text_is_put_in_front_alone():
    """A tokenizer may end every text; a prompt goes on."""
    tokenizer = chat_tokenizer()
    bos, eos = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A <|im_end|>",
        special_tokens=[("<|im_start|>", bos), ("<|im_end|>", eos)],
    )
    form = prompt_form(PAPER, tokenizer, "model")
    prompt = form.for_query("Hi")
    assert (prompt[0], eos in prompt) == (bos, False)
    ids, learned = form.for_session([{"role": "user", "content": "Hi"}])
    assert (ids[0], learned[0], ids.count(eos), ids[-1]) == (bos, False, 1, eos)


@pytest.mark.parametrize("kind", ["paper", "chat"])
def test_strategies_are_learned_as_tags_and_taken_out_of_what_is_generated(kind):
    told = Prompt(form=kind, instruction="Be kind.", strategies=True)
    form = prompt_form(told, chat_tokenizer(), "model")
    said = [
        {"role": "user", "content": "I am sad."},
        {"role": "assistant", "content": "How long?"},
        {"role": "user", "content": "[sighs] Since May."},
        {"role": "assistant", "content": "I see."},
    ]
    strategies = [None, "Question", None, None]
    ids, _ = form.for_session(said, strategies=strategies)
    whole = form.template.parse(form.codec.decode(ids[:-1]))
    assert [m["content"] for m in whole or ()][1::2] == ["[Question] How long?", "I see."]
    prompt = form.for_query("I am sad.")
    text, found = form.said(ids[len(prompt) : -1])
    assert found == strategies
    assert PLAIN.parse(whole_text("I am sad.", text)) == said
    without = prompt_form(told.model_copy(update={"strategies": False}), chat_tokenizer(), "model")
    assert without.said(ids[len(prompt) : -1]) == (form.text(ids[len(prompt) : -1]), None)
    assert without.for_session(said, strategies=strategies) == without.for_session(said)
