"""What of a run's folder goes to the Hub, and whether it is fit to go there."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from augesc_builder.config.recipe import load_recipe
from augesc_builder.errors import PublishError
from augesc_builder.hub.claims import claims, n_rows, rows_of
from augesc_builder.hub.push import CARD, Content, Push, carry_out, plan_push
from augesc_builder.pipeline.card.ingredients import (
    citation,
    licence_name,
    licence_of,
    licence_text,
    session_source,
)
from augesc_builder.pipeline.card.metadata import (
    join_card,
    merge_bodies,
    merge_cards,
    split_card,
)
from augesc_builder.pipeline.card.public import PublicRun, settings_files
from augesc_builder.pipeline.card.render import describe_finetuning, describe_model, render
from augesc_builder.run import layout
from augesc_builder.run.folder import read_manifest
from augesc_builder.run.layout import (
    find_corpus,
    find_run,
    reviewed_sessions,
    run_of,
)
from augesc_builder.run.markdown import markdown_table
from augesc_builder.run.marks import Files, Marks
from augesc_builder.run.progress import Progress

_PUBLISHED = (
    *(f"{layout.DATA}/*.parquet", f"{layout.REJECTED}/*.parquet"),
    *(f"{layout.NOT_SELECTED}/*.parquet", layout.SELECTION),
    *(f"{layout.FIGURES}/*.png", f"{layout.FIGURES}/*.svg"),
    *(layout.STATISTICS, "*_report.json"),
)
"""What of a corpus goes to the Hub."""

_HIDES_DATA = "dataset_infos.json"
"""What `datasets` before 2.x wrote; it would outlive its data."""

_LOOKED_AT = 5
"""Sessions named in an error."""


def push_corpus(
    folder: Path,
    repo: str,
    progress: Progress,
    *,
    public: bool | None = None,
    replace: bool = False,
    dry_run: bool = False,
    allow_flagged: bool = False,
) -> None:
    """Push the corpus of a build or of ``augesc filter`` in one commit, or print the changes.

    A new repo is private unless ``public``; ``replace`` lets files of others go that are in the
    way.

    Raises :class:`~augesc_builder.errors.PublishError` where the run is not finished, its reports
    do not match its data, safety flags were not reviewed, or the Hub refuses.
    """
    corpus = find_corpus(folder)
    run = run_of(corpus)
    check_corpus(corpus)
    check_flags(corpus, allow_flagged=allow_flagged)
    script = f"{repo.rpartition('/')[2]}.py"  # of its repo's own name `datasets` takes none
    card = (corpus / CARD).read_text(encoding="utf-8")
    card = card.replace(f'load_dataset("{corpus.name}"', f'load_dataset("{repo}"')
    files: dict[str, Content] = {**corpus_files(corpus), CARD: card.encode()}
    if run == corpus:
        message = read_manifest(run)["card"]["title"]
    else:
        message = f"AugESC by the recipe {load_recipe(run / layout.RECIPE).name}"
    _go(
        plan_push(repo, "dataset", files, merge_cards, {script, _HIDES_DATA}),
        message,
        progress,
        public=public,
        replace=replace,
        dry_run=dry_run,
    )


def push_model(
    folder: Path,
    repo: str,
    progress: Progress,
    *,
    public: bool | None = None,
    replace: bool = False,
    dry_run: bool = False,
) -> None:
    """Push the fine-tuned checkpoint of a run with its card.

    Raises :class:`~augesc_builder.errors.PublishError` where there is none, or the Hub refuses.
    """
    run = find_run(folder)
    manifest, marks = read_manifest(run), Marks(run)
    if "finetune" not in marks:
        raise PublishError(
            f"{run}: fine-tuning is not finished there; run `augesc build --out {run}` first"
        )
    _check_files(marks, marks.files(["finetune"]))
    files = model_files(run, repo, manifest)
    _go(
        plan_push(repo, "model", files, _merge_model_cards),
        "Fine-tuned checkpoint of augesc",
        progress,
        public=public,
        replace=replace,
        dry_run=dry_run,
    )


def corpus_files(folder: Path) -> dict[str, Content]:
    """Return the files of a push by their paths in the repo, all but the card.

    Of the corpus they are those that the run's marks list, and the review; of a build its settings
    too. (The manifest of ``augesc filter`` names files of this machine.)
    """
    corpus = find_corpus(folder)
    run = run_of(corpus)
    found: dict[str, Content] = {**settings_files(run)} if run != corpus else {}
    for file in Marks(run).files():
        path = run / file
        if path.is_relative_to(corpus):
            name = path.relative_to(corpus).as_posix()
            if any(fnmatch(name, published) for published in _PUBLISHED):
                found[name] = path
    if (review := corpus / layout.SAFETY_REVIEW).is_file():
        found[layout.SAFETY_REVIEW] = review
    for table in (layout.REJECTED, layout.NOT_SELECTED):
        if not n_rows(corpus / table):  # `datasets` cannot load a split of nothing
            found = {name: at for name, at in found.items() if not name.startswith(f"{table}/")}
    return found


def model_files(run: Path, repo: str, manifest: Mapping[str, Any]) -> dict[str, Content]:
    """Return the files of a push of the checkpoint by their paths in the repo."""
    checkpoint = run / layout.CHECKPOINT
    return {
        **{
            path.relative_to(checkpoint).as_posix(): path
            for path in (run / name for name in Marks(run).files(["finetune"]))
        },
        layout.RECIPE: settings_files(run)[layout.RECIPE],
        CARD: model_card(run, repo, manifest).encode(),
    }


def check_corpus(corpus: Path) -> None:
    """Refuse a corpus whose reports or card do not match its data.

    Raises :class:`~augesc_builder.errors.PublishError`, naming the first number that does not.
    """
    run = run_of(corpus)
    read_manifest(run)
    marks = Marks(run)
    if "card" not in marks or not (corpus / CARD).is_file():
        if run == corpus:
            raise PublishError(f"{run}: no card there; write one with `augesc card {run}` first")
        raise PublishError(f"{run}: not finished; run `augesc build --out {run}` first")
    card = (corpus / CARD).relative_to(run).as_posix()  # where people add words of their own
    files = {n: f for n, f in marks.files().items() if n != card}
    corpus_alone = {n: f for n, f in files.items() if (run / n).is_relative_to(corpus)}
    _check_files(marks, corpus_alone)
    for what, expected, found in claims(corpus):
        if expected != found:
            raise PublishError(
                f"{corpus}: {what} says {expected}, and the data has {found}; put the files of the "
                f"run back, or build into a new folder (`augesc card {run}` writes the card alone)"
            )


def check_flags(corpus: Path, *, allow_flagged: bool) -> None:
    """Refuse a corpus with safety flags that nobody has reviewed.

    Raises :class:`~augesc_builder.errors.PublishError`, naming some of the sessions.
    """
    flags = {row["session_id"]: row["safety_flags"] for row in rows_of(corpus / layout.DATA)}
    if not flags:
        raise PublishError(f"{corpus}: no session was kept, so there is nothing to publish")
    reviewed = reviewed_sessions(corpus)
    open_ones = [name for name, found in flags.items() if found != [] and name not in reviewed]
    if open_ones and not allow_flagged:
        names = ", ".join(open_ones[:_LOOKED_AT])
        raise PublishError(
            f"{corpus}: {len(open_ones):,} sessions carry safety flags that nobody has looked at "
            f"({names}{', ...' if len(open_ones) > _LOOKED_AT else ''}); see them with `augesc "
            f"safety {run_of(corpus)}`, and let them stand with --reviewed SESSION_ID there, or "
            f"publish them all with --allow-flagged"
        )


def model_card(run: Path, repo: str, manifest: Mapping[str, Any]) -> str:
    """Return the card of a fine-tuned checkpoint."""
    told = PublicRun.of(load_recipe(run / layout.RECIPE), manifest)
    recipe, made_of = told.recipe, [session_source(told.recipe)]
    licence = licence_of(made_of)
    values = {
        "language": ["en"],
        "license": licence,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["conversational", "emotional-support"],
        **({"base_model": told.base_model} if told.base_model else {}),
    }
    body = render(
        "model.md",
        repo=repo,
        recipe=recipe,
        backbone=recipe.backbone,
        model=describe_model(told),
        finetuning=describe_finetuning(told),
        versions=", ".join(f"{name} {v}" for name, v in manifest["versions"].items()),
        license_name=licence_name(licence),
        license_text=licence_text(made_of),
        citation=citation(recipe, made_of),
    )
    return join_card(values, body)


def _merge_model_cards(ours: str, theirs: str | None) -> str:
    if theirs is None:
        return ours
    (new, body), (old, old_body) = split_card(ours), split_card(theirs)
    return join_card({**old, **new}, merge_bodies(body, old_body))


def _go(
    push: Push,
    message: str,
    progress: Progress,
    *,
    public: bool | None,
    replace: bool,
    dry_run: bool,
) -> None:
    progress.say(_table(push))
    if public is not None and push.remote.exists and push.remote.private is public:
        is_so, wanted = ("private", "public") if public else ("public", "private")
        raise PublishError(
            f"{push.repo} is {is_so}, and --{wanted} is for new repos; make it {wanted} in its "
            f"settings on the Hub first, or leave --{wanted} out"
        )
    if not push.is_needed:
        progress.say(f"{push.repo} holds all of this already: nothing to do")
        return
    if push.in_the_way and not replace:
        names = ", ".join(push.in_the_way[:_LOOKED_AT])
        more = f" and {n:,} more" if (n := len(push.in_the_way) - _LOOKED_AT) > 0 else ""
        told = (
            f"{push.repo} holds {names}{more}, which no push of augesc put there, or somebody has "
            f"changed since; push to another repo, or give --replace to let go of them"
        )
        if not dry_run:
            raise PublishError(told)
        progress.say(f"{told}\n")
    if dry_run:
        progress.say(f"Nothing was sent; without --dry-run this is one commit to {push.repo}")
    else:
        address = carry_out(push, private=not public, message=message)
        progress.say(f"Pushed in one commit: {address}")


def _check_files(marks: Marks, files: Files) -> None:
    """Refuse to publish what is not as the run wrote it."""
    for name, what in marks.damage(files).items():
        raise PublishError(
            f"{marks.root / name} {what}; put it back, or run `augesc build` again with the same "
            f"recipe: it makes what is damaged"
        )


def _table(push: Push) -> str:
    rows = [[change.path, f"{change.size:,}", change.what] for change in push.changes]
    sent = sum(c.size for c in push.changes if c.path in push.files and c.what != "same")
    return (
        f"{push.repo} ({'there already' if push.remote.exists else 'new'})\n\n"
        f"{markdown_table(['file', 'bytes', 'change'], rows)}\n\n{sent:,} bytes to send\n"
    )
