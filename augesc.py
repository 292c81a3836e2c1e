"""AugESC, a corpus of emotional support conversations: load it, regenerate it, or make your own.

::

    import augesc
    from datasets import load_dataset

    load_dataset("augesc")                                         # as published
    load_dataset("augesc", "sample")                               # bundled, no download
    load_dataset("augesc", "regenerated", recipe="quickstart")     # made here, now

    recipe = augesc.load_recipe("quickstart")
    augesc.build(recipe, "corpus-quickstart")

This file serves every ``datasets`` from 3.6 on. Importing it makes ``load_dataset("augesc")`` find
the builder; on 3.6 it is also the loading script: ``load_dataset("./augesc.py",
trust_remote_code=True)``. :func:`load_dataset` here does the same with nothing but the public API.
Importing is light: no model library is loaded until a stage needs it.
"""

from __future__ import annotations

import functools
import hashlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from augesc_builder import __version__, builder_configs, tables
from augesc_builder.additions import register
from augesc_builder.config.base import BackendSettings, Section
from augesc_builder.config.recipe import Recipe, load_recipe, shipped_recipes
from augesc_builder.errors import AugescError
from augesc_builder.pipeline.build import build
from augesc_builder.pipeline.filter.functions import measure, meets, meets_requirements
from augesc_builder.pipeline.filter.requirements import Requirement
from augesc_builder.pipeline.generate.backends.base import Backend
from augesc_builder.sources import esconv, published, sample
from augesc_builder.sources.base import Post, Session, SourceInfo
from augesc_builder.text.prompts import PromptTemplate

__all__ = [
    "AugESC",
    "AugESCConfig",
    "AugescError",
    "Backend",
    "BackendSettings",
    "Post",
    "PromptTemplate",
    "Recipe",
    "Requirement",
    "Section",
    "Session",
    "SourceInfo",
    "__version__",
    "build",
    "load_dataset",
    "load_recipe",
    "measure",
    "meets",
    "meets_requirements",
    "register",
    "shipped_recipes",
]

VERSION = datasets.Version(__version__)

HOMEPAGE = "https://arxiv.org/abs/2202.13047"
NON_COMMERCIAL = "CC BY-NC 4.0"

_CODE = hashlib.sha256(
    b"".join(
        Path(str(file)).read_bytes()
        for file in (
            *(__file__, builder_configs.__file__, tables.__file__),
            *(published.__file__, esconv.__file__, sample.__file__),
        )
    )
).hexdigest()
"""Part of the cache's key: what other code wrote is not taken for ours."""


@dataclass
class AugESCConfig(datasets.BuilderConfig):  # type: ignore[misc]
    """A configuration: which sessions, and for ``regenerated`` how they are made.

    - ``revision``: of the Hub dataset, for ``published`` and ``esconv``
    - ``recipe``: a shipped recipe's name or a file
    - ``set``: overrides, as ``{"key.path": value}`` or ``["key.path=value"]``
    - ``work_dir``: where the run is; by default below the cache of ``datasets``. What is there is
      resumed.
    - ``rejected``: give the rejected texts too, as a split of that name, and two columns more for
      both: ``text`` and ``violations``

    ``data_dir`` and ``data_files`` name local copies, for ``published`` and ``esconv``.
    """

    version: datasets.Version | str | None = VERSION
    license: str = NON_COMMERCIAL
    revision: str | None = None
    recipe: str | None = None
    set: Mapping[str, Any] | Sequence[str] | None = None
    work_dir: str | None = None
    rejected: bool = False

    def create_config_id(
        self, config_kwargs: dict[str, Any], custom_features: datasets.Features | None = None
    ) -> str:
        """Name the cache by what is loaded: the files' content, or the recipe's settings."""
        named = {
            key: value
            for key, value in config_kwargs.items()
            if key not in builder_configs.IN_THE_CONTENT
        }
        if (content := builder_configs.content_of(self)) is not None:
            named["content"] = content
        return str(super().create_config_id(named, custom_features))


