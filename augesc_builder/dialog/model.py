"""A trained dialog model: how likely it finds responses, and what it says itself."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils.memory import should_reduce_batch_size
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from augesc_builder.config.training import Examples, Role, load_config
from augesc_builder.dialog.encoding import PLAIN_TEMPLATE, Encoder, summed_loss
from augesc_builder.dialog.examples import Pair
from augesc_builder.dialog.folder import find_model, read_facts
from augesc_builder.engine import Sampling
from augesc_builder.engine.sampling import sample_tokens, stream_key, uniforms
from augesc_builder.errors import CheckpointError
from augesc_builder.models.dialog import load, position_limit
from augesc_builder.text.prompts import Message, collapse
from augesc_builder.text.words import tokenize


@dataclass(frozen=True)
class Decoding:
    """How responses are made: greedily or by beams, or (with ``top_p``) sampled."""

    max_tokens: int = 64
    beams: int = 1
    top_p: float | None = None
    temperature: float = 1.0
    no_repeat_ngram: int = 0
    seed: int = 13
    batch_size: int = 32


@dataclass(frozen=True)
class Likelihood:
    """How likely a response is: nats, and the tokens and words that they are spread over."""

    nats: float
    n_tokens: int
    n_words: float


class DialogModel:
    """An encoder-decoder or a causal LM with the settings it was trained with, on its device.

    ``name`` is a training's folder, a model's, or a name on the Hub. ``role`` is the role of a
    model that was trained elsewhere. Raises :class:`~augesc_builder.errors.CheckpointError` where
    it cannot be loaded.
    """

    def __init__(
        self,
        name: str,
        revision: str | None = None,
        *,
        dtype: str = "float32",
        role: Role = "supporter",
    ) -> None:
        path = find_model(name)
        self.name = name
        self.model, self.tokenizer = load(path, revision, dtype=dtype)
        self.facts = read_facts(path)
        elsewhere = load_config("esconv", [f"examples.role={role}"])
        config = self.facts["config"] if self.facts else elsewhere.settings()
        self.examples = Examples.model_validate(config["examples"])
        if config["model"]["chat_template"] == "plain" and not self.tokenizer.chat_template:
            self.tokenizer.chat_template = PLAIN_TEMPLATE
        limit = position_limit(self.model, self.tokenizer)
        if self.model.config.is_encoder_decoder and limit:  # judge responses whole, if possible
            self.examples = self.examples.model_copy(update={"max_target_tokens": limit})
        self.encoder = Encoder(self.model, self.tokenizer, self.examples)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model.to(self.device).eval()
        self._is_spaced = not self.tokenizer.is_fast  # Blenderbot-small's writes "i ' m here ."

    def check_supports(self) -> None:
        """Refuse a model that was trained as a seeker, for talking to it.

        Raises :class:`~augesc_builder.errors.CheckpointError`.
        """
        if self.examples.role == "seeker":
            raise CheckpointError(
                f"{self.name} was trained on the seekers' utterances (examples.role: seeker), and "
                f"supports nobody; give a model of examples.role=supporter"
            )

    @property
    def config_name(self) -> str | None:
        """Return the name of the config that the model was trained by, where that is known."""
        name = self.facts["config"].get("name") if self.facts else None
        return name if isinstance(name, str) else None

    @property
    def left_out(self) -> list[str]:
        """Return the problem types that the model was trained without, where that is known."""
        return list(self.facts["config"]["data"]["leave_out"]) if self.facts else []

    @torch.inference_mode()
    def likelihoods(
        self, pairs: Sequence[Pair], batch_size: int, on_done: Callable[[int], None]
    ) -> list[Likelihood]:
        """Return the likelihood of the response of each example, in order."""
        examples = [self.encoder.encode(pair.history, pair.response) for pair in pairs]
        found: list[Likelihood | None] = [None] * len(pairs)

        def judge(numbers: Sequence[int]) -> None:
            batch = self.encoder.collate([examples[i] for i in numbers])
            losses = summed_loss(self.model, {k: v.to(self.device) for k, v in batch.items()})
            for i, loss in zip(numbers, losses.tolist(), strict=True):
                n_tokens, words = len(examples[i].target), len(tokenize(pairs[i].response))
                if examples[i].cut:
                    whole = len(self.tokenizer(pairs[i].response)["input_ids"])
                    found[i] = Likelihood(loss, n_tokens, words * n_tokens / whole)
                else:
                    found[i] = Likelihood(loss, n_tokens, words)
            on_done(len(numbers))

        lengths = [len(e.source) + len(e.target) for e in examples]
        in_batches(lengths, batch_size, judge)
        return [one for one in found if one is not None]

    @torch.inference_mode()
    def respond(
        self, pairs: Sequence[Pair], decoding: Decoding, on_done: Callable[[int], None]
    ) -> list[str]:
        """Return a response of the model to each history, in order.

        What is drawn for an example depends on it and the seed, and not on its batch.
        """
        sources = [self.encoder.source(pair.history) for pair in pairs]
        found = [""] * len(pairs)

        def answer(numbers: Sequence[int]) -> None:
            keys = [f"{pairs[i].session.session_id}/{pairs[i].turn}" for i in numbers]
            texts = self._generate([sources[i] for i in numbers], keys, decoding)
            for i, text in zip(numbers, texts, strict=True):
                found[i] = text
            on_done(len(numbers))

        in_batches([len(source) for source in sources], decoding.batch_size, answer)
        return found

    @torch.inference_mode()
    def reply(
        self,
        history: Sequence[Message],
        decoding: Decoding,
        key: str,
        streamer: Any = None,
        *,
        keep_first: bool = False,
    ) -> str:
        """Return the answer to one history; ``streamer`` (of transformers) gets tokens at once.

        Of a history that is too long the oldest is forgotten; with ``keep_first`` what stands
        behind the first message is, which may be of the role ``system``.

        Raises :class:`~augesc_builder.errors.CheckpointError` out of memory, where the model's
        chat template fails, and where a first message that is to be kept is too long.
        """
        said: list[str] = []
        source = self.encoder.context(history) if keep_first else self.encoder.source(history)
        if source is None:
            raise CheckpointError(
                f"{self.name} reads {self.encoder.max_source} tokens, and the first message alone "
                f"has more; shorten it, or take a model that reads more"
            )

        def answer(_: Sequence[int]) -> None:
            said[:] = self._generate([source], [key], decoding, streamer)

        in_batches([1], 1, answer)
        return said[0]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens, on one line and with the blanks that people write."""
        text = collapse(self.tokenizer.decode(ids, skip_special_tokens=True))
        return tidy(text) if self._is_spaced else text

    def _generate(
        self,
        sources: Sequence[Sequence[int]],
        keys: Sequence[str],
        decoding: Decoding,
        streamer: Any = None,
    ) -> list[str]:
        encoder, width = self.encoder, max(map(len, sources))
        pads = [[encoder.pad] * (width - len(source)) for source in sources]
        masks = [[1] * len(source) for source in sources]
        zeros = [[0] * len(pad) for pad in pads]
        if encoder.is_encoder_decoder:
            rows = [[*source, *pad] for source, pad in zip(sources, pads, strict=True)]
            mask = [[*ones, *none] for ones, none in zip(masks, zeros, strict=True)]
        else:  # a causal LM goes on at the right
            rows = [[*pad, *source] for source, pad in zip(sources, pads, strict=True)]
            mask = [[*none, *ones] for ones, none in zip(masks, zeros, strict=True)]
        processors = LogitsProcessorList()
        if decoding.top_p is not None:
            streams = [stream_key(decoding.seed, key, 0) for key in keys]
            draws = torch.stack([uniforms(stream, decoding.max_tokens) for stream in streams])
            sampling = Sampling(
                max_tokens=decoding.max_tokens,
                top_p=decoding.top_p,
                temperature=decoding.temperature,
            )
            processors.append(_Draw(draws, sampling))
        self.model.generation_config = self._settings(decoding)
        out = self.model.generate(
            input_ids=torch.tensor(rows, device=self.device),
            attention_mask=torch.tensor(mask, device=self.device),
            logits_processor=processors,
            streamer=streamer,
        )
        first = 1 if encoder.is_encoder_decoder else width
        return [self.decode(row[first:]) for row in out.tolist()]

    def _settings(self, decoding: Decoding) -> GenerationConfig:
        limit = position_limit(self.model, self.tokenizer)
        n = decoding.max_tokens if limit is None else min(decoding.max_tokens, limit - 1)
        return GenerationConfig(
            max_new_tokens=n,
            num_beams=decoding.beams,
            do_sample=False,
            no_repeat_ngram_size=decoding.no_repeat_ngram,
            pad_token_id=self.encoder.pad,
            eos_token_id=self.encoder.eos,
            bos_token_id=self.tokenizer.bos_token_id,
            decoder_start_token_id=getattr(self.model.config, "decoder_start_token_id", None),
        )


