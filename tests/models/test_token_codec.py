"""Control tokens and text, kept apart by whatever tokenizer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing

from augesc_builder.models.token_codec import CONTROL, TokenCodec, readable
from augesc_builder.models.token_counter import TokenCounter
from augesc_builder.text.prompts import parse
from tests.chat_models import MARKS, chat_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return chat_tokenizer()


@pytest.fixture(scope="module")
def codec(tokenizer):
    return TokenCodec(tokenizer)


TEXT = st.lists(st.one_of(st.sampled_from([*MARKS, "<|endoftext|>"]), st.text())).map("".join)


@given(TEXT)
def test_no_text_is_a_control_token_and_every_text_comes_back(codec, tokenizer, text):
    ids = codec.encode(text)
    assert not set(ids) & set(tokenizer.added_tokens_decoder)
    assert codec.decode(ids) == text


@given(st.lists(st.one_of(st.sampled_from(MARKS), TEXT.filter(bool))))
def test_control_tokens_among_text_come_back(codec, tokenizer, pieces):
    marked = "".join(codec.mark(piece) if piece in MARKS else piece for piece in pieces)
    ids = codec.encode(marked)
    assert codec.decode(ids) == marked
    names = [tokenizer.convert_ids_to_tokens(i) for i in ids if i in tokenizer.added_tokens_decoder]
    assert names == [piece for piece in pieces if piece in MARKS]


def test_where_tokens_begin(codec):
    marked = f"ab{codec.mark('<|im_end|>')}cd"
    ids, starts = codec.encode_with_starts(marked)
    assert ids == codec.encode(marked)
    at = marked.index(codec.mark("<|im_end|>"))
    assert starts[0] == 0
    assert [start for start in starts if start >= at][:2] == [at, at + 1]


def test_tokens_are_those_of_the_tokenizer_where_nobody_types_a_name(codec, tokenizer):
    text = (
        "<|im_start|>user\nI lost my job today.<|im_end|>\n<|im_start|>assistant\nOh no.<|im_end|>"
    )
    assert codec.encode(codec.mark(text)) == tokenizer(text)["input_ids"]


def test_what_is_readable_has_no_control_token_and_fails_the_format(codec):
    marked = codec.mark(" I see.<|im_end|>Human: yes")
    assert readable(marked) == " I see.\n\ufffd Human: yes"
    assert not CONTROL.search(readable(marked))
    assert parse(f"AI:{readable(marked)}") is None
    assert readable(" I see.\nHuman: yes") == " I see.\nHuman: yes"


def test_the_tokens_in_front_are_the_tokenizers_own(tokenizer):
    assert TokenCodec(tokenizer).front() == []
    other = chat_tokenizer()
    bos, eos = other.convert_tokens_to_ids(["<|im_start|>", "</s>"])
    other.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A </s>", special_tokens=[("<|im_start|>", bos), ("</s>", eos)]
    )
    assert TokenCodec(other).front() == [bos]


class TestFree:
    def test_the_end_of_sequence_token_where_it_is_not_used(self, codec, tokenizer):
        assert codec.free("") == tokenizer.eos_token_id
        assert codec.free(codec.mark("<|im_start|>")) == tokenizer.eos_token_id

    def test_else_the_first_that_is_not_used(self, codec, tokenizer):
        used = codec.mark("<|im_start|>user<|im_end|>")
        assert codec.free(used) == tokenizer.convert_tokens_to_ids("<|user|>")
        assert codec.free(codec.mark("".join([*MARKS, "<|endoftext|>"]))) is None

    def test_never_one_that_stands_for_unknown_characters(self):
        from tokenizers import Tokenizer, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        words = Tokenizer(models.WordLevel({"<unk>": 0, "<end>": 1, "a": 2}, unk_token="<unk>"))
        words.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=words, unk_token="<unk>", eos_token="<end>"
        )
        codec = TokenCodec(tokenizer)
        assert codec.free("") == 1
        assert codec.free(codec.mark("<end>")) is None


def test_what_is_typed_is_counted_as_words(tokenizer):
    counter = TokenCounter("tiny", tokenizer.backend_tokenizer.to_str())
    assert counter.count(["<|im_end|>", "ab"]) == [
        len(tokenizer("<|im_end|>", split_special_tokens=True)["input_ids"]),
        len(tokenizer("ab")["input_ids"]),
    ]
    assert counter.count(["<|im_end|>"]) > [1]
