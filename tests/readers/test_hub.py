"""What is downloaded in a user's hands, from a Hub on loopback by the real clients."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import socketserver
import subprocess
import sys
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from augesc_builder.config.recipe import load_recipe
from augesc_builder.models import causal_lm
from augesc_builder.sources import sample
from tests.conftest import ROOT
from tests.gguf_files import write_gguf
from tests.hub_stub import Fault, commit_of, serving
from tests.pipeline.queries.test_collect import classifier

EMPATHETIC = "facebook/empathetic_dialogues"


@pytest.fixture
def hub(tmp_path, built):
    """A Hub with a tiny backbone, ESConv's repo (our sample in it) and EmpatheticDialogues'."""
    root = tmp_path / "hub"
    shutil.copytree(built / "checkpoint", root / "models" / "someone" / "tiny-gptj")
    esconv = root / "datasets" / "thu-coai" / "esconv"
    esconv.mkdir(parents=True)
    shutil.copy(sample.SESSIONS, esconv / "train.txt")
    few = sample.SESSIONS.read_text().splitlines(keepends=True)[:3]
    (esconv / "test.txt").write_text("".join(few))
    posts = list(sample.read_sample_queries())[:6]
    folder = root / "datasets" / EMPATHETIC / "default" / "train"
    folder.mkdir(parents=True)
    table = pa.table(
        {
            "conv_id": [f"c{i}" for i in range(6)],
            "utterance_idx": pa.array([1, 1, 1, 1, 1, 2], pa.int32()),
            "context": ["joyful", *(post.emotion for post in posts[1:])],
            "utterance": [post.text.replace(",", "_comma_") for post in posts],
        }
    )
    pq.write_table(table, folder / "0000.parquet")
    with serving(root) as server:
        yield server


def augesc(hub, tmp_path, *arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **{k: v for k, v in os.environ.items() if k not in {"HF_HUB_OFFLINE", "HF_TOKEN"}},
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "cache"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONPATH": str(ROOT),
        **more,
    }
    command = [sys.executable, "-m", "augesc_builder", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_build_from_the_hub_records_every_commit(hub, tiny_file, tmp_path):
    out = tmp_path / "run"
    command = (
        *("build", "--recipe", tiny_file, "--out", out),
        *("--set", "backbone={name: someone/tiny-gptj, revision: main, from_scratch: null}"),
        *("--set", "finetune.sessions=esconv", "--set", "finetune.revision=main"),
        *("--set", "queries.sources=[{source: empathetic_dialogues}]"),
        *("--set", "generate.samples_per_query={empathetic_dialogues: 2}"),
    )
    done = augesc(hub, tmp_path, *command, "--until", "finetune")
    assert done.returncode == 0, done.stderr
    assert any(commit_of("someone/tiny-gptj") in path for path in hub.requests)
    done = augesc(hub, tmp_path, *command)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["revisions"] == {
        "empathetic_dialogues": commit_of(EMPATHETIC),
        "backbone": commit_of("someone/tiny-gptj"),
        "sessions": commit_of("thu-coai/esconv"),
    }
    assert manifest["tables"]["queries"] == 4  # one is joyful, one is no first utterance
    assert manifest["tables"]["generations"] == 8
    text = pq.read_table(next((out / "queries").glob("*.parquet")))["text"].to_pylist()
    assert not any("_comma_" in query for query in text)
    card = (out / "corpus" / "README.md").read_text()
    for commit in manifest["revisions"].values():
        assert commit in card
    assert "license: cc-by-nc-4.0" in card
    beside = json.loads((out / "corpus" / "statistics.json").read_text())["beside"]
    assert beside["ESConv"]["sessions"] == 100 + 3  # all splits, as in the paper's Table 2
    assert "| ESConv |" in card


@pytest.mark.parametrize(
    ("override", "says"),
    [
        pytest.param(
            "backbone={name: someone/else, revision: main, from_scratch: null}",
            "model someone/else",
            marks=pytest.mark.slow,
        ),
        ("queries.sources=[{source: empathetic_dialogues}]", "give a local copy: --source"),
        pytest.param(
            "finetune.sessions=esconv",
            "give a local file with --set finetune.sessions=PATH",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_cannot_be_had_is_one_line_that_says_what_to_do(
    hub, tiny_file, tmp_path, override, says
):
    shutil.rmtree(hub.root / "datasets")
    done = augesc(
        hub, tmp_path, "build", "--recipe", tiny_file, "--out", tmp_path / "run", "--set", override
    )
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("augesc: ")]
    assert len(lines) == 1
    assert says in lines[0]


def test_reddit_posts_from_a_dataset_on_the_hub(hub, tmp_path):
    folder = hub.root / "datasets" / "someone" / "posts" / "data"
    folder.mkdir(parents=True)
    texts = [post.text for post in sample.read_sample_queries()][:6]
    pq.write_table(pa.table({"text": texts[:3], "author": ["x"] * 3}), folder / "a.parquet")
    (folder / "b.csv").write_text("title,selftext\n" + "".join(f'"","{t}"\n' for t in texts[3:]))
    out = tmp_path / "queries"
    source = "reddit=hf://datasets/someone/posts@main"
    done = augesc(hub, tmp_path, "queries", "--source", source, "--out", out)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["revisions"] == {"reddit": commit_of("someone/posts")}
    assert sum(manifest["tables"].values()) == 6
    assert manifest["tables"]["queries"] > 0
    done = augesc(
        hub, tmp_path, "queries", "--source", "reddit=hf://datasets/no/where", "--out", "x"
    )
    assert done.returncode == 2
    assert "check the address, or give a local copy" in done.stderr


# -- backbones ------------------------------------------------------------------------------------

SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"


@pytest.fixture
def with_backbones(hub):
    """The Hub with a tiny Llama twice: as a GGUF file among others, and as SmolLM2's repo is."""
    folder = hub.root / "models" / "someone" / "tiny-GGUF"
    folder.mkdir()
    model = write_gguf(folder / "tiny.Q8_0.gguf", kind="Q8_0")
    (folder / "tiny.Q2_K.gguf").write_bytes(b"GGUF")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "Strange"}')
    folder = hub.root / "models" / SMOLLM2
    _, tokenizer = causal_lm.load(
        hub.root / "models/someone/tiny-GGUF/tiny.Q8_0.gguf", revision=None, dtype="float32"
    )
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").unlink()
    for name, changes in (
        ("config.json", {"is_llama_config": True, "rope_interleaved": False, "rope_scaling": None}),
        (
            "tokenizer_config.json",
            {
                "tokenizer_class": "GPT2Tokenizer",
                "chat_template": tokenizer.chat_template,
                "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
                "model_max_length": 8192,
            },
        ),
    ):
        facts = json.loads((folder / name).read_text())
        facts.pop("rope_parameters", None)
        (folder / name).write_text(json.dumps({**facts, **changes}))
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(vocabulary["vocab"]))
    (folder / "merges.txt").write_text("\n".join(map(" ".join, vocabulary["merges"])))
    for extra in ("README.md", "onnx/model.onnx", "runs/events.out", "all_results.json"):
        (folder / extra).parent.mkdir(exist_ok=True)
        (folder / extra).write_text("{}")
    return hub


