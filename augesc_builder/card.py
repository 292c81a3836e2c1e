"""The dataset card: a template with slots, filled from the run's own files.

No number is typed into the template; a slot that stays empty is an error.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import pyarrow.parquet as pq
import yaml

from augesc_builder.citations import card_file, cite
from augesc_builder.errors import InputError
from augesc_builder.recipe import differences, load_recipe
from augesc_builder.report import filter_table, statistics_table
from augesc_builder.settings import Recipe

NON_COMMERCIAL = "cc-by-nc-4.0"


def render_card(run: Path, corpus: Path, manifest: Mapping[str, Any]) -> str:
    """Write the card of a run's corpus, in Markdown with the Hub's metadata in front."""
    recipe = load_recipe(run / "recipe.yaml")
    report, statistics = _load(corpus / "filter_report.json"), _load(corpus / "statistics.json")
    own = set(manifest["stages"]["queries"]["report"]) | {recipe.finetune.sessions}
    sources = {**statistics["by_source"], **({"all": statistics} if _several(statistics) else {})}
    template = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        autoescape=False,
    ).from_string(card_file("template.md"))
    return (
        template.render(
            metadata=yaml.safe_dump(
                _metadata(recipe, report, own, corpus), sort_keys=False
            ).strip(),
            title=f"AugESC, regenerated ({recipe.name})",
            folder=corpus.name,
            recipe=recipe,
            backbone=recipe.backbone,
            report=report,
            model=_model(recipe, manifest),
            finetuning=_finetuning(recipe, manifest),
            triggers=_triggers(manifest),
            generation=_generation(recipe, manifest),
            versions=", ".join(f"{name} {v}" for name, v in manifest["versions"].items()),
            differences=_differences(recipe),
            recipe_yaml=(run / "recipe.yaml").read_text(encoding="utf-8").strip(),
            filter_table=filter_table(report),
            statistics_table=statistics_table(sources, with_paper=True),
            kept_example=_kept_example(corpus),
            rejected_example=_rejected_example(corpus),
            license_text=_license_text(own),
            citation=_citation(recipe, own),
        )
        + "\n"
    )


def _metadata(
    recipe: Recipe, report: Mapping[str, Any], own: set[str], corpus: Path
) -> dict[str, Any]:
    """Give the Hub's metadata.

    ``datasets`` keys its cache of a local folder by the card's configurations and never looks at
    the files, so that two corpora with the same patterns would be taken for one. The digest in
    each description keeps them apart.
    """
    n = report["retained"]
    rejected = {
        "config_name": "rejected",
        "description": f"content {_digest(corpus / 'rejected')}",
        "data_files": [{"split": "train", "path": "rejected/train-*.parquet"}],
    }
    sizes = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}
    return {
        "language": ["en"],
        "license": _license(own),
        "pretty_name": f"AugESC, regenerated ({recipe.name})",
        "task_categories": ["text-generation"],
        "tags": ["synthetic", "conversational", "emotional-support"],
        "size_categories": [next((s for limit, s in sizes.items() if n < limit), "1M<n<10M")],
        "configs": [
            {
                "config_name": "default",
                "default": True,
                "description": f"content {_digest(corpus / 'data')}",
                "data_files": [{"split": "train", "path": "data/train-*.parquet"}],
            },
            *([rejected] if n < report["total"] else []),  # datasets cannot load a split of nothing
        ],
    }


def _digest(folder: Path) -> str:
    """Give a digest of a table's files."""
    running = hashlib.sha256()
    for path in sorted(folder.glob("*.parquet")):
        running.update(path.read_bytes())
    return running.hexdigest()[:16]


def _license(own: set[str]) -> str:
    """Sessions of ESConv's form from a local file are taken for ESConv: the stricter licence."""
    return "apache-2.0" if own <= {"sample"} else NON_COMMERCIAL


def _license_text(own: set[str]) -> str:
    if _license(own) != NON_COMMERCIAL:
        return (
            "Apache-2.0: the model was trained on the sample that comes with augesc, and the "
            "triggers are from it too. Corpora made from ESConv or EmpatheticDialogues inherit "
            "CC BY-NC 4.0."
        )
    names = ", ".join(f"`{name}`" for name in sorted(own - {"sample"}))
    return (
        f"CC BY-NC 4.0, inherited from what it was made of ({names}): ESConv and "
        f"EmpatheticDialogues are under that licence, and a local file is taken for ESConv's."
    )


