"""No code of a stranger's model runs: not for a ``y`` on standard input, and not as weights."""

from __future__ import annotations

import ast
import io
import json
import pickle
import shutil
import sys
from pathlib import Path

import pytest

from augesc_builder.errors import CheckpointError
from augesc_builder.models import causal_lm, dialog, pretrained
from tests.conftest import ROOT

DOOR = ROOT / "augesc_builder/models/pretrained.py"
FILES = [
    path
    for folder in ("augesc_builder", "training", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if ".peers" not in path.parts  # the environments of other engines
]
LOADERS = {"from_pretrained", "from_config", "pipeline", "load_custom_generate"}


def calls(source: str):
    """Give every call in a source: what is called (``a.b``), and its keywords."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            yield ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}


def open_doors(source: str) -> list[str]:
    """Name the calls that could run what a stranger wrote."""
    found = []
    for name, keywords in calls(source):
        last = name.rpartition(".")[2]
        if (
            last in LOADERS
            or name in {"pickle.load", "pickle.loads", "pickle.Unpickler", "joblib.load"}
            or name in {"eval", "exec", "yaml.load", "yaml.unsafe_load"}
            or (name == "torch.load" and keywords.get("weights_only") != "True")
            or keywords.get("allow_pickle", "False") != "False"
            or keywords.get("trust_remote_code", "False") != "False"
        ):
            found.append(name)
    return found


@pytest.mark.parametrize("path", [p for p in FILES if p != DOOR], ids=lambda p: p.name)
def test_models_are_loaded_at_one_door(path):
    assert open_doors(path.read_text()) == []


def test_the_door_itself_lets_no_code_in():
    source = DOOR.read_text()
    loading = [keys for name, keys in calls(source) if name.rpartition(".")[2] in LOADERS]
    assert len(loading) >= 5
    assert source.count("**_NO_CODE") == len(loading)  # ast has ** as a keyword without a name
    assert all(None in keys for keys in loading)
    assert pretrained._NO_CODE == {"trust_remote_code": False}


def test_the_search_finds_what_it_is_for():
    for line in (
        "AutoModel.from_pretrained('x')",
        "transformers.pipeline('text-classification')",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "pickle.loads(data)",
        "numpy.load(path, allow_pickle=True)",
        "load_dataset('x', trust_remote_code=True)",
    ):
        assert open_doors(line), line
    assert not open_doors("torch.load(path, weights_only=True)")


def write_code(folder: Path, marks: Path, *, model_type: str | None) -> None:
    """Let a checkpoint name Python code of its own, which leaves a mark when it runs."""
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {
        "AutoConfig": "evil.Config",
        "AutoModelForCausalLM": "evil.Model",
        "AutoModelForSeq2SeqLM": "evil.Model",
        "AutoModelForSequenceClassification": "evil.Model",
    }
    if model_type:
        config["model_type"] = model_type
    (folder / "config.json").write_text(json.dumps(config))
    about = folder / "tokenizer_config.json"
    tokens = json.loads(about.read_text()) if about.exists() else {}
    tokens["auto_map"] = {"AutoTokenizer": ["evil.Tokenizer", "evil.Tokenizer"]}
    tokens["tokenizer_class"] = "EvilTokenizer"
    about.write_text(json.dumps(tokens))
    (folder / "evil.py").write_text(f"open({str(marks)!r}, 'w').close()\nraise SystemExit('ran')\n")


@pytest.fixture
def stranger(built, tmp_path):
    """Give a checkpoint that asks to run code, and the file that is there once it has."""
    folder, marks = tmp_path / "stranger", tmp_path / "ran"
    shutil.copytree(built / "checkpoint", folder)
    write_code(folder, marks, model_type="strangers")
    return folder, marks


COMMANDS = {
    "chat": "chat {model}",
    "evaluate-model": "evaluate-model {model} --sessions sample:test --perplexity-only",
    "generate": "generate {queries} --checkpoint {model} --recipe {recipe} --out {out}",
    "filter": "filter {rows} --tokenizer {model} --out {out}",
    "finetune": "finetune --recipe {recipe} --out {out} --set backbone.from_scratch=null"
    " --set backbone.name={model}",
    "build": "build --recipe {recipe} --out {out} --set backbone.from_scratch=null"
    " --set backbone.name={model}",
    "dry run": "build --dry-run --recipe {recipe} --out {out} --set backbone.from_scratch=null"
    " --set backbone.name={model}",
    "train": "train --config tiny --out {out} --set model.from_scratch=null"
    " --set model.name={model}",
    "tokenizer": "train --config tiny --out {out} --set model.tokenizer={model}",
    "sft": "train --config tiny --out {out} --set method=sft --set model.from_scratch=null"
    " --set model.name={model}",
    "classifier": "filter {rows} --out {out} --set safety.classifier.model={model}"
    " --set safety.classifier.revision=null --set safety.classifier.threshold=0.5"
    " --set safety.classifier.labels.toxic=crisis",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_that_names_code_is_refused(
    command, stranger, built, tiny_file, tmp_path, refused, monkeypatch
):
    folder, marks = stranger
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"query": "I feel low.", "text": " I am sorry."}\n')
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\nyes\n1\n" * 9))
    given = COMMANDS[command].format(
        model=folder, queries=built / "queries", recipe=tiny_file, rows=rows, out=tmp_path / "out"
    )
    said = refused(*given.split())
    assert "asks to run Python code of its own" in said
    assert str(folder) in said
    assert not marks.exists()
    assert sys.stdin.read(1) == "y"  # nothing was asked


def test_a_known_model_that_brings_code_along_is_loaded_without_it(built, tmp_path):
    folder, marks = tmp_path / "known", tmp_path / "ran"
    shutil.copytree(built / "checkpoint", folder)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(marks)!r}, 'w').close()\n")
    custom = folder / "custom_generate"
    custom.mkdir()
    (custom / "generate.py").write_text(f"open({str(marks)!r}, 'w').close()\n")
    model, _ = causal_lm.load(folder, revision=None, dtype="float32")
    assert type(model).__name__ == "GPTJForCausalLM"
    assert not marks.exists()


def test_kernels_of_a_repo_are_not_fetched(built, tmp_path):
    folder = tmp_path / "kernels"
    shutil.copytree(built / "checkpoint", folder)
    config = json.loads((folder / "config.json").read_text())
    config["attn_implementation"] = "somebody/kernels"
    (folder / "config.json").write_text(json.dumps(config))
    for load in (lambda: dialog.load(folder), lambda: causal_lm.config_of(None, folder, None)):
        with pytest.raises(CheckpointError, match="run the kernels of 'somebody/kernels'"):
            load()


class _Bomb:
    def __init__(self, marks: Path) -> None:
        self.marks = str(marks)

    def __reduce__(self):
        return open, (self.marks, "w")


@pytest.mark.parametrize("as_archive", [True, False], ids=["zip", "pickle"])
def test_weights_that_are_a_pickle_run_nothing(built, tmp_path, as_archive):
    import torch

    folder, marks = tmp_path / "pickled", tmp_path / "ran"
    shutil.copytree(built / "checkpoint", folder)
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    if as_archive:
        torch.save({"transformer.wte.weight": _Bomb(marks)}, folder / "pytorch_model.bin")
    else:
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"w": _Bomb(marks)}))
    for load in (
        lambda: dialog.load(folder),
        lambda: causal_lm.load(folder, revision=None, dtype="float32"),
    ):
        with pytest.raises(CheckpointError, match="cannot be loaded"):
            load()
        assert not marks.exists()
