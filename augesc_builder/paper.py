"""Figures of the paper that reports stand beside (arXiv 2202.13047)."""

from __future__ import annotations

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

FIGURE_4: dict[str, dict[str, int]] = {
    "seeker": {
        **{"covid": 8, "pandemic": 7, "vaccine": 3, "mturk": 3, "covid-19": 3, "zoom": 3},
        **{"virus": 2, "lockdown": 2, "christmas": 2, "holidays": 2},
    },
    "supporter": {
        **{"pandemic": 7, "covid": 6, "vaccine": 3, "zoom": 3, "christmas": 3, "mturk": 3},
        **{"survey": 3, "press": 3, "lol": 2, "merry": 2},
    },
}
"""Figure 4: ESConv's words by role, each with its z against 10,000 sessions of ED and of Reddit."""
