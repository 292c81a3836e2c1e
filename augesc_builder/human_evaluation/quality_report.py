"""A quality study as tables for people: Table 3, tests, agreement, annotators, judges."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from augesc_builder import paper
from augesc_builder.human_evaluation.agreement import MEASURES
from augesc_builder.human_evaluation.quality import CALIBRATED
from augesc_builder.run.document import Table
from augesc_builder.run.markdown import NOTHING, Bold

Found = Mapping[str, Any]
"""What :func:`~augesc_builder.human_evaluation.quality.measure` returns."""

Escape = Callable[[str], str]

UNCALIBRATED = "uncalibrated"

_TESTS = {
    "student": "Student's t-test",
    "welch": "Welch's t-test",
    "mann-whitney": "the Mann-Whitney test",
    "paired": "a paired t-test within annotators (a linear model with a term for each of them)",
}
_UNITS = {"session": "means of sessions", "rating": "single ratings"}


def tables(found: Found, *, with_paper: bool = False) -> Iterator[Table]:
    """Yield the tables of a report, the paper's Table 3 in the first if it is wanted."""
    yield _means(found, with_paper=with_paper)
    for against in found["tests"]:
        yield _tests(found, against)
    yield _agreement(found)
    yield _annotators(found)
    for judge in found["judges"]:
        yield _judge(found, judge)


# -- Table 3 --------------------------------------------------------------------------------------


def _means(found: Found, *, with_paper: bool) -> Table:
    columns = found["columns"]
    rows = [[MEASURES["within_one"], *(_share(found, c["name"]) for c in columns)]]
    rows += [[name, *(_mean(found, c["name"], name) for c in columns)] for name in found["sets"]]
    if with_paper:
        rows += _papers(columns)
    return Table(
        "Ratings (Table 3)",
        ["", *map(_title, columns)],
        rows,
        lambda escape: _how(found, escape, with_paper=with_paper),
    )


def _title(column: Mapping[str, Any]) -> str:
    return f"{column['title']} ↓" if column["less_is_better"] else str(column["title"])


def _share(found: Found, question: str) -> str:
    return shown(found["agreement"][question]["within_one"], interval=False)


def _mean(found: Found, question: str, name: str) -> str:
    text = shown(found["means"][name][question])
    if found["best"][question] == name:
        text = Bold(text)
    marks = [mark for against in found["tests"] if (mark := _mark(found, against, question, name))]
    return text if not marks else type(text)(" ".join([text, *marks]))


def _mark(found: Found, against: str, question: str, name: str) -> str | None:
    """Return ``w`` for worse than the best, ``r-`` and ``r+`` for below and above the reference."""
    p = found["tests"][against].get(question, {}).get(name)
    if p is None or p >= found["settings"]["level"]:
        return None
    if against == "best":
        return "w"
    return "r-" if _difference(found, against, question, name) < 0 else "r+"


def _difference(found: Found, against: str, question: str, name: str) -> float:
    """Return the mean of a set less that of the one it is tested against."""
    other = found["best"][question] if against == "best" else found["settings"]["reference"]
    means = found["means"]
    return float(means[name][question]["value"] - means[other][question]["value"])


