"""The metadata in front of a card, and how a card is merged with one that is on the Hub already."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from augesc_builder.errors import InputError
from augesc_builder.run import layout
from augesc_builder.run.layout import published_folder, split_of_file
from augesc_builder.sources.base import SourceInfo

BEGIN = "<!-- augesc: begin. This part is written by the run; what stands outside it is kept. -->"
END = "<!-- augesc: end -->"

CONFIGS = {
    **{"default": layout.DATA, "rejected": layout.REJECTED},
    **{"not_selected": layout.NOT_SELECTED, "failed": layout.FAILED},
}
"""The table of each configuration; the last two are there where rows are in them."""


def metadata(
    pretty_name: str, licence: str, made_of: Sequence[SourceInfo], corpus: Path
) -> dict[str, Any]:
    """Return the Hub's metadata.

    ``datasets`` keys its cache of a local folder by the card's configurations and never looks at
    the files, so that two corpora with the same patterns would be taken for one. The digest in
    each description keeps them apart.
    """
    always = {"default", "rejected"}
    folders = {
        name: published_folder(corpus, table)
        for name, table in CONFIGS.items()
        if name in always or layout.parquet_files(corpus / table)
    }
    infos = {name: dataset_info(name, folder) for name, folder in folders.items()}
    counts = {
        name: sum(split["num_examples"] for split in info["splits"]) for name, info in infos.items()
    }
    n = counts["default"]
    sizes = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}
    # `datasets` cannot load a split of nothing.
    loadable = [name for name, count in counts.items() if count]
    return {
        "language": ["en"],
        "license": licence,
        "pretty_name": pretty_name,
        "annotations_creators": ["machine-generated"],
        "language_creators": ["machine-generated"],
        "source_datasets": sorted({info.dataset for info in made_of if info.dataset})
        or ["original"],
        "task_categories": ["text-generation"],
        "tags": ["synthetic", "conversational", "emotional-support"],
        "size_categories": [next((s for limit, s in sizes.items() if n < limit), "1M<n<10M")],
        "configs": [
            {
                "config_name": name,
                **({"default": True} if name == "default" else {}),
                "description": f"content {digest(folder)}",
                "data_files": [
                    {"split": split["name"], "path": f"{folder.name}/{split['name']}-*.parquet"}
                    for split in infos[name]["splits"]
                ],
            }
            for name, folder in folders.items()
            if name in loadable or name == "default"
        ],
        "dataset_info": [infos[name] for name in loadable],
    }


def digest(folder: Path) -> str:
    """Return a digest of a table's files."""
    running = hashlib.sha256()
    for path in layout.parquet_files(folder):
        running.update(path.read_bytes())
    return running.hexdigest()[:16]


def dataset_info(name: str, folder: Path) -> dict[str, Any]:
    """Describe a table as ``datasets`` does, in the words that all its versions read.

    Raises :class:`~augesc_builder.errors.InputError` where there are no files.
    """
    files = layout.parquet_files(folder)
    if not files:
        raise InputError("no Parquet files there; run the filter stage first", folder)
    splits = [
        {
            "name": name,
            "num_bytes": sum(
                batch.nbytes for file in own for batch in pq.ParquetFile(file).iter_batches()
            ),
            "num_examples": sum(pq.read_metadata(file).num_rows for file in own),
        }
        for name in layout.SPLITS
        if (own := [file for file in files if split_of_file(file) == name])
    ]
    return {
        "config_name": name,
        "features": _features(pq.read_schema(files[0])),
        "splits": splits,
        "download_size": sum(file.stat().st_size for file in files),
        "dataset_size": sum(split["num_bytes"] for split in splits),
    }


def _features(fields: pa.Schema | pa.StructType) -> list[dict[str, Any]]:
    return [{"name": field.name, **_feature(field.type)} for field in fields]


def _feature(kind: pa.DataType) -> dict[str, Any]:
    """Write a type; a list of records is ``list``, which every version reads."""
    if not pa.types.is_list(kind):
        return {"dtype": str(kind)}
    inner = kind.value_type
    return {"list": _features(inner) if pa.types.is_struct(inner) else str(inner)}


def merge_cards(ours: str, theirs: str | None) -> str:
    """Lay our card over one that is on the Hub.

    Ours win for the keys that we write; their other keys stay, and so do languages, tags and
    configurations of theirs that are none of ours. Text outside our marks stays where it is; a card
    without marks keeps its text in front of ours.
    """
    if theirs is None:
        return ours
    new, body = split_card(ours)
    old, old_body = split_card(theirs)
    merged = {**old, **new}
    for key in ("language", "tags", "task_categories"):
        merged[key] = list(dict.fromkeys([*_list(new.get(key)), *_list(old.get(key))]))
    known = set(CONFIGS)
    strangers = [c for c in _list(old.get("configs")) if c.get("config_name") not in known]
    merged["configs"] = [*new["configs"], *strangers]
    names = {config["config_name"] for config in strangers}
    infos = [i for i in _list(old.get("dataset_info")) if i.get("config_name") in names]
    merged["dataset_info"] = [*new["dataset_info"], *infos]
    return join_card(merged, merge_bodies(body, old_body))


def split_card(card: str) -> tuple[dict[str, Any], str]:
    """Part a card into its metadata and its text.

    Raises :class:`~augesc_builder.errors.InputError` for metadata that is not YAML.
    """
    if not card.startswith("---\n"):
        return {}, card
    head, _, body = card[3:].partition("\n---")
    try:
        values = yaml.safe_load(head)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"its metadata is not YAML ({reason}); mend it", "README.md") from None
    if values is not None and not isinstance(values, dict):
        raise InputError("its metadata must be keys and values; mend it", "README.md")
    return values or {}, body.lstrip("\n")


def join_card(values: Mapping[str, Any], body: str) -> str:
    """Write metadata and text as a card."""
    head = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True).strip()
    return f"---\n{head}\n---\n{body}"


def merge_bodies(ours: str, theirs: str) -> str:
    """Put our marked part where theirs has one, or behind their text."""
    mine = ours[ours.index(BEGIN) : ours.index(END) + len(END)]
    if BEGIN in theirs and END in theirs:
        before, after = theirs[: theirs.index(BEGIN)], theirs[theirs.index(END) + len(END) :]
        return f"{before}{mine}{after}"
    return f"{theirs.rstrip()}\n\n{mine}\n" if theirs.strip() else f"{mine}\n"


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
