"""A simulation as tables for people; each says that no person took part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from augesc_builder.run.document import Table, markdown_document
from augesc_builder.run.markdown import NOTHING

MARK = (
    "This is a simulation: a model played the seekers, and no person took part. It shows where "
    "systems differ towards such a seeker, and stands beside a study with people (augesc study), "
    "never in its place."
)


def simulation_markdown(report: Mapping[str, Any]) -> str:
    """Write a report in Markdown that is legible on a terminal too."""
    return f"{MARK}\n\n{markdown_document(simulation_tables(report))}"


def simulation_tables(report: Mapping[str, Any]) -> Iterator[Table]:
    """Yield the tables: what each system comes to, how conversations ended, differences."""
    systems = report["systems"]
    names = _keys(systems)
    yield Table(
        "Simulated conversations",
        ["mean of cards", *systems],
        [
            ["conversations", *(f"{one['conversations']:,}" for one in systems.values())],
            *(
                [_label(*of), *(_estimate(_at(one["numbers"], of)) for one in systems.values())]
                for of in names
            ),
        ],
        lambda escape: _how(report, escape),
    )
    yield Table(
        "How they ended",
        ["conversations", *systems],
        [
            [label, *(f"{one['ended'][key]:,}" for one in systems.values())]
            for key, label in _ENDS.items()
        ],
    )
    for name, of_one in report["differences"].items():
        yield Table(
            f"{name} less {next(iter(systems))}, card by card",
            ["", "difference", "p", "p (Holm)", "cards"],
            [
                [
                    _label(measure, number),
                    _difference(test),
                    f"{test['p']:.3f}",
                    f"{test['p_holm']:.3f}",
                    f"{test['cards']:,}",
                ]
                for measure, numbers in of_one.items()
                for number, test in numbers.items()
            ],
            lambda _: (
                "In brackets: 95% intervals. Paired randomization test over cards, two-sided; "
                "Holm's correction for all numbers of all systems."
            ),
        )
    yield Table(
        "Signs of danger in what seekers say",
        ["", *systems],
        [
            ["conversations", *(f"{o['danger']['conversations']:,}" for o in systems.values())],
            *(
                [kind, *(f"{one['danger']['kinds'].get(kind, 0):,}" for one in systems.values())]
                for kind in sorted({k for one in systems.values() for k in one["danger"]["kinds"]})
            ),
        ],
        lambda _: _of_danger(report),
    )


_ENDS = {
    "turns": "after all turns",
    "seeker": "the seeker said goodbye",
    "silent_seeker": "the seeker said nothing",
    "silent_system": "the system said nothing",
}


def _how(report: Mapping[str, Any], escape: Callable[[str], str]) -> str:
    intervals, seeker = report["intervals"], report["seeker"]
    how = "told of the card" if seeker["told"] else "trained as a seeker; begins with the situation"
    said = [
        f"Seeker: {escape(seeker['model'])} ({how}); {report['cards']['n']:,} cards of "
        f"{escape(report['cards']['from'])}, {report['turns']} turns at most, seed "
        f"{report['seed']}. In brackets: 95% intervals, by drawing the cards again "
        f"{intervals['resamples']:,} times.",
        *(
            f"{name.replace('_', ' ').capitalize()} was not measured: {escape(why)}."
            for name, why in report["not_measured"].items()
        ),
        "What each number means, and how far it agrees with people, is in docs/quality.md and "
        "docs/simulation.md.",
    ]
    return " ".join(said)


def _of_danger(report: Mapping[str, Any]) -> str:
    kinds = report["danger_in_situations"]
    found = ", ".join(f"{kind} in {n:,}" for kind, n in kinds.items()) or "none"
    return (
        f"Counted so that little is missed, false alarms among them. In the cards' situations: "
        f"{found}. Whoever reads such conversations should know beforehand."
    )


def _keys(systems: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = {
        (measure, name): None
        for one in systems.values()
        for measure, numbers in one["numbers"].items()
        for name in numbers
    }
    return list(found)


def _at(values: Mapping[str, Mapping[str, Any]], of: tuple[str, str]) -> Any:
    return values.get(of[0], {}).get(of[1])


def _label(measure: str, name: str) -> str:
    return f"{measure}: {name}".replace("_", " ")


def _estimate(found: Mapping[str, Any] | None) -> str:
    if found is None or found["mean"] is None:
        return NOTHING
    said = f"{found['mean']:,.3g}"
    return said if found["low"] is None else f"{said} [{found['low']:,.3g}, {found['high']:,.3g}]"


def _difference(test: Mapping[str, Any]) -> str:
    if test["difference"] is None:
        return NOTHING
    said = f"{test['difference']:+,.3g}"
    return said if test["low"] is None else f"{said} [{test['low']:+,.3g}, {test['high']:+,.3g}]"
