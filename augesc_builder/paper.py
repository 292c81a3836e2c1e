"""The paper itself (arXiv 2202.13047): its figures and its settings.

A recipe is compared with what stands here, and not with ``recipes/paper.yaml``, which makes choices
of its own where the paper is silent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_REQUIREMENTS = (
    *("format", "session_length", "total_utterances", "continuous_utterances"),
    *("balanced_utterances", "role_words"),
    *("seeker_utterance_length", "supporter_utterance_length"),
)

TABLE_1: dict[str, dict[str, float]] = {
    model: dict(zip((*_REQUIREMENTS, "retention"), shares, strict=True))
    for model, shares in {
        "GPT-3 (ED)": (24.8, 0.0, 8.9, 0.0, 0.2, 11.2, 36.7, 37.8, 17.2),
        "GPT-J (ED)": (0.3, 3.1, 17.8, 3.9, 5.2, 2.4, 25.3, 27.4, 49.1),
        "GPT-J (Reddit)": (0.7, 5.6, 18.8, 4.8, 5.3, 2.6, 22.7, 26.4, 48.7),
    }.items()
}
"""Table 1: per cent of texts that violate each requirement, and final retention."""

SECTION_4_3: dict[str, dict[str, float]] = {
    "GPT-3 (ED)": {"seeker_utterance_length": 36.8, "role_words": 11.3},
    "GPT-J (ED)": {"retention": 49.3},
    "GPT-J (Reddit)": {"retention": 49.6},
}
"""Where the prose of section 4.3 differs from Table 1, which comparisons show.

Table 2's sessions fit the prose alone: 24,766 Reddit queries, 4 texts each, of which 49.6 % are
49.1 thousand, as printed; 48.7 % would be 48.2.
"""

TABLE_1_FOOTNOTE = (
    "Paper: as printed in Table 1. Its section 4.3 has "
    + "; ".join(
        f"{model} "
        + ", ".join(
            f"{name.replace('_', ' ')} {said:.1f} (here {TABLE_1[model][name]:.1f})"
            for name, said in differing.items()
        )
        for model, differing in SECTION_4_3.items()
    )
    + "."
)
"""Stands below a table that shows the paper's Table 1."""

TABLE_2: dict[str, tuple[str, ...]] = {
    "ESConv": ("1.3K", "543.7", "15K", "20K", "15.4", "16.8", "11K", "18K", "13.6", "21.0", "11K"),
    "AugESC ED": (
        *("53K", "528.4", "55K"),
        *("656K", "12.4", "19.8", "37K"),
        *("657K", "12.5", "22.7", "44K"),
    ),
    "AugESC Reddit": (
        *("49K", "599.0", "60K"),
        *("586K", "11.9", "25.1", "42K"),
        *("590K", "11.9", "25.2", "41K"),
    ),
    "AugESC": ("102K", "-", "84K", *("-",) * 8),
}
"""Table 2, rounded as printed: the rows of ``pipeline.statistics.report.STATISTICS``, in order.

Of all AugESC, the text at hand gives sessions and unique words alone (sections 5.1 and 5.2).
"""

QUERIES: dict[str, tuple[int, float]] = {
    "empathetic_dialogues": (8_950, 19.9),
    "reddit": (24_766, 39.1),
}
"""Section 4.2: queries of each source, and their mean length in words."""

