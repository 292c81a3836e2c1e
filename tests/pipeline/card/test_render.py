from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from markdown_it import MarkdownIt

from augesc_builder.choices import differences_from_paper
from augesc_builder.config.recipe import dump_recipe, load_recipe
from augesc_builder.pipeline.card.ingredients import (
    citation,
    licence_of,
    licence_text,
    session_source,
)
from augesc_builder.pipeline.card.metadata import split_card
from augesc_builder.pipeline.card.public import PublicRun, settings_files
from augesc_builder.pipeline.card.render import describe_finetuning, render_card
from augesc_builder.run.folder import read_manifest
from augesc_builder.sources.base import SourceInfo
from augesc_builder.sources.registry import find_source
from tests.conftest import ROOT, rows_of

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


def test_the_template_for_models_holds_none_either():
    text = (TEMPLATE.parent / "model.md").read_text()
    prose = re.sub(r"{{.*?}}|{%.*?%}|https?://\S+", "", text, flags=re.DOTALL)
    assert set(re.findall(r"\d+(?:\.\d+)?", prose)) <= {"2022", "6.4"}


def test_it_has_the_sections_of_the_hubs_template(built):
    from huggingface_hub.repocard_data import __file__ as beside

    template = Path(beside).parent / "templates" / "datasetcard_template.md"
    card = (built / "corpus" / "README.md").read_text()
    ours = set(re.findall(r"^#+ (.+)$", card, re.MULTILINE))
    for title in re.findall(r"^##+ (.+)$", template.read_text(), re.MULTILINE):
        assert title.removesuffix("[optional]").strip() in ours, title


def test_the_info_is_what_the_files_have(built):
    metadata = split_card((built / "corpus" / "README.md").read_text())[0]
    for info, folder in zip(metadata["dataset_info"], ("data", "rejected"), strict=True):
        files = list((built / "corpus" / folder).glob("*.parquet"))
        (split,) = info["splits"]
        assert split["num_examples"] == sum(pq.read_metadata(file).num_rows for file in files)
        assert info["download_size"] == sum(file.stat().st_size for file in files)
    text = yaml.safe_dump(metadata["dataset_info"])
    assert "list" in text
    assert "sequence" not in text  # which means lists of columns where it holds records


