"""What a build would do, and roughly what it would take: ``augesc build --dry-run``.

Times come from a matrix product and a copy measured on this machine a moment ago. They leave out
downloads, and may be off by a factor of two or three.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import torch

from augesc_builder.choices import differences_from_paper
from augesc_builder.config.generate import LocalSettings
from augesc_builder.config.recipe import Recipe
from augesc_builder.engine.memory import MOST
from augesc_builder.models.backbone import place_of
from augesc_builder.models.causal_lm import config_of, size_of
from augesc_builder.pipeline.filter.requirements import active
from augesc_builder.pipeline.generate.backends import backend_of
from augesc_builder.pipeline.generate.processor import dtype_for
from augesc_builder.pipeline.inputs import check_inputs, stages_of
from augesc_builder.pipeline.queries.collect import Collected, collect_queries
from augesc_builder.run.markdown import NOTHING, markdown_table
from augesc_builder.run.marks import Marks
from augesc_builder.run.workers import cores
from augesc_builder.sources.registry import find_source
from augesc_builder.sources.sessions import find_sessions, read_training_sessions
from augesc_builder.text.prompts import SUPPORTER
from augesc_builder.text.words import count

WORDS_A_SESSION = 544
"""Mean length of ESConv sessions (table 2), taken where the sessions are not on this disk."""

WORDS_A_QUERY, WORDS_A_SITUATION = 20, 22
"""Mean lengths of the paper's queries, and of ESConv's situations, which backgrounds are learned
from; those of the sessions are taken where they are on this disk."""

TOKENS_A_WORD = 1.35
"""Of BPE vocabularies on such text; GPT-2's gives 1.2 on ESConv, the quickstart's 1.3."""

_JUDGED = 1_000
"""Texts a second and core, of filtering and of measuring
(``benchmarks/corpus_statistics.py --all``)."""

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}
_LAYER_SECONDS = {"cpu": 2e-3, "cuda": 1.5e-4}
_LONGEST = 1.6
"""How much longer the longest conversation of a static batch is than the mean, about."""

_REFILLED = 1.1
"""The same with continuous batching: only the last slots stay empty."""


def plan(recipe: Recipe, folder: Path) -> list[str]:
    """Describe a build in lines; nothing is written and nothing is downloaded but a config."""
    check_inputs(recipe)
    sizes = _sizes(recipe)
    n_queries, notes = sizes.queries, sizes.notes
    n_generated = recipe.generate.n_candidates(n_queries)
    tokens = recipe.finetune.n_sessions * sizes.to_learn * recipe.finetune.epochs
    to_generate = sorted({n_generated * n for n in (sizes.least, sizes.most)})
    backend = backend_of(recipe)
    parameters, layers = _model(recipe) if backend.needs_checkpoint else (0, 0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    flops, bandwidth = _measure(device)
    training = _training_seconds(recipe, parameters, tokens, flops)
    generating = [
        _generating_seconds(recipe, parameters, layers, n, flops, bandwidth, device)
        for n in to_generate
    ]
    train_gb, generate_gb = _memory(recipe, parameters)
    judging = _duration(n_generated / (_JUDGED * cores()))
    done = Marks(folder)
    rows = [
        ("queries", f"{sum(n_queries.values()):,} queries", "", "seconds", ""),
        (
            "finetune",
            f"{recipe.finetune.n_sessions:,} of {sizes.n_sessions:,} sessions, "
            f"{recipe.finetune.epochs} epoch{'s' * (recipe.finetune.epochs > 1)}",
            f"{tokens:,}",
            _duration(training),
            f"{train_gb:.1f} GB",
        ),
        (
            "generate",
            recipe.generate.most(n_generated).rstrip(","),
            _range(f"{n:,}" for n in to_generate) if backend.needs_checkpoint else NOTHING,
            _range(NOTHING if seconds is None else _duration(seconds) for seconds in generating),
            f"{generate_gb:.1f} GB" if backend.needs_checkpoint else NOTHING,
        ),
        ("filter", f"{n_generated:,} texts", "", judging, ""),
        ("select", f"at most {n_generated:,} sessions", "", NOTHING, ""),
        ("quality", f"at most {n_generated:,} sessions", "", NOTHING, ""),
        (
            "statistics",
            f"at most {n_generated:,} sessions",
            "",
            judging,
            "",
        ),
        ("card", "1 file", "", "seconds", ""),
    ]
    wanted = stages_of(recipe)
    rows = [row for row in rows if row[0] in wanted]
    table = markdown_table(
        ["stage", "rows", "tokens", f"time on this {device}", "memory"],
        [[f"{name} (done)" if name in done else name, *rest] for name, *rest in rows],
    )
    return [
        f"Plan for {folder}: recipe {recipe.name}, "
        + (
            f"a model of {parameters / 1e6:,.1f} million parameters"
            if parameters
            else backend.label(recipe)
        )
        + ". Nothing is changed.",
        "",
        table,
        "",
        "Tokens, times and memory are estimates, good to a factor of two or three; downloads are "
        "not counted.",
        f"Queries from {', '.join(f'{name} ({n:,})' for name, n in n_queries.items())}; texts by "
        f"the backend {recipe.generate.backend.type}; requirements "
        f"{', '.join(requirement.name for requirement in active(recipe.requirements))}.",
        *notes,
        *_drawn_again(recipe),
        *backend.plan(recipe, n_generated),
        "",
        "What differs from the paper itself, and what is ours where it is silent:",
        *(f"- {said}" for said in differences_from_paper(backend.settings_used(recipe))),
    ]


class _Sizes(NamedTuple):
    """Queries by source, sessions at hand, tokens to learn of each, tokens of a conversation.

    ``least`` is those of one that is drawn once, ``most`` where everything is drawn as often as it
    may be. ``notes`` say what was assumed.
    """

    queries: dict[str, int]
    n_sessions: int
    to_learn: int
    least: int
    most: int
    notes: list[str]


def _sizes(recipe: Recipe) -> _Sizes:
    """Return how much there is of everything."""
    notes = []
    queries: dict[str, int] = {}
    for origin in recipe.queries.sources:
        info = find_source(origin.source)
        if info is not None and info.appendix_a:
            queries[origin.source] = 0
            notes.append(f"{origin.source}: read when the run begins; its queries are not counted.")
        elif origin.path is not None or (info is not None and info.bundled_posts is not None):
            settings = recipe.queries.model_copy(update={"sources": [origin]})
            collected = Collected({}, {})
            for _ in collect_queries(settings, collected):
                pass
            queries[origin.source] = collected.funnels[origin.source].n_queries
        else:
            assumed = info.paper[0] if info is not None and info.paper is not None else 0
            queries[origin.source] = min(assumed, recipe.queries.max_per_source or assumed)
            notes.append(f"{origin.source} is not on this disk: as many queries as in the paper.")
    words_each, n_sessions = float(WORDS_A_SESSION), 910
    words_before = float(WORDS_A_SITUATION)
    at_hand = find_sessions(recipe.finetune.sessions)
    if not backend_of(recipe).n_sessions(recipe):
        pass
    elif at_hand is None or at_hand.bundled_sessions is not None:
        sessions, _ = read_training_sessions(recipe.finetune.sessions, None)
        n_sessions, some = len(sessions), sessions[:50]
        total = sum(count(f"{SUPPORTER}: {m['content']}") for s in some for m in s.messages)
        words_each = total / len(some)
        situations = [count(s.situation) for s in some if s.situation is not None]
        words_before = sum(situations) / max(1, len(situations))
    else:
        notes.append("ESConv is not on this disk: sessions as long as in the paper's Table 2.")
    prompt_words, drawn = count(recipe.prompt.instruction), recipe.generate
    per_session = min(round((words_each + prompt_words) * TOKENS_A_WORD), drawn.max_tokens)
    to_learn = least = most = per_session
    if recipe.prompt.background:
        before = round(words_before * TOKENS_A_WORD)
        # In front of the conversation, and alone behind the instruction and a query.
        to_learn += 2 * before + round((prompt_words + WORDS_A_QUERY) * TOKENS_A_WORD)
        least += 2 * min(before, drawn.background.max_tokens)
        most += (drawn.background.attempts + 1) * drawn.background.max_tokens
    if drawn.resample is not None:
        most += drawn.resample.attempts * round(words_each * TOKENS_A_WORD)
    return _Sizes(queries, n_sessions, to_learn, least, most, notes)


def _drawn_again(recipe: Recipe) -> list[str]:
    """Say which keys the higher numbers of generation are by."""
    by = ["generate.background"] * recipe.prompt.background
    by += ["generate.resample"] * (recipe.generate.resample is not None)
    if not by:
        return []
    return [
        f"Of generation, the higher numbers are those of {' and '.join(by)} where everything is "
        f"drawn as often as it may be; how often it will be shows only then."
    ]


def _range(told: Iterable[str]) -> str:
    """Write numbers as one cell, equal ones once."""
    return " to ".join(dict.fromkeys(told))


def _model(recipe: Recipe) -> tuple[int, int]:
    """Return parameters and layers, from the config alone."""
    origin = recipe.backbone
    return size_of(config_of(origin.from_scratch, place_of(origin), origin.revision))


def _training_seconds(recipe: Recipe, parameters: int, tokens: int, flops: float) -> float:
    """Forward is 2 operations a parameter and token, backward 4, recomputation 2 more."""
    operations = 8 if recipe.finetune.gradient_checkpointing else 6
    return operations * parameters * tokens / (0.4 * flops)


def _generating_seconds(
    recipe: Recipe,
    parameters: int,
    layers: int,
    tokens: int,
    flops: float,
    bandwidth: float,
    device: str,
) -> float | None:
    """Every step reads all weights and pays for its launches; not all slots are at work.

    ``None`` where another backend than ours makes the texts.
    """
    settings = recipe.generate.backend
    if not isinstance(settings, LocalSettings):
        return None
    refilled = settings.engine == "continuous"
    slots = (settings.slots or MOST[device]) if refilled else settings.batch_size
    steps = (_REFILLED if refilled else _LONGEST) * tokens / slots
    reading = parameters * _BYTES[settings.weights or dtype_for(settings.dtype)] / bandwidth
    computing = 2 * parameters * slots / (0.4 * flops)
    if device == "cuda" and settings.device_map is None and settings.tensor_parallel == 1:
        n_gpus = torch.cuda.device_count()
        steps /= min(settings.workers or n_gpus, n_gpus)
    return steps * (max(reading, computing) + layers * _LAYER_SECONDS[device])


def _memory(recipe: Recipe, parameters: int) -> tuple[float, float]:
    """Return GB of weights, gradients and AdamW's moments in training, and of weights after it."""
    weights = parameters * _BYTES[recipe.finetune.weights_dtype]
    training = weights * (1.05 if recipe.finetune.lora else 4)
    backend = recipe.generate.backend
    dtype = dtype_for(backend.dtype) if isinstance(backend, LocalSettings) else "float32"
    generating = parameters * _BYTES[dtype] * 1.2
    base = 0.6e9  # Python, torch and transformers
    return (base + training) / 1e9, (base + generating) / 1e9


def _measure(device: str) -> tuple[float, float]:
    """Measure floating-point operations and copied bytes a second."""
    size = 4096 if device == "cuda" else 768
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    a = torch.randn(size, size, device=device, dtype=dtype)

    def seconds(work: Callable[[], object]) -> float:
        times = []
        for _ in range(4):
            begun = time.perf_counter()
            work()
            if device == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - begun)
        return min(times)

    big = torch.empty(64_000_000, device=device, dtype=torch.uint8)
    return 2 * size**3 / seconds(lambda: a @ a), 2 * big.numel() / seconds(big.clone)


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"about {seconds / length:.0f} {unit}"
    return f"about {seconds:.0f} seconds" if seconds >= 10 else "seconds"  # noqa: PLR2004
