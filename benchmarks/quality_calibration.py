"""How far measures of quality go with what people say, beside words alone and people themselves.

For each question that people answered: how people agree with each other, judges that came with the
data, what the number of words alone reaches, the position, and words in common, then the measures,
and a small model of all of them. What is fitted, and every threshold, is of the development part;
parts are fixed by a hash of the dialog's name. Intervals are of a bootstrap over dialogs.

    python benchmarks/quality_calibration.py [--data FOLDER] [--esconv FOLDER] [--n 300]
        [--only WORD] [--dialogs N] [--keep FOLDER] [--save FILE] [--tiny]
        [--model NAME --revision COMMIT] [--classifier NAME --classifier-revision COMMIT]

A model and a classifier of pairs, each a folder or of the Hub, add rows. Other data of the
same kinds are test data as a whole; thresholds and fitted models are then those that --save wrote
(--calibration FILE). Where any of these is given, only they are measured:

    --planted FILE    lines "original" or "contradiction", name, utterances; apart by tabs
    --abceval FILE    ABC-Eval's JSON, by dialog
    --fed FILE        FED's JSON
    --scored FILE     JSON lines {"messages": [...], "scores": {"name": 4 or [4, 5]}, "turn": 3}
    --failed FILE     sessions of ESConv's form that failed, beside those of --esconv
    --judged FILE     a judge's scores of the conversations of lend_an_ear_dev.json, by "id"
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from augesc_builder.errors import AugescError
from augesc_builder.run.markdown import markdown_table
from benchmarks import quality_made as made
from benchmarks.harness import SHARED, options, parse
from benchmarks.quality_data import (
    PLANTED,
    Judged,
    read_abceval,
    read_fed,
    read_lend_an_ear,
    read_planted,
    read_scored,
    read_survey,
)
from benchmarks.quality_fit import Calibration
from benchmarks.quality_judges import TABLES, judge_table, with_judge
from benchmarks.quality_signals import (
    CONTRADICTION,
    EVERYTHING,
    INFORMATION,
    RELEVANCE,
    REPEATS,
    Scores,
    Signal,
    baselines,
    heard,
    measures,
    readings,
    with_classifier,
)
from benchmarks.quality_tasks import Question, Table, answered

CALIBRATION = Path(__file__).with_suffix(".json")
"""What was fitted on the development parts of the data that the documented figures are of."""

FAILED = "succeeded"
RATINGS = "Ratings of support"
Reader = Callable[[Path], list[Judged]]


def planted(judged: Sequence[Judged]) -> list[Question]:
    """Return what is asked of dialogs with and without a planted contradiction.

    It is the last utterance that is planted; a measure that does not know so looks at all.
    """
    whole = [replace(one, turn=None) for one in judged]
    return [
        answered("Planted contradictions, last utterances", PLANTED, judged, CONTRADICTION),
        answered("Planted contradictions, whole dialogs", PLANTED, whole, CONTRADICTION),
    ]


def abceval(judged: Sequence[Judged]) -> list[Question]:
    """Return what is asked of ABC-Eval's turns."""
    about = {
        "self contradiction": CONTRADICTION,
        "irrelevant": RELEVANCE,
        "redundant": REPEATS,
    }
    return [answered(f"ABC-Eval, {name}", name, judged, about[name]) for name in about]


def fed(judged: Sequence[Judged]) -> list[Question]:
    """Return what is asked of FED's turns and dialogs, whose ratings are higher for better."""
    turns = [one for one in judged if one.turn is not None]
    wholes = [one for one in judged if one.turn is None]
    about = {"Consistent": CONTRADICTION, "Coherent": EVERYTHING, "Informative": INFORMATION}
    return [
        answered("FED, turns: relevant", "Relevant", turns, RELEVANCE, better=True),
        *(
            answered(f"FED, dialogs: {name.lower()}", name, wholes, about[name], better=True)
            for name in about
        ),
    ]


def survey(judged: Sequence[Judged]) -> list[Question]:
    """Return what ESConv's seekers were asked."""
    return [
        answered(f"ESConv's survey, {name}", name, judged, EVERYTHING, better=True)
        for name in made.SURVEY
    ]


def scored(judged: Sequence[Judged]) -> list[Question]:
    """Return whatever was scored; of numbers that may mean anything, higher is taken for better."""
    found = []
    for name in sorted({name for one in judged for name in one.ratings}):
        for kind, of in (("turns", True), ("conversations", False)):
            some = [one for one in judged if name in one.ratings and (one.turn is not None) is of]
            if some:
                found.append(answered(f"{kind}: {name}", name, some, EVERYTHING, better=True))
    return found


def failed(good: Sequence[Judged], bad: Sequence[Judged]) -> list[Question]:
    """Return how sessions that succeeded are told from those that failed."""
    both = [
        replace(one, ratings={FAILED: (float(i),)})
        for i, some in enumerate((bad, good))
        for one in some
    ]
    return [answered("Sessions that did not fail", FAILED, both, EVERYTHING, better=True)]


def esconv(folder: Path) -> list[Judged]:
    """Read the sessions of a folder with ESConv's files."""
    return [one for file in sorted(folder.glob("*.txt")) for one in read_survey(file)]


