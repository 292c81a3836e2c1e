"""One side of a conversation between models: the next utterance of many of them at once.

Every batch has one shape: as many rows and as wide a context as there can be, and all utterances
begin together. So the arithmetic of a row does not depend on its company, and what is drawn for it
comes from the utterance's own random stream.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from accelerate.utils.memory import should_reduce_batch_size
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from augesc_builder.dialog.model import DialogModel
from augesc_builder.engine import Sampling
from augesc_builder.engine.sampling import NOT_FINITE, sample_tokens_fast, uniforms
from augesc_builder.errors import CheckpointError
from augesc_builder.models.dialog import position_limit


@dataclass(frozen=True)
class Turn:
    """What a model reads, the key of the random stream of what it says, and its tokens at most."""

    context: Sequence[int]
    stream: int
    limit: int


@dataclass(frozen=True)
class Utterance:
    """What a model says: one line of text, or none; its tokens; whether its logits were finite."""

    text: str
    n_tokens: int
    is_finite: bool = True


class Speaker:
    """A dialog model that says the next utterance of up to ``batch_size`` conversations at once.

    ``sampling.max_tokens`` counts the tokens of an utterance; there is at least one, and no more
    than the model has positions for.
    """

    def __init__(self, model: DialogModel, sampling: Sampling, batch_size: int) -> None:
        self.encoder, self.batch_size = model.encoder, batch_size
        self._model = model
        limit = position_limit(model.model, model.tokenizer)
        if limit is not None:
            # An encoder-decoder has positions of its own for what it says, one for its start.
            taken = 1 if self.encoder.is_encoder_decoder else self.encoder.max_source
            room = min(sampling.max_tokens, limit - taken)
            sampling = replace(sampling, max_tokens=room)
        self._sampling = sampling

    @torch.inference_mode()
    def say(self, turns: Sequence[Turn], on_step: Callable[[int], None]) -> list[Utterance]:
        """Return an utterance for each turn; ``on_step`` hears how many tokens a step made.

        Raises :class:`~augesc_builder.errors.CheckpointError` where the batch is out of memory.
        """
        # Rows that nobody needs repeat the first: the batch keeps its shape, and takes no longer.
        rows = [*turns, *[turns[0]] * (self.batch_size - len(turns))]
        sampler = _Sampler(rows, len(turns), self._sampling, self.encoder.eos, on_step)
        ids, mask = self._padded([row.context for row in rows])
        device = self._model.device
        self._model.model.generation_config = self._settings()
        try:
            self._model.model.generate(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                logits_processor=LogitsProcessorList([sampler]),
            )
        except (RuntimeError, MemoryError) as error:
            if not isinstance(error, MemoryError) and not should_reduce_batch_size(error):
                raise
            raise CheckpointError(
                f"out of memory with {self.batch_size} conversations at a time; lower "
                f"generate.backend.batch_size"
            ) from error
        return [self._utterance(*found) for found in sampler.found()]

    def _utterance(self, ids: Sequence[int], is_finite: bool) -> Utterance:
        if not is_finite:
            return Utterance("", 0, is_finite=False)
        # A vocabulary may hold halves of surrogate pairs, which are no text.
        text = self._model.decode(ids).encode(errors="replace").decode()
        return Utterance(text, len(ids))

    def _padded(self, contexts: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return contexts and their mask, (B, T) each; causal models go on at the right."""
        width, left = self.encoder.max_source, not self.encoder.is_encoder_decoder
        ids = torch.full((len(contexts), width), self.encoder.pad)
        mask = torch.zeros_like(ids)
        for row, context in enumerate(contexts):
            place = slice(width - len(context), width) if left else slice(len(context))
            ids[row, place] = torch.tensor(context)
            mask[row, place] = 1
        return ids, mask

    def _settings(self) -> GenerationConfig:
        model, tokenizer = self._model.model, self._model.tokenizer
        return GenerationConfig(
            max_new_tokens=self._sampling.max_tokens,
            do_sample=False,  # what is drawn is all that the sampler leaves
            pad_token_id=self.encoder.pad,
            eos_token_id=self.encoder.eos,
            bos_token_id=tokenizer.bos_token_id,
            decoder_start_token_id=getattr(model.config, "decoder_start_token_id", None),
        )


class _Sampler(LogitsProcessor):  # type: ignore[misc]
    """Draws a token for each row by its own stream, and leaves no other to ``generate``.

    The end is never drawn first. Only the first ``n`` rows are looked at; the others fill the
    batch.
    """

    def __init__(
        self,
        rows: Sequence[Turn],
        n: int,
        sampling: Sampling,
        eos: int,
        on_step: Callable[[int], None],
    ) -> None:
        self._sampling, self._eos, self._on_step = sampling, eos, on_step
        self._limits = [row.limit for row in rows[:n]]
        self._draws = torch.stack([uniforms(row.stream, sampling.max_tokens) for row in rows])
        width = max(len(row.context) for row in rows)
        # Filled up with a token that was seen: one that is listed twice is penalized once.
        self._seen = torch.tensor(
            [[*row.context, *[row.context[0]] * (width - len(row.context))] for row in rows]
        )  # (B, W)
        self._made: list[list[int]] = [[] for _ in range(n)]
        self._live = set(range(n))
        self._broken: set[int] = set()
        self._step = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if not self._step:
            scores[:, self._eos] = -torch.inf
        u, self._seen = self._draws[:, self._step], self._seen.to(scores.device)
        self._step += 1
        chosen = sample_tokens_fast(scores, self._seen, u.to(scores.device), self._sampling)
        n_made = 0
        for row, token in enumerate(chosen.tolist()):
            if row not in self._live:
                continue
            if token == NOT_FINITE:
                self._broken.add(row)
            elif token != self._eos:
                n_made += 1
                self._made[row].append(token)
                if len(self._made[row]) < self._limits[row]:
                    continue
            self._live.discard(row)
        self._on_step(n_made)
        if not self._live:
            chosen = torch.full_like(chosen, self._eos)
        chosen = chosen.clamp(min=0)
        self._seen = torch.cat([self._seen, chosen[:, None]], dim=1)
        return torch.full_like(scores, -torch.inf).scatter(1, chosen[:, None], 0.0)

    def found(self) -> list[tuple[list[int], bool]]:
        """Return the tokens of each row without the last, and whether its logits were finite."""
        return [(ids, row not in self._broken) for row, ids in enumerate(self._made)]
