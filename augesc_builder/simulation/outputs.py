"""What a simulation leaves: a table of each system, the report, and a card that says what it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from augesc_builder.config.published import label_of, local_places, relabelled
from augesc_builder.dialog.examples import is_named
from augesc_builder.run import layout
from augesc_builder.run.escape import markdown_block
from augesc_builder.run.folder import RunFolder
from augesc_builder.run.markdown import markdown_template
from augesc_builder.simulation.report import MARK, simulation_markdown
from augesc_builder.simulation.settings import SimulationSettings
from augesc_builder.simulation.talk import Dialog
from augesc_builder.tables import SIMULATED, to_table
from augesc_builder.text.safety import LexiconScanner

_CARD = Path(__file__).parent / "card.md"


def write_simulation(
    folder: RunFolder,
    settings: SimulationSettings,
    report: Mapping[str, Any],
    by_system: Mapping[str, Sequence[Dialog]],
) -> None:
    """Write the tables, the report and the card; they get their places with the stage's mark."""
    scanner = LexiconScanner()
    for name, some in by_system.items():
        table = simulated_table(name, some, settings.seeker.label, scanner.scan)
        folder.write_table(layout.simulated_table(name), table)
    folder.write_json(layout.SIMULATION, report)
    folder.write_text(layout.SIMULATION_MD, simulation_markdown(report) + "\n")
    folder.write_text(layout.CARD, _card(settings, report))


def simulated_table(
    system: str, dialogs: Sequence[Dialog], seeker: str, scan: Callable[..., Any]
) -> pa.Table:
    """Return the conversations of a system as a table; those in which nobody spoke are left out."""
    return to_table(
        (
            {
                "session_id": f"{system}/{dialog.card.card_id}",
                "source": f"simulated: {system}",
                "messages": dialog.messages,
                "safety_flags": [flag._asdict() for flag in scan(dialog.messages)],
                "card_id": dialog.card.card_id,
                "problem_type": dialog.card.problem_type,
                "emotion": dialog.card.emotion,
                "system": system,
                "seeker": seeker,
                "ended": dialog.ended,
                "simulated": True,
            }
            for dialog in dialogs
            if dialog.messages
        ),
        SIMULATED,
    )


def _card(settings: SimulationSettings, report: Mapping[str, Any]) -> str:
    """Write the card: its metadata, too, say that the conversations are simulated."""
    local = local_places(settings, lambda _, text: False if is_named(text) else None)
    public = relabelled(settings, {key: label_of(path) for key, path in local.items()})
    metadata = {
        "language": "en",
        "license": "cc-by-nc-4.0",
        "tags": ["emotional-support", "dialog", "augesc", "simulated", "synthetic"],
        "pretty_name": f"Simulated conversations: {settings.name}",
    }
    systems = report["systems"].values()
    plain = public.model_dump(mode="json")
    rendered = markdown_template(_CARD.read_text(encoding="utf-8")).render(
        metadata=yaml.safe_dump(metadata, sort_keys=False).strip(),
        mark=MARK,
        name=settings.name,
        seeker=settings.seeker.label,
        systems=list(settings.systems),
        n_cards=report["cards"]["n"],
        turns=settings.turns,
        seed=settings.seed,
        danger=sum(one["danger"]["conversations"] for one in systems),
        n=sum(one["conversations"] for one in systems),
        report=layout.SIMULATION_MD,
        numbers=layout.SIMULATION,
        settings=markdown_block(
            yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100).strip(), "yaml"
        ),
    )
    return rendered.rstrip() + "\n"
