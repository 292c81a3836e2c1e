"""What a finished build says at its end."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from augesc_builder.pipeline.card.render import render_card
from augesc_builder.pipeline.summary import summary
from augesc_builder.run.folder import read_manifest
from tests.conftest import rows_of

SAID = ["I lost my job.", "What happened? " + "It is a long story to tell. " * 8]
AGREES = {"printed": 10, "shared": 3}
FLAG = {"flag": "crisis", "utterance": 0, "start": 0, "end": 1}


@pytest.fixture
def run(built: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    shutil.copytree(built, folder)
    return folder


def say(run: Path, flags: list[dict[str, object]], said: list[str]) -> str:
    """Let the first kept session carry these flags and hold this, and the others carry some."""
    path = next((run / "corpus" / "data").glob("*.parquet"))
    table = pq.read_table(path)
    messages = [{"role": ("user", "assistant")[i % 2], "content": t} for i, t in enumerate(said)]
    rows = [{**row, "safety_flags": [FLAG]} for row in table.to_pylist()]
    rows[0] |= {"messages": messages, "safety_flags": flags, "session_id": "the-first"}
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    return summary(run)


@pytest.mark.parametrize(
    ("n", "more"), [(5, None), (6, None), (7, "1 more utterance"), (8, "2 more")]
)
def test_a_kept_session_is_shown_as_far_as_six_utterances(run, n, more):
    text = say(run, [], (SAID * 4)[:n])
    shown = text[text.index("How the-first begins:") : text.index("Next:")]
    assert shown.count("  Seeker: ") + shown.count("  Supporter: ") == min(n, 6)
    assert (more in shown) if more else ("more utterance" not in shown)
    assert max(map(len, shown.splitlines())) <= 100


def test_a_session_with_safety_flags_is_not_shown(run):
    assert rows_of(run / "corpus" / "data")
    assert "begins:" not in say(run, [FLAG], SAID)


def test_it_and_the_card_say_how_far_figure_4_is_the_papers(run):
    path = run / "corpus" / "statistics.json"
    found = json.loads(path.read_text())
    said = "printed words that are ours too: ESConv, seeker: 3 of 10, rank correlation 0.50."
    for figure_4 in (None, {"ESConv": {"seeker": {**AGREES, "rank_correlation": 0.5}}}):
        path.write_text(json.dumps({**found, "figure_4": figure_4}))
        for text in (summary(run), render_card(run, run / "corpus", read_manifest(run))):
            assert (f"Of the paper's figure 4, {said}" in text) is (figure_4 is not None)
            assert "36.8 (here 36.7)" in text  # where the paper's prose is not its Table 1