def questions(given: argparse.Namespace) -> Iterator[Question]:
    """Yield what is asked of the data that were given, or of those that are there."""
    kinds: dict[str, tuple[Reader, Callable[[Sequence[Judged]], list[Question]], str]] = {
        "planted": (read_planted, planted, made.PLANTED_FILE),
        "abceval": (read_abceval, abceval, made.ABCEVAL_FILE),
        "fed": (read_fed, fed, made.FED_FILE),
    }
    foreign = {name: getattr(given, name) for name in (*kinds, "scored", "failed", "judged")}
    if any(foreign.values()):
        for name, (read, ask, _) in kinds.items():
            if foreign[name]:
                yield from (replace(q, foreign=True) for q in ask(read(foreign[name])))
        if given.scored:
            yield from (replace(q, foreign=True) for q in scored(read_scored(given.scored)))
        if given.failed:
            asked = failed(esconv(given.esconv), read_survey(given.failed))
            yield from (replace(q, foreign=True) for q in asked)
        return
    for read, ask, name in kinds.values():
        file = given.data / name
        if file.exists():
            yield from ask(read(file))
        else:
            print(f"{file} is not there, and is left out")
    if sessions := esconv(given.esconv):
        yield from survey(sessions)
    else:
        print(f"no sessions of ESConv in {given.esconv}, which are left out")
    print("Sessions that failed (--failed) are not at hand: nothing is said of them.")


@dataclass(frozen=True)
class Known:
    """What all questions share: models, what measures said so far, and what was fitted."""

    models: Sequence[Signal]
    light: Scores
    heavy: Scores
    calibration: Calibration


def show(question: Question, known: Known, n: int) -> None:
    """Print the table of a question."""
    light = [*baselines(), *measures(question.judged)]
    found = readings(question.judged, light, known.light)
    asked = [one for one in known.models if one.is_of(question.about)]
    found |= readings(question.judged, asked, known.heavy)
    table = Table(question, found, [*light, *asked], known.calibration, n)
    print(f"\n{question.title}: {table.size()}\n")
    print(markdown_table(table.header, table.rows()), flush=True)


def show_judges(path: Path, judge: Path | None, n: int) -> None:
    """Print how judges go with experts."""
    if not path.exists():
        print(f"{path} is not there, and is left out")
        return
    judged = read_lend_an_ear(path)
    if judge:
        judged = with_judge(judged, judge)
    for title, statistic in TABLES.items():
        header, rows = judge_table(judged, statistic, n)
        print(f"\n{RATINGS}, {len(judged)} conversations: {title.lower()}\n")
        print(markdown_table(header, rows), flush=True)


def models(given: argparse.Namespace) -> list[Signal]:
    """Load the models that were asked for, and return what they say."""
    found: list[Signal] = []
    if given.classifier:
        from augesc_builder.models.pair_classifier import PairClassifier

        pairs = PairClassifier(
            given.classifier, given.classifier_revision, dtype=given.dtype, both_orders=given.both
        )
        found += with_classifier(pairs)
    if given.model:
        from augesc_builder.metrics.topic_drift.scorers.likelihood import Likelihood

        found += heard(Likelihood.load(given.model, revision=given.revision, dtype=given.dtype))
    return found


def first_dialogs(judged: Sequence[Judged], n: int) -> Sequence[Judged]:
    """Return what is of ``n`` dialogs (0: all), by the hash of their names."""
    names = sorted({one.dialog for one in judged}, key=lambda x: sha256(x.encode()).digest())
    some = set(names[:n] if n else names)
    return [one for one in judged if one.dialog in some]


def run(given: argparse.Namespace) -> None:
    """Print all tables."""
    kept = Calibration.load(given.calibration) if given.calibration.exists() else Calibration()
    known = Known(models(given), Scores(), Scores(given.keep), kept)
    for question in questions(given):
        if given.only.lower() in question.title.lower():
            some = first_dialogs(question.judged, given.dialogs)
            show(replace(question, judged=some), known, given.n)
    others = (given.planted, given.abceval, given.fed, given.scored, given.failed)
    if given.judged or (not any(others) and given.only.lower() in RATINGS.lower()):
        show_judges(given.data / made.LEND_AN_EAR_FILE, given.judged, given.n)
    if given.save:
        kept.save(given.save, {"by": "python benchmarks/quality_calibration.py"})


def main() -> None:
    """Read the options, and print the tables of the data, or of made ones."""
    parser = options(__doc__, runs=1)
    parser.add_argument("--data", type=Path, default=SHARED / "quality")
    parser.add_argument("--esconv", type=Path, default=SHARED / "esconv")
    parser.add_argument("--n", type=int, default=300, help="replicates of the bootstrap")
    parser.add_argument("--model", help="a causal language model: a folder, or a name on the Hub")
    parser.add_argument("--revision", help="its commit on the Hub")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--classifier", help="a classifier of pairs: a folder, or on the Hub")
    parser.add_argument("--classifier-revision", help="its commit on the Hub")
    parser.add_argument("--both", action="store_true", help="ask it for both orders of a pair")
    parser.add_argument("--keep", type=Path, help="a folder for what models say, to use it again")
    parser.add_argument("--dialogs", type=int, default=0, help="at most so many of a file; 0: all")
    parser.add_argument("--only", default="", help="only what has this in its title")
    parser.add_argument("--calibration", type=Path, default=CALIBRATION)
    parser.add_argument("--save", type=Path, help="write what is fitted, and thresholds")
    for name in ("planted", "abceval", "fed", "scored", "failed", "judged"):
        parser.add_argument(f"--{name}", type=Path, metavar="FILE")
    given = parse(parser, n=20)
    try:
        if given.tiny:
            with tempfile.TemporaryDirectory() as folder:
                made.make(Path(folder), 12)
                given.data = given.esconv = Path(folder)
                run(given)
        else:
            run(given)
    except AugescError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