FIGURE_4: dict[str, dict[str, dict[str, int]]] = {
    "seeker": {
        "ESConv": {
            **{"covid": 8, "pandemic": 7, "vaccine": 3, "mturk": 3, "covid-19": 3},
            **{"zoom": 3, "virus": 2, "lockdown": 2, "christmas": 2, "holidays": 2},
        },
        "AugESC ED": {
            **{"car": 10, "dog": 9, "house": 7, "door": 5, "neighbor": 5},
            **{"neighbors": 5, "police": 5, "mad": 5, "food": 4, "store": 4},
        },
        "AugESC Reddit": {
            **{"feel": 10, "anxiety": 10, "depression": 9, "life": 9, "depressed": 7},
            **{"feeling": 6, "therapist": 6, "people": 5, "talk": 5, "panic": 5},
        },
    },
    "supporter": {
        "ESConv": {
            **{"pandemic": 7, "covid": 6, "vaccine": 3, "zoom": 3, "christmas": 3},
            **{"mturk": 3, "survey": 3, "press": 3, "lol": 2, "merry": 2},
        },
        "AugESC ED": {
            **{"dog": 9, "car": 8, "police": 6, "happened": 6, "money": 5},
            **{"house": 5, "dogs": 5, "neighbor": 5, "cat": 4, "insurance": 4},
        },
        "AugESC Reddit": {
            **{"depression": 9, "anxiety": 8, "life": 7, "therapist": 7, "feeling": 7},
            **{"feel": 7, "doctor": 7, "medication": 6, "therapy": 6, "counselor": 5},
        },
    },
}
"""Figure 4: the ten words of each role and set, with their z as printed.

Of 1,300 sessions of ESConv, 10,000 of AugESC-ED and 10,000 of AugESC-Reddit, drawn at random.
"""

ASPECTS = (
    *("informativeness", "empathy", "logic", "helpfulness", "consistency", "coherence"),
    "ethical_risk",
)
"""Section 6.2: what people rated, from 0 to 3; of ethical risk less is better."""

TABLE_3: dict[str, tuple[float, ...]] = {
    "ESConv": (2.52, 2.42, 2.44, 2.23, 2.56, 2.42, 0.13),
    "Blender (ED)": (1.86, 1.90, 1.35, 1.49, 2.12, 1.90, 0.03),
    "GPT-3 (ED)": (2.23, 2.07, 1.96, 1.62, 2.11, 1.96, 0.16),
    "AugESC ED": (2.41, 2.37, 2.17, 2.12, 2.34, 2.19, 0.14),
    "AugESC Reddit": (2.38, 2.29, 2.26, 2.09, 2.34, 2.24, 0.19),
}
"""Table 3: means of three people's ratings of 60 sessions each, in the order of :data:`ASPECTS`."""

TABLE_3_WITHIN_ONE = (0.83, 0.80, 0.79, 0.73, 0.81, 0.80, 0.90)
"""Table 3, row Δ ≤ 1: the share of sessions whose three ratings differ by at most one."""

TABLE_4_PAIRS = 60
"""Section 7.3: pairs of conversations that Table 4 is in per cent of; it leaves out ties."""

TABLE_4: dict[str, tuple[int, int]] = {
    "fluency": (47, 13),
    "identification": (68, 22),
    "comforting": (55, 22),
    "suggestion": (58, 15),
    "overall": (58, 28),
}
"""Table 4: per cent of pairs that AugESC's model wins, and loses, against ESConv's."""

GPT_3_DOLLARS = 0.025
"""Table 1's caption: what a text of GPT-3 cost on average, in US dollars."""


@dataclass(frozen=True)
class Stated:
    """What the paper says of a key of a recipe, and where it says so."""

    value: Any
    where: str


_4_1, _4_2, _4_3, _A = "section 4.1", "section 4.2", "section 4.3", "appendix A"

