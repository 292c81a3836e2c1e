"""What a worker in a Ray cluster tells Ray of itself."""

from __future__ import annotations

import os
import platform
import types

import pytest

pytest.importorskip("ray")

from ray.util.metrics import Gauge

from augesc_builder.executors import ray_worker


@pytest.fixture
def told(monkeypatch):
    """Give what gauges of Ray are set to: name, tags and value of each."""
    told, really = [], Gauge.set

    def heard(gauge, value, tags=None):
        told.append((gauge.info["name"], {**gauge.info["default_tags"], **tags}, value))
        really(gauge, value, tags)

    monkeypatch.setattr(Gauge, "set", heard)
    return told


@pytest.mark.parametrize(("gpus", "shown"), [([], "none"), ([0, 3], "0,3")])
def test_measures_are_gauges_by_worker_gpu_and_stage(told, monkeypatch, gpus, shown):
    monkeypatch.setattr(ray_worker.ray, "get_gpu_ids", lambda: gpus)
    status = types.SimpleNamespace(
        stage="generate",
        tokens_a_second=12.5,
        slots_in_use=None,  # before the first step
        tokens=100,
        rows=3,
        shards=1,
        kept=2,
        judged=3,
    )
    worker = types.SimpleNamespace(status=lambda: status)
    ray_worker._Measures(worker).tell()
    values = {name: value for name, _, value in told}
    assert values == {
        "augesc_tokens_a_second": 12.5,
        "augesc_tokens": 100,
        "augesc_rows": 3,
        "augesc_shards": 1,
        "augesc_kept": 2,
        "augesc_judged": 3,
    }
    who = f"{platform.node()}/{os.getpid()}"
    assert all(tags == {"stage": "generate", "gpu": shown, "worker": who} for _, tags, _ in told)
    status.slots_in_use = 0.25
    ray_worker._Measures(worker).tell()
    assert ("augesc_slots_in_use", told[0][1], 0.25) in told


def test_a_worker_that_says_nothing_of_itself_has_no_measures(told, monkeypatch):
    monkeypatch.setattr(ray_worker.ray, "get_gpu_ids", list)
    ray_worker._Measures(types.SimpleNamespace(status=lambda: None)).tell()
    assert not told
