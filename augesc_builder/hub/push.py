"""What the Hugging Face Hub is asked and given, and what is said when it does not answer.

A push is one commit on top of the commit that it was planned from: it happens whole or not at all.
It leaves a record in the repo of what it put there (``.augesc.json``): what the record does not
list, or what somebody has changed since, is somebody else's.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from augesc_builder.errors import PublishError
from augesc_builder.readers.hub import hub_answers

Kind = Literal["dataset", "model"]
Gating = Literal["auto", "manual"]
Content = Path | bytes
"""A file, or what is to be in it."""

Merge = Callable[[str, str | None], str]
"""Lays a text over the one that is in the repo already, if any."""

What = Literal["new", "changed", "same", "removed", "in the way"]

CARD, RECORD = "README.md", ".augesc.json"
_BLOCK = 1 << 20
_KIND = "augesc push"


@dataclass(frozen=True)
class Change:
    """What a push does to one file of the repo."""

    path: str
    size: int
    what: What


@dataclass(frozen=True)
class Remote:
    """A repo as it is: its commit, who may have it, digest and size of each file."""

    commit: str | None
    private: bool
    gated: Gating | Literal[False]
    digests: Mapping[str, str]
    sizes: Mapping[str, int]

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

    @property
    def in_the_way(self) -> list[str]:
        """The files of others that the push would have to replace or remove."""
        return [change.path for change in self.changes if change.what == "in the way"]


def plan_push(
    repo: str,
    kind: Kind,
    files: Mapping[str, Content],
    merges: Mapping[str, Merge],
    hides: Collection[str] = (),
) -> Push:
    """Compare files with what the repo holds.

    ``merges`` lay files of those names over the ones there, such as the card. What an earlier push
    put there, and nobody has changed since, is replaced, or removed where it is not among
    ``files``. Other files with the names of ours are in the way, and so are those of ``hides``,
    behind which the data would not be found.

    Raises :class:`~augesc_builder.errors.PublishError` where the Hub does not answer.
    """
    with push_errors(repo):
        remote = _look_at(repo, kind)
        there = merges.keys() & remote.digests.keys()
        theirs = {name: _text_of(repo, kind, remote, name) for name in sorted(there)}
        before = _record_of(repo, kind, remote)
    files = {
        **files,
        **{
            name: merge(_text(files[name]), theirs.get(name)).encode()
            for name, merge in merges.items()
        },
    }
    record = {path: _digests(content) for path, content in sorted(files.items())}
    files[RECORD] = (json.dumps({"kind": _KIND, "files": record}, indent=1) + "\n").encode()
    mended = {CARD, RECORD} if before else {CARD}
    changes = []
    for path, content in sorted(files.items()):
        now = remote.digests.get(path)
        what: What = "new" if now is None else "same" if now in _digests(content) else "changed"
        if what == "changed" and path not in mended and now not in before.get(path, ()):
            what = "in the way"
        changes.append(Change(path, _size(content), what))
    for path, now in sorted(remote.digests.items()):
        if path not in files and (path in hides or now in before.get(path, ())):
            what = "removed" if now in before.get(path, ()) else "in the way"
            changes.append(Change(path, remote.sizes[path], what))
    return Push(repo, kind, files, remote, tuple(changes))


def carry_out(
    push: Push, *, private: bool, message: str, gated: Gating | None = None
) -> tuple[str, str | None]:
    """Push in one commit, over what is in the way; return it and its address.

    ``private`` is for a repo that is not there yet. ``gated`` is set before the files are sent;
    where none has changed, it is all that is done, and there is no address.

    Raises :class:`~augesc_builder.errors.PublishError`; then the repo holds what it held before,
    though ``gated`` may be set.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi()
    with push_errors(push.repo):
        check_answers(push.repo)
        check_token(api.whoami(), push.repo)
        commit = push.remote.commit
        if not push.remote.exists:
            api.create_repo(push.repo, repo_type=push.kind, private=private, exist_ok=True)
            commit = api.repo_info(push.repo, repo_type=push.kind).sha
        if gated is not None:
            api.update_repo_settings(push.repo, gated=gated, repo_type=push.kind)
        if not push.is_needed:
            return str(commit), None
        operations: list[Any] = []
        for change in push.changes:
            if change.path not in push.files:
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
                    f"({reason_of(error)}); run the same command again to see whether it is this "
                    f"one"
                ) from error
            raise
    return str(done.oid), str(done.commit_url)


