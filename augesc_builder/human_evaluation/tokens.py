"""Personal links: tokens that nobody can guess, and what of them is kept.

A link's token is random. The token of somebody whom a crowd platform sent is a keyed digest of the
annotator's name, so that nothing needs to be written before the person has agreed to anything. All
of it stands in one file that only the owner of the study may read; without it nobody gets in.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from augesc_builder.errors import RunFolderError
from augesc_builder.run import layout
from augesc_builder.run.disk import disk_errors, load_sealed, sealed, sync

_BYTES = 24
"""Random bytes of a token: 192 bits."""

_LONGEST = 200


@dataclass(frozen=True)
class Tokens:
    """The tokens of a study: ``links`` by annotator, and the ``secret`` behind all others."""

    secret: str
    links: dict[str, str] = field(default_factory=dict)

    @classmethod
    def draw(cls, n_links: int) -> Tokens:
        """Draw tokens for so many links; annotators are named by a digest, in no order."""
        links: dict[str, str] = {}
        while len(links) < n_links:
            token = secrets.token_urlsafe(_BYTES)
            links[f"a{_digest(token)[:8]}"] = token
        return cls(secrets.token_urlsafe(_BYTES), links)

    def annotator(self, token: str) -> str | None:
        """Return whose token it is; ``None`` where it is nobody's.

        How long that takes says nothing of how much of a guess was right.
        """
        if len(token) > _LONGEST or not token.isascii():
            return None
        found = None
        name, _, mac = token.partition(".")
        if mac and hmac.compare_digest(token, self.of_crowd(name)):
            found = name
        for annotator, link in self.links.items():
            if hmac.compare_digest(token, link):
                found = annotator
        return found

    def of_crowd(self, annotator: str) -> str:
        """Return the token of somebody who came from a crowd platform."""
        mac = hmac.new(self.secret.encode(), annotator.encode(), hashlib.sha256).hexdigest()
        return f"{annotator}.{mac[:48]}"

    def crowd_name(self, person: str) -> str:
        """Return the annotator's name of a person known by a platform's id, always the same."""
        keyed = hmac.new(self.secret.encode(), f"person/{person}".encode(), hashlib.sha256)
        return f"c{keyed.hexdigest()[:16]}"

    def token_of(self, annotator: str) -> str:
        """Return the token of an annotator, from a link or from a platform."""
        return self.links.get(annotator) or self.of_crowd(annotator)


def write_tokens(folder: Path, tokens: Tokens) -> None:
    """Write the tokens into a new file that nobody but its owner may read."""
    path = folder / layout.TOKENS
    with disk_errors(path):
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(number, "w", encoding="utf-8") as file:
            file.write(sealed({"secret": tokens.secret, "links": tokens.links}))
        sync(path)


def read_tokens(folder: Path) -> Tokens:
    """Read the tokens of a study.

    Raises :class:`~augesc_builder.errors.RunFolderError` where there are none, or where others may
    read the file.
    """
    path = folder / layout.TOKENS
    if path.exists() and path.stat().st_mode & 0o077:
        raise RunFolderError(f"{path}: others may read these tokens; run: chmod 600 {path}")
    found: dict[str, Any] = load_sealed(path)
    links = found.get("links")
    if not isinstance(found.get("secret"), str) or not isinstance(links, dict):
        raise RunFolderError(f"{path}: expected a secret and links; put the file back from a copy")
    return Tokens(found["secret"], links)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


__all__ = ["Tokens", "read_tokens", "write_tokens"]
