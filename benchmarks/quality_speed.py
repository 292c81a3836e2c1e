"""Sessions a second of the measures of quality, on ESConv, in one process.

Rules and words are timed on all sessions, what has a model on the first --sessions. Of the turns of
the pool it reads each once without a context; that is done before, and its time printed beside.
FOLDER is a checkpoint of ``transformers``; without one it is the quickstart's.

    python benchmarks/quality_speed.py [--sessions 20] [--model FOLDER] [--dtype bfloat16]
        [--threads 2] [--pool 500] [--tiny]
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from augesc_builder.config.backbone import FromScratch
from augesc_builder.config.recipe import load_recipe
from augesc_builder.metrics.informativeness.measure import Informativeness
from augesc_builder.metrics.scored import Measure
from augesc_builder.metrics.topic_drift.distractors import Distractors
from augesc_builder.metrics.topic_drift.measure import TopicDrift
from augesc_builder.metrics.topic_drift.scorers.likelihood import Likelihood
from augesc_builder.metrics.topic_drift.scorers.words import Words
from augesc_builder.models import causal_lm
from augesc_builder.models.backbone import place_of
from augesc_builder.run.markdown import markdown_table
from augesc_builder.text.prompts import Message
from augesc_builder.text.words import clear_caches
from benchmarks.harness import SHARED, esconv_sessions, medians_of, options, parse

INFORMATIVENESS = "informativeness"
WORDS, LIKELIHOOD = "topic drift by words", "topic drift by likelihood"

_SHAPE = FromScratch(vocab_size=400, n_embd=32, n_layer=2, n_head=2, rotary_dim=8, n_positions=1024)


def load(given: Any, texts: Sequence[str], pool: Distractors) -> Likelihood:
    """Load the causal model that is asked for; at the tiny size it is made from nothing."""
    if given.tiny:
        made = causal_lm.from_scratch(_SHAPE, texts, seed=1)
        return Likelihood(*made, name="tiny", texts=pool.texts)
    place = given.model or place_of(load_recipe("quickstart").backbone)
    return Likelihood.load(place, dtype=given.dtype, texts=pool.texts)


def rate(measure: Measure, sessions: Sequence[Sequence[Message]]) -> float:
    """Return sessions a second by the clock; every session counts, and no cache is warm."""
    clear_caches()
    begun = time.perf_counter()
    measure.score(sessions)
    return len(sessions) / (time.perf_counter() - begun)


def main() -> None:
    """Measure and print one table."""
    parser = options(__doc__)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pool", type=int, default=500)
    parser.add_argument("--esconv", type=Path, default=SHARED / "esconv")
    given = parse(parser, sessions=2, pool=20, threads=1)
    torch.set_num_threads(given.threads)
    originals, corpus = esconv_sessions(given.esconv, tiny=given.tiny)
    sessions = [session.messages for session in originals]
    pool = Distractors.from_sessions(sessions, size=given.pool)
    likelihood = load(given, [m["content"] for s in sessions for m in s], pool)
    begun = time.perf_counter()
    likelihood.prepare()
    prepared = time.perf_counter() - begun
    contestants: dict[str, tuple[Measure, Sequence[Sequence[Message]]]] = {
        INFORMATIVENESS: (Informativeness(), sessions),
        WORDS: (TopicDrift(Words(pool.texts), pool), sessions),
        LIKELIHOOD: (TopicDrift(likelihood, pool), sessions[: given.sessions]),
    }
    rates = medians_of(
        {name: partial(rate, *contestant) for name, contestant in contestants.items()}, given.runs
    )
    cells = [
        [name, str(len(contestants[name][1])), f"{value:,.2f}"] for name, value in rates.items()
    ]
    print(f"{corpus}; {torch.get_num_threads()} threads; {likelihood.settings()['dtype']}; a pool")
    print(f"of {len(pool)} turns, of which the model reads all in {prepared:.1f} s beforehand\n")
    print(markdown_table(["measure", "sessions", "sessions a second"], cells))


if __name__ == "__main__":
    main()
