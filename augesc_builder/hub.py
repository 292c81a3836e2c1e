"""What the Hugging Face Hub is asked: commits of what is downloaded."""

from __future__ import annotations

import re

from augesc_builder.errors import DownloadError


def resolve_model(name: str, revision: str | None) -> str:
    """Give the commit that a revision of a model stands for; a commit stands for itself."""
    if revision and re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    from huggingface_hub import HfApi

    try:
        return HfApi().model_info(name, revision=revision).sha or str(revision)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DownloadError(
            f"model {name} at revision {revision} cannot be had from the Hub ({reason}); check the "
            f"name, or give a local folder with --set backbone.name=PATH"
        ) from error
