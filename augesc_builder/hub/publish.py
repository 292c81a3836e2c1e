"""What of a run's folder goes to the Hub, and whether it is fit to go there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from augesc_builder.config.recipe import load_recipe
from augesc_builder.errors import InputError, PublishError
from augesc_builder.hub.push import CARD, Content, Push, carry_out, plan_push
from augesc_builder.pipeline.card.ingredients import (
    citation,
    licence_name,
    licence_of,
    licence_text,
    session_source,
)
from augesc_builder.pipeline.card.metadata import (
    CONFIGS,
    digest,
    join_card,
    merge_bodies,
    merge_cards,
    split_card,
)
from augesc_builder.pipeline.card.render import describe_finetuning, describe_model, render
from augesc_builder.run import layout
from augesc_builder.run.folder import read_manifest
from augesc_builder.run.layout import find_run, load_report, reviewed_sessions
from augesc_builder.run.markdown import markdown_table
from augesc_builder.run.progress import Progress
from augesc_builder.text.safety import count_flags

_OURS = (
    *(f"{layout.DATA}/*.parquet", f"{layout.REJECTED}/*.parquet"),
    *(f"{layout.FIGURES}/*.png", f"{layout.FIGURES}/*.svg"),
    *(layout.RECIPE, layout.MANIFEST, layout.STATISTICS, "*_report.json", layout.SAFETY_REVIEW),
    "dataset_infos.json",  # what `datasets` before 2.x wrote; it would outlive its data
)
"""What a push may remove from a repo: what pushes before put there."""

_LOOKED_AT = 5
"""Sessions named in an error."""


def push_corpus(
    folder: Path,
    repo: str,
    progress: Progress,
    *,
    private: bool = False,
    dry_run: bool = False,
    allow_flagged: bool = False,
) -> None:
    """Push the corpus of a run in one commit, or print what that would change.

    Raises :class:`~augesc_builder.errors.PublishError` where the run is not finished, its reports
    do not match its data, safety flags were not reviewed, or the Hub refuses.
    """
    run = find_run(folder)
    corpus = run / layout.CORPUS
    check_corpus(run)
    check_flags(corpus, allow_flagged=allow_flagged)
    script = f"{repo.rpartition('/')[2]}.py"  # of its repo's own name `datasets` takes none

    def is_ours(path: str) -> bool:
        return path in {script, "augesc.py"} or any(fnmatch(path, ours) for ours in _OURS)

    card = (corpus / CARD).read_text(encoding="utf-8")
    card = card.replace(f'load_dataset("{corpus.name}"', f'load_dataset("{repo}"')
    files: dict[str, Content] = {**corpus_files(run), CARD: card.encode()}
    recipe = load_recipe(run / layout.RECIPE)
    _go(
        plan_push(repo, "dataset", files, merge_cards, is_ours),
        f"AugESC by the recipe {recipe.name}",
        progress,
        private=private,
        dry_run=dry_run,
    )


def push_model(
    folder: Path, repo: str, progress: Progress, *, private: bool = False, dry_run: bool = False
) -> None:
    """Push the fine-tuned checkpoint of a run with its card.

    Raises :class:`~augesc_builder.errors.PublishError` where there is none, or the Hub refuses.
    """
    run = find_run(folder)
    manifest = read_manifest(run)
    if "finetune" not in manifest.get("stages", {}):
        raise PublishError(
            f"{run}: fine-tuning is not finished there; run `augesc build --out {run}` first"
        )
    checkpoint = run / layout.CHECKPOINT
    files: dict[str, Content] = {
        str(path.relative_to(checkpoint)): path
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file()
    }
    files[layout.RECIPE] = run / layout.RECIPE
    files[CARD] = model_card(run, repo, manifest).encode()
    _go(
        plan_push(repo, "model", files, _merge_model_cards, {layout.RECIPE}.__contains__),
        "Fine-tuned checkpoint of augesc",
        progress,
        private=private,
        dry_run=dry_run,
    )


def corpus_files(run: Path) -> dict[str, Content]:
    """Return the files of a push by their paths in the repo, all but the card."""
    corpus = run / layout.CORPUS
    found: dict[str, Content] = {name: run / name for name in (layout.RECIPE, layout.MANIFEST)}
    for path in sorted(corpus.rglob("*")):
        name = path.relative_to(corpus).as_posix()
        if path.is_file() and any(fnmatch(name, ours) for ours in _OURS):
            found[name] = path
    if not _n_rows(corpus / layout.REJECTED):  # `datasets` cannot load a split of nothing
        found = {
            name: at for name, at in found.items() if not name.startswith(f"{layout.REJECTED}/")
        }
    return found


def check_corpus(run: Path) -> None:
    """Refuse a corpus whose reports or card do not match its data.

    Raises :class:`~augesc_builder.errors.PublishError`, naming the first number that does not.
    """
    corpus = run / layout.CORPUS
    if "card" not in read_manifest(run).get("stages", {}) or not (corpus / CARD).is_file():
        raise PublishError(f"{run}: not finished; run `augesc build --out {run}` first")
    for what, expected, found in _claims(corpus):
        if expected != found:
            raise PublishError(
                f"{corpus}: {what} says {expected}, and the data has {found}; put the files of the "
                f"run back, or build into a new folder (`augesc card {run}` writes the card alone)"
            )


def check_flags(corpus: Path, *, allow_flagged: bool) -> None:
    """Refuse a corpus with safety flags that nobody has reviewed.

    Raises :class:`~augesc_builder.errors.PublishError`, naming some of the sessions.
    """
    flags = {row["session_id"]: row["safety_flags"] for row in _rows(corpus / layout.DATA)}
    if not flags:
        raise PublishError(f"{corpus}: no session was kept, so there is nothing to publish")
    reviewed = reviewed_sessions(corpus)
    open_ones = [name for name, found in flags.items() if found != [] and name not in reviewed]
    if open_ones and not allow_flagged:
        names = ", ".join(open_ones[:_LOOKED_AT])
        raise PublishError(
            f"{corpus}: {len(open_ones):,} sessions carry safety flags that nobody has looked at "
            f"({names}{', ...' if len(open_ones) > _LOOKED_AT else ''}); see them with `augesc "
            f"safety {corpus.parent}`, and let them stand with --reviewed SESSION_ID there, or "
            f"publish them all with --allow-flagged"
        )


def model_card(run: Path, repo: str, manifest: Mapping[str, Any]) -> str:
    """Return the card of a fine-tuned checkpoint."""
    recipe = load_recipe(run / layout.RECIPE)
    made_of = [session_source(recipe)]
    licence = licence_of(made_of)
    values = {
        "language": ["en"],
        "license": licence,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["conversational", "emotional-support"],
        **({"base_model": recipe.backbone.name} if recipe.backbone.name else {}),
    }
    body = render(
        "model.md",
        repo=repo,
        recipe=recipe,
        backbone=recipe.backbone,
        model=describe_model(recipe, manifest),
        finetuning=describe_finetuning(recipe, manifest),
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


def _go(push: Push, message: str, progress: Progress, *, private: bool, dry_run: bool) -> None:
    progress.say(_table(push))
    if private and push.remote.exists and not push.remote.private:
        raise PublishError(
            f"{push.repo} is public, and --private is for new repos; make it private in its "
            f"settings on the Hub first, or leave --private out"
        )
    if not push.is_needed:
        progress.say(f"{push.repo} holds all of this already: nothing to do")
    elif dry_run:
        progress.say(f"Nothing was sent; without --dry-run this is one commit to {push.repo}")
    else:
        progress.say(f"Pushed in one commit: {carry_out(push, private=private, message=message)}")


def _table(push: Push) -> str:
    rows = [[change.path, f"{change.size:,}", change.what] for change in push.changes]
    sent = sum(c.size for c in push.changes if c.what in {"new", "changed"})
    return (
        f"{push.repo} ({'there already' if push.remote.exists else 'new'})\n\n"
        f"{markdown_table(['file', 'bytes', 'change'], rows)}\n\n{sent:,} bytes to send\n"
    )


def _claims(corpus: Path) -> Iterator[tuple[str, Any, Any]]:
    """Yield what the reports claim and what the data holds: (where, claimed, found)."""
    report, statistics = load_report(corpus, "filter"), load_report(corpus, "statistics")
    kept, rejected = _n_rows(corpus / layout.DATA), _n_rows(corpus / layout.REJECTED)
    yield f"{layout.FILTER_REPORT}, retained", report["retained"], kept
    yield f"{layout.FILTER_REPORT}, rejected", report["total"] - report["retained"], rejected
    violations: Counter[str] = Counter()
    for row in _rows(corpus / layout.REJECTED):
        violations.update(row["violations"])
    for name, numbers in report["violations"].items():
        yield f"{layout.FILTER_REPORT}, {name}", numbers["count"], violations[name]
    yield f"{layout.STATISTICS}, sessions", statistics["sessions"], kept
    sources: Counter[str] = Counter()
    flags = []
    for row in _rows(corpus / layout.DATA):
        sources[row["source"]] += 1
        flags.append(row["safety_flags"])
    for name, part in statistics["by_source"].items():
        yield f"{layout.STATISTICS}, sessions of {name}", part["sessions"], sources[name]
    found = count_flags(flags)
    for key, claimed in load_report(corpus, "safety").items():
        yield f"{layout.SAFETY_REPORT}, {key}", claimed, found[key]
    values, _ = split_card((corpus / CARD).read_text(encoding="utf-8"))
    for config in values.get("configs") or ():
        folder = CONFIGS.get(config.get("config_name"))
        if folder is not None:
            found_digest = f"content {digest(corpus / folder)}"
            yield f"{layout.CARD}, {config['config_name']}", config.get("description"), found_digest


def _rows(folder: Path) -> Iterator[dict[str, Any]]:
    wanted = {"session_id", "source", "safety_flags", "violations"}
    for path in layout.parquet_files(folder):
        file = pq.ParquetFile(path)
        columns = [name for name in file.schema_arrow.names if name in wanted]
        if "safety_flags" not in columns and "violations" not in columns:
            raise InputError("no column safety_flags; run the filter stage again", path)
        for batch in file.iter_batches(batch_size=1000, columns=columns):
            yield from batch.to_pylist()


def _n_rows(folder: Path) -> int:
    return sum(pq.read_metadata(path).num_rows for path in layout.parquet_files(folder))
