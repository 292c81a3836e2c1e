"""What the Hugging Face Hub is asked and given, and what is said when it does not answer.

A push is one commit on top of the commit that it was planned from: it happens whole or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from augesc_builder.errors import PublishError

Kind = Literal["dataset", "model"]
Content = Path | bytes
"""A file, or what is to be in it."""

CARD = "README.md"
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Change:
    """What a push does to one file of the repo."""

    path: str
    size: int
    what: Literal["new", "changed", "same", "removed"]


@dataclass(frozen=True)
class Remote:
    """A repo as it is: its commit, whether it is private, and the digest of each file."""

    commit: str | None
    private: bool
    digests: Mapping[str, tuple[int, str]]

    @property
    def exists(self) -> bool:
        """Whether there is such a repo."""
        return self.commit is not None


@dataclass(frozen=True)
class Push:
    """A planned push."""

    repo: str
    kind: Kind
    files: Mapping[str, Content]
    remote: Remote
    changes: tuple[Change, ...]

    @property
    def is_needed(self) -> bool:
        """Whether anything would change."""
        return any(change.what != "same" for change in self.changes)


def plan_push(
    repo: str,
    kind: Kind,
    files: Mapping[str, Content],
    merge: Callable[[str, str | None], str],
    is_ours: Callable[[str], bool],
) -> Push:
    """Compare files with what the repo holds.

    ``merge`` lays the new card over the one there. A file that is there, is not among ``files`` and
    of which ``is_ours`` says that a push put it there is removed. Raises
    :class:`~augesc_builder.errors.PublishError` where the Hub does not answer.
    """
    with push_errors(repo):
        remote = _look_at(repo, kind)
        theirs = _card_of(repo, kind, remote) if CARD in remote.digests else None
    files = {**files, CARD: merge(_text(files[CARD]), theirs).encode()}
    changes = [
        Change(path, _size(content), _what(remote.digests.get(path), content))
        for path, content in sorted(files.items())
    ]
    changes += [
        Change(path, size, "removed")
        for path, (size, _) in sorted(remote.digests.items())
        if path not in files and is_ours(path)
    ]
    return Push(repo, kind, files, remote, tuple(changes))


def carry_out(push: Push, *, private: bool, message: str) -> str:
    """Push in one commit; return its address.

    Raises :class:`~augesc_builder.errors.PublishError`; then the repo holds what it held before.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi()
    with push_errors(push.repo):
        check_token(api.whoami(), push.repo)
        commit = push.remote.commit
        if not push.remote.exists:
            api.create_repo(push.repo, repo_type=push.kind, private=private, exist_ok=True)
            commit = api.repo_info(push.repo, repo_type=push.kind).sha
        operations: list[Any] = []
        for change in push.changes:
            if change.what == "removed":
                operations.append(CommitOperationDelete(change.path))
            elif change.what != "same":
                content = push.files[change.path]
                operations.append(
                    CommitOperationAdd(
                        change.path, content if isinstance(content, bytes) else str(content)
                    )
                )
        try:
            done = api.create_commit(
                push.repo,
                operations,
                commit_message=message,
                repo_type=push.kind,
                parent_commit=commit,
            )
        except Exception as error:
            if _status(error) == _CONFLICT:
                raise
            # The answer to a commit can get lost on its way back.
            if _look_at(push.repo, push.kind).commit not in {commit, None}:
                raise PublishError(
                    f"{push.repo} has a new commit, but the Hub's answer was lost "
                    f"({_reason(error)}); run the same command again to see whether it is this one"
                ) from error
            raise
    return str(done.commit_url)


def check_token(who: Mapping[str, Any], repo: str) -> None:
    """Refuse a token that may not write to the repo.

    Raises :class:`~augesc_builder.errors.PublishError`.
    """
    token = who.get("auth", {}).get("accessToken", {})
    role = token.get("role")
    may = role != "read"
    if role == "fineGrained":
        may = any(
            "repo.write" in scope.get("permissions", ())
            and scope.get("entity", {}).get("name") in {repo, repo.split("/", maxsplit=1)[0]}
            for scope in token.get("fineGrained", {}).get("scoped", ())
        )
    if not may:
        raise PublishError(
            f"the token {token.get('displayName', '')!r} of {who.get('name')} may not write to "
            f"{repo}; make one with the role `write` at https://huggingface.co/settings/tokens and "
            f"give it to `hf auth login`"
        )


@contextlib.contextmanager
def push_errors(repo: str) -> Iterator[None]:
    """Turn any failure to push into one line that says what happened and what to do.

    Raises :class:`~augesc_builder.errors.PublishError` for it.
    """
    from huggingface_hub.errors import LocalTokenNotFoundError

    try:
        yield
    except PublishError:
        raise
    except LocalTokenNotFoundError:
        raise PublishError(
            f"no token for the Hub, and {repo} is written with one; run `hf auth login`, or set "
            f"HF_TOKEN"
        ) from None
    except Exception as error:
        status = _status(error)
        if status in {401, 403}:
            hint = "give `hf auth login` a token with the role `write` for that repo"
        elif status == _CONFLICT:
            hint = "somebody else pushed meanwhile; run the same command again"
        else:
            hint = "run the same command again; what was sent already is not sent twice"
        raise PublishError(f"{repo} was not changed: {_reason(error)}; {hint}") from error


_CONFLICT = 412
"""The status for a commit whose parent is not the newest any more."""


def _status(error: Exception) -> int | None:
    from huggingface_hub.errors import HfHubHTTPError

    return error.response.status_code if isinstance(error, HfHubHTTPError) else None


def _reason(error: BaseException) -> str:
    """Return the first line of the innermost error: clients wrap what the Hub said."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _look_at(repo: str, kind: Kind) -> Remote:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError
    from huggingface_hub.hf_api import RepoFile

    api = HfApi()
    try:
        info = api.repo_info(repo, repo_type=kind)
    except RepositoryNotFoundError:
        return Remote(None, private=False, digests={})
    digests = {}
    for entry in api.list_repo_tree(repo, recursive=True, repo_type=kind, revision=info.sha):
        if isinstance(entry, RepoFile):
            digest = entry.lfs.sha256 if entry.lfs else entry.blob_id
            digests[entry.path] = (entry.size, digest)
    return Remote(info.sha, private=bool(info.private), digests=digests)


def _card_of(repo: str, kind: Kind, remote: Remote) -> str:
    from huggingface_hub import hf_hub_download

    path = hf_hub_download(repo, CARD, repo_type=kind, revision=remote.commit)
    return Path(path).read_text(encoding="utf-8")


def _what(there: tuple[int, str] | None, content: Content) -> Literal["new", "changed", "same"]:
    if there is None:
        return "new"
    size = _size(content)
    if there[0] != size:
        return "changed"
    large = hashlib.sha256()
    small = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)  # as git names it
    with _open(content) as file:
        while block := file.read(_BLOCK):
            large.update(block)
            small.update(block)
    return "same" if there[1] in {large.hexdigest(), small.hexdigest()} else "changed"


def _size(content: Content) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _open(content: Content) -> BinaryIO:
    return io.BytesIO(content) if isinstance(content, bytes) else content.open("rb")


def _text(content: Content) -> str:
    with _open(content) as file:
        return file.read().decode("utf-8")
