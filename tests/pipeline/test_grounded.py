"""A build with backgrounds, from fine-tuning to what is loaded and published."""

from __future__ import annotations

import json

import pytest

from augesc_builder.builder_configs import _read_kept, _read_rejected
from augesc_builder.config.recipe import dump_recipe, load_recipe
from augesc_builder.errors import SettingsChangedError
from augesc_builder.pipeline.build import build
from augesc_builder.pipeline.plan import plan
from augesc_builder.run.progress import Progress
from augesc_builder.tables import SESSIONS, SESSIONS_AND_REJECTED
from tests.conftest import rows_of

QUIET = Progress(quiet=True)
OVERRIDES = [
    "prompt.background=true",
    "generate.background={max_tokens: 60, attempts: 3}",
    "requirements.counted=generated",
]


@pytest.fixture(scope="module")
def recipe(tiny_file):
    return load_recipe(tiny_file, OVERRIDES)


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("grounded") / "run"
    assert build(recipe, folder, QUIET)
    return folder


def test_every_row_has_the_background_that_it_was_generated_from(run):
    made = {f"{row['query_id']}-{row['sample']}": row for row in rows_of(run / "generations")}
    assert {bool(row["background"]) for row in made.values()} == {True, False}
    kept, rejected = rows_of(run / "corpus" / "data"), rows_of(run / "corpus" / "rejected")
    assert kept
    assert len(kept) + len(rejected) == len(made)
    for row in kept:
        assert row["background"] == made[row["session_id"]]["background"]
        assert row["n_tokens"] == sum(
            made[row["session_id"]][name] for name in ("n_prompt_tokens", "n_tokens")
        )
        assert row["strategies"] is None
    for row in rejected:
        whole = made[f"{row['query_id']}-{row['sample']}"]
        assert {name: row[name] for name in whole} == whole


def test_what_is_loaded_of_it_has_them_too(run):
    (kept,) = (run / "corpus" / "data").glob("*.parquet")
    (rejected,) = (run / "corpus" / "rejected").glob("*.parquet")
    for path, rows, features in (
        (kept, _read_kept(str(kept), wide=False), SESSIONS),
        (kept, _read_kept(str(kept), wide=True), SESSIONS_AND_REJECTED),
        (rejected, _read_rejected(str(rejected)), SESSIONS_AND_REJECTED),
    ):
        found = [row for table in rows for row in table.to_pylist()]
        assert set(found[0]) == set(features)
        assert [row["background"] for row in found] == [
            row["background"] for row in rows_in_order(path)
        ]


def rows_in_order(path):
    import pyarrow.parquet as pq

    return pq.read_table(path).to_pylist()


def test_the_draws_are_counted(run):
    facts = json.loads((run / "manifest.json").read_text())["stages"]["generate"]["backgrounds"]
    rows = rows_of(run / "generations")
    faults = [fault for row in rows for fault in row["background_faults"]]
    assert facts == {
        "conversations": len(rows),
        "kept": sum(row["background"] is not None for row in rows),
        "tokens": sum(row["n_background_tokens"] for row in rows),
        "faults": {fault: faults.count(fault) for fault in sorted(set(faults))},
    }
    card = (run / "corpus" / "README.md").read_text()
    assert f"{facts['kept']:,} of {facts['conversations']:,} have a background" in card
    assert "no persona, no background story" not in card
    assert "ours: a background stands before every conversation" in card


def test_a_run_keeps_its_backgrounds_and_its_recipe_gives_them_again(run, recipe, tiny, tmp_path):
    assert build(recipe, run, QUIET) is False
    with pytest.raises(SettingsChangedError, match=r"prompt\.background"):
        build(tiny, run, QUIET)
    path = tmp_path / "own.yaml"
    path.write_text(dump_recipe(recipe))
    assert load_recipe(path) == recipe


@pytest.mark.parametrize(
    ("grounded", "base"), [("paper-grounded", "paper"), ("quickstart-grounded", "quickstart")]
)
def test_the_shipped_recipes_differ_in_the_background_alone(grounded, base):
    found, plain = load_recipe(grounded).settings(), load_recipe(base).settings()
    assert found["prompt"].pop("background") is True
    assert plain["prompt"].pop("background") is False
    for name in ("name", "about"):
        assert found.pop(name) != plain.pop(name)
    assert found == plain


def test_a_dry_run_counts_what_is_drawn_beside_the_texts(tiny_file, tmp_path):
    def tokens(stage, *overrides):
        said = plan(load_recipe(tiny_file, overrides), tmp_path / "run")
        (row,) = (line for part in said for line in part.split("\n") if f"| {stage} " in line)
        _, _, rows, found, *_ = (cell.strip() for cell in row.split("|"))
        counts = [int(n.replace(",", "")) for n in found.split(" to ")]
        return int(rows.split()[0]), counts, "\n".join(said)

    n, (plain,), said = tokens("generate")
    assert "drawn as often as it may be" not in said
    n, (least, most), said = tokens("generate", *OVERRIDES)
    assert plain < least < plain + 2 * 60 * n
    assert most == plain + (3 + 1) * 60 * n
    assert "those of generate.background where" in said
    again = ["quality.measures=[consistency]"]
    again.append("generate.resample={by: [consistency.contradictions], attempts: %d}")
    _, (first, once), said = tokens("generate", *again[:1], again[1] % 1)
    _, (same, twice), _ = tokens("generate", *again[:1], again[1] % 2)
    assert first == same == plain
    assert twice - once == once - plain > 0
    assert "those of generate.resample where" in said
    assert tokens("finetune", *OVERRIDES)[1] > tokens("finetune")[1]