def _papers(columns: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return the rows of the paper's Table 3, where the form has its questions."""
    names = [column["name"] for column in columns]
    less = {column["name"] for column in columns if column["less_is_better"]}
    table = {f"paper: {name}": row for name, row in paper.TABLE_3.items()}
    place = {aspect: i for i, aspect in enumerate(paper.ASPECTS)}
    best = {
        aspect: (min if aspect in less else max)(row[i] for row in table.values())
        for aspect, i in place.items()
    }

    def cell(name: str, row: tuple[float, ...]) -> str:
        if name not in place:
            return NOTHING
        text = f"{row[place[name]]:.2f}"
        return Bold(text) if row[place[name]] == best[name] else text

    agreed = [
        f"{paper.TABLE_3_WITHIN_ONE[place[name]]:.2f}" if name in place else NOTHING
        for name in names
    ]
    return [
        [f"paper: {MEASURES['within_one']}", *agreed],
        *([title, *(cell(name, row) for name in names)] for title, row in table.items()),
    ]


def _how(found: Found, escape: Escape, *, with_paper: bool) -> str:
    settings = found["settings"]
    counts = "; ".join(
        f"{escape(name)}: {of['sessions']:,} sessions, {of['ratings']:,} ratings"
        for name, of in found["sets"].items()
    )
    reference = settings["reference"]
    marks = "Bold: the best of a column. w: worse than the best"
    if reference is not None:
        marks += f"; r- and r+: below and above {escape(reference)}"
    untested = [c["title"] for c in found["columns"] if not c["is_tested"]]
    said = [
        f"Rated: {counts or 'nothing'}. In brackets: 95% intervals, by drawing sessions again "
        f"{settings['resamples']:,} times (seed {settings['seed']}).",
        f"{marks} (p below {settings['level']:g}, two-sided, {_TESTS[settings['test']]} of "
        f"{_UNITS[settings['unit']]}{_corrected(settings)}).",
    ]
    if settings["unit"] == "rating":
        said.append(
            "Ratings of one session are alike: taken as single observations, they find differences "
            "that are not there more often than the level says."
        )
    if untested:
        said.append(f"Not tested, as in the paper: {', '.join(map(escape, untested))}.")
    said.append(
        f"{escape(MEASURES['within_one'])}: the share of items whose ratings differ by one at most."
    )
    if with_paper:
        said.append(
            "The paper's are of 60 sessions a set with three ratings each; it does not state the "
            "unit of its tests."
        )
    return " ".join(said)


def _corrected(settings: Mapping[str, Any]) -> str:
    return ", Holm's correction for all pairs of sets and all columns" if settings["holm"] else ""


# -- tests and agreement --------------------------------------------------------------------------


def _tests(found: Found, against: str) -> Table:
    columns = [column for column in found["columns"] if column["name"] in found["tests"][against]]
    rows = [
        [name, *(_test(found, against, column["name"], name) for column in columns)]
        for name in found["sets"]
    ]
    return Table(
        "Against the best" if against == "best" else "Against the reference",
        ["difference (p)", *map(_title, columns)],
        rows,
        lambda escape: _how_tested(found["settings"], against, escape),
    )


def _how_tested(settings: Mapping[str, Any], against: str, escape: Escape) -> str:
    is_best = against == "best"
    if is_best:
        said = [
            "Of each column, the mean of a set less the highest mean (where less is better, the "
            "lowest)."
        ]
    else:
        said = [f"The mean of a set less that of {escape(settings['reference'])}."]
    if settings["holm"]:
        pairs = "pairs of sets" if is_best else "pairs with the reference"
        said.append(f"p are corrected by Holm's method for all {pairs} and all columns.")
    else:
        said.append(
            f"p are not corrected: where nothing differs, each is below {settings['level']:g} by "
            f"chance as often as that."
        )
        if is_best:
            said.append("The best is found in the same ratings, so there it is more often.")
    if settings["test"] == "paired":
        said.append("The test frees differences of how strict annotators are; those shown are not.")
    return " ".join(said)


def _test(found: Found, against: str, question: str, name: str) -> str:
    tests = found["tests"][against][question]
    if name not in tests or found["means"][name][question]["value"] is None:
        return NOTHING
    other = found["best"][question] if against == "best" else found["settings"]["reference"]
    if found["means"][other][question]["value"] is None:
        return NOTHING
    return f"{_difference(found, against, question, name):+.2f} ({p_text(tests[name])})"


def _agreement(found: Found) -> Table:
    columns = found["columns"]
    rows = [
        [title, *(shown(found["agreement"][column["name"]][key]) for column in columns)]
        for key, title in MEASURES.items()
    ]
    return Table(
        "Agreement of people",
        ["", *(column["title"] for column in columns)],
        rows,
        lambda _: (
            "Over all sets; of items that two people or more rated. Kappas and alphas "
            "(Krippendorff's): 1 is agreement, 0 is chance; the weighted kappa counts a "
            "disagreement by its square. "
            f"{NOTHING}: all ratings are the same, or nobody shared an item."
        ),
    )


# -- annotators and judges ------------------------------------------------------------------------


def _annotators(found: Found) -> Table:
    annotators = found["annotators"]
    hasty = found["settings"]["hasty"]
    rows = []
    for name, one in annotators["people"].items():
        passed, asked = one["checks"]
        why = [
            *(["disagrees with everyone"] if one["disagrees"] else []),
            *([f"{one['hasty']} in {hasty:g} s or less"] if one["hasty"] else []),
            *([f"missed {asked - passed} of {asked} checks"] if passed < asked else []),
        ]
        if why:
            seconds = NOTHING if one["seconds"] is None else f"{one['seconds']:,.0f}"
            rows.append([name, str(one["sessions"]), seconds, shown(one["kappa"]), "; ".join(why)])
    total = len(annotators["people"])
    return Table(
        "Annotators to look at",
        ["", "sessions", "median seconds", "kappa with others", "why"],
        rows,
        lambda _: (
            f"{len(rows)} of {total} annotators; nobody's ratings are left out. The kappa "
            f"is that of squared disagreements over all questions; of all people it is "
            f"{shown(annotators['kappa'])}. Somebody disagrees with everyone whose kappa is not "
            f"above 0 and is below that of all, by its interval."
        ),
    )


def _judge(found: Found, judge: str) -> Table:
    columns = found["columns"]
    means, beside = found["judges"][judge]["means"], found["judges"][judge]["beside_people"]

    def mean(name: str, question: str) -> str:
        if question not in beside:
            return NOTHING
        return shown(means[name][question]) if question in means[name] else UNCALIBRATED

    def of(key: str) -> list[str]:
        return [shown(beside[c["name"]][key]) if c["name"] in beside else NOTHING for c in columns]

    shared = [str(beside.get(column["name"], {}).get("shared", 0)) for column in columns]
    rows = [
        *([name, *(mean(name, column["name"]) for column in columns)] for name in found["sets"]),
        ["kappa with people", *of("kappa")],
        ["kappa of people", *of("people")],
        ["ratings less people's", *of("bias")],
        ["sessions shared", *shared],
    ]
    return Table(
        "A judge beside people",
        ["", *map(_title, columns)],
        rows,
        lambda escape: (
            f"Ratings by the model {escape(judge)}, which are in no mean of people. Kappas count "
            f"disagreements by their squares, on sessions that both rated. {UNCALIBRATED}: people "
            f"rated fewer than {CALIBRATED} of the same sessions."
        ),
    )


# -- cells ----------------------------------------------------------------------------------------


def shown(estimate: Mapping[str, float | None], *, interval: bool = True, form: str = ".2f") -> str:
    """Return a number with its interval in brackets."""
    value, low, high = estimate["value"], estimate["low"], estimate["high"]
    if value is None:
        return NOTHING
    if low is None or high is None or not interval:
        return format(value, form)
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"


def p_text(p: float | None) -> str:
    """Return a p-value: with four digits, or as a power of ten where that is nothing."""
    if p is None:
        return NOTHING
    return f"{p:.4f}" if p >= _SMALL else f"{p:.0e}"


_SMALL = 1e-4
