"""One request to an endpoint that speaks OpenAI's protocol, and what may come of it.

Whatever an endpoint sends is a stranger's: it is taken apart here, and nothing of it is trusted.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from augesc_builder.config.openai_api import OpenAISettings
from augesc_builder.errors import EndpointError, MissingExtraError, install_extra
from augesc_builder.models.token_codec import readable
from augesc_builder.run.heartbeat import one_line

if TYPE_CHECKING:
    from typing_extensions import Self

EOS, LENGTH, EMPTY, FAILED = "eos", "length", "empty", "failed"

ENDS = {
    **dict.fromkeys(("stop", "eos", "eos_token", "end_turn", "stop_sequence"), EOS),
    **dict.fromkeys(("length", "max_tokens"), LENGTH),
    "content_filter": "content_filter",
}
"""What endpoints call the end of a text, and what the generations table calls it."""

_SOON = {408, 409, 425, 429}
"""Statuses below 500 that say: the same request, later."""

_MISSING, _TOO_MANY, _ITS_OWN = 404, 429, 500

_PRINTABLE = re.compile(r"[\x21-\x7e]{4,}")

_KEY = "[key]"

SECTION = "generate.backend"
"""Where a recipe has the settings of an endpoint."""


@dataclass(frozen=True)
class Answer:
    """What an endpoint wrote: its text, how that ended, and tokens, ``None`` where not counted."""

    text: str
    finish_reason: str
    prompt_tokens: int | None
    completion_tokens: int | None


class Trouble(Exception):  # noqa: N818 - most are no errors of a run
    """A request without an answer.

    - ``again``: whether the same request may be answered later, after ``wait`` seconds at least
    - ``congested``: whether there are too many requests at once
    - ``fatal``: whether no request will be answered
    - ``paid``: whether the endpoint may have worked for it
    - ``replied``: whether the endpoint answered this very request, in a way that is of no use
    """

    def __init__(
        self,
        reason: str,
        *,
        again: bool = False,
        wait: float = 0.0,
        congested: bool = False,
        fatal: bool = False,
        paid: bool = False,
        replied: bool = False,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.again, self.wait, self.congested = again, wait, congested
        self.fatal, self.paid, self.replied = fatal, paid, replied


class Endpoint:
    """An address, a model and a key, which nothing that is written down ever holds.

    ``section`` is what errors call the place of the settings.
    """

    def __init__(self, settings: OpenAISettings, section: str = SECTION) -> None:
        openai = _library()
        self._settings, self._key = settings, api_key(settings, section)
        self._section = section
        self._errors = openai
        self._client = openai.AsyncOpenAI(
            base_url=settings.base_url,
            api_key=self._key or "none",
            max_retries=0,
            timeout=settings.timeout,
        )
        resource = self._client.completions
        if settings.mode == "chat":
            resource = self._client.chat.completions
        self._create = resource.with_raw_response.create

    async def ask(self, body: Mapping[str, Any], request_id: str) -> Answer:
        """Send one request.

        Raises :class:`Trouble` where nothing came that can be used.
        """
        headers = {"X-Request-Id": request_id, "X-Client-Request-Id": request_id}
        more = dict(self._settings.extra_body)
        try:
            raw = await self._create(**body, extra_body=more, extra_headers=headers)
        except self._errors.APIError as error:
            raise self._trouble(error) from None
        return self._answer(raw.http_response.content)

    async def models(self) -> list[str]:
        """Return the models that the endpoint names; none where it does not say.

        Raises :class:`~augesc_builder.errors.EndpointError` where nothing answers, or not for this
        key.
        """
        try:
            raw = await self._client.models.with_raw_response.list()
            found = json.loads(raw.http_response.content)["data"]
            return [self._hide(str(entry["id"])) for entry in found]
        except self._errors.APIConnectionError as error:
            raise EndpointError(
                f"{self._settings.base_url}: nothing answers there ({self._said(error)}); start "
                f"the endpoint, or set {self._section}.base_url"
            ) from None
        except self._errors.APIStatusError as error:
            trouble = self._trouble(error)
            if trouble.fatal and error.status_code in {401, 403}:
                raise EndpointError(trouble.reason) from None
            return []
        except (ValueError, KeyError, TypeError, RecursionError):
            return []

    async def close(self) -> None:
        """Let go of connections."""
        await self._client.close()

    # -- inside ----------------------------------------------------------------------------------

    def _answer(self, content: bytes) -> Answer:
        found = _Response.read(content, "not the JSON that was expected")
        choice, usage = found.choices[0], found.usage or _Usage()
        said = choice.message
        text = self._hide(str(choice.text or (said and said.content) or ""))
        ended = ENDS.get(str(choice.finish_reason or "stop"), "other")
        if not text.strip() and ended == EOS:
            ended = "refused" if said is not None and said.refusal else EMPTY
        return Answer(text, ended, usage.prompt_tokens, usage.completion_tokens)

    def _trouble(self, error: Any) -> Trouble:
        """Say what an error of the client means for the requests to come."""
        said, cause = self._said(error), type(error.__cause__).__name__
        if isinstance(error, self._errors.APIStatusError):
            return self._status(error, said)
        if isinstance(error, self._errors.APITimeoutError):
            reason = f"no answer within {self._settings.timeout:g} s"
            return Trouble(reason, again=True, paid=cause != "ConnectTimeout")
        if isinstance(error, self._errors.APIConnectionError):
            return Trouble(f"no connection ({said})", again=True, paid=cause != "ConnectError")
        return Trouble(f"no usable answer ({said})", again=True, paid=True, replied=True)

    def _status(self, error: Any, said: str) -> Trouble:
        status = int(error.status_code)
        told = f"{self._settings.base_url} answers {status}: {said}"
        if getattr(error, "code", None) == "insufficient_quota":
            return Trouble(f"{told}; the account has nothing left to spend", fatal=True)
        if status in {401, 403}:
            return Trouble(f"{told}; {self._which_key()}", fatal=True)
        if status == _MISSING:
            hint = f"check {self._section}.model ({self._settings.model}) and mode"
            return Trouble(f"{told}; {hint}", fatal=True)
        if status in _SOON or status >= _ITS_OWN:
            wait = retry_after(error.response.headers)
            return Trouble(told, again=True, wait=wait, congested=status == _TOO_MANY)
        return Trouble(told, replied=True)

    def _which_key(self) -> str:
        name = self._settings.key_env
        if name is None:
            return f"it wants a key; set {self._section}.key_env to the variable that holds it"
        return f"check the key in {name}"

    def _said(self, error: Any) -> str:
        """Return what an error says, on a line, without the key that it may repeat."""
        body = getattr(error, "body", None)
        said = body
        if isinstance(body, Mapping):
            said = body.get("message") or body.get("detail")  # as OpenAI has it, and FastAPI
        if not said and isinstance(error, self._errors.APIStatusError):
            said = error.response.text
        if not said:
            cause = error.__cause__
            said = str(error if cause is None else cause) or type(cause or error).__name__
        return one_line(self._hide(str(said)), 200)

    def _hide(self, text: str) -> str:
        """Take the key out of what an endpoint says: some repeat it."""
        return text.replace(self._key, _KEY) if self._key else text


def api_key(settings: OpenAISettings, section: str = SECTION) -> str | None:
    """Return the key from the environment, or the keyring; ``None`` for an endpoint without one.

    Raises :class:`~augesc_builder.errors.EndpointError` where there is none.
    """
    name = settings.key_env
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key and settings.keyring is not None:
        key = _from_keyring(settings.keyring, name)
    if not key:
        raise EndpointError(
            f"the environment has no {name}; set it to the endpoint's key, or set "
            f"{section}.key_env to null for an endpoint that takes none"
        )
    if not _PRINTABLE.fullmatch(key):
        raise EndpointError(f"{name} holds no key: expected printable ASCII without blanks")
    return key


def retry_after(headers: Mapping[str, str]) -> float:
    """Return the seconds that ``Retry-After`` asks for, as a number or a date; 0 without it."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        given = str(headers.get(name, "")).strip()
        try:
            seconds = float(given) * unit
        except ValueError:
            continue
        return max(0.0, seconds) if math.isfinite(seconds) else 0.0
    try:
        when = parsedate_to_datetime(str(headers.get("retry-after", "")))
    except (ValueError, TypeError, OverflowError, IndexError):
        return 0.0
    if when.tzinfo is None:
        when = when.replace(tzinfo=timezone.utc)
    return max(0.0, (when - datetime.now(timezone.utc)).total_seconds())


