"""What the paper compares its systems by beside Tables 1 and 2: ratings by people, and a price."""

from __future__ import annotations

ASPECTS = (
    *("informativeness", "empathy", "logic", "helpfulness", "consistency", "coherence"),
    "ethical risk",
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

GPT_3_DOLLARS = 0.025
"""Table 1's caption: what a text of GPT-3 cost on average, in US dollars."""
