"""A corpus in Croissant 1.1, the format of MLCommons: its files, its columns, how it was generated.

How is said by PROV-O (the activities, what each used, who did it) and by Croissant's vocabulary for
responsible AI. The texts that a card has too come from the same functions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from augesc_builder import __version__
from augesc_builder.citations import cite
from augesc_builder.config.recipe import load_recipe
from augesc_builder.pipeline.card.ingredients import ingredients, sources_of, terms_text
from augesc_builder.pipeline.card.metadata import CONFIGS
from augesc_builder.pipeline.card.public import PublicRun
from augesc_builder.pipeline.card.quality import describe_measures
from augesc_builder.pipeline.card.render import (
    describe_draws,
    describe_finetuning,
    describe_generation,
    describe_model,
    describe_triggers,
)
from augesc_builder.pipeline.generate.backends import backend_of
from augesc_builder.pipeline.generate.draws import BACKGROUNDS, RESAMPLED
from augesc_builder.pipeline.select.tables import selection_sentence
from augesc_builder.run import layout
from augesc_builder.run.disk import sha256
from augesc_builder.run.folder import read_manifest
from augesc_builder.run.layout import load_report, run_of
from augesc_builder.sources.base import SourceInfo

CONFORMS_TO = "http://mlcommons.org/croissant/1.1"

_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "prov": "http://www.w3.org/ns/prov#",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
    **{
        term: f"cr:{term}"
        for term in (
            *("arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "extract"),
            *("field", "fileObject", "fileProperty", "fileSet", "format", "includes", "isArray"),
            *("isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet"),
            *("references", "regex", "repeated", "replace", "samplingRate", "separator", "source"),
            *("subField", "transform"),
        )
    },
}
"""The names of the format, as its specification lists them, and PROV-O's."""

_URLS = {
    "apache-2.0": "https://www.apache.org/licenses/LICENSE-2.0",
    "cc-by-nc-4.0": "https://creativecommons.org/licenses/by-nc/4.0/",
}

_SPLITS = {"train": "cr:TrainingSplit", "validation": "cr:ValidationSplit", "test": "cr:TestSplit"}

_TYPES = {"string": "sc:Text", "int32": "cr:Int32", "int64": "cr:Int64", "double": "cr:Float64"}

_RESPONSIBLE = {
    "rai:dataCollectionType": ["Others"],
    "rai:hasSyntheticData": True,
    "rai:dataUseCases": [
        "Research on dialog models that listen and support, on how generated conversations differ "
        "from written ones, and on what filters of generated text let through."
    ],
    "rai:dataLimitations": [
        "Seekers contradict themselves, and supporters change the topic without reason; nobody "
        "with training in counseling has checked the conversations.",
        "Not for diagnosing or treating anybody, nor for systems that run without supervision.",
    ],
    "rai:dataBiases": ["Those of the model's training data and of the texts that triggered it."],
    "rai:dataSocialImpact": "A system that is trained on this may harm people in distress, unless "
    "people watch over it and it has means to notice danger.",
    "rai:personalSensitiveInformation": [
        "Conversations speak of distress; no real person said them, though people may have written "
        "the first utterance. Sessions with words of danger or personal data carry safety_flags."
    ],
    "rai:dataAnnotationProtocol": [
        "No person took part: programs measured every text and flagged sessions."
    ],
}


Step = tuple[str, str, str | None]
"""What was done to a corpus: a name, a description, and what it used."""


@dataclass(frozen=True)
class Origin:
    """How a corpus came about."""

    title: str
    made_of: Sequence[SourceInfo]
    steps: Sequence[Step]


def origin_of(corpus: Path) -> Origin:
    """Return how the corpus of a build or of ``augesc filter`` came about."""
    run = run_of(corpus)
    manifest = read_manifest(run)
    if run == corpus:
        told = manifest["card"]
        return Origin(
            told["title"],
            sources_of(corpus),
            [("generation", told["about"], None), _filtering(corpus)],
        )
    run_told = PublicRun.of(load_recipe(run / layout.RECIPE), manifest)
    recipe = run_told.recipe
    backend = backend_of(recipe)
    model = describe_model(run_told) if backend.needs_checkpoint else backend.model(recipe)
    steps: list[Step] = [("collection of triggers", describe_triggers(run_told), None)]
    if backend.needs_checkpoint:
        steps.append(("fine-tuning", describe_finetuning(run_told), model))
    if backgrounds := describe_draws(run_told, BACKGROUNDS):
        steps.append(("generation of backgrounds", backgrounds, model))
    steps.append(("generation", describe_generation(run_told), model))
    if resampled := describe_draws(run_told, RESAMPLED):
        steps.append(("generation of bad turns again", resampled, model))
    steps.append(_filtering(corpus))
    if recipe.select is not None:
        steps.append(("selection", selection_sentence(load_report(corpus, "select")), None))
    if measures := describe_measures(corpus, run_told):
        steps.append(("measuring quality", f"{measures}; nothing was rejected by it", None))
    return Origin(
        f"AugESC, regenerated ({recipe.name})", ingredients(recipe, run_told.manifest), steps
    )


def _filtering(corpus: Path) -> Step:
    report = load_report(corpus, "filter")
    failed = ", ".join(f"{name} {n['count']:,}" for name, n in report["violations"].items())
    said = f"{report['retained']:,} of {report['total']:,} texts met the requirements on form"
    return "filtering", f"{said}; failed: {failed}", None


