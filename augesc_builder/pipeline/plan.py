"""What a build would do, and roughly what it would take: ``augesc build --dry-run``.

Times come from a matrix product and a copy measured on this machine a moment ago. They leave out
downloads, and may be off by a factor of two or three.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

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
    n_queries, n_sessions, per_session, notes = _sizes(recipe)
    n_generated = recipe.generate.n_candidates(n_queries)
    tokens = recipe.finetune.n_sessions * per_session * recipe.finetune.epochs
    backend = backend_of(recipe)
    parameters, layers = _model(recipe) if backend.needs_checkpoint else (0, 0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    flops, bandwidth = _measure(device)
    training = _training_seconds(recipe, parameters, tokens, flops)
    generating = _generating_seconds(
        recipe, parameters, layers, n_generated, per_session, flops, bandwidth, device
    )
    train_gb, generate_gb = _memory(recipe, parameters)
    judging = _duration(n_generated / (_JUDGED * cores()))
    done = Marks(folder)
    rows = [
        ("queries", f"{sum(n_queries.values()):,} queries", "", "seconds", ""),
        (
            "finetune",
            f"{recipe.finetune.n_sessions:,} of {n_sessions:,} sessions, "
            f"{recipe.finetune.epochs} epoch{'s' * (recipe.finetune.epochs > 1)}",
            f"{tokens:,}",
            _duration(training),
            f"{train_gb:.1f} GB",
        ),
        (
            "generate",
            recipe.generate.most(n_generated).rstrip(","),
            f"{n_generated * per_session:,}" if backend.needs_checkpoint else NOTHING,
            NOTHING if generating is None else _duration(generating),
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
        *backend.plan(recipe, n_generated),
        "",
        "What differs from the paper itself, and what is ours where it is silent:",
        *(f"- {said}" for said in differences_from_paper(backend.settings_used(recipe))),
    ]


def _sizes(recipe: Recipe) -> tuple[dict[str, int], int, int, list[str]]:
    """Return queries by source, sessions at hand, tokens a session, and what was assumed."""
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
    at_hand = find_sessions(recipe.finetune.sessions)
    if not backend_of(recipe).n_sessions(recipe):
        pass
    elif at_hand is None or at_hand.bundled_sessions is not None:
        sessions, _ = read_training_sessions(recipe.finetune.sessions, None)
        n_sessions, some = len(sessions), sessions[:50]
        total = sum(count(f"{SUPPORTER}: {m['content']}") for s in some for m in s.messages)
        words_each = total / len(some)
    else:
        notes.append("ESConv is not on this disk: sessions as long as in the paper's Table 2.")
    prompt_words = count(recipe.prompt.instruction)
    per_session = min(
        round((words_each + prompt_words) * TOKENS_A_WORD), recipe.generate.max_tokens
    )
    return queries, n_sessions, per_session, notes


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
    n_generated: int,
    per_session: int,
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
    steps = (_REFILLED if refilled else _LONGEST) * per_session * n_generated / slots
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
