"""Which prior comes nearest to the z-scores that Figure 4 of the paper prints for ESConv.

The paper gives neither its prior nor its counts. Known are ESConv's own counts, and the words of
10,000 sessions of ED and of Reddit from Table 2 (utterances a session times words an utterance).
How often AugESC says a word is not known: taken as never, which suits words such as mturk, or as
--said. Each time lowers z where the prior is pooled or scaled. Shown are z of four of the seeker's
words, how many of all twenty words round to what is printed, and the mean distance from it.

    python benchmarks/topic_priors.py [--said 0] [--esconv FOLDER] [--tiny]
"""

from __future__ import annotations

from pathlib import Path
from statistics import mean

from augesc_builder.metrics.tokenized import ROLES, spoken
from augesc_builder.metrics.topic_correlates.counts import TopicCounts, z_scores
from augesc_builder.metrics.topic_correlates.priors import Prior
from augesc_builder.paper import FIGURE_4, TABLE_2
from augesc_builder.run.markdown import markdown_table
from benchmarks.harness import SHARED, esconv_sessions, options, parse

PRIORS = (
    *("pooled", "scaled:20e6", "scaled:35e6", "scaled:46e6", "scaled:60e6", "scaled:100e6"),
    *("uninformative:0.01", "uninformative:0.1"),
)
PRINTED = {role: sets["ESConv"] for role, sets in FIGURE_4.items()}
SHOWN = ("mturk", "vaccine", "covid-19", "covid")
SESSIONS = 10_000
UNIQUE_WORDS = 60_000
"""Of the Reddit sessions: what an uninformative prior is given for each of."""

REST = "all other words"


def words_of_augesc(role: str) -> int:
    """Return how many words a role says in 10,000 sessions of ED and 10,000 of Reddit."""
    first = {"seeker": 3, "supporter": 7}[role]
    cells = (TABLE_2["AugESC ED"], TABLE_2["AugESC Reddit"])
    return round(sum(SESSIONS * float(c[first + 1]) * float(c[first + 2]) for c in cells))


def z_of(n: int, n_here: int, said: int, n_there: int, prior: Prior) -> float:
    """Return z of a word said ``n`` times in ESConv, and ``said`` times in AugESC."""
    here, there = {"word": n, REST: n_here - n}, {"word": said, REST: n_there - said}
    pooled = {word: here[word] + there[word] for word in here}
    before = dict(prior.counts(pooled))
    if prior.kind == "uninformative":
        before[REST] = prior.amount * UNIQUE_WORDS
    return z_scores(here, there, before)["word"]


def main() -> None:
    """Compute and print one table."""
    parser = options(__doc__)
    parser.add_argument("--said", type=int, default=0, help="how often AugESC says each word")
    parser.add_argument("--esconv", type=Path, default=SHARED / "esconv")
    given = parse(parser)
    sessions, corpus = esconv_sessions(given.esconv, tiny=given.tiny)
    counted = TopicCounts()
    for session in sessions:
        counted.add(spoken(session.messages))
    counts = {label: counted.lowered(role, keep_stop_words=True) for role, label in ROLES.items()}
    rows = [["printed", *(str(PRINTED["seeker"][word]) for word in SHOWN), "20", "0"]]
    for name in PRIORS:
        found = {
            (role, word): z_of(
                max(1, words[word]),
                words.total(),
                given.said,
                words_of_augesc(role),
                Prior.parse(name),
            )
            for role, words in counts.items()
            for word in PRINTED[role]
        }
        off = [abs(z - PRINTED[role][word]) for (role, word), z in found.items()]
        rows.append(
            [
                name,
                *(f"{found['seeker', word]:.1f}" for word in SHOWN),
                str(sum(round(z) == PRINTED[role][word] for (role, word), z in found.items())),
                f"{mean(off):.1f}",
            ]
        )
    print(f"z of ESConv's words, counted in {corpus}, if AugESC says each {given.said} times")
    print(markdown_table(["prior", *SHOWN, "as printed, of 20", "mean distance"], rows))


if __name__ == "__main__":
    main()
