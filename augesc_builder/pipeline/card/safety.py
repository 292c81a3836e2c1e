"""What a card says of the flags of the safety pass."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from augesc_builder.run.layout import reviewed_sessions
from augesc_builder.run.markdown import markdown_table

_MEANINGS = {
    "crisis": "suicide, self-harm, an overdose, or harm in mind for others",
    "abuse": "violence, threats or cruelty by relatives, partners and others who are close",
    "sexual_violence": "rape, sexual abuse, coercion",
    "eating_disorder": "starving, purging, and what goes with them",
    "medical_advice": "the supporter advises for or against a medicine or a test",
    "harmful_agreement": "the supporter encourages or agrees with a harmful act",
    "personal_data": "an e-mail address, phone number, user name, long number or street address",
}


def safety_table(safety: Mapping[str, Any]) -> str:
    """Return how many sessions carry each flag, and how often it stands there."""
    rows = [
        [name, f"{numbers['sessions']:,}", f"{numbers['spans']:,}"]
        for name, numbers in safety["flags"].items()
    ]
    return markdown_table(["flag", "sessions", "spans"], rows)


def safety_text(safety: Mapping[str, Any], corpus: Path) -> str:
    """Return what the flags mean, and how many sessions a person has looked at."""
    reviewed = len(reviewed_sessions(corpus))
    meanings = ". ".join(f"`{flag}`: {meaning}" for flag, meaning in _MEANINGS.items())
    return (
        f"{safety['flagged']:,} of {safety['sessions']:,} sessions carry a flag"
        + (f"; a person looked at {reviewed:,} of them and let them stand" if reviewed else "")
        + f". {meanings}. The first four are raised whoever speaks of it."
    )
