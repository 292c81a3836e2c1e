"""Table 1 of texts drawn at random, beside that of all of them."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from augesc_builder.config.recipe import load_recipe
from augesc_builder.metrics.distinct import hash_of
from augesc_builder.pipeline.filter.report import filter_report, filter_rows, merge
from augesc_builder.pipeline.filter.sampled import sampled
from augesc_builder.tables import MEASURED, to_table

LIMITS = load_recipe("paper").requirements
GOOD = {
    **{"total_tokens": 100, "n_utterances": 20, "longest_run": 1, "utterance_ratio": 1.0},
    **{"n_role_words": 0, "seeker_words": [20] * 10, "supporter_words": [20] * 10},
    **{"seeker_mean_words": 20.0, "supporter_mean_words": 20.0},
}


def row(query, source="a", **differs):
    return {"query_id": query, "sample": 0, "source": source, **GOOD, **differs}


@pytest.fixture
def measured(tmp_path):
    """Sixty texts of one source and eight of another; every third of the first is too long."""
    rows = [row(f"q{n}", total_tokens=2_000 if n % 3 == 0 else 100) for n in range(60)]
    rows += [row(f"r{n}", "b") for n in range(8)]

    def write(shards):
        for number in range(shards):
            part = to_table(rows[number::shards], MEASURED)
            pq.write_table(part, tmp_path / f"{shards}-{number}.parquet")
        return sorted(tmp_path.glob(f"{shards}-*.parquet"))

    return rows, write


def drawn(files, n=20, seed=13, totals=(60, 8)):
    by_source = {name: {"total": total} for name, total in zip("ab", totals, strict=True)}
    return sampled(files, by_source, LIMITS, seed, n)


def test_a_sample_is_of_the_smallest_hashes(measured):
    rows, write = measured
    found = drawn(write(1))
    assert set(found) == {"a"}  # the other source has no more than are drawn
    assert found["a"]["texts"] == 20
    chosen = sorted(rows[:60], key=lambda r: hash_of(f"{r['query_id']}/0", seed=13))[:20]
    share = sum(r["total_tokens"] == 2_000 for r in chosen) / 20
    length = found["a"]["violations"]["session_length"]["share"]
    assert length["value"] == share
    assert 0 <= length["low"] <= share <= length["high"] <= 1
    assert length["low"] < length["high"]
    assert found["a"]["retention"]["value"] == pytest.approx(1 - share)
    assert found["a"]["violations"]["format"]["share"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_shards_change_nothing_and_the_seed_does(measured):
    _, write = measured
    assert drawn(write(1)) == drawn(write(7))
    others = [drawn(write(1), seed=seed)["a"]["retention"] for seed in range(5)]
    assert len({json.dumps(one) for one in others}) > 1


@pytest.mark.parametrize(("n", "sources"), [(60, set()), (59, {"a"}), (7, {"a", "b"})])
def test_only_what_is_larger_is_drawn_from(measured, n, sources):
    _, write = measured
    assert set(drawn(write(2), n=n)) == sources


def test_rows_of_the_same_id_are_drawn_too(tmp_path):
    table = pa.concat_tables([to_table([row("same")] * 9, MEASURED)])
    pq.write_table(table, tmp_path / "x.parquet")
    found = drawn([tmp_path / "x.parquet"], n=4, totals=(9, 0))
    assert found["a"]["texts"] == 4


def test_texts_without_tokens_are_not_judged_by_length(tmp_path):
    rows = [row(f"q{n}", total_tokens=None if n % 2 else 2_000) for n in range(30)]
    pq.write_table(to_table(rows, MEASURED), tmp_path / "x.parquet")
    shares = drawn([tmp_path / "x.parquet"], n=20, totals=(30, 0))["a"]["violations"]
    assert shares["session_length"]["share"]["value"] == 1.0
    for r in rows:
        r["total_tokens"] = None
    pq.write_table(to_table(rows, MEASURED), tmp_path / "x.parquet")
    shares = drawn([tmp_path / "x.parquet"], n=20, totals=(30, 0))["a"]["violations"]
    assert shares["session_length"]["share"] == {"value": None, "low": None, "high": None}


def test_the_table_has_it_below_the_whole(measured):
    _, write = measured
    counts = {"a": {"total": 60, "kept": 40, "session_length": 20}, "b": {"total": 8, "kept": 8}}
    report = filter_report([merge([counts])], ["format", "session_length"])
    heads, without = filter_rows(report)
    report["samples"] = drawn(write(1))
    _, rows = filter_rows(report)
    assert [r for r in rows if r in without] == without
    (sample,) = [r for r in rows if r not in without]
    assert rows.index(sample) == 1
    assert sample[0] == "ours (a), 20 drawn"
    share = report["samples"]["a"]["violations"]["session_length"]["share"]
    low, high, value = (100 * share[key] for key in ("low", "high", "value"))
    assert sample[heads.index("session length")] == f"{value:.1f} [{low:.1f}, {high:.1f}]"
