"""What the libraries of stores take and say, each in its own way, in one way for all."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any

from augesc_builder.errors import install_extra

PRECONDITION = 412
"""What a store answers by HTTP where an object is there that was to be created."""

_PASSING = {408, 409, 425, 429}
"""Refusals by HTTP that pass."""

REMEMBERING = {"hf"}
"""Libraries that remember listings though they are told not to: others write there, too."""

_FORBIDDEN = {401, 403}

_MD5 = re.compile(r"[0-9a-f]{32}\Z")


def options(protocol: str) -> dict[str, Any]:
    """Return what a library of a store is told: to give up early, for we try again ourselves."""
    if protocol in REMEMBERING:
        return {"skip_instance_cache": True}  # or threads share what is remembered
    if protocol not in {"s3", "s3a"}:
        return {}
    return {"config_kwargs": {"retries": {"mode": "standard", "total_max_attempts": 2}}}


def package(protocol: str) -> str:
    """Say what reads a kind of address."""
    if protocol in {"s3", "s3a"}:
        return f"s3fs; install it with: {install_extra('s3')}"
    return f"the package of fsspec for {protocol}, such as gcsfs for gs; install that with pip"


def md5(info: Mapping[str, Any]) -> str | None:
    """Return the digest that a store tells: S3 of what was put at once and is not encrypted."""
    if isinstance(found := info.get("md5Hash"), str):  # of Google's
        return base64.b64decode(found).hex()
    tag = str(info.get("ETag", "")).strip('"')
    return tag if _MD5.match(tag) else None


def is_about_keys(error: Exception) -> bool:
    """Whether the keys for a store are what is missing."""
    return type(error).__name__ in {
        *(
            "NoCredentialsError",
            "PartialCredentialsError",
            "ProfileNotFound",
            "TokenRetrievalError",
        ),
        *("DefaultCredentialsError", "RefreshError", "GatedRepoError", "LocalTokenNotFoundError"),
    }


def is_forbidden(error: Exception) -> bool:
    """Whether a store does not let these keys do it."""
    if isinstance(error, OSError) and str(error).startswith("Forbidden:"):  # gcsfs says no more
        return True
    return isinstance(error, PermissionError) or status(error) in _FORBIDDEN


def is_wrong(error: Exception) -> bool:
    """Whether an address is no good, whatever the store is like."""
    found = status(error)
    if found is not None:
        return 400 <= found < 500 and found not in _PASSING  # noqa: PLR2004
    return type(error).__name__ in {"ParamValidationError", "HFValidationError", "NoRegionError"}


def status(error: BaseException | None) -> int | None:
    """Return the code of HTTP behind an error, if a library tells it."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, Mapping):  # botocore
            found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        else:
            found = getattr(response, "status_code", None) or getattr(error, "code", None)
        if isinstance(found, int):
            return found
        error = error.__cause__
    return None


def short(error: Exception) -> str:
    """Say an error in few words."""
    said = " ".join(str(error).split())[:200]
    return said or type(error).__name__
