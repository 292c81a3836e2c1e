"""Every name that a run gives to something on disk; no other module spells one.

What a training leaves is drawn in :mod:`augesc_builder.training.folders`; a build leaves this:

::

    FOLDER/
      recipe.yaml  manifest.json        the settings, and what the run found out
      .status.json                      what is at work, for `augesc status`; no part of the run
      .workers/                         the same of each of several workers, while they work
      .complete/STAGE.json              completion mark: every file of the stage, with its digest
      .complete/STAGE-00003.json        completion mark of one shard
      .address.json                     of a working copy: where the run is
      .work/                            half-done things; gone when the run is done
      .work/attempts/                   who is at a shard, or ended at it, while it has no mark
      .work/finetune/step-0000050/      a state that fine-tuning resumes from
      set-aside/                        what stood in the way and was not the run's own
      queries/                          triggers, rejected posts, queries_report.json
      checkpoint/                       the fine-tuned model
      generations/  measured/           raw continuations, and the numbers behind every decision
      partial/                          what shards were counted to, while statistics are made
      requests.jsonl                    the requests to an endpoint, with answers and cost, if any
      requests/                         the same, of each of several workers
      corpus/                           the dataset: data/, rejected/, figures/, reports, README.md
      corpus/failed/                    rows that ended what made them, each time, if any
      candidates/  scored/              where the best are chosen: what met the requirements
      corpus/not_selected/              where the best are chosen: the others
      corpus/quality/                   what measures of quality say, where they are asked for
      corpus/splits/                    its sessions once more, parted, if card.splits asks for it
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from augesc_builder.errors import InputError, PublishError

MANIFEST, RECIPE = "manifest.json", "recipe.yaml"
LOCK, WORK, MARKS, COMMIT = ".lock", ".work", ".complete", "commit.json"
STATUS, STATUS_NEW = ".status.json", ".status.json.new"
WORKERS = ".workers"
"""What each of several workers is at, for `augesc status`; no part of the run."""

ADDRESS = ".address.json"
"""In the working copy of a run that is at an address: which."""

SHARDS = "shards"
"""Below what is half-done: the shards that wait for their mark, a folder each."""

ATTEMPTS = "attempts"
"""Below what is half-done: who is at a shard, or ended at it, a file each."""

DOUBTED = "doubted"
"""Below what is half-done at an address: files that somebody found with other bytes, one each."""

SET_ASIDE = "set-aside"

QUERIES, REJECTED_POSTS, QUERIES_REPORT = "queries", "rejected.parquet", "queries_report.json"
CHECKPOINT, GENERATIONS, MEASURED, CORPUS = "checkpoint", "generations", "measured", "corpus"
PARTIAL = "partial"
"""What shards of the corpus were counted to, until it is summed up."""

TOKENIZER = "tokenizer.json"
"""What a checkpoint keeps its tokenizer in."""

DATA, REJECTED, FIGURES, CARD = "data", "rejected", "figures", "README.md"
FAILED = "failed"
"""Rows that could not be made: each ended, or failed, what made it."""

PARTED = "splits"
"""Where the sessions stand once more by splits, if those are asked for: they are published."""

CROISSANT = "croissant.json"
"""What a push puts beside the card: the corpus for programs."""
FILTER_REPORT, FILTER_TABLE = "filter_report.json", "filter_report.md"
SAFETY_REPORT, SAFETY_REVIEW = "safety_report.json", "safety_review.json"
STATISTICS = "statistics.json"
QUALITY, QUALITY_REPORT, QUALITY_MD = "quality", "quality.json", "quality.md"
CANDIDATES, SCORED, NOT_SELECTED = "candidates", "scored", "not_selected"
SELECTION, SELECTION_MD = "selection.json", "selection.md"
COMPARISON, COMPARISON_MD, COMPARISON_TEX = "comparison.json", "comparison.md", "comparison.tex"
REQUESTS, REQUESTS_OF = "requests.jsonl", "requests"
"""The journal of one process, and the folder of those of several workers."""

UTTERANCES = "utterances.jsonl"
JOURNALS = REQUESTS, REQUESTS_OF, UTTERANCES
SIMULATION, SIMULATION_MD = "simulation.json", "simulation.md"

TRAINED, TRAINING_CONFIG = "training.json", "config.yaml"
CHECKPOINTS, LOGS, CURVE = "checkpoints", "logs", "curve.jsonl"
STATE, SAVING, PICKLED_FACTS = "state.json", "saving", "facts.pt"
EVALUATION, EVALUATION_TABLE, RESPONSES = "evaluation.json", "evaluation.md", "responses.jsonl"

STUDY, ITEMS, EVENTS, TOKENS, STUDY_LOCK = (
    *("study.json", "items.jsonl", "events.sqlite", "tokens.json"),
    ".study.lock",
)
"""Of a study with people: settings and design, what is judged, what was done, the links."""

STUDY_REPORT, STUDY_REPORT_MD, STUDY_REPORT_TEX = "report.json", "report.md", "report.tex"
JUDGE_LOCK = ".judge.lock"

STAGES = (
    *("queries", "finetune", "generate", "filter"),
    *("select", "quality", "statistics", "card"),
)
"""The stages of a build, in order, as marks are named; what runs them is in
:mod:`augesc_builder.pipeline.build`."""

SPLIT, SPLITS = "train", ("train", "validation", "test")
"""The split that tables of a corpus are written as, and all that it may be parted into."""

_REPORTS = {
    **{"filter": FILTER_REPORT, "safety": SAFETY_REPORT},
    **{"quality": QUALITY_REPORT, "statistics": STATISTICS, "select": SELECTION},
}


def judge_requests(judge: str) -> str:
    """Return the name of the journal of what a judge of a study was asked."""
    return f"requests-{judge}.jsonl"


def simulated_table(system: str) -> str:
    """Return the name of the table of a system's simulated conversations."""
    return f"{DATA}/simulated-{system}.parquet"


