"""By how much likelier a causal language model finds a turn behind its context than without."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from augesc_builder.metrics.topic_drift.scorers.base import Answer, Question
from augesc_builder.models import causal_lm
from augesc_builder.models.likelihoods import (
    Segment,
    plain,
    shared_prefix,
    shares_prefixes,
)
from augesc_builder.models.token_codec import TokenCodec
from augesc_builder.readers.hub import resolve_model
from augesc_builder.text.prompts import ROLE_WORD, Message, collapse

_KEY = "quality.topic_drift.model"

MAX_TOKENS = 1024
"""Tokens of the conversation that a model sees, where it could see more."""

_BLOCK = 64
"""Turns of the pool that are read together without a context, in the pool's order: so a turn's
numbers do not depend on who asks for them."""


class Heard(NamedTuple):
    """Mean log-likelihoods of an utterance's tokens, in nats: behind its context, and alone."""

    in_context: float
    alone: float
    tokens: int
    least: float
    """The log-likelihood of its least likely token, behind the context."""

    @property
    def gain(self) -> float:
        """Return what the context adds to the mean."""
        return self.in_context - self.alone

    @property
    def information(self) -> float:
        """Return what the context adds in all: pointwise mutual information, in nats."""
        return self.gain * self.tokens


class Likelihood:
    """A causal language model's mean log-likelihood of a turn with less that without its context.

    A conversation is read as the paper's template writes it (lines ``Human: ...`` and ``AI: ...``),
    without an instruction. A session that is longer than ``max_tokens`` is read in windows that
    share half; an utterance of more than a quarter of that counts with as many first tokens.

    ``texts`` is the pool of distractors: what they have without a context is computed once.
    ``own_judge`` says that the model wrote what it judges, and stands in the settings. Each session
    is read by itself, in one pass, so that not even its rounding depends on others.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str,
        commit: str | None = None,
        texts: Sequence[str] = (),
        own_judge: bool = False,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        self._model, self._name, self._commit = model.eval(), name, commit
        self._own_judge = own_judge
        self._limit = min(max_tokens, causal_lm.max_positions(model.config) or max_tokens)
        codec = TokenCodec(tokenizer)
        self._codec, self._front = codec, codec.front()
        self._head = {role: codec.encode(f"{word}:") for role, word in ROLE_WORD.items()}
        self._line_end = codec.encode("\n")
        self._read = shared_prefix if shares_prefixes(model) else plain
        self._texts = list(texts)
        self._block = {text: n // _BLOCK for n, text in enumerate(self._texts)}
        self._alone: dict[str, float] = {}

    @classmethod
    def load(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        dtype: str = "float32",
        label: str | None = None,
        **settings: Any,
    ) -> Likelihood:
        """Load a model from the Hub, a folder or a GGUF file; ``label`` names it in reports.

        Raises :class:`~augesc_builder.errors.DownloadError` where the Hub does not have it, and
        :class:`~augesc_builder.errors.CheckpointError` where it cannot be loaded.
        """
        commit = None if Path(name).exists() else resolve_model(str(name), revision, _KEY)
        model, tokenizer = causal_lm.load(name, revision=commit or revision, dtype=dtype)
        return cls(model, tokenizer, name=label or str(name), commit=commit, **settings)

    def settings(self) -> dict[str, Any]:
        """Return the model's name and commit, how it is read, and whether it wrote the corpus."""
        return {
            "scorer": "likelihood",
            "model": self._name,
            "commit": self._commit,
            "dtype": str(self._model.dtype).removeprefix("torch."),
            "max_tokens": self._limit,
            "own_judge": self._own_judge,
        }

    def prepare(self) -> None:
        """Read the whole pool now; else each part of it is read when it is first asked for."""
        for text in self._texts[::_BLOCK]:
            self._known(text)

    def utterances(self, sessions: Sequence[Sequence[Message]]) -> list[list[Heard | None]]:
        """Return the likelihoods of every utterance of both speakers, ``None`` for one of none."""
        return [self._utterances(session) for session in sessions]

    def fit(self, questions: Sequence[Question]) -> list[Answer]:
        """Score the candidates of each session."""
        return [self._fit(question) for question in questions]

    def _utterances(self, session: Sequence[Message]) -> list[Heard | None]:
        heard: list[Heard | None] = []
        for window in self._windows(session):
            text, places = window.text(self._front)
            lines = list(zip(window.scored, places, strict=True))
            asked = [self._segment(line.head, line.said) for line, _ in lines if line.said]
            found = self._read(self._model, text, asked)
            alone = iter(found.segments)
            heard += [
                Heard(
                    _mean_of(found.text, line, place),
                    next(alone),
                    len(line.said),
                    min(_of(found.text, line, place)),
                )
                if line.said
                else None
                for line, place in lines
            ]
        return heard

    def _fit(self, question: Question) -> Answer:
        answer: Answer = {}
        for window in self._windows(question.session):
            text, places = window.text(self._front)
            asked: list[Segment] = []
            wanted: list[tuple[int, _Line, int, list[float | None]]] = []
            for at, line, place in zip(count(window.begin), window.scored, places, strict=False):
                if others := question.candidates.get(at, ())[1:]:
                    said = [self._said(other) for other in others]
                    known = [self._known(other) for other in others]
                    asked += [self._segment(line.head, ids, place) for ids in said]
                    asked += [
                        self._segment(line.head, ids)
                        for ids, alone in zip([line.said, *said], [None, *known], strict=True)
                        if alone is None
                    ]
                    wanted.append((at, line, place, known))
            if not asked:
                continue
            found = self._read(self._model, text, asked)
            segments = iter(found.segments)
            for number, line, place, known in wanted:
                in_context = [_mean_of(found.text, line, place)]
                in_context += [next(segments) for _ in known]
                alone = [next(segments) if one is None else one for one in [None, *known]]
                answer[number] = [a - b for a, b in zip(in_context, alone, strict=True)]
        return answer

    def _segment(
        self, head: Sequence[int], said: Sequence[int], behind: int | None = None
    ) -> Segment:
        """Return an utterance behind so many tokens of a window's text; else behind its front."""
        at = len(self._front) if behind is None else behind
        return Segment(at, len(head), [*head, *said])

    def _known(self, text: str) -> float | None:
        """Return the likelihood of a turn of the pool without a context; ``None`` for others."""
        if text not in self._block:
            return None
        if text not in self._alone:
            first = self._block[text] * _BLOCK
            block = self._texts[first : first + _BLOCK]
            head = self._head["assistant"]
            asked = [self._segment(head, self._said(turn)) for turn in block]
            found = self._read(self._model, self._front, asked)
            self._alone.update(zip(block, found.segments, strict=True))
        return self._alone[text]

    def _said(self, text: str) -> list[int]:
        """Return the tokens of an utterance; half of a surrogate pair is no control token here."""
        line = collapse(text).encode("utf-8", "replace").decode()
        return self._codec.encode(f" {line}")[: self._limit // 4] if line else []

    def _windows(self, session: Sequence[Message]) -> Iterator[_Window]:
        """Cut a session into windows that the model can see, the lines before a cut in both."""
        lines = [
            _Line(self._head[m["role"]], self._said(m["content"]), self._line_end) for m in session
        ]
        # Room for what might stand there instead of the last line.
        most = self._limit - self._limit // 4 - len(self._front)
        first = begin = 0
        while begin < len(lines):
            end, n = first, 0
            while end < len(lines) and (end <= begin or n + len(lines[end].ids) <= most):
                n += len(lines[end].ids)
                end += 1
            yield _Window(begin, lines[first:begin], lines[begin:end])
            first, begin, n = end, end, 0
            while first and n + len(lines[first - 1].ids) <= most // 2:
                first -= 1
                n += len(lines[first].ids)


class _Line(NamedTuple):
    head: Sequence[int]
    said: Sequence[int]
    end: Sequence[int]

    @property
    def ids(self) -> list[int]:
        return [*self.head, *self.said, *self.end]


class _Window(NamedTuple):
    """Lines that only stand before others here, and those that are scored: from ``begin`` on."""

    begin: int
    before: Sequence[_Line]
    scored: Sequence[_Line]

    def text(self, front: Sequence[int]) -> tuple[list[int], list[int]]:
        """Return the window's tokens, and how many stand before each line that is scored."""
        ids = [*front, *(token for line in self.before for token in line.ids)]
        places = []
        for line in self.scored:
            places.append(len(ids))
            ids += line.ids
        return ids, places


def _of(text: Sequence[float], line: _Line, place: int) -> Sequence[float]:
    """Return what is said of each token of a line that stands at a place of a window's text."""
    first = place + len(line.head) - 1  # the first token of a text has no likelihood
    return text[first : first + len(line.said)]


def _mean_of(text: Sequence[float], line: _Line, place: int) -> float:
    return math.fsum(_of(text, line, place)) / len(line.said)
