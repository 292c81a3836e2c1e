"""What the configurations of ``load_dataset("augesc")`` read: local files, the Hub, or a build."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features

from augesc_builder.config.recipe import Recipe, load_recipe
from augesc_builder.errors import InputError, RecipeError
from augesc_builder.run import layout
from augesc_builder.run.marks import parquet_files
from augesc_builder.sources import published

Readers = dict[str, list["functools.partial[Iterator[pa.Table]]"]]
"""For each split, functions that each read a part of it; several processes share them."""

IN_THE_CONTENT = frozenset({"data_dir", "data_files", "recipe", "set", "work_dir"})
"""Options that :func:`content_of` covers."""

_BATCH = 1000


class Config(Protocol):
    """What is read of ``augesc.AugESCConfig``."""

    name: str
    data_dir: str | None
    data_files: Any
    revision: str | None
    recipe: str | None
    set: Mapping[str, Any] | Sequence[str] | None
    work_dir: str | None
    rejected: bool


def content_of(config: Config) -> str | None:
    """Return a digest of what is loaded, where the configuration's name alone does not say it."""
    from augesc_builder.run.provenance import digest

    _check(config)
    if config.name == "regenerated":
        what: Any = _made_by(config)
        if splits := _recipe(config).card.splits:  # which the same run may have, or not
            what.append(splits)
    else:
        what = {split: digest(files) for split, files in _local_files(config).items()}
        if not what:
            return None
    return _short_digest(what)


def _made_by(config: Config) -> list[Any]:
    """Return what a run of ``regenerated`` is made by."""
    from augesc_builder.pipeline.inputs import run_settings

    folder = _work_dir(config)
    return [run_settings(_recipe(config)), folder and str(folder)]


def _short_digest(what: Any) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


def runs_in(cache: str | Path) -> Path:
    """Return the folder of the runs of ``regenerated`` in a cache of ``datasets``."""
    return Path(cache).expanduser() / "augesc-runs"


def splits_of(config: Config, runs: Path) -> Readers:
    """Return what to read for each split; downloads and builds happen here."""
    if config.name == "regenerated":
        return _regenerated(config, runs)
    if config.name == "sample":
        from augesc_builder.sources.sample import SESSIONS

        return {"train": [functools.partial(_read_esconv, str(SESSIONS), "sample")]}
    files = _local_files(config)
    if config.name == "esconv":
        from augesc_builder.sources.esconv import esconv_files

        if not files:
            found = esconv_files(None, config.revision or "main")
            files = {split: [file] for split, file in found.items()}
        return {
            split: [functools.partial(_read_esconv, str(file), "esconv") for file in group]
            for split, group in files.items()
        }
    files = files or {
        "train": [published.download_published(config.revision or published.REVISION)]
    }
    return {
        split: [
            functools.partial(published.read_byte_range, part)
            for file in group
            for part in published.byte_ranges(file)
        ]
        for split, group in files.items()
    }


def features(config: Config) -> Features:
    """Return the columns of a configuration."""
    from augesc_builder.tables import ESCONV, SESSIONS, SESSIONS_AND_REJECTED

    if config.name in {"esconv", "sample"}:
        return ESCONV
    return SESSIONS_AND_REJECTED if config.rejected else SESSIONS


def citation(name: str) -> str:
    """Return the BibTeX entries of what a configuration holds."""
    from augesc_builder.citations import cite

    keys = {"esconv": ["liu2021esconv"], "sample": ["zheng2022augesc"]}
    return cite(keys.get(name, ["zheng2022augesc", "liu2021esconv"]))


def _check(config: Config) -> None:
    """Refuse options that the configuration has no use for."""
    uses = {
        "published": {"data_dir", "data_files", "revision"},
        "esconv": {"data_dir", "data_files", "revision"},
        "regenerated": {"recipe", "set", "work_dir", "rejected"},
        "sample": set[str](),
    }
    options = {option for group in uses.values() for option in group}
    for option in sorted(options - uses.get(config.name, options)):
        if getattr(config, option):
            homes = " and ".join(name for name, own in uses.items() if option in own)
            raise RecipeError(
                f"{option}= is an option of {homes}, and the configuration is {config.name}; "
                f"name the configuration, as in load_dataset('augesc', '{homes.split()[0]}', ...)"
            )