class AugESC(datasets.ArrowBasedBuilder):  # type: ignore[misc]
    """Builder of the four configurations.

    All have the features of ``tables.SESSIONS``; ``esconv`` and ``sample``, which people wrote, the
    labels of ``tables.ESCONV`` too.
    """

    VERSION = VERSION
    BUILDER_CONFIG_CLASS = AugESCConfig
    BUILDER_CONFIGS = [  # noqa: RUF012 - the library's name and form
        AugESCConfig(
            name="published",
            revision=published.REVISION,
            description="The corpus as its authors published it (thu-coai/augesc on the Hub): some "
            "65,000 sessions, without saying which are from ED and which from Reddit. The paper "
            "counts 102K.",
        ),
        AugESCConfig(
            name="regenerated",
            recipe="tiny",
            description="Made on this machine by a recipe; its licence is in the run's card.",
        ),
        AugESCConfig(
            name="sample",
            license="Apache-2.0",
            description="100 sessions written for this project, bundled; no research corpus.",
        ),
        AugESCConfig(
            name="esconv",
            revision="main",
            description="ESConv (thu-coai/esconv) with its labels, from the seeker's first "
            "utterance on.",
        ),
    ]
    DEFAULT_CONFIG_NAME = "published"

    def __init__(
        self,
        cache_dir: str | None = None,
        dataset_name: str | None = None,
        config_name: str | None = None,
        hash: str | None = None,
        **options: Any,
    ) -> None:
        if not options.get("data_files"):  # none, as _be_found has it for `datasets`
            options.pop("data_files", None)
        self._runs = builder_configs.runs_in(cache_dir or datasets.config.HF_DATASETS_CACHE)
        super().__init__(cache_dir, dataset_name, config_name, hash or _CODE, **options)

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description=self.config.description,
            features=builder_configs.features(self.config),
            homepage=HOMEPAGE,
            license=self.config.license,
            citation=builder_configs.citation(self.config.name),
        )

    def _split_generators(self, _: Any) -> list[datasets.SplitGenerator]:
        return [
            datasets.SplitGenerator(name=split, gen_kwargs={"readers": readers})
            for split, readers in builder_configs.splits_of(self.config, self._runs).items()
        ]

    def _generate_tables(
        self, readers: list[functools.partial[Iterator[pa.Table]]]
    ) -> Iterator[tuple[str, pa.Table]]:
        for i, read in enumerate(readers):
            for j, table in enumerate(read()):
                yield f"{i}_{j}", table


def load_dataset(
    name: str | None = None,
    *,
    split: str | None = None,
    streaming: bool = False,
    num_proc: int | None = None,
    cache_dir: str | None = None,
    **options: Any,
) -> Any:
    """Load a configuration as ``datasets.load_dataset("augesc", name)`` does, by public API only.

    ``options`` are those of :class:`AugESCConfig`, ``data_dir`` and ``data_files``. An error of
    ours is raised as itself, not wrapped.
    """
    builder = AugESC(cache_dir=cache_dir, config_name=name, **options)
    if streaming:
        return builder.as_streaming_dataset(split=split)
    try:
        builder.download_and_prepare(num_proc=num_proc)
    except datasets.exceptions.DatasetGenerationError as error:
        if isinstance(error.__cause__, AugescError):
            raise error.__cause__ from None
        raise
    return builder.as_dataset(split=split)


def _be_found() -> None:
    """Let ``datasets.load_dataset("augesc")`` find this module; all use of private names is here.

    ``datasets`` has no registry. It looks into a private table of its own modules first, and the
    factory behind that table takes for data whatever lies in the working directory, unless told
    which files to read.
    """
    try:
        from datasets.load import (
            _PACKAGED_DATASETS_MODULES,
            DataFilesDict,
            DatasetModule,
            PackagedDatasetModuleFactory,
        )

        get_module: Callable[[Any], Any] = PackagedDatasetModuleFactory.get_module
    except (ImportError, AttributeError) as error:
        warnings.warn(
            f"datasets {datasets.__version__} lets nobody add a dataset by name ({error}), so "
            f'load_dataset("augesc") will not find this one; use augesc.load_dataset(...) instead',
            stacklevel=2,
        )
        return

    @functools.wraps(get_module)
    def without_the_working_directory(self: Any) -> Any:
        if self.name != "augesc" or self.data_files is not None:
            return get_module(self)
        # None for the files is refused by the library; our builder takes no files for none.
        found = {"data_files": DataFilesDict(), "dataset_name": "augesc"}
        return DatasetModule("augesc", _CODE, found)

    _PACKAGED_DATASETS_MODULES["augesc"] = ("augesc", _CODE)
    PackagedDatasetModuleFactory.get_module = without_the_working_directory


if __name__ == "augesc":  # not when `datasets` 3.6 runs a copy of this file as a loading script
    _be_found()
