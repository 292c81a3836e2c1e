"""Section ``generate.backend`` of type ``openai_api``: an endpoint, and how it is asked."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from augesc_builder.config.base import BackendSettings, ModelText, NotNegative, Positive, Section

ASKED = frozenset(
    {
        *("model", "prompt", "messages", "max_tokens", "temperature", "top_p", "stop", "seed"),
        *("n", "best_of", "echo", "stream", "stream_options", "logprobs"),
    }
)
"""Fields of a request that keys of their own decide, or that would change what an answer is."""


def _check_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        whole = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        whole = False
    if not whole or not url.isprintable():
        raise ValueError("expected the address of an endpoint, such as http://127.0.0.1:8000/v1")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ValueError(
            "an address holds no key, name, password or query: recipes and cards are published; "
            "put the key into the environment, and its variable's name into key_env"
        )
    return url.rstrip("/")


def _check_variable(name: Any) -> Any:
    if name is None or (
        isinstance(name, str)
        and name.isascii()
        and name.isidentifier()
        and name == name.upper()
        and len(name) <= 64  # noqa: PLR2004
    ):
        return name
    raise ValueError(  # what is given is not repeated: it may be the key itself
        "expected the name of an environment variable in capitals, such as OPENAI_API_KEY, never "
        "the key itself"
    )


class Budget(Section):
    """What all requests of a run may take together, as far as the endpoint counts it."""

    tokens: Positive | None
    money: Annotated[float, Field(gt=0)] | None


class Prices(Section):
    """Money for a million tokens."""

    prompt: Annotated[float, Field(ge=0)]
    completion: Annotated[float, Field(ge=0)]


class Turns(Section):
    """Conversations that are asked for line by line."""

    max: Annotated[int, Field(ge=2)]
    last_words: list[Annotated[str, Field(min_length=1)]]
    request: Annotated[str, Field(min_length=1)]


class OpenAISettings(BackendSettings):
    """A model behind an endpoint that speaks OpenAI's protocol."""

    free: ClassVar[frozenset[str]] = frozenset(
        {
            *("base_url", "key_env", "keyring", "concurrency", "timeout", "deadline"),
            *("budget", "prices"),
        }
    )

    several: ClassVar[bool] = True

    type: Literal["openai_api"]
    base_url: Annotated[str, AfterValidator(_check_url)]
    model: Annotated[ModelText, Field(min_length=1)]
    key_env: Annotated[str | None, BeforeValidator(_check_variable)]
    keyring: Annotated[str, Field(min_length=1)] | None
    mode: Literal["completions", "chat"]
    request: Annotated[str, Field(min_length=1)]
    examples: NotNegative
    turns: Turns | None
    max_new_tokens: Positive
    stop: list[Annotated[str, Field(min_length=1)]]
    send_seed: bool
    extra_body: dict[str, Any]
    concurrency: Positive
    timeout: Annotated[float, Field(gt=0)]
    deadline: Annotated[float, Field(gt=0)]
    budget: Budget
    prices: Prices | None

    @property
    def gpus(self) -> int:
        """Return 0: the endpoint has them."""
        return 0

    @model_validator(mode="after")
    def _fits_its_mode(self) -> OpenAISettings:
        if self.mode == "completions" and (self.examples or self.turns is not None):
            raise ValueError("examples and turns go with mode: chat only")
        if self.budget.money is not None and self.prices is None:
            raise ValueError("budget.money needs prices: money for a million tokens")
        if self.keyring is not None and self.key_env is None:
            raise ValueError("keyring needs key_env, under whose name the key is kept there")
        if taken := sorted(ASKED & self.extra_body.keys()):
            raise ValueError(f"extra_body holds {', '.join(taken)}, which other keys decide")
        return self
