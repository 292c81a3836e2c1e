"""The measures of quality that a recipe names, with their models: which can be had, and made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from augesc_builder.config.backbone import Backbone
from augesc_builder.config.quality import MODEL_SECTIONS, MeasureName, Quality
from augesc_builder.config.recipe import load_recipe
from augesc_builder.errors import DownloadError, MissingExtraError, RecipeError
from augesc_builder.metrics.scored import Measure
from augesc_builder.metrics.topic_drift.scorers.base import Scorer
from augesc_builder.run import layout


def measures_of(settings: Quality, names: Sequence[MeasureName] | None = None) -> list[Measure]:
    """Make the measures of a section, or those of it that are named, and load their models.

    Raises :class:`~augesc_builder.errors.DownloadError` and
    :class:`~augesc_builder.errors.MissingExtraError` where a model cannot be had, and
    :class:`~augesc_builder.errors.CheckpointError` for one that does not fit its measure.
    """
    return [_MAKE[name](settings) for name in (settings.measures if names is None else names)]


def to_be_had(settings: Quality) -> dict[MeasureName, str]:
    """Return why measures cannot be taken: their models are not here, and the Hub does not answer.

    That the Hub knows no such model is a mistake, and raises
    :class:`~augesc_builder.errors.DownloadError`.
    """
    from augesc_builder.readers.hub import hub_answers

    missing: dict[MeasureName, str] = {}
    for name in settings.models():
        try:
            _look_for(name, settings)
        except MissingExtraError as error:
            missing[name] = str(error)
        except DownloadError as error:
            if hub_answers():
                raise
            missing[name] = str(error)
    return missing


def _look_for(name: MeasureName, settings: Quality) -> None:
    """See to it that the model of a measure is on this disk or in the cache: its config, at least.

    Raises :class:`~augesc_builder.errors.DownloadError` and
    :class:`~augesc_builder.errors.MissingExtraError` where it cannot be had.
    """
    from augesc_builder.readers.hub import download_file, resolve_model

    model, revision = settings.models()[name]
    if name == "topic_drift" and settings.topic_drift.scorer == "likelihood":
        _causal_model(settings)
        if settings.topic_drift.gguf_file is not None:
            return
    if not Path(model).is_dir():
        key = f"{MODEL_SECTIONS[name]}.model"
        commit = resolve_model(model, revision, key)
        hint = f"connect once, or give its folder with --set {key}=PATH"
        download_file(model, "config.json", commit, hint)


def distractor_files(settings: Quality) -> list[Path]:
    """Return the files of the sessions that distractors are drawn from.

    Raises :class:`~augesc_builder.errors.InputError` where there are none, and
    :class:`~augesc_builder.errors.DownloadError` for a source that cannot be had.
    """
    from augesc_builder.sources.registry import find_source
    from augesc_builder.sources.sessions import sessions_files

    where = settings.topic_drift.sessions
    source = find_source(where)
    if source is not None and source.session_files is not None:
        return source.session_files(None)
    return sessions_files(Path(where))


def own_judges(quality: Quality, corpora: Mapping[str, Sequence[Path]]) -> list[str]:
    """Return the corpora that were written by the model that scores how likely their turns are."""
    drift = quality.topic_drift
    if "topic_drift" not in quality.measures or drift.scorer != "likelihood":
        return []
    return [name for name, files in corpora.items() if str(drift.model) in _writers(files)]


def _writers(files: Sequence[Path]) -> set[str]:
    """Return the names of the model that a corpus was written with, as far as its build tells."""
    found: set[str] = set()
    for run in {file.parent.parent.parent for file in files}:
        if (run / layout.RECIPE).is_file():
            backbone = load_recipe(run / layout.RECIPE).backbone
            found |= {str(backbone.name), str(backbone.base_model), str(run / layout.CHECKPOINT)}
    return found


def _causal_model(settings: Quality) -> str | Path:
    """Return where the causal model of the drift scorer is loaded from.

    Raises :class:`~augesc_builder.errors.RecipeError` where its keys do not go together.
    """
    from augesc_builder.models.backbone import place_of

    drift = settings.topic_drift
    try:
        origin = Backbone(
            name=drift.model,
            revision=drift.revision,
            gguf_file=drift.gguf_file,
            sha256=drift.sha256,
            from_scratch=None,
        )
    except ValidationError as error:
        said = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise RecipeError(f"recipe: quality.topic_drift: {said}") from None
    return place_of(origin)


def _consistency(settings: Quality) -> Measure:
    from augesc_builder.metrics.consistency.measure import Consistency

    asked = settings.consistency.classifier
    if asked is None:
        return Consistency()
    from augesc_builder.pipeline.quality.pairs import PairsFrom

    return Consistency(PairsFrom(asked.model, asked.revision, asked.threshold))


def _topic_drift(settings: Quality) -> Measure:
    from augesc_builder.metrics.topic_drift.distractors import Distractors
    from augesc_builder.metrics.topic_drift.measure import TopicDrift
    from augesc_builder.sources.sessions import iterate_sessions

    drift = settings.topic_drift
    pool = Distractors.from_sessions(
        messages for file in distractor_files(settings) for _, messages in iterate_sessions(file)
    )
    return TopicDrift(
        _scorer(settings, pool.texts),
        pool,
        n=drift.distractors,
        threshold=drift.threshold,
        change=drift.change,
    )


def _scorer(settings: Quality, texts: Sequence[str]) -> Scorer:
    drift = settings.topic_drift
    if drift.scorer == "words":
        from augesc_builder.metrics.topic_drift.scorers.words import Words

        return Words(texts)
    if drift.scorer == "encoder":
        from augesc_builder.metrics.topic_drift.scorers.encoder import Encoder

        return Encoder.load(str(drift.model), revision=drift.revision, texts=texts)
    from augesc_builder.metrics.topic_drift.scorers.likelihood import Likelihood

    return Likelihood.load(
        _causal_model(settings), revision=drift.revision, label=drift.model, texts=texts
    )


def _informativeness(_: Quality) -> Measure:
    from augesc_builder.metrics.informativeness.measure import Informativeness

    return Informativeness()


def _support_strategies(settings: Quality) -> Measure:
    from augesc_builder.metrics.support_strategies.measure import SupportStrategies

    asked = settings.support_strategies
    return SupportStrategies(str(asked.model), asked.revision)


_MAKE: Mapping[MeasureName, Callable[[Quality], Measure]] = {
    "consistency": _consistency,
    "topic_drift": _topic_drift,
    "informativeness": _informativeness,
    "support_strategies": _support_strategies,
}
