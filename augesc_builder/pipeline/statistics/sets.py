"""Which sets are measured: those that are given, a corpus, and what stands beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from augesc_builder.config.recipe import Recipe
from augesc_builder.errors import InputError
from augesc_builder.metrics.distinct import hash_of
from augesc_builder.metrics.query_effect.counts import QueryCounts
from augesc_builder.pipeline.filter.overlap import commit_of_tests
from augesc_builder.pipeline.generate.backends import backend_of
from augesc_builder.readers.parquet import read_table
from augesc_builder.run.folder import RunFolder
from augesc_builder.sources.registry import find_source, source_label
from augesc_builder.sources.sessions import files_tested_on, find_sessions, sessions_files

Sets = dict[str, list[Path]]


def given_sets(given: Sequence[str]) -> Sets:
    """Name the sets of ``PATH`` and ``NAME=PATH``: as the user does, or by their file or folder.

    Raises :class:`~augesc_builder.errors.InputError` for two of one name, and where no file is.
    """
    sets: Sets = {}
    for text in given:
        name, path = name_and_path(text)
        name = name or (path.stem if path.is_file() else path.resolve().name)
        if name in sets:
            raise InputError(f"a second set called {name}; name it, as in other={path}", path)
        sets[name] = sessions_files(path)
    return sets


def given_tests(given: Sequence[str]) -> Sets:
    """Name the test sessions of ``SOURCE``, ``PATH`` and ``NAME=PATH``.

    Raises :class:`~augesc_builder.errors.InputError` as :func:`given_sets` does, and for a source
    that has none.
    """
    sets: Sets = {}
    for text in given:
        info = find_source(text)
        found = {info.label: files_tested_on(text)[0]} if info else given_sets([text])
        if twice := sorted(sets.keys() & found):
            raise InputError(f"a second set called {twice[0]}; name it, as in other=PATH", text)
        sets |= found
    return sets


def name_and_path(text: str) -> tuple[str | None, Path]:
    """Part ``NAME=PATH``; a path alone, which may hold the sign itself, has no name."""
    name, equals, rest = text.partition("=")
    return (name, Path(rest)) if equals and not Path(text).exists() else (None, Path(text))


def sets_beside(recipe: Recipe, commit: str | None, columns: Iterable[str]) -> Sets:
    """Return what ``statistics.beside`` names: by default what the model was fine-tuned on.

    ``commit`` is that of the fine-tuning sessions. A name that one of the ``columns`` has already
    is told apart. Raises :class:`~augesc_builder.errors.InputError` where there are no files.
    """
    asked, settings = recipe.statistics.beside, recipe.finetune
    if asked is None:
        if not backend_of(recipe).n_sessions(recipe):
            return {}
        source = find_sessions(settings.sessions)
        if source is not None and source.session_files is None:
            return {}
        name = Path(settings.sessions).stem if source is None else source.label
        asked = {name: settings.sessions}
    taken = {*columns, *map(source_label, columns)}
    return {
        f"{name} (sessions)" if name in taken else name: _files(
            where, commit if where == settings.sessions else None
        )
        for name, where in asked.items()
    }


def sets_tested_on(folder: RunFolder, recipe: Recipe) -> Sets:
    """Return what ``statistics.tested_on`` names: by default the test split beside the training's.

    Commits that are read are recorded. Raises :class:`~augesc_builder.errors.InputError` where
    there are no files.
    """
    asked, trained_on = recipe.statistics.tested_on, recipe.finetune.sessions
    if asked is None:
        source = find_sessions(trained_on)
        if source is None or source.test_files is None or not backend_of(recipe).n_sessions(recipe):
            return {}
        files, _ = source.test_files(commit_of_tests(folder, recipe, trained_on))
        return {source.label: files} if files else {}
    found: Sets = {}
    for name, where in asked.items():
        found[name], commit = files_tested_on(where, commit_of_tests(folder, recipe, where))
        if commit is not None:
            folder.add(revisions={where: commit})
    return found


def _files(where: str, revision: str | None) -> list[Path]:
    source = find_source(where)
    if source is not None and source.session_files is not None:
        return source.session_files(revision)
    return sessions_files(Path(where))


def queries_before_filtering(
    measured: Sequence[Path], sample: int | None, seed: int, *, with_query: bool = False
) -> dict[str, QueryCounts]:
    """Count Figure 3 of each source by what the filter stage measured of every generation.

    What it measured are the lengths of all utterances, of kept and of rejected texts; the query is
    the seeker's first. A text that is no conversation has none.
    """
    found: dict[str, QueryCounts] = {}
    names = ["query_id", "sample", "source", "seeker_words", "supporter_words"]
    for file in measured:
        table = read_table(file, names)
        for key, n, source, seeker, supporter in zip(
            *(table[name].to_pylist() for name in names), strict=True
        ):
            counts = found.setdefault(source, QueryCounts(sample, seed, with_query=with_query))
            if seeker:
                others = [*seeker[1:], *supporter]
                rank = hash_of(f"{key} {n}", seed=seed)
                counts.add_lengths(seeker[0], sum(others), len(others), rank)
    return found