BACKBONES = {
    "gguf": {"name": "someone/tiny-GGUF", "revision": "main", "gguf_file": "tiny.Q8_0.gguf"},
    "gguf at a commit": {
        "name": "someone/tiny-GGUF",
        "revision": "5" * 40,
        "gguf_file": "tiny.Q8_0.gguf",
        "base_model": SMOLLM2,
    },
    "safetensors at a commit": {"name": SMOLLM2, "revision": "7" * 40},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", BACKBONES)
def test_a_backbone_of_the_hub_is_taken_at_a_commit(kind, with_backbones, tiny_file, tmp_path):
    given, out = BACKBONES[kind], tmp_path / "run"
    commit = given["revision"] if len(given["revision"]) == 40 else commit_of(given["name"])
    command = (
        *("finetune", "--recipe", tiny_file, "--out", out, "--set"),
        f"backbone={json.dumps({**given, 'from_scratch': None})}",
    )
    done = augesc(with_backbones, tmp_path, *command)
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "manifest.json").read_text())["revisions"]["backbone"] == commit
    asked = [path for path in with_backbones.requests if "/resolve/" in path]
    assert asked
    assert all(f"/{given['name']}/resolve/{commit}/" in path for path in asked)
    if "gguf_file" in given:
        assert {path.rpartition("/")[2] for path in asked} == {given["gguf_file"]}
    model, tokenizer = causal_lm.load(out / "checkpoint", revision=None, dtype="float32")
    assert model.config.model_type == "llama"
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.chat_template
    n = len(with_backbones.requests)
    shutil.rmtree(out)
    done = augesc(with_backbones, tmp_path, *command, HF_HUB_OFFLINE="1")  # from the cache alone
    assert (done.returncode == 0) is (len(given["revision"]) == 40), done.stderr
    assert len(with_backbones.requests) == n


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        pytest.param(
            {"gguf_file": "none.gguf"},
            "none.gguf of someone/tiny-GGUF at revision main",
            id="no such file",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"sha256": "0" * 64},
            f"expected {'0' * 64} (backbone.sha256); get the file again",
            id="another",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"gguf_file": "tiny.Q2_K.gguf"},
            "is cut short in its header; download",
            id="half",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_gguf_of_the_hub_that_is_not_what_it_should_be(
    changed, says, with_backbones, tiny_file, tmp_path
):
    given = {**BACKBONES["gguf"], **changed, "from_scratch": None}
    command = ("build", "--dry-run", "--recipe", tiny_file, "--out", tmp_path / "run")
    done = augesc(with_backbones, tmp_path, *command, "--set", f"backbone={json.dumps(given)}")
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("augesc: ")]
    assert says in line


