"""The corpus in Croissant: valid by the format's own tool, and what it says is so."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from augesc_builder.config.recipe import load_recipe
from augesc_builder.pipeline.build import build
from augesc_builder.pipeline.card import filtered
from augesc_builder.pipeline.card.croissant import croissant, keep_date
from augesc_builder.pipeline.card.metadata import split_card
from augesc_builder.run.progress import Progress
from tests.conftest import rows_of

URL, DATE = "https://huggingface.co/datasets/someone/mine", "2026-11-22"


def card_of(corpus: Path):
    return split_card((corpus / "README.md").read_text())[0]


@pytest.fixture(scope="module")
def parted(built, tiny_file, tmp_path_factory):
    """The corpus of a build with splits."""
    folder = tmp_path_factory.mktemp("croissant") / "run"
    shutil.copytree(built, folder)
    recipe = load_recipe(tiny_file, ["card.splits={test: 0.5}"])
    assert build(recipe, folder, Progress(quiet=True))
    return folder / "corpus"


def validate(text: str, tmp_path: Path) -> str:
    """Ask the tool of MLCommons; give its warnings."""
    pytest.importorskip("mlcroissant", reason="the extra dev")
    path = tmp_path / "croissant.json"
    path.write_text(text)
    tool = [sys.executable, "-c", "from mlcroissant.scripts.cli import main; main()"]
    done = subprocess.run(
        [*tool, "validate", "--jsonld", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Done" in done.stderr
    return done.stderr


@pytest.mark.slow
def test_it_is_valid(parted, built, tmp_path):
    for corpus in (parted, built / "corpus"):
        said = validate(croissant(corpus, card_of(corpus), URL, DATE), tmp_path)
        assert "not standard" not in said
        (warning,) = re.findall(r"^  -  .*", said, re.MULTILINE)
        assert '"https://schema.org/version" is recommended' in warning  # tags are the versions


@pytest.mark.slow
def test_its_columns_and_splits_are_read_by_that_tool(parted, tmp_path):
    pytest.importorskip("mlcroissant", reason="the extra dev")
    path = tmp_path / "croissant.json"
    path.write_text(croissant(parted, card_of(parted), URL, DATE))
    code = (
        "import json, sys, mlcroissant\n"
        f"found = mlcroissant.Dataset({str(path)!r}, mapping={{'repo': {str(parted)!r}}})\n"
        "text = lambda value: value.decode()\n"
        "print(json.dumps([[text(row['default/split']), text(row['default/session_id']),"
        " len(row['default/messages'])] for row in found.records('default')]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]
    there = {
        row["session_id"]: (file.name.split("-")[0], len(row["messages"]))
        for file in (parted / "splits").glob("*.parquet")
        for row in pq.read_table(file).to_pylist()
    }
    assert {name: (split, n) for split, name, n in json.loads(done.stdout)} == there


def test_it_lists_files_splits_and_columns(parted):
    found = json.loads(croissant(parted, card_of(parted), URL, DATE))
    assert found["conformsTo"] == "http://mlcommons.org/croissant/1.1"
    files = {f["@id"]: f for f in found["distribution"] if f["@type"] == "cr:FileObject"}
    assert set(files) - {"repo"} == {
        path.relative_to(parted).as_posix()
        for folder in ("splits", "rejected")
        for path in (parted / folder).glob("*.parquet")
    }
    for name in set(files) - {"repo"}:
        data = (parted / name).read_bytes()
        assert files[name]["sha256"] == hashlib.sha256(data).hexdigest()
        assert files[name]["contentSize"] == f"{len(data)} B"
    tables = {table["@id"]: table for table in found["recordSet"]}
    assert [row["splits/name"] for row in tables["splits"]["data"]] == ["train", "test"]
    columns = [field["@id"].partition("/")[2] for field in tables["default"]["field"]]
    assert columns == ["split", *rows_of(parted / "splits")[0]]
    messages = tables["default"]["field"][columns.index("messages")]
    assert messages["isArray"]
    assert [part["@id"] for part in messages["subField"]] == [
        "default/messages/role",
        "default/messages/content",
    ]


def test_it_says_how_the_data_were_generated(parted):
    found = json.loads(croissant(parted, card_of(parted), URL, DATE))
    assert found["rai:hasSyntheticData"] is True
    done = {step["prov:label"]: step for step in found["prov:wasGeneratedBy"]}
    assert list(done) == [
        *("collection of triggers", "fine-tuning", "generation", "filtering"),
        "measuring quality",
    ]
    assert "12 queries from `sample`" in done["collection of triggers"]["description"]
    assert "top-p" in done["generation"]["description"]
    assert "random initial weights" in done["generation"]["prov:used"]["prov:label"]
    assert "texts met the requirements" in done["filtering"]["description"]
    assert "`informativeness` (by rules)" in done["measuring quality"]["description"]
    assert found["prov:wasDerivedFrom"] == [{"@type": "prov:Entity", "prov:label": "sample"}]
    assert found["license"] == "https://www.apache.org/licenses/LICENSE-2.0"
    for step in done.values():
        assert step["description"] in found["rai:dataCollection"]


def test_a_folder_of_filter_says_what_its_owner_told(built, tiny_file, tmp_path, augesc):
    out = tmp_path / "filtered"
    code, _, err = augesc("filter", built / "generations", "--out", out, "--recipe", tiny_file)
    assert code == 0, err
    told = {"title": "Mine", "licence": "cc-by-nc-4.0", "about": "By a tiny model."}
    filtered.write_card(out, told, Progress(quiet=True))
    found = json.loads(croissant(out, card_of(out), URL, DATE))
    assert found["name"] == "Mine"
    assert found["license"] == "https://creativecommons.org/licenses/by-nc/4.0/"
    labels = [step["prov:label"] for step in found["prov:wasGeneratedBy"]]
    assert labels == ["generation", "filtering"]
    assert found["prov:wasGeneratedBy"][0]["description"] == "By a tiny model."


@pytest.mark.parametrize("theirs", [None, "", "[]", "{", "{}", '"x"'])
def test_the_date_is_that_of_the_first_push(theirs):
    ours = json.dumps({"name": "a", "datePublished": "2027-01-01"})
    assert keep_date(ours, theirs) == ours
    first = json.dumps({"datePublished": DATE, "name": "b"})
    assert json.loads(keep_date(ours, first)) == {"name": "a", "datePublished": DATE}