def _count(value: Any) -> int | None:
    known = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31
    return value if known else None


_Count = Annotated[int | None, BeforeValidator(_count)]
"""Tokens as an endpoint counts them; a number that cannot be is no count."""

Text = Annotated[str, BeforeValidator(lambda t: readable(t) if isinstance(t, str) else t)]
"""What a model wrote, half of a surrogate pair in it made a line without a role."""


class Part(BaseModel):
    """A part of what an endpoint sends, of which some is read."""

    model_config = ConfigDict(extra="ignore")

    @classmethod
    def read(cls, content: str | bytes, trouble: str) -> Self:
        """Read JSON; raises :class:`Trouble`, naming the first part that is wrong."""
        try:
            return cls.model_validate(json.loads(content))
        except (ValueError, RecursionError) as error:  # a ValidationError is a ValueError
            if isinstance(error, ValidationError):
                trouble = f"{trouble}: {'.'.join(map(str, error.errors()[0]['loc']))[:60]}"
            raise Trouble(trouble, again=True, paid=True, replied=True) from None


class _Usage(Part):
    prompt_tokens: _Count = None
    completion_tokens: _Count = None


class _Message(Part):
    content: Text | None = None
    refusal: Text | None = None


class _Choice(Part):
    text: Text | None = None
    message: _Message | None = None
    finish_reason: Any = None


class _Response(Part):
    choices: Annotated[list[_Choice], Field(min_length=1)]
    usage: _Usage | None = None


def _library() -> Any:
    try:
        import openai
    except ImportError:
        raise MissingExtraError(
            f"a model at an address needs the client openai: {install_extra('api')}"
        ) from None
    return openai


def _from_keyring(service: str, name: str) -> str:
    try:
        import keyring
    except ImportError:
        raise MissingExtraError(
            "generate.backend.keyring needs the package keyring: pip install keyring"
        ) from None
    try:
        return str(keyring.get_password(service, name) or "")
    except keyring.errors.KeyringError as error:
        raise EndpointError(f"the keyring gives no {name} of {service}: {error}") from None
