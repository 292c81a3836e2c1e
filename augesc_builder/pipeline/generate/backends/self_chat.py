"""Backend ``self_chat``: two dialog models, a seeker and a supporter, take turns (section 6.1).

A conversation begins with its query and ends when the two have said so much, or when one of them
says a word of farewell. ``batch_size`` of them go on together: the supporter says the next
utterance of each, then the seeker, and those that ended make room for others.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augesc_builder.config.base import MODEL
from augesc_builder.config.published import is_local
from augesc_builder.config.recipe import Recipe
from augesc_builder.config.self_chat import SelfChatSettings, SpeakerModel
from augesc_builder.config.training import Role
from augesc_builder.errors import CheckpointError
from augesc_builder.pipeline.generate.backends.base import Backend, OnStep
from augesc_builder.pipeline.generate.tasks import Row, Task
from augesc_builder.run.escape import markdown_code
from augesc_builder.text.farewell import says_goodbye
from augesc_builder.text.prompts import PLAIN, Message

if TYPE_CHECKING:
    from augesc_builder.dialog.model import DialogModel
    from augesc_builder.dialog.speaker import Speaker, Utterance

_ROLES: tuple[Role, ...] = ("supporter", "seeker")
"""Those who take turns after the query, in their order."""

_SAYS: dict[Role, str] = {"supporter": "assistant", "seeker": "user"}

_SMALL = 1 << 30
"""Bytes of both models' weights up to which one thread is faster than several."""


class SelfChatBackend(Backend):
    """Lets a seeker's model and a supporter's talk to each other."""

    Settings = SelfChatSettings
    about = "two dialog models that talk to each other, a seeker and a supporter"
    needs_checkpoint = False

    def __init__(self, recipe: Recipe, checkpoint: Path, folder: Path) -> None:
        super().__init__(recipe, checkpoint, folder)
        self.settings = _settings(recipe)
        self._dtype = "float32"
        self._commits: dict[str, str] = {}

    @classmethod
    def check(cls, recipe: Recipe) -> None:
        """Refuse local models that are none, that are half trained, or that learned another role.

        Raises :class:`~augesc_builder.errors.CheckpointError`.
        """
        from augesc_builder.models.causal_lm import check_folder

        for role, speaker in _speakers(recipe).items():
            with _told(role):
                check_folder(_place(speaker))
                _check_role(role, speaker)

    @classmethod
    def label(cls, recipe: Recipe) -> str:
        """Name the models by their names on the Hub, where they have some."""
        names = dict.fromkeys(
            speaker.model.rpartition("/")[2]
            for speaker in _speakers(recipe).values()
            if not _is_local(speaker)
        )
        return " + ".join(names) or "self-chat"

    @classmethod
    def model(cls, recipe: Recipe) -> str:
        """Name both models and how their conversations end."""
        settings = _settings(recipe)
        both = " and ".join(
            f"{markdown_code(speaker.model)} as {role}"
            for role, speaker in _speakers(recipe).items()
        )
        words = ", ".join(map(markdown_code, settings.end_words)) or "none"
        return (
            f"two dialog models that talk to each other, {both}; a conversation ends at "
            f"{settings.max_utterances} utterances, or with an utterance of one of these words: "
            f"{words}"
        )

    @classmethod
    def n_sessions(cls, recipe: Recipe) -> int:
        """Return how many sessions both models learned from, as the recipe says."""
        return recipe.finetune.n_sessions

    @classmethod
    def models(cls, recipe: Recipe) -> Mapping[str, Path]:
        """Return the folders of local models."""
        return {
            f"generate.backend.{role}.model": Path(_place(speaker))
            for role, speaker in _speakers(recipe).items()
            if _is_local(speaker)
        }

    @classmethod
    def settings_used(cls, recipe: Recipe) -> dict[str, Any]:
        """Return the settings without the prompt too: the models read what was said alone."""
        found = super().settings_used(recipe)
        del found["prompt"]
        return found

    def prepare(self, known: Mapping[str, Any], n_tasks: int, n_shards: int) -> Mapping[str, Any]:
        """Choose the type of the weights, and the commits of models on the Hub."""
        from augesc_builder.pipeline.generate.processor import facts_for
        from augesc_builder.readers.hub import resolve_model

        facts = facts_for(self.settings.dtype, known)
        commits: dict[str, str] = dict(known.get("commits", {}))
        for role, speaker in _speakers(self.recipe).items():
            if role not in commits and not _is_local(speaker):
                key = f"generate.backend.{role}.model"
                commits[role] = resolve_model(speaker.model, speaker.revision, key)
        self._dtype, self._commits = facts["dtype"], commits
        return {**facts, "commits": commits}

    def kind(self) -> Mapping[str, Any]:
        """Return the processor or GPU, what computes on it, and the type of the weights."""
        from augesc_builder.pipeline.generate.processor import machine

        return {**machine(), "dtype": self._dtype}

    def stream(self, tasks: Iterable[Task], on_step: OnStep) -> Iterator[tuple[Task, Row]]:
        """Yield rows as conversations end."""
        models = {role: self._load(role) for role in _ROLES}
        with _threads_for(list(models.values())):
            speakers = {role: self._speaker(model) for role, model in models.items()}
            yield from self._talk(tasks, speakers, on_step)

    def _talk(
        self, tasks: Iterable[Task], speakers: Mapping[Role, Speaker], on_step: OnStep
    ) -> Iterator[tuple[Task, Row]]:
        waiting, size = iter(tasks), self.settings.batch_size
        live: list[_Conversation] = []
        while True:
            live += [_Conversation(task) for task in islice(waiting, size - len(live))]
            if not live:
                return
            for role in _ROLES:
                self._next_utterances(role, live, speakers[role], on_step)
                ended = [one for one in live if one.finish_reason is not None]
                live = [one for one in live if one.finish_reason is None]
                on_step(len(ended), 0, len(live) / size)
                for one in ended:
                    yield one.task, self._row(one)

    def _next_utterances(
        self, role: Role, live: Sequence[_Conversation], speaker: Speaker, on_step: OnStep
    ) -> None:
        """Let one side say the next utterance of every conversation."""
        from augesc_builder.dialog.speaker import Turn
        from augesc_builder.engine.sampling import stream_key

        if not live:
            return
        speaking, turns = [], []
        for one in live:
            if one.n_prompt_tokens is None:
                one.n_prompt_tokens = len(speaker.encoder.whole(one.messages))
            left = self.recipe.generate.max_tokens - one.n_prompt_tokens - one.n_tokens
            context = speaker.encoder.context(one.messages)
            if context is None or left <= 0:
                one.finish_reason = "prompt_too_long"
                continue
            name = f"{one.task.query['query_id']}/{len(one.messages)}"
            stream = stream_key(self.recipe.seed, name, one.task.sample)
            speaking.append(one)
            turns.append(Turn(context, stream, left))
        if not turns:
            return
        utilisation = len(turns) / self.settings.batch_size
        said = speaker.say(turns, lambda n: on_step(0, n, utilisation))
        for one, turn, utterance in zip(speaking, turns, said, strict=True):
            one.hear(role, utterance, is_whole=utterance.n_tokens < turn.limit)
            if one.finish_reason is None and self._is_over(one):
                one.finish_reason = "eos"

    def _is_over(self, one: _Conversation) -> bool:
        too_many = len(one.messages) >= self.settings.max_utterances
        return too_many or says_goodbye(one.messages[-1]["content"], self.settings.end_words)

    def _row(self, one: _Conversation) -> Row:
        begun = PLAIN.for_query(one.messages[0]["content"])
        whole = PLAIN.for_session(one.messages)
        return self.row(
            one.task,
            whole.removeprefix(begun) if len(one.messages) > 1 else "",
            finish_reason=one.finish_reason or "eos",
            n_prompt_tokens=one.n_prompt_tokens,
            n_tokens=one.n_tokens,
        )

    def _load(self, role: Role) -> DialogModel:
        from augesc_builder.dialog.model import DialogModel

        speaker = _speakers(self.recipe)[role]
        revision = self._commits.get(role)
        with _told(role):
            model = DialogModel(speaker.model, revision, dtype=self._dtype, role=role)
            _check_role(role, speaker)
        return model

    def _speaker(self, model: DialogModel) -> Speaker:
        from augesc_builder.dialog.speaker import Speaker
        from augesc_builder.engine import Sampling

        generate = self.recipe.generate
        sampling = Sampling(
            max_tokens=self.settings.max_utterance_tokens,
            top_p=generate.top_p,
            temperature=generate.temperature,
            repetition_penalty=generate.repetition_penalty,
            top_k=generate.top_k,
            min_p=generate.min_p,
            greedy=generate.greedy,
        )
        return Speaker(model, sampling, self.settings.batch_size)