def address(repo: str) -> str:
    """Return where the page of a dataset is, or will be."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/datasets/{repo}"


def names_of_commits(repo: str, kind: Kind) -> dict[str, str]:
    """Return the tags and branches of a repo, with the commit of each."""
    from huggingface_hub import HfApi

    refs = HfApi().list_repo_refs(repo, repo_type=kind)
    return {ref.name: ref.target_commit for ref in [*refs.branches, *refs.tags]}


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
        raise PublishError(f"{repo} was not changed: {reason_of(error)}; {hint}") from error


def check_answers(repo: str) -> None:
    """Refuse to wait for a Hub that does not answer.

    Raises :class:`~augesc_builder.errors.PublishError`.
    """
    if not hub_answers():
        raise PublishError(
            f"{repo} was not changed: the Hub does not answer; look at the connection and at "
            f"HF_ENDPOINT, and run the same command again"
        )


_CONFLICT = 412
"""The status for a commit whose parent is not the newest any more."""


def _status(error: Exception) -> int | None:
    from huggingface_hub.errors import HfHubHTTPError

    return error.response.status_code if isinstance(error, HfHubHTTPError) else None


def reason_of(error: BaseException) -> str:
    """Return the first line of the innermost error: clients wrap what the Hub said."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _look_at(repo: str, kind: Kind) -> Remote:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError
    from huggingface_hub.hf_api import RepoFile

    api = HfApi()
    check_answers(repo)
    try:
        info = api.repo_info(repo, repo_type=kind)
    except RepositoryNotFoundError:
        return Remote(None, private=False, gated=False, digests={}, sizes={})
    digests, sizes = {}, {}
    for entry in api.list_repo_tree(repo, recursive=True, repo_type=kind, revision=info.sha):
        if isinstance(entry, RepoFile):
            digests[entry.path] = entry.lfs.sha256 if entry.lfs else entry.blob_id
            sizes[entry.path] = entry.size
    private, gated = bool(info.private), info.gated or False
    return Remote(info.sha, private=private, gated=gated, digests=digests, sizes=sizes)


def _text_of(repo: str, kind: Kind, remote: Remote, name: str) -> str:
    from huggingface_hub import hf_hub_download

    path = hf_hub_download(repo, name, repo_type=kind, revision=remote.commit)
    return Path(path).read_text(encoding="utf-8")


def _record_of(repo: str, kind: Kind, remote: Remote) -> dict[str, list[str]]:
    """Return the digests of what the last push put there; nothing where none did."""
    if RECORD not in remote.digests:
        return {}
    try:
        found = json.loads(_text_of(repo, kind, remote, RECORD))
        if found["kind"] == _KIND:
            return {
                str(path): [str(d) for d in digests] for path, digests in found["files"].items()
            }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass  # another's file of that name
    return {}


def _digests(content: Content) -> list[str]:
    """Return the digests of a content: the one that LFS takes, and the one that git takes."""
    large = hashlib.sha256()
    small = hashlib.sha1(f"blob {_size(content)}\0".encode(), usedforsecurity=False)
    with _open(content) as file:
        while block := file.read(_BLOCK):
            large.update(block)
            small.update(block)
    return [large.hexdigest(), small.hexdigest()]


def _size(content: Content) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _open(content: Content) -> BinaryIO:
    return io.BytesIO(content) if isinstance(content, bytes) else content.open("rb")


def _text(content: Content) -> str:
    with _open(content) as file:
        return file.read().decode("utf-8")
