"""The safety pass by itself, over sessions that stand: ``augesc safety DIR --out DIR``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from augesc_builder.config.recipe import Recipe, SafetyClassifier
from augesc_builder.errors import InputError
from augesc_builder.executors import executor_of
from augesc_builder.pipeline.filter.chunked import ChunkedJob
from augesc_builder.pipeline.filter.filter import scanner_for
from augesc_builder.pipeline.filter.parts import Parts
from augesc_builder.pipeline.inputs import input_digests
from augesc_builder.readers.chunks import Chunk
from augesc_builder.run import layout
from augesc_builder.run.draft import join_or_begin, noted
from augesc_builder.run.folder import RunFolder, read_manifest
from augesc_builder.run.progress import Progress
from augesc_builder.run.provenance import digest, is_new, pin_safety_classifier
from augesc_builder.run.shards import Shards
from augesc_builder.run.workers import WORTH_PROCESSES, cores
from augesc_builder.sources.sessions import check_messages, sessions_files
from augesc_builder.tables import SESSIONS, plain_schema
from augesc_builder.text.safety import flag_sessions, merge_counts

STAGE = "safety"


class Scanned(NamedTuple):
    """Sessions with their flags, and the counts of those."""

    sessions: pa.Table
    counts: dict[str, Any]

    def __len__(self) -> int:
        return int(self.sessions.num_rows)


@dataclass(frozen=True)
class Scan:
    """The safety pass, ready for worker processes."""

    classifier: SafetyClassifier | None

    def chunk(self, chunk: Chunk) -> Scanned:
        """Flag the sessions of a chunk anew."""
        return Scanned(*flag_sessions(_sessions(chunk), scanner_for(self.classifier)))


@dataclass(frozen=True)
class ScanJob(ChunkedJob[Scanned]):
    """The safety pass as a job for executors: a shard is some sessions."""

    scan: Scan

    @property
    def gpus(self) -> int:
        """How many GPUs a worker computes on, where there are any: for its classifier."""
        return int(self.scan.classifier is not None)

    @property
    def function(self) -> Callable[[Any], Scanned]:
        """Return what scans a chunk."""
        return self.scan.chunk

    def write(self, number: int, found: Sequence[Scanned]) -> None:
        """Write the sessions of a shard with their flags."""
        self.shards.add_shard(
            STAGE,
            number,
            self.n_shards,
            {f"{layout.DATA}/{layout.SPLIT}": pa.concat_tables(part.sessions for part in found)},
            safety=merge_counts(part.counts for part in found),
        )


def rescan(sessions: Path, out: Path, recipe: Recipe, progress: Progress) -> None:
    """Run the safety pass over the sessions of a corpus; write them with their flags into ``out``.

    One of several workers scans its shards and no more; the first of them begins the run.

    Raises :class:`~augesc_builder.errors.InputError` for a table that is none of sessions.
    """
    files = sessions_files(sessions)
    settings = {
        "stage": STAGE,
        "inputs": digest(files),
        "safety": recipe.safety.model_dump(mode="json"),
        **{key: d for key, d in input_digests(recipe).items() if key.startswith("safety")},
    }
    executor = executor_of(recipe.executor)

    def job(shards: Shards, classifier: SafetyClassifier | None) -> ScanJob:
        parts = Parts(files)
        if not len(parts):
            raise InputError("no sessions to scan", files[0])
        many = parts.n_rows > WORTH_PROCESSES and not classifier
        return ScanJob(
            folder=shards.path.absolute(),
            run_id=read_manifest(shards.path)["run_id"],
            stage=STAGE,
            n_shards=len(parts),
            inputs=shards.inputs,
            parts=parts,
            scan=Scan(classifier),
            num_proc=cores() if many else 1,
            say=progress.say,
        )

    def make(job: ScanJob) -> None:
        done = job.n_shards - sum(1 for _ in job.missing())
        with progress.bar(job.n_shards, "scanning", "shard", done=done) as bar:
            for _ in executor.run(job):
                bar.update(1)

    if executor.joins:
        shards = join_or_begin(
            out,
            settings,
            progress.say,
            lambda run: pin_safety_classifier(run, recipe.safety.classifier),
        )
        mine = job(shards, pin_safety_classifier(noted(out), recipe.safety.classifier))
        make(mine)
        progress.say(f"  all {mine.n_shards:,} shards of {STAGE} are made")
        return
    with RunFolder(out, settings, progress) as folder:
        if is_new(folder, STAGE, progress):
            executor.check()
            every = job(folder, pin_safety_classifier(folder, recipe.safety.classifier))
            make(every)
            folder.settle()
            counts = merge_counts(())
            for number in range(every.n_shards):
                counts = merge_counts([counts, folder.shard_fact(STAGE, number)["safety"]])
            folder.write_json(layout.SAFETY_REPORT, counts)
            folder.complete(STAGE, tables={"sessions": counts["sessions"]})
            progress.say(
                f"  {counts['flagged']:,} of {counts['sessions']:,} sessions are flagged; "
                f"`augesc safety {out}` shows them"
            )


def _sessions(chunk: Chunk) -> pa.Table:
    """Return the sessions of a chunk with all columns; those of before lack some, which are null.

    Raises :class:`~augesc_builder.errors.InputError` for what is no session.
    """
    table, schema = chunk.rows, plain_schema(SESSIONS)
    if isinstance(table, list):
        raise InputError("expected a Parquet table, as `augesc filter` writes it", chunk.path)
    if missing := {"session_id", "messages"} - set(table.column_names):
        raise InputError(
            f"no column {min(missing)}; give the folder of `augesc build` or `augesc filter`, "
            f"which write it",
            chunk.path,
        )
    columns = {}
    for field in schema:
        if field.name not in table.column_names or field.name == "safety_flags":
            columns[field.name] = pa.nulls(len(table), field.type)
            continue
        try:
            columns[field.name] = table[field.name].cast(field.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            reason = str(error).partition("\n")[0][:120]
            raise InputError(f"column {field.name}: {reason}", chunk.path) from None
    for number, messages in zip(chunk.numbers(), columns["messages"].to_pylist(), strict=True):
        check_messages(messages, chunk.path, number)
    return pa.table(columns, schema=schema)