# -- the classifiers of appendix A ----------------------------------------------------------------

HARTMANN = "j-hartmann/emotion-english"
GOEMOTIONS, TOXIC = "monologg/bert-base-cased-goemotions-original", "unitary/toxic-bert"


@pytest.fixture
def with_classifiers(hub, paper):
    """The Hub with tiny models under the names of the paper's, as far as there are such names."""
    ekman, goemotions = paper.queries.classifiers.emotions

    def labels(emotion):
        groups = emotion.labels.model_dump().values()
        return [label for group in groups for label in group]

    models = hub.root / "models"
    for owner in ("j-hartmann", "monologg", "unitary"):
        (models / owner).mkdir()
    for size in ("distilroberta-base", "roberta-large"):
        classifier(models / f"{HARTMANN}-{size}", labels(ekman), {"sadness": 3.0})
    (models / "j-hartmann" / "sentiment-of-something-else").mkdir()
    classifier(models / GOEMOTIONS, labels(goemotions), {"sadness": 3.0})
    classifier(models / TOXIC, ["toxic", "obscene"], {})
    return hub


@pytest.fixture
def dump(tmp_path):
    posts = [
        {"id": str(i), "subreddit": "depression", "title": post.text, "selftext": ""}
        for i, post in enumerate(sample.read_sample_queries())
    ]
    path = tmp_path / "RS.jsonl"
    path.write_text("\n".join(map(json.dumps, posts)))
    return path


@pytest.mark.slow
def test_a_classifier_that_the_hub_does_not_have_is_answered_with_the_nearest(
    with_classifiers, dump, tmp_path
):
    command = ("queries", "--recipe", "paper", "--source", f"reddit={dump}", "--out")
    done = augesc(with_classifiers, tmp_path, *command, tmp_path / "out")
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("augesc: ")]
    assert f"the Hub has no model {HARTMANN}-roberta-base, or keeps it private" in line
    near = re.search("near to it are (.*?);", line)[1].split(", ")
    assert set(near) == {f"{HARTMANN}-distilroberta-base", f"{HARTMANN}-roberta-large"}
    assert "--set queries.classifiers.emotions.0.model=NAME" in line


