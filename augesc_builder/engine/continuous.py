"""Continuous batching: a slot whose row has ended takes the next prompt while the others decode.

A step is one token for every slot, free ones included, so that all steps have one shape. A new
prompt but for its last token goes into the cache first, with other new ones (``prefill.py``); its
last token joins the next step. So what is computed for a row depends on nothing but the row, the
number of slots and the number of threads; in the compiled loops of ``cpu_kernels.py``, on the row
alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from augesc_builder.engine import Continuation, OnStep, Prompt, Sampling
from augesc_builder.engine.cache import Segment, SlotCache
from augesc_builder.engine.cuda_graphs import CudaGraphDecoder
from augesc_builder.engine.memory import is_out_of_memory
from augesc_builder.engine.models import network_of
from augesc_builder.engine.panel_cache import cache_of
from augesc_builder.engine.prefill import Prefill
from augesc_builder.engine.sampling import NOT_FINITE, sample_tokens_fast, uniforms
from augesc_builder.engine.tensor_parallel import broadcast_tokens, tensor_parallel_size
from augesc_builder.errors import CheckpointError


@dataclass
class Row:
    """A conversation: its prompt with what was made of it, its uniforms, where it must end."""

    number: int
    tokens: list[int]
    n_prompt: int
    limit: int
    uniforms: list[float]
    stops: frozenset[int]

    @property
    def made(self) -> tuple[int, ...]:
        """Return the continuation so far."""
        return tuple(self.tokens[self.n_prompt :])


@dataclass
class Slots:
    """What the slots hold: rows, the KV cache, and the tokens that each row has seen."""

    cache: SlotCache
    prefill: Prefill
    seen: Tensor  # (S, capacity)
    rows: list[Row | None]
    decoder: CudaGraphDecoder | None = None

    @property
    def live(self) -> list[int]:
        """Return the slots that have a row."""
        return [slot for slot, row in enumerate(self.rows) if row is not None]

    @property
    def free(self) -> list[int]:
        """Return the slots that have none."""
        return [slot for slot, row in enumerate(self.rows) if row is None]


class ContinuousBatchingEngine:
    """Decodes ``n_slots`` conversations at a time, by continuous batching.

    ``refill=False`` waits until all slots are free before it takes new prompts, as static batching
    does; ``benchmarks/generation.py`` compares the two. For ``bfloat16_head``, ``weights`` and
    ``owns_model`` see :func:`~augesc_builder.engine.models.network_of`. Raises
    :class:`~augesc_builder.errors.CheckpointError` where the model has no end-of-sequence token, or
    cannot run on this engine.
    """

    def __init__(
        self,
        model: Any,
        eos_token_id: int | None,
        sampling: Sampling,
        n_slots: int,
        *,
        refill: bool = True,
        bfloat16_head: bool = False,
        weights: torch.dtype | None = None,
        owns_model: bool = False,
    ) -> None:
        self.n_vocabulary = model.get_input_embeddings().num_embeddings
        if eos_token_id is None or not 0 <= eos_token_id < self.n_vocabulary:
            raise CheckpointError(
                f"the end-of-sequence token is {eos_token_id}; expected one of the model's "
                f"{self.n_vocabulary} tokens: set eos_token in the tokenizer"
            )
        self.network = network_of(
            *(model.eval(), sampling.max_tokens),
            bfloat16_head=bfloat16_head,
            weights=weights,
            owns_model=owns_model,
        )
        self.device = model.device
        self.eos_token_id = eos_token_id
        self.sampling = sampling
        self.n_slots = n_slots
        self.refill = refill
        self.is_tensor_parallel = tensor_parallel_size(model) > 1
        self.n_tokens = self.n_slot_steps = self.n_prefilled = 0

    @property
    def utilisation(self) -> float:
        """Return the share of the slots' steps that made a token."""
        return self.n_tokens / max(self.n_slot_steps, 1)

    @torch.inference_mode()
    def stream(
        self, prompts: Iterable[Prompt | None], on_step: OnStep
    ) -> Iterator[tuple[int, Continuation]]:
        """Yield ``(number of the prompt, continuation)`` as rows end; prompts are read as needed.

        ``None`` is no prompt: the next one depends on a row that has not been yielded.

        Out of memory, the number of slots is halved and rows resume where they were. Raises
        :class:`~augesc_builder.errors.CheckpointError` where one slot does not fit, under tensor
        parallelism where all do not, and where a prompt holds a token that the model has not.
        """
        coming = enumerate(prompts)
        waiting: deque[Row] = deque()
        slots = self._empty_slots()
        more = True
        while more or slots.live:
            ended: list[tuple[int, Continuation]] = []
            made, fits = 0, True
            try:
                more = self._fill(slots, waiting, coming, ended)
                made = self._step(slots, ended)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                fits = False  # what the error holds is free only behind this block
            if not fits:
                # In front, in their order: they were begun before those that wait already.
                waiting.extendleft(reversed([row for row in slots.rows if row is not None]))
                del slots  # what they hold must be free before others are made
                self._halve()
                slots, more = self._empty_slots(), True
            on_step(len(ended), made)
            yield from ended

    # -- prompts into slots ------------------------------------------------------------------------

    def _empty_slots(self) -> Slots:
        cache = cache_of(self.network.model, self.n_slots, self.sampling.max_tokens)
        seen = torch.zeros(self.n_slots, self.sampling.max_tokens, dtype=torch.long)
        prefill = Prefill(self.network, cache, self.eos_token_id)
        slots = Slots(cache, prefill, seen.to(self.device), [None] * self.n_slots)
        if self.device.type == "cuda":
            slots.decoder = CudaGraphDecoder(self.network, cache, self.device)
        return slots

    def _halve(self) -> None:
        if self.is_tensor_parallel:  # the other processes would not know
            raise CheckpointError(
                f"out of memory with {self.n_slots} conversations in each process; lower "
                f"generate.backend.slots"
            )
        if self.n_slots == 1:
            raise CheckpointError(
                "out of memory with one conversation; lower generate.max_tokens, or use a smaller "
                "generate.backend.dtype"
            )
        self.n_slots //= 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _fill(
        self,
        slots: Slots,
        waiting: deque[Row],
        coming: Iterator[tuple[int, Prompt | None]],
        ended: list[tuple[int, Continuation]],
    ) -> bool:
        """Put the next rows into free slots; return ``False`` when there are none left."""
        live = slots.live
        if live and (len(live) == self.n_slots or not self.refill):
            return True
        new: dict[int, Row] = {}
        more = True
        for slot in slots.free:
            row = waiting.popleft() if waiting else self._next(coming, ended)
            if not isinstance(row, Row):
                more = row
                break
            slots.rows[slot] = new[slot] = row
            # Filled up with a token of its own: it counts whether one was seen, not how often.
            seen = torch.full(slots.seen.shape[1:], row.tokens[0])
            seen[: len(row.tokens)] = torch.tensor(row.tokens)
            slots.seen[slot] = seen.to(self.device)
        self.n_prefilled += slots.prefill.store({slot: r.tokens[:-1] for slot, r in new.items()})
        return more

    def _next(
        self, coming: Iterator[tuple[int, Prompt | None]], ended: list[tuple[int, Continuation]]
    ) -> Row | bool:
        """Return the next row; without one, whether there may be another later."""
        for number, prompt in coming:
            if prompt is None:
                return True
            if not 0 <= min(prompt.token_ids) <= max(prompt.token_ids) < self.n_vocabulary:
                raise CheckpointError(
                    f"prompt {number + 1} has token {max(prompt.token_ids)}, and the model knows "
                    f"{self.n_vocabulary}; its tokenizer belongs to another model"
                )
            limit = min(self.sampling.max_tokens, prompt.limit or self.sampling.max_tokens)
            n = len(prompt.token_ids)
            if n >= limit:
                # Told before another is asked for: who gives prompts may wait to hear of it.
                ended.append((number, Continuation((), "prompt_too_long")))
                return True
            drawn = uniforms(prompt.stream, limit - n).tolist()
            return Row(number, list(prompt.token_ids), n, limit, drawn, prompt.stops)
        return False

    # -- one token for every slot ------------------------------------------------------------------

    def _step(self, slots: Slots, ended: list[tuple[int, Continuation]]) -> int:
        """Make a token for every row and free the slots of those that end; return how many."""
        at = {slot: row for slot, row in enumerate(slots.rows) if row is not None}
        if not at:
            return 0
        live, lengths = list(at), [len(row.tokens) for row in at.values()]
        logits = self._logits(slots, at, max(lengths))
        occupied = torch.tensor(live, device=self.device)
        seen = slots.seen[:, : max(lengths)]
        if len(live) < self.n_slots:  # otherwise the copy is spared
            logits, seen = logits[occupied], seen[occupied]
        # By the row's own count of tokens: one that resumes in another slot draws the same.
        u = torch.tensor(
            [row.uniforms[len(row.tokens) - row.n_prompt] for row in at.values()],
            dtype=torch.float64,
            device=self.device,
        )
        chosen = sample_tokens_fast(logits, seen, u, self.sampling)
        if self.is_tensor_parallel:
            chosen = broadcast_tokens(chosen)
        ends = torch.tensor(lengths, device=self.device)
        # NOT_FINITE is no token's id, and its row ends here: what is noted for it is never read.
        slots.seen[occupied, ends.clamp(max=slots.seen.shape[1] - 1)] = chosen.clamp(min=0)
        for slot, token in zip(live, chosen.tolist(), strict=True):
            row = at[slot]
            if (result := self._after(row, token)) is not None:
                ended.append((row.number, result))
                slots.rows[slot] = None
                if result.finish_reason == "not_finite":
                    slots.cache.clear(slot)
                    slots.prefill.forget([slot])
        self.n_tokens += len(live)
        self.n_slot_steps += self.n_slots
        return len(live)

    def _logits(self, slots: Slots, at: dict[int, Row], longest: int) -> Tensor:
        # A free slot runs a token at position 0; what that may store, its next row overwrites.
        tokens, positions = [self.eos_token_id] * self.n_slots, [0] * self.n_slots
        for slot, row in at.items():
            tokens[slot], positions[slot] = row.tokens[-1], len(row.tokens) - 1
        where = torch.tensor(positions, device=self.device)
        flat = torch.tensor(tokens, device=self.device)
        if slots.decoder is not None:
            slots.prefill.forget(slots.free)
            return slots.decoder(flat, where, longest).to(self.device)
        slots.cache.begin_step(
            [Segment(slot, slot, positions[slot], 1) for slot in at], self.device
        )
        return self.network.logits(flat, where, slots.cache).to(self.device)

    def _after(self, row: Row, token: int) -> Continuation | None:
        """Add a token to a row; return the continuation if it ends here."""
        if token == NOT_FINITE:
            return Continuation((), "not_finite")
        if token == self.eos_token_id:
            return Continuation(row.made, "eos")
        row.tokens.append(token)
        if token in row.stops:
            return Continuation(row.made, "eos")
        if len(row.tokens) >= row.limit:
            return Continuation(row.made, "length")
        return None
