"""The card of a trained model: a template with slots, filled from the training's own facts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from augesc_builder.config.published import label_of, local_places, relabelled
from augesc_builder.config.training import Config, dump_config
from augesc_builder.dialog.examples import is_named
from augesc_builder.run.escape import markdown_block
from augesc_builder.run.markdown import markdown_template
from augesc_builder.text.strategies import STRATEGIES

_HERE = Path(__file__).parent
_DIALOG, _CLASSIFIER = _HERE / "model_card.md", _HERE / "classifier_card.md"


def render_model_card(config: Config, facts: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    """Write the card, in Markdown with the Hub's metadata in front; no path of this disk is in it.

    ``facts`` are those of the training, ``manifest`` is that of its folder.
    """
    local = local_places(config, lambda _, text: False if is_named(text) else None)
    digests = manifest["settings"]["inputs"]
    config = relabelled(
        config, {key: label_of(path, digests.get(path)) for key, path in local.items()}
    )
    paths = sorted({item.path for phase in config.phases.values() for item in phase.sessions})
    is_classifier = config.method == "classifier"
    bundled = all(path.partition(":")[0] == "sample" for path in paths)
    metadata: dict[str, Any] = {
        "language": "en",
        "license": "apache-2.0" if bundled else "cc-by-nc-4.0",
        "library_name": "transformers",
        "pipeline_tag": "text-classification" if is_classifier else "text-generation",
        "tags": ["emotional-support", "classifier" if is_classifier else "dialog", "augesc"],
    }
    if config.model.name is not None and "model.name" not in local:
        metadata["base_model"] = config.model.name
    text = (_CLASSIFIER if is_classifier else _DIALOG).read_text(encoding="utf-8")
    template = markdown_template(text)
    perplexity = facts.get("validation_perplexity")
    return (
        template.render(
            metadata=yaml.safe_dump(metadata, sort_keys=False).strip(),
            config=config,
            commit=manifest.get("revisions", {}).get("model"),
            facts=facts,
            phases=list(zip(config.phases.items(), facts["examples"], strict=True)),
            lengths=facts.get("phases", {}),
            equal=manifest["settings"].get("lengths", {}),
            perplexity=None if perplexity is None else f"{perplexity:.2f}",
            strategies=is_classifier and set(facts["labels"]) == set(STRATEGIES),
            bundled=bundled,
            versions=", ".join(
                f"{name} {version}" for name, version in manifest["versions"].items()
            ),
            config_yaml=markdown_block(dump_config(config).strip(), "yaml"),
        ).rstrip()
        + "\n"
    )