@pytest.mark.slow
def test_a_hub_that_does_not_list_its_models_still_says_what_is_missing(
    with_classifiers, dump, tmp_path
):
    with_classifiers.faults.append(Fault("GET", "^/api/models$", 403, times=100))
    command = ("queries", "--recipe", "paper", "--source", f"reddit={dump}", "--out")
    done = augesc(with_classifiers, tmp_path, *command, tmp_path / "out")
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("augesc: ")]
    assert f"model {HARTMANN}-roberta-base at revision main cannot be had" in line
    assert "--set queries.classifiers.emotions.0.model=PATH" in line


@pytest.mark.slow
def test_every_classifier_is_recorded_at_the_commit_that_was_used(with_classifiers, dump, tmp_path):
    stand_in = f"{HARTMANN}-distilroberta-base"
    out = tmp_path / "out"
    done = augesc(
        *(with_classifiers, tmp_path, "queries", "--recipe", "paper", "--out", out),
        *("--source", f"reddit={dump}"),
        *("--set", f"queries.classifiers.emotions.0.model={stand_in}"),
    )
    assert done.returncode == 0, done.stderr
    manifest = json.loads((out / "manifest.json").read_text())
    pinned = load_recipe("paper").queries.classifiers.toxicity.revision
    assert manifest["revisions"] == {
        stand_in: commit_of(stand_in),
        GOEMOTIONS: commit_of(GOEMOTIONS),
        TOXIC: pinned,
    }
    asked = [path for path in with_classifiers.requests if "/resolve/" in path]
    for name, commit in manifest["revisions"].items():
        assert any(f"/{name}/resolve/{commit}/" in path for path in asked)
    assert not any("/resolve/main/" in path for path in asked)
    assert manifest["tables"]["queries"] > 0


class Silent(socketserver.ThreadingTCPServer):
    """A Hub that takes every connection and never says a word."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), socketserver.BaseRequestHandler)
        self.taken: list[socket.socket] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def process_request(self, request, _) -> None:
        self.taken.append(request)


@pytest.fixture
def silent():
    with Silent() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
        for connection in server.taken:
            connection.close()


@pytest.mark.parametrize(
    "command",
    [
        pytest.param("chat some/model", marks=pytest.mark.slow),
        pytest.param("filter {rows} --tokenizer some/model --out {out}", marks=pytest.mark.slow),
        pytest.param(
            "finetune --out {out} --set backbone.from_scratch=null --set backbone.name=some/model",
            marks=pytest.mark.slow,
        ),
        pytest.param("finetune --out {out} --sessions esconv", marks=pytest.mark.slow),
        "queries --out {out} --source reddit=hf://datasets/some/posts",
        pytest.param(
            "train --config tiny --out {out} --set model.tokenizer=some/model",
            marks=pytest.mark.slow,
        ),
        "push {run} --repo someone/corpus --allow-flagged",
    ],
    ids=lambda command: " ".join(command.split()[:2]),
)
def test_a_hub_that_never_answers_is_asked_once(command, silent, built, tmp_path):
    """A client that waits, and then tries every file again and again, holds a command for minutes;
    one that waits for ever holds it until it is killed, as this test would."""
    rows, run = tmp_path / "rows.jsonl", tmp_path / "run"
    rows.write_text('{"query": "I feel low.", "text": " I am sorry."}\n')
    shutil.copytree(built, run)
    arguments = command.format(rows=rows, out=tmp_path / "out", run=run).split()
    done = augesc(silent, tmp_path, *arguments, HF_HUB_DOWNLOAD_TIMEOUT="1", HF_TOKEN="hf_write")
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("augesc: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert 1 <= len(silent.taken) <= 2, done.stderr
