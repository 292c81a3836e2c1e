"""A comparison as tables for people, in Markdown (and on a terminal) and in LaTeX."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from augesc_builder import paper
from augesc_builder.pipeline.filter.report import requirement_rows
from augesc_builder.pipeline.quality.report import BELIEVE
from augesc_builder.pipeline.statistics.report import statistic_rows
from augesc_builder.run.document import Table, latex_document, markdown_document
from augesc_builder.run.markdown import NOTHING

Found = Mapping[str, Any]
"""What ``comparison.json`` holds."""


def markdown(found: Found) -> str:
    """Write a comparison in Markdown that is legible on a terminal too."""
    return markdown_document(_tables(found))


def latex(found: Found) -> str:
    """Write the tables of a comparison in LaTeX."""
    return latex_document(_tables(found))


def _tables(found: Found) -> Iterator[Table]:
    with_paper = found["settings"]["paper"]
    runs: Mapping[str, Any] = found["runs"]
    yield _runs(found)
    parts = {name: _table_1(run, found) for name, run in runs.items()}
    if with_paper:
        parts |= {f"paper: {name}": _papers(row) for name, row in paper.TABLE_1.items()}
    names = list(next(iter(parts.values()))["violations"])
    note = (lambda _: paper.TABLE_1_FOOTNOTE) if with_paper else None
    yield Table("Filtering (Table 1)", *requirement_rows(parts, names), note)
    sets = {name: run["table_2"] for name, run in runs.items()}
    yield Table("Kept sessions (Table 2)", *statistic_rows(sets, with_paper=with_paper))
    yield _differences(found)
    yield _cost(found)
    if with_paper:
        yield Table(
            "The paper's ratings by people (Table 3)",
            ["0 to 3", *(aspect.replace("_", " ") for aspect in paper.ASPECTS)],
            [[name, *(f"{x:.2f}" for x in row)] for name, row in paper.TABLE_3.items()],
            lambda _: "Of ethical risk less is better. No run here was rated by people.",
        )


def _runs(found: Found) -> Table:
    header = ["", "recipe", "backend", "model", "queries", "texts", "kept"]
    rows = [
        [
            name,
            *(run[key] or NOTHING for key in ("recipe", "backend", "model")),
            *(f"{run[key]:,}" for key in ("queries", "texts", "kept")),
        ]
        for name, run in found["runs"].items()
    ]

    def note(escape: Callable[[str], str]) -> str:
        source = found["settings"]["source"]
        counters = {name: run["tokens_counted_by"] for name, run in found["runs"].items()}
        unknown = [escape(name) for name, counter in counters.items() if counter is None]
        known = [escape(counter) for counter in counters.values() if counter is not None]
        said = ["All were judged by the same requirements."]
        if known:
            said.append(f"Session length is counted in the tokens of {known[0]}.")
        if unknown:
            said.append(f"What counted the tokens of {', '.join(unknown)} is not known.")
        if source is not None:
            said.append(f"Only texts of the source {escape(source)}.")
        elif len({tuple(run["sources"]) for run in found["runs"].values()}) > 1:
            said.append(
                "Their queries are of other sources: "
                + "; ".join(
                    f"{escape(name)}: {', '.join(map(escape, run['sources']))}"
                    for name, run in found["runs"].items()
                )
                + ". The option --source compares one alone."
            )
        return " ".join(said)

    return Table("Runs", header, rows, note)


def _table_1(run: Found, found: Found) -> dict[str, Any]:
    numbers = run["numbers"]
    prefix = "violations."
    return {
        "retention": numbers["retention"]["value"],
        "violations": {
            key.removeprefix(prefix): {"share": numbers[key]["value"]}
            for key in found["compared"]
            if key.startswith(prefix)
        },
    }


def _papers(row: Mapping[str, float]) -> dict[str, Any]:
    shares = {name: {"share": share / 100} for name, share in row.items() if name != "retention"}
    return {"retention": row["retention"] / 100, "violations": shares}


# -- differences ----------------------------------------------------------------------------------


def _differences(found: Found) -> Table:
    reference, runs = found["reference"], found["runs"]
    others = [name for name in runs if name != reference]
    header = ["", reference]
    for name in others:
        header += [name, f"{name} - {reference}"]
    rows = []
    for key, label, is_share in _labels(found):
        form = f",.{found['compared'].get(key, {}).get('digits', 1)}f"
        row = [label, _estimate(runs[reference]["numbers"][key], is_share=is_share, form=form)]
        for name in others:
            row += [
                _estimate(runs[name]["numbers"][key], is_share=is_share, form=form),
                _difference(runs[name]["differences"][key], is_share=is_share, form=form),
            ]
        if set(row[1:]) != {NOTHING}:
            rows.append(row)
    return Table("Differences", header, rows, lambda escape: _how(found, escape))


def _labels(found: Found) -> Iterator[tuple[str, str, bool]]:
    """Yield key, label, and whether it is a share, of what is compared."""
    for key, ratio in found["compared"].items():
        is_share = ratio["is_share"]
        yield key, f"{ratio['label']}, %" if is_share else ratio["label"], is_share
        if key == "memorized_share":
            yield from ((f"distinct_{n}", f"distinct-{n}, %", True) for n in (1, 2, 3))
            if "vendi_sessions" in found:  # comparisons of before have no such number
                yield "vendi", "Vendi score", False


def _how(found: Found, escape: Callable[[str], str]) -> str:
    settings, reference = found["settings"], found["reference"]
    shared = ", ".join(
        f"{run['queries_of_reference']:,} of {run['queries']:,} of {escape(name)}"
        for name, run in found["runs"].items()
        if name != reference
    )
    return (
        f"In brackets: 95% intervals, by drawing the {found['queries']:,} queries again "
        f"{settings['resamples']:,} times (seed {settings['seed']}), each with all its texts in "
        f"every run; queries that {escape(reference)} has too: {shared}. A star: the interval of "
        f"the difference leaves out 0; one in twenty does so by chance where nothing differs. A "
        f"share of 0 or 100 has no interval, nor has its difference: what was never seen cannot be "
        f"drawn. "
        f"Distinct n-grams are of {found['diversity_sessions']:,} sessions of each run"
        + (f", the Vendi score of {n:,}" if (n := found.get("vendi_sessions")) else "")
        + ", with intervals of a jackknife."
        + (f" {BELIEVE}" if any(key.startswith("quality.") for key in found["compared"]) else "")
    )


def _estimate(estimate: Mapping[str, float | None], *, is_share: bool, form: str) -> str:
    numbers = [estimate[name] for name in ("value", "low", "high")]
    said = [format(100 * x if is_share else x, form) for x in numbers if x is not None]
    if not said:
        return NOTHING
    return said[0] if len(said) == 1 else f"{said[0]} [{said[1]}, {said[2]}]"


def _difference(estimate: Mapping[str, float | None], *, is_share: bool, form: str) -> str:
    low, high = estimate["low"], estimate["high"]
    said = _estimate(estimate, is_share=is_share, form=f"+{form}")
    return f"{said} *" if low is not None and high is not None and (low > 0 or high < 0) else said


# -- what a kept session takes --------------------------------------------------------------------


FOR_EACH: Mapping[str, Callable[[Found], float | None]] = {
    "texts": lambda run: _by(run["texts"], run["kept"]),
    "tokens": lambda run: run["numbers"]["tokens_for_each"]["value"],
    "seconds": lambda run: _by(run["seconds"], run["kept"]),
    "money": lambda run: _by(run["money"], run["kept"]),
}
"""What a kept session of a run takes; ``None`` where that is not known, or nothing was kept."""

FORMS = {"texts": ".1f", "tokens": ",.0f", "seconds": ",.2f", "money": ".4f"}


def _cost(found: Found) -> Table:
    rows = [
        [name, *(_shown(of(run), FORMS[unit]) for unit, of in FOR_EACH.items())]
        for name, run in found["runs"].items()
    ]
    for model, row in paper.TABLE_1.items() if found["settings"]["paper"] else ():
        texts = 100 / row["retention"]
        money = texts * paper.GPT_3_DOLLARS if model.startswith("GPT-3") else None
        told = {"texts": texts, "money": money}
        cells = (_shown(told.get(unit), form) for unit, form in FORMS.items())
        rows.append([f"paper: {model}", *cells])
    header = ["for each kept session", *FOR_EACH]
    return Table("Cost", header, rows, lambda _: _spent(found))


def _spent(found: Found) -> str:
    said = (
        "Rejected texts are paid for by the kept ones. Tokens are those of prompts and texts, of "
        "backgrounds, and of turns that were drawn again; seconds are those of generating by the "
        "clock, on whatever machine that was."
    )
    trained = [run["seconds_finetuning"] for run in found["runs"].values()]
    if any(trained):
        each = ", ".join(NOTHING if s is None else f"{s:,.0f}" for s in trained)
        said += f" Seconds of fine-tuning, once for all: {each}."
    if found["settings"]["source"] is not None:
        said += " Seconds and money are known of all sources together alone."
    elif any(run["money"] is None for run in found["runs"].values()):
        said += f" {NOTHING}: not known; a run on one's own machine notes no money."
    if any(run["money"] is not None for run in found["runs"].values()):
        said += " Money is in the currency of the recipe's prices."
    if found["settings"]["paper"]:
        said += " The paper's is in US dollars, of its caption of Table 1."
    return said


def _by(total: float | None, kept: int) -> float | None:
    return None if total is None or not kept else total / kept


def _shown(value: float | None, form: str) -> str:
    return NOTHING if value is None else format(value, form)
