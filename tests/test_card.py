from __future__ import annotations

import re

import yaml
from conftest import ROOT

TEMPLATE = ROOT / "dataset_card" / "template.md"


def test_the_template_holds_no_number_of_a_run():
    text = TEMPLATE.read_text()
    prose = re.sub(r"{{.*?}}|{%.*?%}|https?://\S+", "", text, flags=re.DOTALL)
    known = {
        "2022",  # the paper's year
        "1",  # Table 1
        "2",  # Table 2
        "6.4",  # a section of the paper
    }
    assert set(re.findall(r"\d+(?:\.\d+)?", prose)) <= known


def test_no_slot_is_left(built):
    card = (built / "corpus" / "README.md").read_text().split("```bibtex")[0]
    assert not re.search(r"{{|}}|{%|%}|\bNone\b|\bnan\b|Undefined", card)


def test_the_card_tells_what_the_run_found(built):
    import json

    card = (built / "corpus" / "README.md").read_text()
    report = json.loads((built / "corpus" / "filter_report.json").read_text())
    assert f"| `default` | {report['retained']} |" in card
    assert f"| `rejected` | {report['total'] - report['retained']} |" in card
    assert "**This is a demonstration.**" in card
    assert "paper: GPT-J (ED)" in card
    assert "- `finetune.epochs`: `2` (paper's recipe: `1`)" in card
    assert "A kept session" in card
    assert "A rejected text" in card
    assert "must not be used without human supervision" in card
    recipe = yaml.safe_load(re.search(r"```yaml\n(.*?)```", card, re.DOTALL)[1])
    assert recipe["name"] == "tiny"


def test_the_metadata_is_what_the_hub_wants(built):
    from huggingface_hub import DatasetCard

    metadata = DatasetCard((built / "corpus" / "README.md").read_text()).data
    assert metadata.license == "apache-2.0"
    assert metadata.language == ["en"]
    assert metadata.size_categories == ["n<1K"]
    assert [c["config_name"] for c in metadata.configs] == ["default", "rejected"]
    assert {"synthetic", "conversational", "emotional-support"} == set(metadata.tags)


def test_html_in_generated_text_is_shown_and_not_run():
    from augesc_builder.card import _quoted

    assert _quoted("<script>x</script>") == "&lt;script>x&lt;/script>"
