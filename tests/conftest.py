from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import sys
import threading
from collections import Counter
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock
from hypothesis import HealthCheck, settings

from augesc_builder.cli import app
from augesc_builder.config.recipe import Recipe, load_recipe
from augesc_builder.run.disk import sealed, sha256
from augesc_builder.run.marks import Marks

# Two threads wait for each other at every one of the many small steps of tiny models. This is read
# when torch is imported, and by every process that a test starts.
os.environ["OMP_NUM_THREADS"] = "1"
# Kernels run without a GPU. Read when triton is imported, which more than ours may do.
os.environ["TRITON_INTERPRET"] = "1"
# Read when huggingface_hub is imported: nothing is asked of a Hub but by the processes that a test
# starts for it, which leave this out.
os.environ["HF_HUB_OFFLINE"] = "1"

SOAK = int(os.environ.get("AUGESC_SOAK", "0"))
"""Kills of each test that counts them; hypothesis tries ten times as many examples then."""


def often(n_examples: int) -> int:
    """Give the number of examples that hypothesis tries."""
    return 10 * n_examples if SOAK else n_examples


# How long an example takes says nothing on a machine at other work.
settings.register_profile(
    "augesc",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    max_examples=often(100),
)
settings.load_profile("augesc")

ROOT = Path(__file__).parent.parent
SHARED = Path(os.environ.get("AUGESC_TEST_DATA", ROOT.parent / "shared" / "data"))

TINY = {
    "extends": "tiny",
    "name": "tiny",
    "about": "For tests: every stage in seconds.",
    "backbone": {
        "from_scratch": {
            "vocab_size": 400,
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 2,
            "rotary_dim": 8,
            "n_positions": 512,
        }
    },
    "finetune": {"n_sessions": 13, "epochs": 2, "max_tokens": 384, "save_state_every": 2},
    "queries": {"max_per_source": 12},
    "generate": {"max_tokens": 384, "shard_size": 4, "backend": {"batch_size": 3}},
    "quality": {"measures": ["informativeness"]},
    # An untrained model meets no requirement of the paper; with these some texts are kept.
    "requirements": {
        "total_utterances": {"min": 1, "max": 50},
        "balanced_utterances": {"max_ratio": 50},
        "seeker_utterance_length": {"mean": {"min": 1, "max": 900}, "max": 900},
        "supporter_utterance_length": {
            "mean": {"min": 1, "max": 900},
            "max_short_share": 1,
            "max": 900,
        },
    },
}


def pytest_collection_modifyitems(items):
    """Put files with many slow tests first: a long one that is begun last is waited for alone."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(autouse=True)
def nothing_beats_on():
    """What a test began must be closed by it: a thread that looks on is found by later tests."""
    yield
    for thread in threading.enumerate():
        if thread.name == "augesc-beat":
            thread.join(10)
            assert not thread.is_alive(), "a test's worker or progress was not closed"


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


@pytest.fixture(scope="session")
def tiny(tiny_file: Path) -> Recipe:
    return load_recipe(tiny_file)


@pytest.fixture(scope="session")
def built(tiny: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished build of the tiny recipe; tests must not change it."""
    from augesc_builder.pipeline.build import build
    from augesc_builder.run.progress import Progress

    folder = tmp_path_factory.mktemp("built") / "run"
    assert build(tiny, folder, Progress(quiet=True))
    return folder


@pytest.fixture(scope="session")
def paper() -> Recipe:
    return load_recipe("paper")


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real weights of the quickstart as a plain float32 checkpoint, made once for all workers.

    Tests must not change it.
    """
    from augesc_builder.models import causal_lm
    from augesc_builder.models.backbone import place_of

    origin = load_recipe("quickstart").backbone
    for package in (str(origin.name).removeprefix("package:"), "gguf"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"real weights need the package {package}; make weights installs it")
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = base / "smollm2"
    with FileLock(base / "smollm2.lock"):
        if not folder.exists():
            unfinished = base / "smollm2-unfinished"
            model, tokenizer = causal_lm.load(place_of(origin), revision=None, dtype="float32")
            model.save_pretrained(unfinished)
            tokenizer.save_pretrained(unfinished)
            unfinished.rename(folder)
    return folder


def shared(name: str) -> Path:
    """Give a file of the shared data, or skip the test where it is missing."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is missing; set AUGESC_TEST_DATA to the shared data")
    return path


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """Give all rows of a folder's Parquet files, in an order of their own content."""
    import pyarrow.parquet as pq

    rows = [row for path in folder.glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    return sorted(rows, key=lambda row: json.dumps(row, sort_keys=True))


def corpus_of(folder: Path) -> dict[str, Any]:
    """Give all that must not depend on how often a build was killed."""
    return {
        "queries": rows_of(folder / "queries"),  # and the posts that are none
        "generations": rows_of(folder / "generations"),
        "sessions": rows_of(folder / "corpus" / "data"),
        "rejected": rows_of(folder / "corpus" / "rejected"),
        "quality": rows_of(folder / "corpus" / "quality"),
        **{
            name: (folder / "corpus" / name).read_text()
            for name in (
                *("filter_report.json", "safety_report.json"),
                *("quality.json", "statistics.json", "README.md"),
            )
        },
    }


@pytest.fixture
def forking():
    """Give a context whose processes find modules imported; no other test has to do with it.

    Its server is one of the whole process: one that an earlier test began has other modules, and
    the environment of that time.
    """

    def with_modules(*names: str):
        forkserver._forkserver._stop()
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([*names])
        return context

    yield with_modules
    forkserver._forkserver._stop()


@pytest.fixture
def augesc(monkeypatch, capsys):
    """Run the command line in this process; give exit code, output and errors."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["augesc", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            app.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


@pytest.fixture
def refused(augesc):
    """Run a command that must fail as every mistake does: one line, exit code 2."""

    def run(*arguments: object) -> str:
        code, _, err = augesc(*arguments)
        lines = [line for line in err.splitlines() if line.startswith("augesc: ")]
        assert code == 2, err
        assert len(lines) == 1, err
        assert "Traceback" not in err
        return lines[0]

    return run


@pytest.fixture
def generate(built, tiny_file, tmp_path):
    """Run that stage alone on the queries of the tiny build; give its rows."""
    from augesc_builder.pipeline.generate import stage
    from augesc_builder.pipeline.generate.backends import backend_of
    from augesc_builder.run.progress import Progress

    def run(*overrides, out="out", checkpoint=None, progress=None):
        recipe = load_recipe(tiny_file, overrides)
        needed = backend_of(recipe).needs_checkpoint
        at = (checkpoint or built / "checkpoint") if needed else None
        progress = progress or Progress(quiet=True)
        stage.standalone(recipe, built / "queries", at, tmp_path / out, progress)
        return rows_of(tmp_path / out)

    return run


def mark_anew(run: Path) -> None:
    """Mark the files of a run as they are now, as if the run had written them so."""
    marks, known = Marks(run), set(Marks(run).files())
    data = {path.relative_to(run).as_posix() for path in run.glob("corpus/data/*.parquet")}
    for name in marks.names():
        mark = marks.read(name)
        names = [n for n in mark["files"] if (run / n).exists()]
        names += sorted(data - known) if name == "filter-00000" else []
        mark["files"] = {
            n: {"bytes": (run / n).stat().st_size, "sha256": sha256(run / n)} for n in names
        }
        marks.path(name).write_text(sealed(mark))
