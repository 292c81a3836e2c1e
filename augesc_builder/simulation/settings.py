"""The settings of a simulation: every key with its type and bounds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from augesc_builder.config.base import (
    AddressText,
    ModelText,
    NotNegative,
    PathText,
    Positive,
    Section,
    Seed,
)
from augesc_builder.config.loader import ConfigLoader
from augesc_builder.config.openai_api import Budget, OpenAISettings, Prices
from augesc_builder.config.quality import Quality
from augesc_builder.errors import RecipeError

SystemName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,60}$")]
"""How a system is called in reports, and in the names of files."""

Paragraph = Annotated[str, Field(min_length=1, max_length=20_000)]

SEEKER, SYSTEMS, ENDPOINTS = "seeker", "systems", "endpoints"
"""Sections of the settings, as errors name them."""


class Cards(Section):
    """Which role cards are played."""

    path: PathText
    esconv_folder: PathText | None
    esconv_revision: str
    limit: Positive | None


class Party(Section):
    """Whoever talks: a model of this machine, or one behind an endpoint."""

    folder: ModelText | None = None
    base_url: AddressText | None = None
    model: str | None = None
    key_env: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,63}$")] | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Party:
        if (self.folder is None) == (self.base_url is None):
            raise ValueError("expected either folder or base_url")
        if (self.base_url is None) != (self.model is None):
            raise ValueError("an endpoint has both base_url and model")
        return self

    @property
    def label(self) -> str:
        """Return what the model is called in tables: its name, and of a folder the last part."""
        return self.model or Path(str(self.folder)).name


class System(Party):
    """A system that is talked to."""

    system_prompt: Paragraph | None = None


class Seeker(Party):
    """Who plays the seekers, and what is said to a model that was not trained for it."""

    prompt: Paragraph
    first_words: Literal["own", "situation"]
    begin: Paragraph
    end_words: list[Annotated[str, Field(pattern=r"^\S(.*\S)?$")]]

    @model_validator(mode="after")
    def _tells_the_situation(self) -> Seeker:
        if "{situation}" not in self.prompt:
            raise ValueError("prompt: expected {situation} in it, where the card's stands")
        return self


class Replies(Section):
    """How utterances are drawn."""

    temperature: Annotated[float, Field(gt=0, le=5)]
    top_p: Annotated[float, Field(gt=0, le=1)]
    max_tokens: Positive
    no_repeat_ngram: NotNegative


class Endpoints(Section):
    """How endpoints are asked."""

    extra_body: dict[str, Any]
    concurrency: Positive
    timeout: Annotated[float, Field(gt=0)]
    deadline: Annotated[float, Field(gt=0)]
    budget: Budget
    prices: Prices | None


class SimulationSettings(Section):
    """Every setting of a simulation."""

    name: str
    seed: Seed
    cards: Cards
    seeker: Seeker
    systems: Annotated[dict[SystemName, System], Field(min_length=1)]
    turns: Annotated[int, Field(ge=1, le=100)]
    tries: Annotated[int, Field(ge=1, le=9)]
    replies: Replies
    endpoints: Endpoints
    resamples: Annotated[int, Field(ge=100, le=100_000)]
    quality: Quality

    def parties(self) -> dict[str, Party]:
        """Return everybody who talks, by the section that names them."""
        return {SEEKER: self.seeker, **{f"{SYSTEMS}.{n}": s for n, s in self.systems.items()}}

    def asked(self, party: Party) -> OpenAISettings:
        """Return the settings of a party's endpoint, as its client takes them.

        Raises :class:`~augesc_builder.errors.RecipeError`, naming the keys.
        """
        values: dict[str, Any] = {
            **self.endpoints.model_dump(),
            **{"base_url": party.base_url, "model": party.model, "key_env": party.key_env},
            **{"keyring": None, "mode": "chat", "request": "-", "examples": 0, "turns": None},
            **{"max_new_tokens": self.replies.max_tokens, "stop": [], "send_seed": True},
        }
        try:
            return OpenAISettings.model_validate({**values, "type": "openai_api"})
        except ValidationError as error:
            raise RecipeError(f"{ENDPOINTS}: {_LOADER.explain(OpenAISettings, error)}") from None

    def fixed(self) -> dict[str, Any]:
        """Return what must not change while a folder is filled.

        Where endpoints are, how many requests they bear, and what may be spent, may.
        """
        found = self.model_dump(mode="json")
        found["endpoints"] = {"extra_body": self.endpoints.extra_body}
        for party in (found["seeker"], *found["systems"].values()):
            is_local = party["base_url"] is None
            for key in ("key_env", "base_url", *(["model"] if is_local else ["folder"])):
                del party[key]
        return found


_LOADER = ConfigLoader(
    noun="simulation",
    folder=Path(__file__).parent / "simulations",
    base="simulation",
    example="turns=8",
)


def load_simulation(name: str | Path, overrides: Sequence[str] = ()) -> SimulationSettings:
    """Load shipped settings by name, or a file, and apply ``key.path=value`` overrides.

    Raises :class:`~augesc_builder.errors.RecipeError`, naming the keys.
    """
    found = _LOADER.check(SimulationSettings, _LOADER.read(name, overrides))
    for party in found.parties().values():
        if party.base_url is not None:
            found.asked(party)
    return found


def given_seeker(text: str) -> list[str]:
    """Return the overrides for a seeker given as ``DIR`` or ``URL#MODEL``.

    Raises :class:`~augesc_builder.errors.RecipeError` for an address without a model.
    """
    return _given(SEEKER, text, f"--seeker {text[:80]}: expected DIR, or URL#MODEL for an endpoint")


def given_systems(given: Sequence[str]) -> list[str]:
    """Return the overrides that name systems given as ``NAME=DIR`` or ``NAME=URL#MODEL``.

    Raises :class:`~augesc_builder.errors.RecipeError` for what is no such pair, and for two of one
    name.
    """
    overrides: list[str] = []
    seen: set[str] = set()
    for text in given:
        name, _, where = text.partition("=")
        told = f"--system {text[:80]}: expected NAME=DIR, or NAME=URL#MODEL for an endpoint"
        if not where or not name or "." in name:
            raise RecipeError(f"{told}, the name without a dot")
        if name in seen:
            raise RecipeError(f"--system {text[:80]}: a second system called {name}; name it anew")
        seen.add(name)
        overrides += _given(f"{SYSTEMS}.{name}", where, told)
    return overrides


def _given(section: str, where: str, told: str) -> list[str]:
    if "://" not in where:
        return [f"{section}.folder={json.dumps(where)}"]
    address, _, model = where.partition("#")
    if not model:
        raise RecipeError(told)
    return [
        f"{section}.base_url={json.dumps(address)}",
        f"{section}.model={json.dumps(model)}",
    ]
