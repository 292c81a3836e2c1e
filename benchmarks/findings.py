"""Findings 2, 4 and 5 of the paper's section 3 as experiments, on the quickstart's small model.

    python benchmarks/findings.py --out DIR [--backbone FOLDER] [--cells 25x1,100x1,...]

Finding 4: fine-tuning on 25, 100 and 400 sessions of ESConv, for one epoch and for three. Finding
5: conversations of the cell ``--of``, from informative and from generic first posts of
EmpatheticDialogues. Finding 2: that cell's model writing both sides, against itself as the
supporter and a second model, which learned from the same sessions with another seed, as the
seeker. A table each, with 95% intervals over sessions or queries. What is done in DIR is not made
again; without DIR it is not kept.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from augesc_builder.metrics.informativeness.measure import Informativeness
from augesc_builder.metrics.intervals import Estimate, Numbers, distinct, number_grams
from augesc_builder.metrics.novelty.counts import NoveltyCounts, utterances_of
from augesc_builder.metrics.tokenized import Spoken, spoken
from augesc_builder.metrics.vendi.score import vendi_score
from augesc_builder.models.backbone import place_of
from augesc_builder.pipeline.quality import stage as quality
from augesc_builder.run import layout
from augesc_builder.run.provenance import load_json
from augesc_builder.text.prompts import Message
from augesc_builder.text.words import tokenize
from benchmarks.findings_chat import chatted
from benchmarks.findings_runs import (
    CLOCK,
    QUIET,
    Experiments,
    Unseen,
    conversations,
    losses,
    rows_of,
    tiny_backbone,
    write_queries,
    write_sessions,
)
from benchmarks.findings_tables import estimate, ratio, table
from benchmarks.harness import options, parse

CELLS = "25x1,25x3,100x1,100x3,400x1,400x3"
BEFORE = "before"
"""What the column of the model without any fine-tuning is called."""

WORDS = 100
"""Words behind the query that diversity is measured on, so that long texts are as short ones."""

BEGINNING = 10
"""Utterances that quality is measured on, from the query on: as many as requirements ask for."""

MEASURES = "quality.measures=[consistency, topic_drift]"
SHOWN = {
    "consistency.role_confusions": "role confusions a session",
    "consistency.contradictions": "contradictions a session, by rules",
    "topic_drift.drift": "drift of supporters' turns (0.5: chance)",
}


def main() -> None:
    """Print the tables."""
    parser = options(__doc__)
    parser.add_argument("--out", type=Path, help="for what is made; it resumes")
    parser.add_argument("--backbone", type=Path, help="a folder with a chat model; else a package")
    parser.add_argument("--cells", default=CELLS, help="of finding 4: sessions x epochs")
    parser.add_argument("--of", default="100x1", help="the cell of findings 2 and 5")
    parser.add_argument("--queries", type=int, default=40, help="of each kind")
    parser.add_argument("--chats", type=int, default=12, help="conversations of two models")
    parser.add_argument("--findings", default="4,5,2", help="which, in their order")
    given = parse(parser, cells="30x1,30x6", of="30x6", queries=4, chats=2)
    with tempfile.TemporaryDirectory() as place:
        given.out = given.out or Path(place)
        given.out.mkdir(parents=True, exist_ok=True)
        if given.tiny:
            given.backbone = tiny_backbone(given.out / "backbone")
        _print(given)


def _print(given: argparse.Namespace) -> None:
    overrides = []
    if given.backbone is not None:
        overrides = [f"backbone.name={given.backbone.absolute()}"]
        overrides += [f"backbone.{key}=null" for key in ("gguf_file", "sha256", "base_model")]
    at = Experiments(
        out=given.out,
        overrides=tuple(overrides),
        n_queries=given.queries,
        n_unseen=2 if given.tiny else 16,
        longest=2000 if given.tiny else 600,
        layers=0 if given.tiny else 6,
        tiny=given.tiny,
    )
    unseen, queries = write_sessions(at), write_queries(at)
    made: dict[str, Callable[[], str]] = {
        "4": lambda: _finding_4(at, given.cells.split(","), queries["informative"], unseen),
        "5": lambda: _finding_5(at, given.of, queries),
        "2": lambda: _finding_2(at, given.of, queries["informative"], given.chats),
    }
    for number in given.findings.split(","):
        print(f"Finding {number}\n\n{made[number]()}\n", flush=True)


# Finding 4: fewer sessions and steps leave more of what the model knew.


def _finding_4(at: Experiments, cells: Sequence[str], queries: Path, unseen: Unseen) -> str:
    columns = {BEFORE: _likelihoods(at, BEFORE, place_of(at.recipe().backbone), unseen)}
    for cell in cells:
        model = at.cell(cell)
        found = at.written(f"{cell}/informative", queries, model, tokenizer=model)
        columns[cell] = {
            **_learned(at, cell),
            **_retention(found),
            **_memorized(at, cell, found, unseen),
            **_likelihoods(at, cell, model, unseen),
        }
    texts = {cell: conversations(at.out / cell / "informative") for cell in cells}
    _add_diversity(columns, texts)
    empty = dict.fromkeys(columns[cells[0]], "-")
    return table({**columns, BEFORE: {**empty, **columns[BEFORE]}})


def _learned(at: Experiments, cell: str) -> dict[str, str]:
    facts = load_json(at.out / cell / "model" / layout.MANIFEST)["stages"]["finetune"]
    return {
        "optimizer steps": f"{facts['steps']:,}",
        "tokens of an epoch": f"{facts['tokens_an_epoch']:,}",
    }


def _retention(found: Path) -> dict[str, str]:
    rows, kept = rows_of(found / "texts"), rows_of(found / "kept" / layout.DATA)
    ids = {row["query_id"] for row in kept}
    sums = np.array([[row["query_id"] in ids, 1] for row in rows], np.float64)
    report = load_json(found / "kept" / layout.FILTER_REPORT)["violations"]
    endless = sum(row["finish_reason"] == "length" for row in rows)
    broken = {
        f"broken: {name.replace('_', ' ')}, %": f"{100 * one['share']:.0f}"
        for name, one in report.items()
    }
    return {
        "texts": f"{len(rows):,}",
        "kept by the eight requirements, %": ratio(sums, 100),
        "texts that never ended, %": f"{100 * endless / len(rows):.0f}",
        **broken,
    }


def _add_diversity(
    columns: Mapping[str, dict[str, str]], texts: Mapping[str, Iterable[Sequence[Message]]]
) -> None:
    """Add how diverse the beginnings of texts are, of as many in each column: fewer differ more."""
    said = {name: list(_first_words(some)) for name, some in texts.items()}
    least = min(map(len, said.values()))
    for name, begun in said.items():
        words = [[utterance.words for utterance in session] for session in begun[:least]]
        columns[name][f"texts of {WORDS} words or more"] = f"{len(begun)}"
        for n in (1, 2):
            found = distinct(number_grams(words, n, {}), least)
            columns[name][f"distinct-{n} of the first {WORDS} words"] = estimate(found)
        score = vendi_score(begun[:least]) or 0.0
        columns[name][f"Vendi score of the first {WORDS} words"] = f"{score:.1f}"


def _first_words(texts: Iterable[Sequence[Message]]) -> Iterator[Spoken]:
    """Yield of each conversation what stands behind the query, up to so many words."""
    for messages in texts:
        left, session = WORDS, []
        for said in spoken(messages)[1:]:
            session.append(said._replace(words=said.words[:left]))
            left -= len(session[-1].words)
            if not left:
                yield session
                break


def _memorized(at: Experiments, cell: str, found: Path, unseen: Unseen) -> dict[str, str]:
    learned = utterances_of(s.messages for s in at.drawn(cell))
    ours = [messages[1:] for messages in conversations(found)]
    people = [session.messages for session in unseen.seen]
    sums, longest = zip(*(_spans(of, learned) for of in (ours, people)), strict=True)
    return {
        "memorized 4-grams, %": ratio(sums[0], 100),
        "the same of people's sessions of topics seen, %": ratio(sums[1], 100),
        "longest memorized span, words": f"{longest[0]}",
    }


def _spans(sessions: Sequence[Any], learned: tuple[str, ...]) -> tuple[Numbers, int]:
    """Return memorized 4-grams and all of each session, (sessions, 2), and the longest span."""
    sums, longest = [], 0
    for messages in sessions:
        counts = NoveltyCounts(learned)
        counts.add(spoken(messages))
        found = counts.statistics()
        sums.append([found["memorized_ngrams"], found["ngrams"]])
        longest = max([longest, *(span["words"] for span in found["longest_spans"])])
    return np.array(sums, np.float64).reshape(-1, 2), longest


def _likelihoods(at: Experiments, cell: str, model: Any, unseen: Unseen) -> dict[str, str]:
    """Return perplexities, and how they changed: of the same sessions, so the interval is less."""
    place = place_of(at.recipe().backbone)
    rows = {}
    for name, sessions in {"seen": unseen.seen, "left out": unseen.left_out}.items():
        stem = f"losses-{name.replace(' ', '-')}"
        now = losses(at, f"{cell}/{stem}", model, sessions)
        before = losses(at, f"{BEFORE}/{stem}", place, sessions)
        rows[f"perplexity, topics {name}"] = ratio(now, 1, np.exp)
        moved = np.column_stack([now[:, 0] - before[:, 0], now[:, 1]])
        if cell != BEFORE:
            rows[f"its ratio to that before, topics {name}"] = ratio(moved, 1, np.exp)
    return rows


# Finding 5: informative queries trigger better conversations than generic ones.


def _finding_5(at: Experiments, cell: str, queries: Mapping[str, Path]) -> str:
    model = at.cell(cell)
    found = {
        kind: at.written(f"{cell}/{kind}", file, model, tokenizer=model)
        for kind, file in queries.items()
    }
    columns = {
        kind: {
            **_of_queries(queries[kind]),
            **_retention(place),
            **_lengths(place),
        }
        for kind, place in found.items()
    }
    _add_diversity(columns, {kind: conversations(place) for kind, place in found.items()})
    return table(_judged(at, f"{cell}/quality-5", columns, found))


def _of_queries(file: Path) -> dict[str, str]:
    words = [len(tokenize(text)) for text in pq.read_table(file)["text"].to_pylist()]
    return {"words of a query": f"{np.mean(words):.1f}"}


def _lengths(found: Path) -> dict[str, str]:
    """Return how much is said behind the query, in all texts that are conversations."""
    said = [messages[1:] for messages in conversations(found)]
    words = [sum(len(one.words) for one in spoken(messages)) for messages in said]
    sums = np.array([[w, len(m), 1] for w, m in zip(words, said, strict=True)], np.float64)
    return {
        "utterances of a text": ratio(sums.reshape(-1, 3)[:, 1:]),
        "words of an utterance": ratio(sums.reshape(-1, 3)[:, :2]),
    }


# Finding 2: one model that writes both sides, or two that chat.


def _finding_2(at: Experiments, cell: str, queries: Path, n: int) -> str:
    model, another = at.cell(cell), at.another(cell)
    few = at.out / f"first-{n}.parquet"
    pq.write_table(pq.read_table(queries).slice(0, n), few)
    found = {
        "one model": at.written(f"{cell}/informative", queries, model, tokenizer=model),
        "two models": chatted(at, f"{cell}/chat-{n}", few, model, another, n),
    }
    columns = {
        name: {**_retention(place), **_costs(place), **_lengths(place)}
        for name, place in found.items()
    }
    _add_diversity(columns, {name: conversations(place)[:n] for name, place in found.items()})
    return table(_judged(at, f"{cell}/quality-2-{n}", columns, found))


def _costs(found: Path) -> dict[str, str]:
    rows, seconds = rows_of(found / "texts"), load_json(found / CLOCK)["seconds"]
    kept = len(rows_of(found / "kept" / layout.DATA))
    written = sum(row["n_tokens"] for row in rows)
    return {
        "tokens written for each kept session": f"{written / kept:,.0f}" if kept else "-",
        "processor seconds for each text": f"{seconds / len(rows):,.1f}",
        "processor seconds for each kept session": f"{seconds / kept:,.1f}" if kept else "-",
        "kept sessions an hour of one core": f"{3600 * kept / seconds:,.0f}",
    }


def _judged(
    at: Experiments, name: str, columns: Mapping[str, dict[str, str]], found: Mapping[str, Path]
) -> Mapping[str, dict[str, str]]:
    """Return columns, and what measures of quality say of how the texts begin."""
    sets = []
    for column, place in found.items():
        begun = [messages[:BEGINNING] for messages in conversations(place)]
        whole = [messages for messages in begun if len(messages) == BEGINNING]
        columns[column][f"texts of {BEGINNING} utterances or more"] = f"{len(whole):,}"
        if not whole:
            return columns
        file = at.out / f"{name}-{column.replace(' ', '-')}.parquet"
        ids = [f"{column}-{i}" for i in range(len(whole))]
        pq.write_table(pa.table({"session_id": ids, "messages": whole}), file)
        sets.append(f"{file.stem}={file}")
        columns[column]["new content words a seeker's turn behind the query"] = _new_words(whole)
    quality.standalone(sets, at.out / name, QUIET, recipe="paper", overrides=[MEASURES], num_proc=1)
    report = load_json(at.out / name / layout.QUALITY_REPORT)["by_source"]
    for numbers, part in zip(columns.values(), report.values(), strict=True):
        for key, title in SHOWN.items():
            measure, number = key.split(".")
            one = part["numbers"][measure][number]
            numbers[title] = estimate(Estimate(one["mean"], one["low"], one["high"]))
    return columns


def _new_words(sessions: Sequence[Sequence[Message]]) -> str:
    """Return how many words a turn of the seeker adds; the query, which was given, is none."""
    sums = []
    for session, scored in zip(sessions, Informativeness().score(sessions), strict=True):
        turns = [i for i, message in enumerate(session) if i and message["role"] == "user"]
        sums.append([sum(scored.scores[i] or 0 for i in turns), len(turns)])
    return ratio(np.array(sums, np.float64))


if __name__ == "__main__":
    main()
