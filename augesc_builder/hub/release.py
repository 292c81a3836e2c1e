"""A push from its plan to its end: what is refused, what is sent, its tag, who may have it."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass

import yaml

from augesc_builder.citations import card_file
from augesc_builder.errors import PublishError
from augesc_builder.hub.push import (
    Gating,
    Kind,
    Merge,
    Push,
    carry_out,
    names_of_commits,
    push_errors,
    reason_of,
)
from augesc_builder.pipeline.card.metadata import join_card, split_card
from augesc_builder.run.markdown import markdown_table
from augesc_builder.run.progress import Progress

_TAG = re.compile(r"(?!.*\.\.)(?!.*\.lock$)(?![0-9a-f]{40}$)[A-Za-z0-9]([\w.-]*[\w-])?", re.ASCII)
"""Names of tags: what git takes, a path of one part, and no commit's own."""

_LOOKED_AT = 5
"""Files named in an error."""


@dataclass(frozen=True)
class How:
    """How a push is done.

    - ``public``: of a new repo; it is private where that is not said
    - ``replace``: lets files of others go that are in the way
    - ``tag``: the release that the commit becomes; a tag that is there is never moved
    - ``gated``: whoever wants the files answers questions, and has them at once (``auto``) or when
      the owner agrees (``manual``)
    - ``dry_run``: the changes are shown, and nothing is sent
    """

    public: bool | None = None
    replace: bool = False
    tag: str | None = None
    gated: Gating | None = None
    dry_run: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be a tag.

        Raises :class:`~augesc_builder.errors.PublishError`.
        """
        if self.tag is not None and not _TAG.fullmatch(self.tag):
            raise PublishError(
                f"--tag {self.tag!r:.60}: expected letters, digits, dots, dashes and underscores, "
                f"such as v1"
            )


USUAL = How()
"""A push of files alone, to a new repo that is private."""


def with_questions(merge: Merge) -> Merge:
    """Let merged cards ask the questions of a gated repo, where they do not ask others."""
    questions = yaml.safe_load(card_file("access.yaml"))

    def merged(ours: str, theirs: str | None) -> str:
        values, body = split_card(merge(ours, theirs))
        return join_card({**questions, **values}, body)

    return merged


def release(push: Push, message: str, progress: Progress, how: How) -> None:
    """Show what a push changes, and do it.

    Raises :class:`~augesc_builder.errors.PublishError` where it is refused, by us or by the Hub.
    """
    progress.say(_table(push))
    _check_visibility(push, how)
    if how.tag is not None:
        _check_new(push, how.tag)
    opens = how.gated is not None and push.remote.gated != how.gated
    if not (push.is_needed or opens or how.tag):
        progress.say(f"{push.repo} holds all of this already: nothing to do")
        return
    if push.in_the_way and not how.replace:
        names = ", ".join(push.in_the_way[:_LOOKED_AT])
        more = f" and {n:,} more" if (n := len(push.in_the_way) - _LOOKED_AT) > 0 else ""
        told = (
            f"{push.repo} holds {names}{more}, which no push of augesc put there, or somebody has "
            f"changed since; push to another repo, or give --replace to let go of them"
        )
        if not how.dry_run:
            raise PublishError(told)
        progress.say(f"{told}\n")
    if how.dry_run:
        tagged = f", tagged {how.tag}" if how.tag else ""
        asked = ", and access is asked for" if opens else ""
        progress.say(
            f"Nothing was sent; without --dry-run this is one commit to {push.repo}{tagged}{asked}"
        )
        return
    gated = how.gated if opens else None
    commit, address = carry_out(push, private=not how.public, message=message, gated=gated)
    progress.say(f"Pushed in one commit: {address}" if address else "No file has changed")
    if how.tag is not None:
        _set_tag(push.repo, push.kind, how.tag, commit, message)
        progress.say(f"Tagged {how.tag}: commit {commit}")


def _check_visibility(push: Push, how: How) -> None:
    if how.public is not None and push.remote.exists and push.remote.private is how.public:
        is_so, wanted = ("private", "public") if how.public else ("public", "private")
        raise PublishError(
            f"{push.repo} is {is_so}, and --{wanted} is for new repos; make it {wanted} in its "
            f"settings on the Hub first, or leave --{wanted} out"
        )


def _check_new(push: Push, tag: str) -> None:
    """Refuse a name that the repo gives to a commit already, as a tag or a branch."""
    with push_errors(push.repo):
        taken = names_of_commits(push.repo, push.kind) if push.remote.exists else {"main": ""}
    if tag in taken:
        of = f", of commit {taken[tag]}" if taken[tag] else ""
        raise PublishError(
            f"{push.repo} was not changed: it has a tag or branch {tag} already{of}, and a release "
            f"stays what it is; give another name with --tag"
        )


def _set_tag(repo: str, kind: Kind, tag: str, commit: str, message: str) -> None:
    from huggingface_hub import HfApi

    try:
        HfApi().create_tag(repo, tag=tag, tag_message=message, revision=commit, repo_type=kind)
    except Exception as error:
        with contextlib.suppress(Exception):  # the answer may have got lost on its way back
            if names_of_commits(repo, kind).get(tag) == commit:
                return
        raise PublishError(
            f"{repo} holds the files, in commit {commit}, but without the tag {tag}: "
            f"{reason_of(error)}; run the same command again, nothing is sent twice"
        ) from error


def _table(push: Push) -> str:
    rows = [[change.path, f"{change.size:,}", change.what] for change in push.changes]
    sent = sum(c.size for c in push.changes if c.path in push.files and c.what != "same")
    return (
        f"{push.repo} ({'there already' if push.remote.exists else 'new'})\n\n"
        f"{markdown_table(['file', 'bytes', 'change'], rows)}\n\n{sent:,} bytes to send\n"
    )