def shard_path(table: str, number: int, n_shards: int | None) -> str:
    """Name a shard as the Hub does: ``data/train`` gives ``data/train-00000-of-00004.parquet``.

    Where nobody knows yet how many there will be, the name does not say it.
    """
    of = "" if n_shards is None else f"-of-{n_shards:05d}"
    return f"{table}-{number:05d}{of}.parquet"


def failed_table(generations: str) -> str:
    """Return the path of the table of rows that failed beside that of generations."""
    is_of_build = Path(generations).parent.name == GENERATIONS
    return f"{CORPUS}/{FAILED}/{SPLIT}" if is_of_build else f"{FAILED}/{SPLIT}"


def state_folder(states: Path, step: int) -> Path:
    """Return the folder of the state that a training saves after so many steps."""
    return states / f"step-{step:07d}"


def saved_states(states: Path) -> list[Path]:
    """Return the saved states of a training, the newest last."""
    return sorted(states.glob("step-*"))


def trl_state_folder(states: Path, step: int) -> Path:
    """Return the folder that TRL's trainer saves its state in after so many steps."""
    return states / f"checkpoint-{step}"


def trl_saved_states(states: Path) -> list[Path]:
    """Return the saved states of TRL's trainer, the newest last."""
    found = [path for path in states.glob("checkpoint-*") if path.name[11:].isdecimal()]
    return sorted(found, key=lambda path: int(path.name[11:]))


def holds_states(run: Path) -> bool:
    """Whether a training in a run's folder has saved a state."""
    ours = [saved_states(place) for place in (run / CHECKPOINTS, *(run / WORK).glob("*"))]
    return any(ours) or any(map(trl_saved_states, (run / CHECKPOINTS).glob("*")))


def parquet_files(folder: Path) -> list[Path]:
    """Return the Parquet files right in a folder, in order."""
    return sorted(folder.glob("*.parquet"))


def published_folder(corpus: Path, table: str) -> Path:
    """Return the folder whose files are published for a table of a corpus."""
    parted = corpus / PARTED
    return parted if table == DATA and parquet_files(parted) else corpus / table


def split_of_file(path: Path) -> str:
    """Return the split that a shard is of, by its name."""
    return path.name.split("-", maxsplit=1)[0]


def find_run(folder: Path) -> Path:
    """Return the folder of a run, of which ``folder`` may be the corpus.

    Raises :class:`~augesc_builder.errors.PublishError` where there is none.
    """
    run = folder.parent if folder.name == CORPUS else folder
    if not (run / RECIPE).is_file():
        raise PublishError(f"{folder}: no {RECIPE} there; give the folder of `augesc build`")
    return run


def find_corpus(folder: Path) -> Path:
    """Return the folder below which sessions stand in ``data/``: ``folder``, or a build's corpus.

    Raises :class:`~augesc_builder.errors.PublishError` where there are none.
    """
    for place in (folder / CORPUS, folder):
        if parquet_files(place / DATA):
            return place
    raise PublishError(
        f"{folder}: no {DATA}/*.parquet there; give the folder of `augesc build`, of `augesc "
        f"filter`, or of another corpus"
    )


def run_of(corpus: Path) -> Path:
    """Return the folder whose manifest tells of a corpus: that of its build, or itself."""
    is_of_build = corpus.name == CORPUS and (corpus.parent / RECIPE).is_file()
    return corpus.parent if is_of_build else corpus


def load_report(
    corpus: Path, name: Literal["filter", "safety", "select", "quality", "statistics"]
) -> Any:
    """Read a report of a corpus folder.

    Raises :class:`~augesc_builder.errors.InputError` where the stage has not written it.
    """
    path = corpus / _REPORTS[name]
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError("missing; run the filter and statistics stages first", path) from None


def reviewed_sessions(corpus: Path) -> set[str]:
    """Return the flagged sessions that a person looked at and let stand."""
    path = corpus / SAFETY_REVIEW
    return set(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else set()