def _citation(recipe: Recipe, own: set[str]) -> str:
    keys = ["zheng2022augesc"]
    if own - {"sample", "empathetic_dialogues", "reddit"}:
        keys.append("liu2021esconv")
    if "empathetic_dialogues" in own:
        keys.append("rashkin2019empathetic")
    if recipe.backbone.from_scratch or "gpt-j" in str(recipe.backbone.name).lower():
        keys.append("wang2021gptj")
    return f"```bibtex\n{cite(keys)}\n```"


def _model(recipe: Recipe, manifest: Mapping[str, Any]) -> str:
    shape = recipe.backbone.from_scratch
    if shape is not None:
        return (
            f"a GPT-J of {shape.n_layer} layers of width {shape.n_embd} with random initial "
            f"weights, and a byte-level BPE of at most {shape.vocab_size:,} tokens trained on the "
            f"same sessions"
        )
    commit = manifest.get("revisions", {}).get("backbone")
    return f"`{recipe.backbone.name}`" + (f" at commit `{commit}`" if commit else "")


def _finetuning(recipe: Recipe, manifest: Mapping[str, Any]) -> str:
    facts, settings = manifest["stages"]["finetune"], recipe.finetune
    commit = manifest.get("revisions", {}).get("sessions")
    return (
        f"{len(facts['sessions'])} sessions of `{Path(settings.sessions).name}`"
        + (f" at commit `{commit}`" if commit else "")
        + f", {settings.epochs} epoch{'s' * (settings.epochs > 1)}, batch size "
        f"{settings.batch_size}, peak learning rate {settings.learning_rate}"
        + (f", LoRA of rank {settings.lora.rank}" if settings.lora else "")
        + f"; mean loss a token in the last epoch {facts['last_epoch_loss']}"
    )


def _triggers(manifest: Mapping[str, Any]) -> str:
    commits = manifest.get("revisions", {})
    return ", ".join(
        f"{funnel['queries']:,} queries from `{source}`"
        + (f" at commit `{commits[source]}`" if source in commits else "")
        + f" ({funnel['words']['mean']} words on average)"
        for source, funnel in manifest["stages"]["queries"]["report"].items()
    )


def _generation(recipe: Recipe, manifest: Mapping[str, Any]) -> str:
    settings, n_rows = recipe.generate, manifest["tables"]["generations"]
    return (
        f"{n_rows:,} conversations, top-p {settings.top_p}, temperature "
        f"{settings.temperature}, repetition penalty {settings.repetition_penalty}, at most "
        f"{settings.max_tokens:,} tokens"
    )


def _differences(recipe: Recipe) -> str:
    changed = differences(load_recipe("paper").settings(), recipe.settings())
    lines = [
        f"- `{key}`: `{json.dumps(ours)}` (paper's recipe: `{json.dumps(papers)}`)"
        for key, (papers, ours) in changed.items()
        if key not in {"name", "about"}
    ]
    return "\n".join(lines) or "Nothing; the paper's Reddit posts are not part of that recipe."


def _kept_example(corpus: Path) -> str:
    row = _first_row(corpus / "data")
    if row is None:
        return "No text met all requirements, so there is no kept example."
    words = {"user": "Seeker", "assistant": "Supporter"}
    said = "\n".join(
        f"> **{words[m['role']]}:** {_quoted(m['content'])}  " for m in row["messages"]
    )
    return f"A kept session (`{row['session_id']}`):\n\n{said}"


def _rejected_example(corpus: Path) -> str:
    row = _first_row(corpus / "rejected")
    if row is None:
        return "No text was rejected, so there is no rejected example."
    names = ", ".join(f"`{name}`" for name in row["violations"])
    text = _quoted((f"Human: {row['query']}\nAI:{row['text']}").replace("\n", "  \n> "))
    return f"A rejected text, which failed {names}:\n\n> {text}"


def _quoted(text: str) -> str:
    """Keep a generated text from being read as HTML."""
    return text.replace("<", "&lt;")


def _first_row(folder: Path) -> dict[str, Any] | None:
    for path in sorted(folder.glob("*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(batch_size=1):
            row: dict[str, Any] = batch.to_pylist()[0]
            return row
    return None


def _several(statistics: Mapping[str, Any]) -> bool:
    return len(statistics["by_source"]) != 1


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError("missing; run the filter and statistics stages first", path) from None