SETTINGS: dict[str, Stated] = {
    "prompt.instruction": Stated(
        "The following is a conversation with an AI assistant. The assistant is helpful, "
        "empathetic, clever, and very friendly. It can use various support skills to provide "
        "emotional support to human.",
        "figure 2",
    ),
    "prompt.form": Stated("paper", "figure 2"),
    "backbone.name": Stated("EleutherAI/gpt-j-6b", _4_1),
    "finetune.sessions": Stated("esconv", _4_1),
    "finetune.n_sessions": Stated(100, _4_1),
    "finetune.epochs": Stated(1, _4_1),
    "finetune.batch_size": Stated(2, _4_1),
    "finetune.learning_rate": Stated(6e-5, _4_1),
    "finetune.warmup_steps": Stated(5, _4_1),
    "finetune.max_tokens": Stated(1500, _4_1),
    "finetune.gradient_checkpointing": Stated(True, _4_1),
    "finetune.lora": Stated(None, _4_1),
    "queries.sources.*.source": Stated(["empathetic_dialogues", "reddit"], _4_2),
    "queries.n_words": Stated({"min": 10, "max": 60}, _4_2),
    "queries.classifiers.enabled": Stated(True, _A),
    "queries.classifiers.emotions.*.model": Stated(
        [
            "j-hartmann/emotion-english-roberta-base",
            "monologg/bert-base-cased-goemotions-original",
        ],
        _A,
    ),
    "queries.classifiers.toxicity.model": Stated("unitary/toxic-bert", _A),
    "generate.max_tokens": Stated(1500, _4_1),
    "generate.top_p": Stated(0.9, _4_1),
    "generate.temperature": Stated(0.9, _4_1),
    "generate.repetition_penalty": Stated(1.05, _4_1),
    "generate.top_k": Stated(None, _4_1),
    "generate.min_p": Stated(0, _4_1),
    "generate.greedy": Stated(False, _4_1),
    "requirements.session_length": Stated({"max": 1450}, _4_3),
    "requirements.counted": Stated("stripped", _4_3),
    "requirements.total_utterances": Stated({"min": 10, "max": 50}, _4_3),
    "requirements.continuous_utterances": Stated({"max": 3}, _4_3),
    "requirements.balanced_utterances": Stated({"max_ratio": 2.5}, _4_3),
    "requirements.role_words": Stated({"words": ["Human", "AI"]}, _4_3),
    "requirements.seeker_utterance_length": Stated(
        {"mean": {"min": 7, "max": 50}, "short": 7, "max_short_share": 0.25, "max": 100}, _4_3
    ),
    "requirements.supporter_utterance_length": Stated(
        {"mean": {"min": 9, "max": 50}, "short": 9, "max_short_share": 0.25, "max": 100}, _4_3
    ),
    "statistics.query_sample": Stated(2_000, "figure 3"),
    "statistics.topic_sample": Stated(10_000, "figure 4"),
    "statistics.stop_words": Stated("keep", "section 5.3"),
}
"""What the paper says of the keys of a recipe; ``*`` stands for each entry of a list."""

PROMPTED: dict[str, Stated] = {
    "queries.sources.*.source": Stated(["empathetic_dialogues"], _4_3),
    "queries.max_per_source": Stated(2_000, _4_3),
    "generate.samples_per_query": Stated(1, _4_3),
    "generate.backend.model": Stated("davinci", _4_3),
    "generate.backend.mode": Stated("completions", _4_1),
    "generate.backend.examples": Stated(0, _4_1),
    "generate.backend.turns": Stated(None, _4_1),
    "generate.backend.max_new_tokens": Stated(400, "table 1"),
}
"""The same for GPT-3, which is prompted: in the place of the section ``generate``."""

_6_1 = "section 6.1"

SELF_CHAT: dict[str, Stated] = {
    "queries.sources.*.source": Stated(["empathetic_dialogues"], _6_1),
    "generate.top_p": Stated(0.9, _6_1),
    "generate.temperature": Stated(0.9, _6_1),
    "generate.backend.max_utterances": Stated(30, _6_1),
}
"""The same for two dialog models that talk to each other."""

_ELSEWHERE = {"openai_api": PROMPTED, "self_chat": SELF_CHAT}


def stated(settings: Mapping[str, Any]) -> dict[str, Stated]:
    """Return what the paper says of the keys that a recipe comes to: of GPT-J, GPT-3 or Blender."""
    said = {key: found for key, found in SETTINGS.items() if key.partition(".")[0] in settings}
    elsewhere = _ELSEWHERE.get(str(value_of(settings, "generate.backend.type")))
    if elsewhere is None:
        return said
    ours = {key for key in said if key.startswith(("generate.", "queries.classifiers."))}
    return {key: found for key, found in said.items() if key not in ours} | elsewhere


def value_of(settings: Mapping[str, Any], key: str) -> Any:
    """Return the value of a key; a list where ``*`` stands for each entry of one.

    ``None`` where a section that would hold it is not there.
    """
    found: Any = settings
    steps = key.split(".")
    for i, step in enumerate(steps):
        if step == "*":
            return [value_of(entry, ".".join(steps[i + 1 :])) for entry in found or ()]
        found = found.get(step) if isinstance(found, Mapping) else None
    return found