def test_figures_are_shown_where_there_are_some(built, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(built, run)
    figures = run / "corpus" / "figures"
    shutil.rmtree(figures, ignore_errors=True)
    assert "![" not in render_card(run, run / "corpus", read_manifest(run))
    figures.mkdir()
    for name in ("session_lengths.svg", "session_lengths.png", "requirements.svg", "notes.txt"):
        (figures / name).write_bytes(b"")
    card = render_card(run, run / "corpus", read_manifest(run))
    assert re.findall(r"!\[.*?\]\(.*?\)", card) == [
        "![Requirements](figures/requirements.svg)",
        "![Session lengths](figures/session_lengths.png)",
    ]


def test_flagged_texts_are_no_examples(built, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(built, run)
    flag = {"flag": "crisis", "utterance": 0, "start": 0, "end": 1}

    def change(folder, change):
        for path in (run / "corpus" / folder).glob("*.parquet"):
            table = pq.read_table(path)
            rows = [change(row) for row in table.to_pylist()]
            pq.write_table(type(table).from_pylist(rows, schema=table.schema), path)

    clean = next(r["session_id"] for r in rows_of(run / "corpus" / "data") if not r["safety_flags"])
    change("data", lambda r: r if r["session_id"] == clean else {**r, "safety_flags": [flag]})
    change("rejected", lambda row: {**row, "text": "You should take Xanax."})
    card = render_card(run, run / "corpus", read_manifest(run))
    assert f"A kept session (`{clean}`)" in card
    assert "The first rejected texts would all carry safety flags" in card
    change("data", lambda row: {**row, "safety_flags": [flag]})
    card = render_card(run, run / "corpus", read_manifest(run))
    assert "The first sessions all carry safety flags" in card


def test_every_ingredient_is_cited(built):
    recipe = load_recipe("paper-lora")
    assert citation(recipe, sources("esconv", "reddit", "empathetic_dialogues")).count("@") == 8
    card = (built / "corpus" / "README.md").read_text()
    for key in ("zheng2022augesc", "wang2021gptj", "wolf2020transformers", "bird2009nltk"):
        assert f"{{{key}," in card
    assert "liu2021esconv" not in card  # the sample is no ESConv


def sources(*names):
    return [find_source(name) for name in names]


def test_a_corpus_inherits_the_strictest_licence_and_says_from_whom():
    assert licence_of(sources("sample")) == "apache-2.0"
    for name in ("esconv", "empathetic_dialogues"):
        found = sources("sample", name, "reddit")
        assert licence_of(found) == "cc-by-nc-4.0"
        said = licence_text(found)
        assert f"CC BY-NC 4.0, inherited from `{name}`." in said
        assert "The posts of `reddit` are their authors'" in said
    recipe = load_recipe("tiny", ["finetune.sessions=some/file.txt"])
    local = [session_source(recipe), *sources("sample")]
    assert licence_of(local) == "cc-by-nc-4.0"
    assert "A local file of sessions is taken for ESConv's." in licence_text(local)


def test_licences_of_other_sources():
    def source(name, licence):
        return SourceInfo(name, name, "", licence, "Somebody wrote it.")

    sample, mine, theirs = *sources("sample"), source("mine", "mit"), source("theirs", "cc0-1.0")
    assert licence_text([sample]) == "Apache-2.0: nothing that it was made of asks for more."
    assert licence_of([sample, mine]) == "mit"
    assert licence_text([sample, mine]) == "MIT, inherited from `mine`."
    assert licence_of([sample, mine, theirs]) == "other"
    assert "CC0-1.0, inherited from `theirs`." in licence_text([mine, theirs])


def test_reddit_asks_for_no_non_commercial_licence():
    found = sources("sample", "reddit")
    assert licence_of(found) == "other"
    assert "CC BY-NC" not in licence_text(found)


def test_no_slot_is_left(built):
    card = (built / "corpus" / "README.md").read_text().split("```bibtex")[0]
    assert not re.search(r"{{|}}|{%|%}|\bNone\b|\bnan\b|Undefined", card)


def test_it_tells_of_held_out_sessions_and_of_the_arithmetic(built):
    manifest = read_manifest(built)
    facts = manifest["stages"]["finetune"]
    told = PublicRun(load_recipe(built / "recipe.yaml"), manifest)
    facts["mixed_precision"] = "no"
    plain = describe_finetuning(told)
    assert "held out" not in plain
    assert "computed" not in plain
    facts["held_out"] = {"sessions": ["a", "b"], "loss_before": 3.1, "losses": [2.9, 2.8]}
    facts["mixed_precision"] = "bf16"
    said = describe_finetuning(told)
    assert "; on 2 sessions held out 3.1 before fine-tuning and 2.8 after" in said
    assert ", computed in bf16" in said


def test_the_card_tells_what_the_run_found(built):
    card = (built / "corpus" / "README.md").read_text()
    report = json.loads((built / "corpus" / "filter_report.json").read_text())
    assert f"| `default` | {report['retained']} |" in card
    assert f"| `rejected` | {report['total'] - report['retained']} |" in card
    assert "**This is a demonstration.**" in card
    assert "paper: GPT-J (ED)" in card
    assert "- `finetune.epochs`: `2`; the paper: `1` (section 4.1)" in card
    told = differences_from_paper(load_recipe(built / "recipe.yaml").settings())
    assert "\n".join(f"- {said}" for said in told) in card
    assert "A kept session" in card
    assert "A rejected text" in card
    assert "must not be used without human supervision" in card
    recipe = yaml.safe_load(re.search(r"```yaml\n(.*?)```", card, re.DOTALL)[1])
    assert recipe["name"] == "tiny"


def test_the_card_has_quality_where_it_was_measured_with_how_far_to_believe_it(built, tmp_path):
    card = (built / "corpus" / "README.md").read_text()
    report = json.loads((built / "corpus" / "quality.json").read_text())
    (column,) = report["by_source"].values()
    mean = column["numbers"]["informativeness"]["new_words"]["mean"]
    part = card.split("### Beyond Form\n")[1].split("\n### ")[0]
    assert "Measured: `informativeness` (by rules)." in part
    assert re.search(rf"\| informativeness: new words +\| +{re.escape(f'{mean:,.3g}')}", part)
    assert "is in docs/quality.md: none of them is quality as such." in part
    assert "`quality.json`" in card
    other = shutil.copytree(built, tmp_path / "other")
    (other / "corpus" / "quality.json").unlink()
    without = render_card(other, other / "corpus", read_manifest(other))
    assert "Beyond Form" not in without
    assert "`quality.json`" not in without


def test_a_model_of_this_disk_is_not_named_in_public(built, tmp_path):
    other = shutil.copytree(built, tmp_path / "other")
    model = tmp_path / "encoder"
    model.mkdir()
    settings = load_recipe(
        other / "recipe.yaml",
        [
            *("quality.measures=[topic_drift]", "quality.topic_drift.scorer=encoder"),
            f"quality.topic_drift.model={model}",
        ],
    )
    (other / "recipe.yaml").write_text(dump_recipe(settings))
    path = other / "corpus" / "quality.json"
    report = json.loads(path.read_text())
    report["measures"] = {"topic_drift": {"scorer": "encoder", "model": str(model)}}
    report["not_measured"] = {"consistency": f"{model} cannot be had"}
    path.write_text(json.dumps(report))
    card = render_card(other, other / "corpus", read_manifest(other))
    published = b"".join(settings_files(other).values()).decode()
    assert "Measured: `topic_drift` (by `(local folder)`)." in card
    assert "Consistency was not measured: (local folder) cannot be had." in card
    assert str(tmp_path) not in card + published
    assert '"model": "(local folder)"' in published


def test_the_card_says_which_kinds_of_machines_made_the_corpus(built):
    manifest = read_manifest(built)
    (kind,) = manifest["stages"]["generate"]["kinds"]
    card = render_card(built, built / "corpus", manifest)
    assert "kinds, between which" not in card
    other = {**kind["facts"], "name": "`another`\n\n# machine"}
    manifest["stages"]["generate"]["kinds"] = [
        {"facts": kind["facts"], "shards": 1_234},
        {"facts": other, "shards": 5},
    ]
    card = render_card(built, built / "corpus", manifest)
    (line,) = (line for line in card.splitlines() if "2 kinds, between which" in line)
    assert f"{kind['facts']['name']} (1,234 shards)" in line
    assert line.count(" shards)") == 2
    assert "# machine (5 shards)" in line  # in this line, and no heading


def test_the_metadata_is_what_the_hub_wants(built):
    from huggingface_hub import DatasetCard

    metadata = DatasetCard((built / "corpus" / "README.md").read_text()).data
    assert metadata.license == "apache-2.0"
    assert metadata.language == ["en"]
    assert metadata.size_categories == ["n<1K"]
    assert [c["config_name"] for c in metadata.configs] == ["default", "rejected"]
    assert {"synthetic", "conversational", "emotional-support"} == set(metadata.tags)


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n", "\x85", "\u2028", "\v"])
def test_what_strangers_wrote_stays_in_its_quote(built, tmp_path, end):
    run = tmp_path / "run"
    shutil.copytree(built, run)
    evil = f"hello{end}# Heading{end}![x](https://evil.example/x.png){end}<script>x</script>"

    def change(folder, change):
        for path in (run / "corpus" / folder).glob("*.parquet"):
            table = pq.read_table(path)
            rows = [change(row) for row in table.to_pylist()]
            pq.write_table(type(table).from_pylist(rows, schema=table.schema), path)

    said = [{"role": "user", "content": evil}, {"role": "assistant", "content": evil}]
    change("data", lambda row: {**row, "messages": said, "safety_flags": []})
    change("rejected", lambda row: {**row, "text": evil})
    card = render_card(run, run / "corpus", read_manifest(run))
    lines = re.split("[\r\n\v\x85\u2028]", card)
    assert not [line for line in lines if line.startswith(("# Heading", "![x]", "<script"))]
    assert not re.search(r"(?<!\\)\]\(https://evil", card)
    assert "<script" not in card
    assert card.count("Heading") == 3


STRANGE = (
    "a <script>x</script>\r# Mine\r\n\n![i](http://x/i.png)\n\n- ``` [l](http://x) **b** | &lt; "
    "\x1b[2J"
)


def structure(card: str) -> list[str]:
    """Give what is more than text in a card: headings, pictures, links, HTML, blocks."""
    tokens = MarkdownIt("commonmark").enable("table").parse(split_card(card)[1])
    inner = [child for token in tokens for child in token.children or ()]
    return [
        f"{token.type} {token.attrs or ''} {token.content if 'html' in token.type else ''}"
        for token in (*tokens, *inner)
        if token.type not in {"text", "softbreak", "hardbreak", "text_special", "inline"}
    ]


def test_what_strangers_wrote_is_text_in_the_card(built, tmp_path):
    def card_with(text: str, name: str) -> str:
        run = tmp_path / name
        shutil.copytree(built, run)
        for folder in ("data", "rejected"):
            for path in (run / "corpus" / folder).glob("*.parquet"):
                table = pq.read_table(path)
                rows = table.to_pylist()
                for row in rows:
                    if folder == "data":
                        row["safety_flags"] = []
                        row["messages"] = [
                            {"role": role, "content": text} for role in ("user", "assistant")
                        ]
                    else:
                        row |= {"query": "Hello.", "text": text, "violations": ["balanced"]}
                pq.write_table(type(table).from_pylist(rows, schema=table.schema), path)
        settings = yaml.safe_load((run / "recipe.yaml").read_text())
        (run / "recipe.yaml").write_text(yaml.safe_dump({**settings, "name": text, "about": text}))
        return render_card(run, run / "corpus", read_manifest(run))

    strange = card_with(STRANGE, "strange")
    assert "&lt;script>x&lt;/script>" in strange
    assert strange.count("# Mine") >= 4
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", strange)
    plain = card_with("a", "plain")
    assert [part for part in structure(strange) if "paragraph" not in part] == [
        part for part in structure(plain) if "paragraph" not in part
    ]
