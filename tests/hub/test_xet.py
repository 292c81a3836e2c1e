"""Pushes by Xet, the Hub's default transfer: the real client, and a store on loopback."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from tests.conftest import mark_anew
from tests.hub.conftest import Child, environment, push, refused
from tests.hub_stub import LARGE, Fault

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("hf_xet") is None, reason="hf_xet is missing"),
]


def with_xet(hub) -> dict[str, str]:
    found = environment(hub, hub.home)
    del found["HF_HUB_DISABLE_XET"]
    return found


@pytest.fixture
def speaking(hub):
    """The Hub, with a process that speaks Xet to it in the place of the one that does not."""
    plain, hub.child = hub.child, Child(with_xet(hub))
    try:
        yield hub
    finally:
        hub.child.close()
        hub.child = plain


def large(hub) -> dict[str, bytes]:
    files = hub.files("datasets", hub.repo)
    return {name: data for name, data in files.items() if name.endswith(LARGE)}


def test_a_corpus_there_and_back(speaking, run):
    hub = speaking
    done = push(hub, run)
    assert done.returncode == 0, done.stderr
    there = large(hub)
    assert len(there) > 1
    for name, data in there.items():
        assert data == (run / "corpus" / name).read_bytes()
    assert not [path for path in hub.requests if path.startswith("/lfs/")]
    assert hub.xet.xorbs
    before = len(hub.xet.xorbs)
    assert "nothing to do" in push(hub, run).stdout
    assert len(hub.xet.xorbs) == before
    hub.requests.clear()
    code = (
        f"from datasets import load_dataset\nprint(len(load_dataset('{hub.repo}', split='train')))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code],
        env={**with_xet(hub), "HF_XET_CACHE": str(run / "xet")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert loaded.returncode == 0, loaded.stderr
    rows = sum(pq.read_metadata(path).num_rows for path in (run / "corpus/data").glob("*"))
    assert int(loaded.stdout) == rows
    assert [path for path in hub.requests if "reconstructions" in path]


@pytest.mark.parametrize(
    "fault",
    [
        Fault("POST", "/xorbs/", 400, times=99),
        Fault("POST", "/shards", 400, times=99),
        Fault("GET", "/xet-write-token/", 401, times=99),
    ],
    ids=lambda fault: fault.path,
)
def test_a_store_that_takes_nothing_changes_nothing(speaking, run, fault):
    hub = speaking
    assert push(hub, run).returncode == 0
    before = hub.files("datasets", hub.repo)
    shard = sorted((run / "corpus" / "data").glob("*.parquet"))[0]
    pq.write_table(pq.read_table(shard), shard, compression="gzip")
    mark_anew(run)
    from augesc_builder.pipeline.card import stage
    from augesc_builder.run.progress import Progress

    stage.standalone(run, Progress(quiet=True))
    hub.faults.append(replace(fault))
    line = refused(push(hub, run))
    assert f"{hub.repo} was not changed" in line
    assert hub.files("datasets", hub.repo) == before
    hub.faults.clear()
    assert push(hub, run).returncode == 0


def test_it_can_be_switched_off(hub, run):
    """The child of all other tests has HF_HUB_DISABLE_XET=1."""
    assert push(hub, run).returncode == 0
    assert not [path for path in hub.requests if "xet" in path]
