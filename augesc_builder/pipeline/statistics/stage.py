"""Stage ``statistics``: sets of sessions become ``statistics.json`` and figures."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augesc_builder.config.recipe import Recipe
from augesc_builder.errors import InputError
from augesc_builder.pipeline.statistics.report import statistics_table
from augesc_builder.run import layout
from augesc_builder.run.folder import RunFolder
from augesc_builder.run.progress import Progress
from augesc_builder.run.provenance import digest, is_new, load_json
from augesc_builder.run.workers import WORTH_PROCESSES, cores, ordered_map

if TYPE_CHECKING:
    from augesc_builder.pipeline.statistics.measure import Counts, Measuring
    from augesc_builder.readers.chunks import Chunk


def run(folder: RunFolder, recipe: Recipe, progress: Progress) -> None:
    """Measure the corpus of a build."""
    from augesc_builder.pipeline.finetune.stage import finetuned_on
    from augesc_builder.pipeline.statistics.measure import Measuring

    what = Measuring(trained_on=finetuned_on(folder, recipe), seed=recipe.seed)
    sets = {layout.CORPUS: folder.use("filter", f"{layout.CORPUS}/{layout.DATA}")}
    _measure(folder, sets, what, layout.CORPUS, progress)


def standalone(
    given: Sequence[str],
    out: Path,
    progress: Progress,
    *,
    with_paper: bool,
    finetuned_on: Path | None = None,
    near_duplicates: bool = False,
    basic: bool = False,
    num_proc: int | None = None,
) -> None:
    """Measure each of the sets ``given`` (``PATH`` or ``NAME=PATH``), and print Table 2.

    Raises :class:`~augesc_builder.errors.InputError` for a file that holds no sessions.
    """
    from augesc_builder.metrics.duplication.counts import DEFAULT
    from augesc_builder.metrics.novelty.counts import utterances_of
    from augesc_builder.pipeline.statistics.measure import Measuring
    from augesc_builder.sources.esconv import read_esconv

    sets = _sets(given)
    near = DEFAULT if near_duplicates else None
    trained_on = None
    settings: dict[str, Any] = {
        "stage": "statistics",
        "sessions": {name: digest(files) for name, files in sets.items()},
        "basic": basic,
        "near_duplicates": near and near.model_dump(mode="json"),
    }
    if finetuned_on is not None:
        trained_on = utterances_of(s.messages for s in read_esconv(finetuned_on))
        settings["finetuned_on"] = digest([finetuned_on])
    what = Measuring(basic, trained_on, near)
    with RunFolder(out, settings, progress.say) as folder:
        if is_new(folder, "statistics", progress):
            _measure(folder, sets, what, ".", progress, num_proc=num_proc)
    progress.say(statistics_table(load_json(out / layout.STATISTICS), with_paper=with_paper))
    if not basic:
        progress.say(
            f"\nAll numbers are in {out / layout.STATISTICS}, figures in {out / layout.FIGURES}."
        )


def _measure(
    folder: RunFolder,
    sets: Mapping[str, Sequence[Path]],
    what: Measuring,
    place: str,
    progress: Progress,
    *,
    num_proc: int | None = None,
) -> None:
    """Measure sets of sessions, each source of a set apart, and draw the figures."""
    from augesc_builder.pipeline.statistics.measure import Counts, statistics
    from augesc_builder.readers.chunks import count_rows
    from augesc_builder.sources.sessions import session_chunks

    total = sum(count_rows(file) for files in sets.values() for file in files)
    under_way: deque[tuple[str, int]] = deque()

    def chunks() -> Iterator[Chunk]:
        for name, files in sets.items():
            for chunk in session_chunks(list(files)):
                under_way.append((name, len(chunk.rows)))
                yield chunk

    counted: dict[tuple[str, str], Counts] = {}
    num_proc = num_proc or (cores() if total > WORTH_PROCESSES else 1)
    preload = "augesc_builder.pipeline.statistics.measure"
    with progress.bar(total, "counting words", "session") as bar:
        for found in ordered_map(what.chunk, chunks(), num_proc, preload=preload):
            name, n = under_way.popleft()
            for source, counts in found.items():
                counted.setdefault((name, source), Counts(what)).merge(counts)
            bar.update(n)
    found_json = statistics(_columns(counted, list(sets)), what)
    folder.write_json(f"{place}/{layout.STATISTICS}", found_json)
    if not what.basic:
        from augesc_builder.pipeline.statistics.figures import draw

        folder.write_folder(f"{place}/{layout.FIGURES}", lambda into: draw(found_json, into))
    folder.complete("statistics")


def _columns(counted: Mapping[tuple[str, str], Counts], sets: Sequence[str]) -> dict[str, Counts]:
    """Name the columns: by set, and by source where a set has several or stands alone."""
    named = {}
    for name in sets:
        sources = sorted(source for of, source in counted if of == name)
        for source in sources:
            column = (
                source if len(sets) == 1 else name if len(sources) == 1 else f"{name}: {source}"
            )
            named[column] = counted[name, source]
    return named


def _sets(given: Sequence[str]) -> dict[str, list[Path]]:
    """Name the sets: as the user does, or by their file or folder."""
    from augesc_builder.sources.sessions import sessions_files

    sets: dict[str, list[Path]] = {}
    for text in given:
        name, equals, rest = text.partition("=")
        if not equals or Path(text).exists():
            path = Path(text)
            name = path.stem if path.is_file() else path.resolve().name
        else:
            path = Path(rest)
        if name in sets:
            raise InputError(f"a second set called {name}; name it, as in other={path}", path)
        sets[name] = sessions_files(path)
    return sets