def _local_files(config: Config) -> dict[str, list[Path]]:
    """Return the user's own files by split, where some are named."""
    if config.data_files:
        return {
            str(split): [Path(file) for file in files] for split, files in config.data_files.items()
        }
    if config.data_dir is None:
        return {}
    folder = Path(config.data_dir).expanduser()
    if config.name == "esconv":
        from augesc_builder.sources.esconv import esconv_files

        return {split: [file] for split, file in esconv_files(folder, "").items()}
    if not (folder / published.FILE).is_file():
        raise InputError(f"no {published.FILE} there; get it from {published.REPO}", folder)
    return {"train": [folder / published.FILE]}


def _recipe(config: Config) -> Recipe:
    given = config.set or ()
    if isinstance(given, str):
        given = [given]
    if isinstance(given, Mapping):
        given = [f"{key}={json.dumps(value)}" for key, value in given.items()]  # JSON is YAML
    return load_recipe(config.recipe or "tiny", given)


def _work_dir(config: Config) -> Path | None:
    return Path(config.work_dir).expanduser().resolve() if config.work_dir else None


def regenerate(config: Config, runs: Path, *, quiet: bool, dry_run: bool = False) -> Path:
    """Build what is not built yet of ``regenerated``, but for a ``dry_run``; return its folder."""
    from augesc_builder.pipeline.build import build
    from augesc_builder.run.progress import Progress

    recipe = _recipe(config)
    run = _work_dir(config) or runs / f"{recipe.name}-{_short_digest(_made_by(config))}"
    if not dry_run:
        build(recipe, run, Progress(quiet=quiet))
    elif not (run / layout.CORPUS).is_dir():
        raise InputError(f"not built yet, and --dry-run builds nothing; recipe {recipe.name}", run)
    return run


def _regenerated(config: Config, runs: Path) -> Readers:
    """Build what is not built yet, and hand back the sessions."""
    from datasets.utils import are_progress_bars_disabled

    run = regenerate(config, runs, quiet=are_progress_bars_disabled())
    found: Readers = {}
    for table in (layout.DATA, *((layout.REJECTED,) * config.rejected)):
        for file in parquet_files(layout.published_folder(run / layout.CORPUS, table)):
            if not pq.read_metadata(file).num_rows:
                continue
            if table == layout.DATA:
                split = layout.split_of_file(file)
                read = functools.partial(_read_kept, str(file), wide=config.rejected)
            else:
                split, read = "rejected", functools.partial(_read_rejected, str(file))
            found.setdefault(split, []).append(read)
    if "train" not in found:
        raise InputError(
            "no conversation met all requirements, so there is nothing to load; look at "
            "filter_report.json, and change the requirements with set={...}",
            run / layout.CORPUS,
        )
    return found


def _read_esconv(path: str, source: str) -> Iterator[pa.Table]:
    from augesc_builder.sources.esconv import read_esconv
    from augesc_builder.tables import ESCONV, to_table

    rows = [{**vars(session), "source": source} for session in read_esconv(path)]
    for start in range(0, len(rows), _BATCH):
        yield to_table(rows[start : start + _BATCH], ESCONV)


def _read_kept(path: str, *, wide: bool) -> Iterator[pa.Table]:
    from augesc_builder.tables import SESSIONS, SESSIONS_AND_REJECTED, to_table

    for batch in pq.ParquetFile(path).iter_batches(batch_size=_BATCH):
        rows = batch.to_pylist()
        if wide:
            yield to_table(({**row, "violations": []} for row in rows), SESSIONS_AND_REJECTED)
        else:
            yield to_table(rows, SESSIONS)


def _read_rejected(path: str) -> Iterator[pa.Table]:
    """Read rejected texts; their ``messages`` are null where the text is no conversation."""
    from augesc_builder.tables import SESSIONS_AND_REJECTED, to_table
    from augesc_builder.text.prompts import PLAIN

    for batch in pq.ParquetFile(path).iter_batches(batch_size=_BATCH):
        yield to_table(
            (
                {
                    "session_id": f"{row['query_id']}-{row['sample']}",
                    "source": row["source"],
                    "query_id": row["query_id"],
                    "messages": PLAIN.parse(PLAIN.for_query(row["query"]) + row["text"]),
                    "n_tokens": row["n_prompt_tokens"] + row["n_tokens"],
                    "text": row["text"],
                    "background": row.get("background"),
                    "persona": row.get("persona"),
                    "strategies": row.get("strategies"),
                    "emotion": row.get("emotion"),
                    "subreddit": row.get("subreddit"),
                    "violations": row["violations"],
                }
                for row in batch.to_pylist()
            ),
            SESSIONS_AND_REJECTED,
        )