class _Draw(LogitsProcessor):  # type: ignore[misc]
    """Samples each row by its own stream of uniforms, and leaves nothing else to sample_tokens."""

    def __init__(self, draws: torch.Tensor, sampling: Sampling) -> None:
        self._draws, self._sampling, self._step = draws, sampling, 0  # (B, T)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        seen = torch.zeros_like(scores, dtype=torch.bool)
        u = self._draws[:, self._step].to(scores.device)
        self._step += 1
        chosen = sample_tokens(scores, seen, u, self._sampling)
        return torch.full_like(scores, -torch.inf).scatter(1, chosen[:, None], 0.0)


def in_batches(lengths: Sequence[int], size: int, work: Callable[[Sequence[int]], None]) -> None:
    """Work through numbered things in batches of like lengths, the longest first.

    Out of memory, the batch is halved, and so are those after it. Raises
    :class:`~augesc_builder.errors.CheckpointError` where one thing alone does not fit.
    """
    todo = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    while todo:
        batch = todo[:size]
        if _try(work, batch):
            todo = todo[size:]
        elif size == 1:
            raise CheckpointError(
                "out of memory with one example; take a smaller model, or a machine with more"
            )
        else:
            size = max(1, len(batch) // 2)
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def _try(work: Callable[[Sequence[int]], None], batch: Sequence[int]) -> bool:
    try:
        work(batch)
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not should_reduce_batch_size(error):
            raise
        return False
    return True


def tidy(text: str) -> str:
    """Return a text without the blanks that a word-level tokenizer put around punctuation."""
    text = _BLANK_BEFORE.sub(r"\1", text)
    text = _BLANK_BEHIND.sub(r"\1", text)
    return _CONTRACTION.sub(r"\1'\2", text)


# Of a long run of blanks, only the first is tried as its beginning.
_BLANK_BEFORE = re.compile(r"(?<!\s)\s+([.,!?;:)\]])")
_BLANK_BEHIND = re.compile(r"([(\[])\s+")
_CONTRACTION = re.compile(r"(\w)\s?'\s?(s|m|t|re|ve|ll|d)\b")
