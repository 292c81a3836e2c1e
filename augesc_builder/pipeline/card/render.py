"""The dataset card: a template with slots, filled from the run's own files.

No number is typed into the template; a slot that stays empty is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from augesc_builder import __version__
from augesc_builder.choices import differences_from_paper
from augesc_builder.citations import card_file
from augesc_builder.config.recipe import dump_recipe, load_recipe
from augesc_builder.pipeline.card.examples import kept_example, rejected_example
from augesc_builder.pipeline.card.ingredients import (
    citation,
    ingredients,
    licence_name,
    licence_of,
    licence_text,
    producers_text,
    terms_text,
)
from augesc_builder.pipeline.card.metadata import (
    BEGIN,
    END,
    metadata,
)
from augesc_builder.pipeline.card.public import PublicRun
from augesc_builder.pipeline.card.quality import quality_text
from augesc_builder.pipeline.card.safety import safety_table, safety_text
from augesc_builder.pipeline.filter.report import filter_table
from augesc_builder.pipeline.generate.backends import backend_of
from augesc_builder.pipeline.generate.draws import BACKGROUNDS, RESAMPLED
from augesc_builder.pipeline.generate.draws import told as draws_told
from augesc_builder.pipeline.select.tables import selection_markdown
from augesc_builder.pipeline.statistics.report import (
    figure_4_text,
    overlap_tables,
    statistics_table,
)
from augesc_builder.run import layout
from augesc_builder.run.escape import for_markdown, markdown_block, markdown_code, markdown_quote
from augesc_builder.run.kinds import names_of
from augesc_builder.run.layout import load_report
from augesc_builder.run.markdown import markdown_template
from augesc_builder.sources.registry import find_source
from augesc_builder.text.prompts import PLAIN, SPEAKER


def render_card(run: Path, corpus: Path, manifest: Mapping[str, Any]) -> str:
    """Write the card of a run's corpus, in Markdown with the Hub's metadata in front."""
    original = load_recipe(run / layout.RECIPE)
    told = PublicRun.of(original, manifest)
    recipe, manifest = told.recipe, told.manifest
    report, statistics = load_report(corpus, "filter"), load_report(corpus, "statistics")
    made_of = ingredients(recipe, manifest)
    backend = backend_of(recipe)
    licence = licence_of(made_of)
    title = f"AugESC, regenerated ({recipe.name})"
    safety = load_report(corpus, "safety")
    values = metadata(title, licence, made_of, corpus)
    selection = None if recipe.select is None else load_report(corpus, "select")
    return render(
        "template.md",
        metadata=_yaml(values),
        title=title,
        made_with=__version__,
        folder=corpus.name,
        recipe=recipe,
        is_demonstration=backend.needs_checkpoint and recipe.backbone.from_scratch is not None,
        is_reproducible=backend.reproducible,
        report=report,
        splits=_splits(values),
        ingredients=_ingredients(told),
        model=describe_model(told) if backend.needs_checkpoint else backend.model(recipe),
        finetuning=describe_finetuning(told) if backend.needs_checkpoint else None,
        triggers=describe_triggers(told),
        generation=describe_generation(told),
        backgrounds=describe_draws(told, BACKGROUNDS),
        resampled=describe_draws(told, RESAMPLED),
        producers=producers_text(made_of),
        versions=", ".join(f"{name} {v}" for name, v in manifest["versions"].items()),
        differences="\n".join(
            f"- {said}" for said in differences_from_paper(backend.settings_used(recipe))
        ),
        recipe_yaml=markdown_block(dump_recipe(recipe).strip(), "yaml"),
        filter_table=filter_table(report, backend.label(recipe)),
        statistics_table=statistics_table(statistics, with_paper=True),
        figure_4=(said := figure_4_text(statistics)) and f"Of the paper's figure 4, {said}.",
        overlap="\n\n".join(overlap_tables(statistics)),
        quality=quality_text(corpus, told),
        machines=describe_machines(told),
        n_failed=manifest["stages"]["generate"].get("failed"),
        selection=selection,
        selection_text=selection and selection_markdown(selection),
        figures=_figures(corpus),
        kept_example=_kept_example(corpus),
        rejected_example=_rejected_example(corpus),
        classifier=recipe.safety.classifier and recipe.safety.classifier.model,
        safety_table=safety_table(safety),
        safety_text=safety_text(safety, corpus),
        license_name=licence_name(licence),
        license_text=licence_text(made_of),
        terms=terms_text(made_of),
        citation=citation(original, made_of),
    )


def render(template: str, **slots: Any) -> str:
    """Fill a template of ``dataset_card/``; an unknown slot is an error."""
    found = markdown_template(card_file(template))
    return found.render(**slots, begin=BEGIN, end=END) + "\n"


def describe_model(told: PublicRun) -> str:
    """Return which model was fine-tuned: at which commit, or of which file of which release."""
    backbone = told.recipe.backbone
    shape = backbone.from_scratch
    if shape is not None:
        return (
            f"a GPT-J of {shape.n_layer} layers of width {shape.n_embd} with random initial "
            f"weights, and a byte-level BPE of at most {shape.vocab_size:,} tokens trained on the "
            f"same sessions"
        )
    said = _at_commit(str(backbone.name), told.commits.get("backbone"))
    if release := told.manifest.get("packages", {}).get("backbone"):
        said += f" ({for_markdown(release)})"
    if backbone.gguf_file is not None:
        said = f"{markdown_code(backbone.gguf_file)} of {said}"
    if backbone.sha256 is not None:
        said += f" with the sha256 `{backbone.sha256}`"
    if backbone.base_model is not None:
        said += f", a copy of {markdown_code(backbone.base_model)}"
    return said


def describe_finetuning(told: PublicRun) -> str:
    """Return how the model was fine-tuned, on what, and how its sessions spread over the types."""
    facts, settings = told.manifest["stages"]["finetune"], told.recipe.finetune
    types = facts.get("problem_types", {})
    spread = ", ".join(f"{for_markdown(kind)} {n}" for kind, n in types.items())
    return (
        f"{len(facts['sessions'])} sessions of "
        + _at_commit(settings.sessions, told.commits.get("sessions"))
        + f", {settings.epochs} epoch{'s' * (settings.epochs > 1)}, batch size "
        f"{settings.batch_size}, peak learning rate {settings.learning_rate}"
        + (f", LoRA of rank {settings.lora.rank}" if settings.lora else "")
        + (f", computed in {kind}" if (kind := facts.get("mixed_precision", "no")) != "no" else "")
        + f"; mean loss a token in the last epoch {facts['last_epoch_loss']}"
        + _held_out(facts.get("held_out"))
        + (f". Sessions of each problem type: {spread}" if spread else "")
    )


def _held_out(facts: Mapping[str, Any] | None) -> str:
    if not facts:
        return ""
    return (
        f"; on {len(facts['sessions'])} sessions held out {facts['loss_before']} before "
        f"fine-tuning and {facts['losses'][-1]} after"
    )


def describe_triggers(told: PublicRun) -> str:
    """Return how many queries came from where, and which classifiers judged posts."""
    found = [
        f"{funnel['queries']:,} queries from {_at_commit(source, told.commits.get(source))} "
        f"({funnel['words']['mean']} words on average)"
        for source, funnel in told.manifest["stages"]["queries"]["report"].items()
    ]
    return ", ".join(found) + _judges(told)


def _judges(told: PublicRun) -> str:
    """Return which classifiers judged posts."""
    settings = told.recipe.queries.classifiers
    judged = [info for o in told.recipe.queries.sources if (info := find_source(o.source))]
    if not (settings.enabled and any(info.appendix_a for info in judged)):
        return ""
    models = [emotion.model for emotion in settings.emotions]
    models += [settings.toxicity.model] if settings.toxicity else []
    labels = ", ".join(info.label for info in judged if info.appendix_a)
    judges = ", ".join(_at_commit(model, told.commits.get(model)) for model in models)
    return f"; posts of {labels} were judged by {judges}"


def _at_commit(name: str, commit: str | None) -> str:
    return markdown_code(name) + (f" at commit `{commit}`" if commit else "")


def describe_generation(told: PublicRun) -> str:
    """Return how many conversations were sampled, and how."""
    n_rows = told.manifest["tables"]["generations"]
    said = f"{n_rows:,} conversations, {backend_of(told.recipe).sampling(told.recipe)}"
    if n_failed := told.manifest["stages"]["generate"].get("failed"):
        said += f"; {n_failed:,} more ended what made them each time, and are in `{layout.FAILED}`"
    return said


def describe_machines(told: PublicRun) -> str | None:
    """Return what computed the conversations; ``None`` where that was not noted."""
    kinds = told.manifest["stages"]["generate"].get("kinds", [])
    names = [for_markdown(name) for name in names_of([kind["facts"] for kind in kinds])]
    if len(kinds) <= 1:
        return names[0] if names else None
    each = (f"{name} ({kind['shards']:,} shards)" for name, kind in zip(names, kinds, strict=True))
    return (
        f"{len(kinds)} kinds, between which the same conversation may differ by rounding, or by "
        f"what computes: {'; '.join(each)}"
    )


def describe_draws(told: PublicRun, name: str) -> str | None:
    """Return what was drawn beside the texts, in words; ``None`` where the recipe asks for none."""
    found = told.manifest["stages"]["generate"].get(name)
    return draws_told(name, found) if found else None


def _ingredients(told: PublicRun) -> str:
    backend, backbone = backend_of(told.recipe), told.recipe.backbone.name
    names = list(told.manifest["stages"]["queries"]["report"])
    if backend.n_sessions(told.recipe):
        names.insert(0, told.recipe.finetune.sessions)
    if not backend.needs_checkpoint:
        model = backend.model(told.recipe)
    else:
        model = markdown_code(backbone) if backbone else "a GPT-J with random weights"
    return ", ".join(dict.fromkeys([model, *map(markdown_code, names)]))


def _splits(values: Mapping[str, Any]) -> str | None:
    """Return the splits of the sessions; ``None`` where all are of one."""
    splits = values["dataset_info"][0]["splits"] if values["dataset_info"] else ()
    if len(splits) <= 1:
        return None
    return ", ".join(f"`{split['name']}` ({split['num_examples']:,} sessions)" for split in splits)


def _figures(corpus: Path) -> list[dict[str, str]]:
    """List the figures of a corpus, one for each name; a PNG is shown before an SVG."""
    folder = corpus / layout.FIGURES
    found = {path.stem: path for kind in ("svg", "png") for path in folder.glob(f"*.{kind}")}
    return [
        {
            "title": name.replace("_", " ").capitalize(),
            "path": f"{layout.FIGURES}/{found[name].name}",
        }
        for name in sorted(found)
    ]


def _kept_example(corpus: Path) -> str:
    row, any_there = kept_example(corpus)
    if row is None and any_there:
        return "The first sessions all carry safety flags, so none is shown here."
    if row is None:
        return "No text met all requirements, so there is no kept example."
    said = "\n".join(
        f"> **{SPEAKER[m['role']]}:** {for_markdown(m['content'])}  " for m in row["messages"]
    )
    return f"A kept session ({markdown_code(row['session_id'])}):\n\n{said}"


def _rejected_example(corpus: Path) -> str:
    row, any_there = rejected_example(corpus)
    if row is None and any_there:
        return "The first rejected texts would all carry safety flags, so none is shown here."
    if row is None:
        return "No text was rejected, so there is no rejected example."
    names = ", ".join(map(markdown_code, row["violations"]))
    text = markdown_quote(PLAIN.for_query(row["query"]) + row["text"])
    return f"A rejected text, which failed {names}:\n\n{text}"


def _yaml(values: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(values), sort_keys=False).strip()
