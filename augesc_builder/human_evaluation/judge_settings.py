"""The settings of a judge: which model, how it is asked, how often."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from augesc_builder.config.base import ModelText, Positive, Section
from augesc_builder.config.loader import ConfigLoader
from augesc_builder.config.openai_api import Budget, OpenAISettings, Prices
from augesc_builder.errors import RecipeError
from augesc_builder.human_evaluation.settings import Paragraph

SECTION = "endpoint"
"""Where the settings of a judge have those of its endpoint."""

_LONGEST_NAME = 60
_STRANGE = re.compile(r"[^A-Za-z0-9._-]")


class JudgeEndpoint(Section):
    """A model behind an endpoint that speaks OpenAI's protocol of chat."""

    base_url: str
    model: Annotated[ModelText, Field(min_length=1)]
    key_env: str | None
    max_new_tokens: Positive
    extra_body: dict[str, Any]
    concurrency: Positive
    timeout: Annotated[float, Field(gt=0)]
    deadline: Annotated[float, Field(gt=0)]
    budget: Budget
    prices: Prices | None


class JudgeSettings(Section):
    """Every setting of a judge."""

    endpoint: JudgeEndpoint
    draws: Annotated[int, Field(ge=1, le=99)]
    temperature: Annotated[float, Field(ge=0, le=5)]
    tries: Annotated[int, Field(ge=1, le=9)]
    prompt: Paragraph

    def asked(self) -> OpenAISettings:
        """Return the settings of the endpoint, checked, as its client takes them.

        Raises :class:`~augesc_builder.errors.RecipeError`, naming the keys.
        """
        more: dict[str, Any] = {
            "keyring": None,
            "request": "-",
            "examples": 0,
            "turns": None,
            "stop": [],
        }
        values = {**self.endpoint.model_dump(), **more, "send_seed": False, "mode": "chat"}
        try:
            return OpenAISettings.model_validate({**values, "type": "openai_api"})
        except ValidationError as error:
            raise RecipeError(f"{SECTION}: {_LOADER.explain(OpenAISettings, error)}") from None

    def identity(self, guideline: str) -> dict[str, Any]:
        """Return what an answer depends on; ``guideline`` is what the form comes to.

        The address is no part of it: a judge may go on at another.
        """
        return {
            "model": self.endpoint.model,
            "temperature": self.temperature,
            "draws": self.draws,
            "tries": self.tries,
            "max_new_tokens": self.endpoint.max_new_tokens,
            "extra_body": self.endpoint.extra_body,
            "prompt": guideline,
        }

    def name(self, guideline: str) -> str:
        """Return what the judge is called among annotators: another prompt is another judge."""
        model = _STRANGE.sub("-", self.endpoint.model.rstrip("/").rpartition("/")[2])
        known = json.dumps(self.identity(guideline), sort_keys=True, ensure_ascii=True)
        return f"{model[:_LONGEST_NAME]}-{hashlib.sha256(known.encode()).hexdigest()[:8]}"


_LOADER = ConfigLoader(
    noun="judge", folder=Path(__file__).parent / "judges", base="judge", example="draws=5"
)


def load_judge(name: str | Path, overrides: Sequence[str] = ()) -> JudgeSettings:
    """Load shipped settings by name, or a file, and apply ``key.path=value`` overrides.

    Raises :class:`~augesc_builder.errors.RecipeError`, naming the keys.
    """
    found = _LOADER.check(JudgeSettings, _LOADER.read(name, overrides))
    found.asked()
    return found
