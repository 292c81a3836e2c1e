"""What of a run's folder goes to the Hub, and whether it is fit to go there."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from augesc_builder.config.recipe import load_recipe
from augesc_builder.errors import PublishError
from augesc_builder.hub.claims import claims, n_rows, rows_of
from augesc_builder.hub.push import CARD, Content, address, plan_push
from augesc_builder.hub.release import USUAL, How, release, with_questions
from augesc_builder.pipeline.card.croissant import croissant, keep_date
from augesc_builder.pipeline.card.ingredients import (
    check_licence,
    citation,
    ingredients,
    licence_name,
    licence_of,
    licence_text,
    session_source,
    sources_of,
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
    published_folder,
    reviewed_sessions,
    run_of,
)
from augesc_builder.run.marks import Files, Marks
from augesc_builder.run.progress import Progress

_PUBLISHED = (
    *(f"{layout.DATA}/*.parquet", f"{layout.PARTED}/*.parquet", f"{layout.REJECTED}/*.parquet"),
    *(f"{layout.NOT_SELECTED}/*.parquet", f"{layout.FAILED}/*.parquet", layout.SELECTION),
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
    how: How = USUAL,
    *,
    allow_flagged: bool = False,
) -> None:
    """Push the corpus of a build or of ``augesc filter`` in one commit, or print the changes.

    Raises :class:`~augesc_builder.errors.PublishError` where the run is not finished, its reports
    do not match its data, its sources forbid the card's licence, safety flags were not reviewed,
    the tag is there already, or the Hub refuses.
    """
    corpus = find_corpus(folder)
    run = run_of(corpus)
    check_corpus(corpus)
    _check_licence(corpus)
    check_flags(corpus, allow_flagged=allow_flagged)
    script = f"{repo.rpartition('/')[2]}.py"  # of its repo's own name `datasets` takes none
    card = (corpus / CARD).read_text(encoding="utf-8")
    card = card.replace(f'load_dataset("{corpus.name}"', f'load_dataset("{repo}"')
    files: dict[str, Content] = {**corpus_files(corpus), CARD: card.encode()}
    values, today = split_card(card)[0], datetime.now(timezone.utc).date()
    files[layout.CROISSANT] = croissant(corpus, values, address(repo), str(today)).encode()
    if run == corpus:
        message = read_manifest(run)["card"]["title"]
    else:
        message = f"AugESC by the recipe {load_recipe(run / layout.RECIPE).name}"
    merge = with_questions(merge_cards) if how.gated else merge_cards
    push = plan_push(
        repo,
        "dataset",
        files,
        {CARD: merge, layout.CROISSANT: keep_date},
        {script, _HIDES_DATA},
    )
    release(push, message, progress, how)


def push_model(
    folder: Path,
    repo: str,
    progress: Progress,
    how: How = USUAL,
) -> None:
    """Push the fine-tuned checkpoint of a run with its card.

    Raises :class:`~augesc_builder.errors.PublishError` where there is none, the tag is there
    already, or the Hub refuses.
    """
    run = find_run(folder)
    manifest, marks = read_manifest(run), Marks(run)
    if "finetune" not in marks:
        raise PublishError(
            f"{run}: fine-tuning is not finished there; run `augesc build --out {run}` first"
        )
    _check_files(marks, marks.files(["finetune"]))
    files = model_files(run, repo, manifest)
    merge = with_questions(_merge_model_cards) if how.gated else _merge_model_cards
    push = plan_push(repo, "model", files, {CARD: merge})
    release(push, "Fine-tuned checkpoint of augesc", progress, how)


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
    if published_folder(corpus, layout.DATA).name != layout.DATA:  # they would be there twice
        found = {name: at for name, at in found.items() if not name.startswith(f"{layout.DATA}/")}
    if (review := corpus / layout.SAFETY_REVIEW).is_file():
        found[layout.SAFETY_REVIEW] = review
    for table in (layout.REJECTED, layout.NOT_SELECTED, layout.FAILED):
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


def _check_licence(corpus: Path) -> None:
    """Refuse a card whose licence, edited by hand, a source of the corpus forbids."""
    run = run_of(corpus)
    if run == corpus:
        made_of = sources_of(corpus)
    else:
        made_of = ingredients(load_recipe(run / layout.RECIPE), read_manifest(run))
    values, _ = split_card((corpus / CARD).read_text(encoding="utf-8"))
    check_licence(values.get("license"), made_of, f"{corpus / CARD}, license")


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


def _check_files(marks: Marks, files: Files) -> None:
    """Refuse to publish what is not as the run wrote it."""
    for name, what in marks.damage(files).items():
        raise PublishError(
            f"{marks.root / name} {what}; put it back, or run `augesc build` again with the same "
            f"recipe: it makes what is damaged"
        )