def croissant(corpus: Path, card: Mapping[str, Any], url: str, date: str) -> str:
    """Return the file; ``card`` is the metadata of the corpus' card, ``url`` where it will be."""
    origin = origin_of(corpus)
    described = "; ".join(f"{name}: {what}" for name, what, _ in origin.steps)
    splits = dict.fromkeys(split for _, patterns in _patterns(card) for split in patterns)
    found = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": origin.title,
        "description": f"Emotional support conversations, machine-generated by the method of "
        f"AugESC (arXiv 2202.13047). {terms_text(origin.made_of)}".strip(),
        "url": url,
        "datePublished": date,
        "inLanguage": "en",
        "keywords": card.get("tags"),
        "license": _URLS.get(str(card.get("license")), card.get("license")),
        "creator": {"@type": "sc:Organization", "name": "The owner of the repository", "url": url},
        "citeAs": cite(["zheng2022augesc"]),
        "isLiveDataset": False,
        "prov:wasDerivedFrom": [_entity(info) for info in origin.made_of],
        "prov:wasGeneratedBy": [_activity(*step) for step in origin.steps],
        "rai:dataCollection": described,
        **_RESPONSIBLE,
        "rai:machineAnnotationTools": [f"augesc-builder {__version__}"],
        "distribution": list(_distribution(corpus, card, url)),
        "recordSet": [_split_names(list(splits)), *_record_sets(corpus, card)],
    }
    return _dump(found)


def keep_date(ours: str, theirs: str | None) -> str:
    """Let a corpus keep the date that it was first published at."""
    try:
        date = json.loads(theirs or "{}")["datePublished"]
        return _dump({**json.loads(ours), "datePublished": str(date)})
    except (ValueError, KeyError, TypeError, RecursionError):
        return ours


def _entity(info: SourceInfo) -> dict[str, str]:
    about = {"@id": f"https://huggingface.co/datasets/{info.repo}"} if info.repo else {}
    return {**about, "@type": "prov:Entity", "prov:label": info.label}


def _activity(name: str, what: str, used: str | None) -> dict[str, Any]:
    agent = {"@type": "prov:SoftwareAgent", "prov:label": f"augesc-builder {__version__}"}
    return {
        "@type": "prov:Activity",
        "prov:label": name,
        "description": what,
        "prov:wasAssociatedWith": agent,
        **({"prov:used": {"@type": "prov:Entity", "prov:label": used}} if used else {}),
    }


def _patterns(card: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each table of ours that the card names, with the pattern of each split's files."""
    for config in card.get("configs") or ():
        if config.get("config_name") in CONFIGS:
            files = config["data_files"]
            yield config["config_name"], {part["split"]: part["path"] for part in files}


def _distribution(corpus: Path, card: Mapping[str, Any], url: str) -> Iterator[dict[str, Any]]:
    yield {
        "@type": "cr:FileObject",
        "@id": "repo",
        "name": "repo",
        "description": "The repository on the Hub.",
        "contentUrl": f"{url}/tree/main",
        "encodingFormat": "git+https",
        "sha256": "https://github.com/mlcommons/croissant/issues/80",
    }
    for name, patterns in _patterns(card):
        yield {
            "@type": "cr:FileSet",
            "@id": f"files-{name}",
            "containedIn": {"@id": "repo"},
            "encodingFormat": "application/x-parquet",
            "includes": list(patterns.values()),
        }
        for path in (path for at in patterns.values() for path in sorted(corpus.glob(at))):
            at = path.relative_to(corpus).as_posix()
            yield {
                "@type": "cr:FileObject",
                "@id": at,
                "name": path.name,
                "containedIn": {"@id": "repo"},
                "contentUrl": at,
                "contentSize": f"{path.stat().st_size} B",
                "encodingFormat": "application/x-parquet",
                "sha256": sha256(path),
            }


def _split_names(splits: Sequence[str]) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": "splits",
        "dataType": "cr:Split",
        "key": {"@id": "splits/name"},
        "field": [
            {"@type": "cr:Field", "@id": "splits/name", "dataType": "sc:Text"},
            {"@type": "cr:Field", "@id": "splits/url", "dataType": "sc:URL"},
        ],
        "data": [{"splits/name": name, "splits/url": _SPLITS[name]} for name in splits],
    }


def _record_sets(corpus: Path, card: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name, patterns in _patterns(card):
        schema = pq.read_schema(next(path for at in patterns.values() for path in corpus.glob(at)))
        source = {"fileSet": {"@id": f"files-{name}"}}
        split = {
            "@type": "cr:Field",
            "@id": f"{name}/split",
            "dataType": "sc:Text",
            "source": {
                **source,
                "extract": {"fileProperty": "fullpath"},
                # What it gives is matched once more by readers, so that it must match too.
                "transform": {"regex": r"(?:.*/)?(\w+?)(?:-\d+-of-\d+\.parquet)?$"},
            },
            "references": {"field": {"@id": "splits/name"}},
        }
        yield {
            "@type": "cr:RecordSet",
            "@id": name,
            "field": [split, *(_field(name, column, source) for column in schema)],
        }


def _field(table: str, column: pa.Field, source: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a column; a list of records has a part for each of their fields."""
    name, kind = f"{table}/{column.name}", column.type
    found: dict[str, Any] = {"@type": "cr:Field", "@id": name}
    extract = {**source, "extract": {"column": column.name}}
    inner = kind.value_type if pa.types.is_list(kind) else kind
    if inner is not kind:
        found |= {"isArray": True, "arrayShape": "-1"}
    if not pa.types.is_struct(inner):
        return {**found, "dataType": _TYPES.get(str(inner), "sc:Text"), "source": extract}
    parts = [
        {
            "@type": "cr:Field",
            "@id": f"{name}/{part.name}",
            "dataType": _TYPES.get(str(part.type), "sc:Text"),
            "source": {**extract, "transform": {"jsonPath": part.name}},
        }
        for part in inner
    ]
    return {**found, "subField": parts}


def _dump(found: Mapping[str, Any]) -> str:
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"
