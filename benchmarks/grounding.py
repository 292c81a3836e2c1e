"""Does a background help, and does choosing? Three ways to the same number of conversations.

    python benchmarks/grounding.py --out DIR [--contradictions MODEL] [--strategies MODEL]

The quickstart's model, fine-tuned on ESConv, continues the same triggers of EmpatheticDialogues in
the paper's form, from a background (``prompt.background``), and from backgrounds four times over,
of which the conversation with the fewest contradictions is kept (``select``): by the rules, and of
the same conversations by the classifier where one is given. As many kept sessions of each as the
least has, of queries drawn by the seed, stand side by side, with 95% intervals by drawing these
again. Rejected texts, those that were not chosen and backgrounds are paid for by the kept ones.
Builds in DIR resume; without one they are not kept. MODEL is a folder that
``benchmarks/contradictions.py`` or ``augesc train --config strategies`` made; without one its rows
are left out.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from augesc_builder.config.recipe import Recipe, load_recipe
from augesc_builder.metrics.distinct import hash_of
from augesc_builder.metrics.lexical_diversity.counts import DiversityCounts
from augesc_builder.metrics.tokenized import spoken
from augesc_builder.metrics.vendi.score import vendi_score
from augesc_builder.pipeline.build import build
from augesc_builder.pipeline.filter import stage as filter_
from augesc_builder.pipeline.generate.draws import BESIDE
from augesc_builder.pipeline.quality import stage as quality
from augesc_builder.pipeline.select import stage as select
from augesc_builder.readers.parquet import read_table
from augesc_builder.run import layout
from augesc_builder.run.markdown import markdown_table
from augesc_builder.run.marks import parquet_files
from augesc_builder.run.progress import Progress
from augesc_builder.run.provenance import load_json
from benchmarks.harness import LOOSE, SHARED, options, parse

PAPER, GROUNDED, BEST = "the paper's form", "grounded", "grounded, best of 4"
BY_MODEL = "grounded, best of 4 by the classifier"
SAMPLES = 4
SMALLER = (
    "backbone.from_scratch={vocab_size: 1024, n_embd: 96, n_layer: 2, n_head: 2, rotary_dim: 32, "
    "n_positions: 2048}",
    "finetune.learning_rate=4e-3",
)
"""Of the tiny model, what learns in seconds to write a background and turns that are kept."""
_QUIET = Progress(quiet=True)
SHOWN = {
    "consistency.contradictions": "contradictions a session",
    "consistency.contradiction": "surest contradiction, 0 to 1",
    "consistency.role_confusions": "role confusions a session",
    "topic_drift.drift": "drift of supporters' turns (0.5: chance)",
    "topic_drift.drifted": "share of supporters' turns that drifted",
    "informativeness.new_words": "new content words a seeker's turn",
    "informativeness.new_facts": "new facts a seeker's turn",
}
"""Numbers of sessions, and what the table calls them."""


@dataclass(frozen=True)
class Way:
    """A way to a corpus: its kept sessions, and the tokens of all that was generated for them."""

    sessions: pa.Table
    texts: int
    tokens: int

    def first(self, n: int, seed: int) -> pa.Table:
        """Return ``n`` sessions, of the queries with the smallest hashes."""
        keys = self.sessions["query_id"].to_pylist()
        order = sorted(range(len(keys)), key=lambda i: (hash_of(keys[i], seed=seed), i))
        return self.sessions.take(pa.array(sorted(order[:n]), pa.int64()))


def main() -> None:
    """Print the table."""
    parser = options(__doc__)
    parser.add_argument("--out", type=Path, help="for the builds; they resume")
    parser.add_argument("--queries", type=int, default=200, help="triggers")
    parser.add_argument("--contradictions", type=Path, help="a classifier of pairs; else rules")
    parser.add_argument("--strategies", type=Path, help="a classifier of strategies; else none")
    given = parse(parser, queries=6)
    with tempfile.TemporaryDirectory() as place:
        given.out = given.out or Path(place)
        print(_compared(given, Progress()))


def _compared(given: argparse.Namespace, progress: Progress) -> str:
    """Build what is missing; return the table."""
    measures = _measures(given.contradictions, given.strategies)
    classifier = _classifier(given.contradictions)
    recipes = {
        "paper": _recipe("quickstart", given.tiny, given.queries),
        "best": _recipe("quickstart-grounded", given.tiny, given.queries, _CHOICE),
    }
    for name, recipe in recipes.items():
        build(recipe, given.out / name, progress, until="select" if name == "best" else "filter")
    ways = {
        PAPER: _way(given.out / "paper"),
        GROUNDED: _first_samples(recipes["best"], given.out),
        BEST: _way(given.out / "best"),
    }
    if classifier:
        chosen = given.out / "best-by-classifier"
        choice = [*classifier, "quality.measures=[consistency]", _choice(_COUNT)]
        select.standalone(given.out / "best", chosen, progress, overrides=choice)
        ways[BY_MODEL] = replace(ways[BEST], sessions=_sessions(chosen / layout.DATA))
    n = min(len(way.sessions) for way in ways.values())
    if not n:
        raise SystemExit("one of the ways kept nothing: give more --queries")
    return _table(ways, n, recipes["paper"].seed, given.out, measures)


_SUREST, _COUNT = "consistency.contradiction", "consistency.contradictions"
"""What is chosen by: rules find too few for a count to tell sessions apart."""


def _choice(by: str) -> str:
    return f"select={{by: {by}, order: lowest, per_query: 1, cut_at_drift: false}}"


_CHOICE = (
    "quality.measures=[consistency]",
    f"generate.samples_per_query={SAMPLES}",
    _choice(_SUREST),
)


def _classifier(model: Path | None) -> list[str]:
    if model is None:
        return []
    at = f"{{model: {model.absolute()}, revision: null, threshold: 0.5}}"
    return [f"quality.consistency.classifier={at}"]


def _measures(contradictions: Path | None, strategies: Path | None) -> list[str]:
    """Return what a recipe says of the measures."""
    names = ["consistency", "topic_drift", "informativeness"]
    found = _classifier(contradictions)
    if strategies is not None:
        names.append("support_strategies")
        found.append(f"quality.support_strategies.model={strategies.absolute()}")
    return [*found, f"quality.measures=[{', '.join(names)}]"]


def _recipe(name: str, tiny: bool, n_queries: int, overrides: Iterable[str] = ()) -> Recipe:
    """Return a recipe on ESConv and EmpatheticDialogues; a tiny one has the bundled sample."""
    esconv, triggers = SHARED / "esconv/train.txt", SHARED / "empathetic_dialogues/test.csv"
    chosen = [f"queries.max_per_source={n_queries}", *overrides]
    if tiny or not esconv.exists():
        if "grounded" in name:
            chosen.append("prompt.background=true")
        return load_recipe("tiny", [*chosen, *SMALLER, *LOOSE])
    source = f"{{source: empathetic_dialogues, path: {triggers}}}"
    chosen += [f"finetune.sessions={esconv}", "finetune.n_sessions=100"]
    return load_recipe(name, [*chosen, f"queries.sources=[{source}]"])


def _way(run: Path) -> Way:
    rows = list(_generations(run))
    return Way(_sessions(run / layout.CORPUS / layout.DATA), len(rows), sum(map(_tokens, rows)))


def _first_samples(recipe: Recipe, out: Path) -> Way:
    """Return the first sample of each query alone: what would have been without choosing."""
    rows = [row for row in _generations(out / "best") if row["sample"] == 0]
    file = out / "first.parquet"
    table = pa.concat_tables(map(pq.read_table, parquet_files(out / "best" / layout.GENERATIONS)))
    pq.write_table(table.filter(pa.compute.equal(table["sample"], 0)), file)
    tokenizer = str(out / "best" / layout.CHECKPOINT)
    filter_.standalone(recipe, file, out / "grounded", _QUIET, tokenizer=tokenizer)
    return Way(_sessions(out / "grounded" / layout.DATA), len(rows), sum(map(_tokens, rows)))


def _generations(run: Path) -> Iterator[dict[str, Any]]:
    for file in parquet_files(run / layout.GENERATIONS):
        yield from pq.read_table(file).to_pylist()


def _tokens(row: Mapping[str, Any]) -> int:
    counted = ("n_prompt_tokens", "n_tokens", *BESIDE)
    return sum(row.get(name) or 0 for name in counted)


def _sessions(folder: Path) -> pa.Table:
    names = ["session_id", "source", "query_id", "messages"]
    return pa.concat_tables(read_table(file, names) for file in parquet_files(folder))


def _table(
    ways: Mapping[str, Way],
    n: int,
    seed: int,
    out: Path,
    measures: list[str],
) -> str:
    sets = []
    for name, way in ways.items():
        file = out / f"{name.replace(' ', '_').replace(chr(39), '').replace(',', '')}.parquet"
        pq.write_table(way.first(n, seed), file)
        sets.append(f"{file.stem}={file}")
    at = out / f"quality-{n}"
    quality.standalone(sets, at, _QUIET, recipe="paper", overrides=measures)
    report = load_json(at / layout.QUALITY_REPORT)["by_source"]
    columns = dict(zip(ways, report.values(), strict=True))
    rows = [
        ["texts", *(f"{way.texts:,}" for way in ways.values())],
        ["sessions kept", *(f"{len(way.sessions):,}" for way in ways.values())],
        [
            "tokens for each kept session",
            *(f"{way.tokens / len(way.sessions):,.0f}" for way in ways.values()),
        ],
        ["sessions compared", *(f"{n:,}" for _ in ways)],
    ]
    for key, title in SHOWN.items():
        measure, number = key.split(".")
        found = [column["numbers"].get(measure, {}).get(number) for column in columns.values()]
        if any(one is not None and one["mean"] is not None for one in found):
            rows.append([title, *map(_estimate, found)])
    rows += _strategies(columns)
    rows += _diversity([way.first(n, seed) for way in ways.values()])
    return markdown_table(["", *ways], rows)


def _estimate(found: Mapping[str, Any] | None) -> str:
    if found is None or found["mean"] is None:
        return "-"
    return f"{found['mean']:.3g} [{found['low']:.3g}, {found['high']:.3g}]"


def _strategies(columns: Mapping[str, Any]) -> Iterator[list[str]]:
    """Yield how often supporters ask, comfort and the like, where strategies were told."""
    found = [column["labels"].get("support_strategies", {}) for column in columns.values()]
    for label in sorted({label for one in found for label in one}):
        shares = [one.get(label, {"share": 0.0})["share"] for one in found]
        yield [f"supporters' turns: {label}", *(f"{100 * share:.0f} %" for share in shares)]


def _diversity(tables: Iterable[pa.Table]) -> Iterator[list[str]]:
    """Yield measures of spread, of as many sessions in each column."""
    said = [[spoken(messages) for messages in table["messages"].to_pylist()] for table in tables]
    distinct = []
    for of_way in said:
        counts = DiversityCounts()
        counts.add(of_way)
        distinct.append(counts.statistics()["distinct_2"])
    yield ["distinct-2", *(f"{one:.3f}" for one in distinct)]
    yield ["Vendi score, of as many sessions", *(f"{vendi_score(one) or 0:.1f}" for one in said)]


if __name__ == "__main__":
    main()