@dataclass
class _Conversation:
    """What was said of a task so far, and why it ended."""

    task: Task
    messages: list[Message] = field(init=False)
    n_prompt_tokens: int | None = None
    n_tokens: int = 0
    finish_reason: str | None = None

    def __post_init__(self) -> None:
        self.messages = [{"role": "user", "content": self.task.query["text"]}]

    def hear(self, role: Role, said: Utterance, *, is_whole: bool) -> None:
        """Take the next utterance; one that cannot be taken ends the conversation."""
        if not said.is_finite:
            del self.messages[1:]
            self.n_tokens, self.finish_reason = 0, "not_finite"
            return
        self.n_tokens += said.n_tokens
        if not said.text:
            self.finish_reason = "empty"
            return
        self.messages.append({"role": _SAYS[role], "content": said.text})
        if not is_whole:
            self.finish_reason = "length"


def _settings(recipe: Recipe) -> SelfChatSettings:
    settings = recipe.generate.backend
    if not isinstance(settings, SelfChatSettings):
        raise TypeError(f"the backend is {settings.type}, not self_chat")
    return settings


def _speakers(recipe: Recipe) -> dict[Role, SpeakerModel]:
    settings = _settings(recipe)
    return {"seeker": settings.seeker, "supporter": settings.supporter}


def _is_local(speaker: SpeakerModel) -> bool:
    return is_local(speaker.model, MODEL)


def _place(speaker: SpeakerModel) -> str:
    """Return the folder of the model itself, or its name on the Hub."""
    from augesc_builder.dialog.folder import find_model

    return find_model(speaker.model)


def _check_role(role: Role, speaker: SpeakerModel) -> None:
    """Refuse a model that was trained here, for the other role."""
    from augesc_builder.dialog.folder import read_facts

    facts = read_facts(_place(speaker))
    learned = facts["config"]["examples"].get("role", "supporter") if facts else role
    if learned != role:
        raise CheckpointError(
            f"{speaker.model} learned the {learned}'s utterances; give a model that was trained "
            f"with --set examples.role={role}"
        )


@contextlib.contextmanager
def _told(role: Role) -> Iterator[None]:
    """Say which of the two models an error is about, and how one is trained."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(
            f"generate.backend.{role}.model: {error} (augesc train --config esconv --set "
            f"examples.role={role} --out DIR makes one)"
        ) from error


@contextlib.contextmanager
def _threads_for(models: Sequence[DialogModel]) -> Iterator[None]:
    """Use one thread on CPU for small models, as the other backends do."""
    import torch

    tensors = [tensor for model in models for tensor in model.model.parameters()]
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    before = torch.get_num_threads()
    if not torch.cuda.is_available() and size < _SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
