"""Downloads from the Hugging Face Hub, each pinned to a commit.

A Hub that takes a connection and never answers must not hold a command: the clients of
``huggingface_hub`` wait for ever unless told otherwise, and then try again several times a file. So
it is asked once whether it answers, and what does not is left alone. ``HF_HUB_DOWNLOAD_TIMEOUT``
says how many seconds it has (10).
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterator
from pathlib import Path

from augesc_builder.errors import DownloadError


@contextlib.contextmanager
def download_errors(what: str, hint: str) -> Iterator[None]:
    """Turn any failure to get ``what`` into one line that ends with what to do instead.

    Raises :class:`~augesc_builder.errors.DownloadError` for it.
    """
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        yield
    except LocalEntryNotFoundError as error:
        reason = "it does not answer, and the cache has none"
        raise DownloadError(f"{what} cannot be had from the Hub ({reason}); {hint}") from error
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DownloadError(f"{what} cannot be had from the Hub ({reason}); {hint}") from error


def hub_answers() -> bool:
    """Whether the Hub answers at all; from here on no request waits for ever."""
    from huggingface_hub import constants, get_session

    seconds = constants.HF_HUB_DOWNLOAD_TIMEOUT
    session = get_session()
    session.timeout = _PATIENCE * seconds
    if constants.ENDPOINT not in _answered:
        try:
            session.head(constants.ENDPOINT, timeout=seconds)
        except Exception:  # no connection, no answer, or offline: whatever the client calls it
            return False
        _answered.add(constants.ENDPOINT)
    return True


_answered: set[str] = set()
"""Hubs that have answered this process."""

_PATIENCE = 6
"""Times as long as it has to answer at all, the Hub has for a commit of many files."""


_LISTED = 1000
"""Models of one owner among which a name's like is looked for."""

ON_THE_HUB = "hf://datasets/"
"""How the path of a dataset on the Hub begins."""


def is_on_the_hub(path: str) -> bool:
    """Whether a path is the address of a dataset on the Hub."""
    return path.startswith(ON_THE_HUB)


def resolve_model(name: str, revision: str | None, key: str = "backbone.name") -> str:
    """Return the commit that a revision of a model stands for; a commit stands for itself.

    ``key`` is the setting that names the model. Raises
    :class:`~augesc_builder.errors.DownloadError` where the Hub does not know it, with the nearest
    names of its owner, or does not answer.
    """
    if revision and re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    hint = f"check the name, or give a local folder with --set {key}=PATH"
    with download_errors(f"model {name} at revision {revision}", hint):
        try:
            seconds = constants.HF_HUB_DOWNLOAD_TIMEOUT
            found = HfApi().model_info(name, revision=revision, timeout=seconds)
            return found.sha or str(revision)
        except RepositoryNotFoundError as error:
            if isinstance(error, GatedRepoError) or not (near := _models_like(name)):
                raise
    raise DownloadError(
        f"the Hub has no model {name}, or keeps it private; near to it are {', '.join(near)}; take "
        f"one with --set {key}=NAME, or a local folder with --set {key}=PATH"
    )


def _models_like(name: str) -> list[str]:
    """Return the names of the same owner's models that are most like ``name``, the nearest first.

    None where the Hub does not say: that it has no such model has been found out already.
    """
    from huggingface_hub import HfApi

    owner, slash, _ = name.partition("/")
    if not slash or not hub_answers():
        return []
    try:
        known = [model.id for model in HfApi().list_models(author=owner, limit=_LISTED)]
    except Exception:
        return []
    return difflib.get_close_matches(name, known, n=3, cutoff=0.7)


def download_dataset(repo: str, revision: str, patterns: list[str], hint: str) -> tuple[Path, str]:
    """Download files of a dataset repo; return their folder and the commit they are of.

    What is in the cache already is taken from there when the Hub cannot be reached. Raises
    :class:`~augesc_builder.errors.DownloadError` where neither has them.
    """
    from huggingface_hub import snapshot_download

    with download_errors(f"{repo} at revision {revision}", hint):
        folder = Path(
            snapshot_download(
                repo,
                repo_type="dataset",
                revision=revision,
                allow_patterns=patterns,
                local_files_only=not hub_answers(),
            )
        )
        return folder, folder.name  # the cache names a snapshot by its commit


def download_file(repo: str, name: str, revision: str | None, hint: str) -> Path:
    """Download one file of a model repo; return where the cache has it.

    Raises :class:`~augesc_builder.errors.DownloadError` where neither Hub nor cache has it.
    """
    from huggingface_hub import hf_hub_download

    with download_errors(f"{name} of {repo} at revision {revision or 'main'}", hint):
        return Path(
            hf_hub_download(repo, name, revision=revision, local_files_only=not hub_answers())
        )
