"""Sessions as training examples: which are drawn, and how they become tokens (section 4.1)."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch

from augesc_builder.errors import TrainingError
from augesc_builder.models.training_step import IGNORED
from augesc_builder.sources.base import Session
from augesc_builder.text.prompt_form import Learned, PromptForm


@dataclass(frozen=True)
class Example:
    """A session as tokens; labels of the instruction are :data:`IGNORED`."""

    input_ids: list[int]
    labels: list[int]

    @property
    def n_learned(self) -> int:
        """Count the tokens that the loss is over: the first has none before it."""
        return sum(label != IGNORED for label in self.labels[1:])


def sample_sessions(sessions: Sequence[Session], n: int, seed: int) -> list[Session]:
    """Draw ``n`` sessions at random, as evenly over the problem types as their counts allow.

    A type with fewer sessions than its even share gives all it has, and the others share the rest
    (section 4.1). What cannot be split evenly goes to types drawn at random.

    Raises :class:`~augesc_builder.errors.TrainingError` where there are fewer than ``n``.
    """
    if n > len(sessions):
        raise TrainingError(
            f"finetune.n_sessions is {n}, but there are only {len(sessions)} sessions; lower it"
        )
    rng = random.Random(seed)
    pools: dict[str, list[Session]] = defaultdict(list)
    for session in sessions:
        pools[session.problem_type or ""].append(session)
    for pool in pools.values():
        rng.shuffle(pool)
    chosen: list[Session] = []
    while len(chosen) < n:
        left = n - len(chosen)
        open_types = sorted(kind for kind, pool in pools.items() if pool)
        if left < len(open_types):
            open_types = sorted(rng.sample(open_types, left))
        share = max(1, left // len(open_types))
        # Small types give all they have first; the next round splits what they left.
        for kind in open_types:
            take = min(share, len(pools[kind]))
            chosen += pools[kind][:take]
            del pools[kind][:take]
    rng.shuffle(chosen)
    return chosen


def held_out(
    sessions: Sequence[Session], chosen: Sequence[Session], n: int, seed: int
) -> list[Session]:
    """Draw ``n`` sessions as :func:`sample_sessions` does, from those that are not ``chosen``.

    Raises :class:`~augesc_builder.errors.TrainingError` where fewer than ``n`` are left.
    """
    ids = {session.session_id for session in chosen}
    left = [session for session in sessions if session.session_id not in ids]
    if n > len(left):
        raise TrainingError(
            f"finetune.held_out is {n}, but of {len(sessions)} sessions {len(chosen)} are learned "
            f"from (finetune.n_sessions) and {len(left)} are left; lower one of them"
        )
    return sample_sessions(left, n, seed)


def problem_types(sessions: Sequence[Session], chosen: Collection[str]) -> dict[str, int]:
    """Count the sessions with the ids ``chosen`` by problem type, the most frequent first."""
    counts = Counter(s.problem_type or "none" for s in sessions if s.session_id in chosen)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def encode(session: Session, form: PromptForm, max_tokens: int) -> Example:
    """Tokenize a session; the token that ends a conversation is learned too (figure 2)."""
    background = session.situation if form.template.background else None
    return _example(form.for_session(session.messages, background, session.strategies), max_tokens)


def encode_all(session: Session, form: PromptForm, max_tokens: int) -> list[Example]:
    """Tokenize a session as the model will be asked for it, step by step.

    Where the form has backgrounds, the conversation behind the session's situation is one example,
    and what the seeker says first, continued by the situation, is another.

    Raises :class:`~augesc_builder.errors.TrainingError` for a session that the form cannot hold,
    such as one whose supporter begins to speak as a strategy's tag does.
    """
    try:
        examples = [encode(session, form, max_tokens)]
        if form.template.background and session.situation is not None:
            text = form.for_session_background(opening_words(session), session.situation)
            examples.append(_example(text, max_tokens))
    except ValueError as error:
        raise TrainingError(f"session {session.session_id}: {error}") from None
    return examples


def _example(text: Learned, max_tokens: int) -> Example:
    ids, learned = text
    labels = [token if one else IGNORED for token, one in zip(ids, learned, strict=True)]
    return Example(ids[:max_tokens], labels[:max_tokens])


_WORDS = 10
"""Words from which a text is long enough for a query (section 4.2)."""


def opening_words(session: Session) -> str:
    """Return the first utterance of the seeker that is as long as a query; else the longest."""
    said = [message["content"] for message in session.messages if message["role"] == "user"]
    long = (text for text in said if len(text.split()) >= _WORDS)
    return next(long, max(said, key=len))


def collate(examples: Sequence[Example], pad: int) -> dict[str, torch.Tensor]:
    """Pad examples on the right to one batch of ``input_ids`` and ``labels``, both (B, T)."""
    width = max(len(example.input_ids) for example in examples)

    def rows(values: Sequence[list[int]], fill: int) -> torch.Tensor:
        return torch.tensor([row + [fill] * (width - len(row)) for row in values])  # (B, T)

    return {
        "input_ids": rows([example.input_ids for example in examples], pad),
        "labels": rows([example.labels for example in examples], IGNORED),
    }
