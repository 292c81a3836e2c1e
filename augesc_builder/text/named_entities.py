"""Names of people and places in posts, found by presidio (optional)."""

from __future__ import annotations

from pathlib import Path

from augesc_builder.errors import CheckpointError, MissingExtraError, install_extra

_ENTITIES = ("PERSON", "LOCATION")


class NameFinder:
    """Finds names of people and places with presidio and a spaCy model, by name or folder.

    Raises :class:`~augesc_builder.errors.MissingExtraError` without presidio, and
    :class:`~augesc_builder.errors.CheckpointError` without the model, or where it is none.
    """

    def __init__(self, model: str) -> None:
        try:
            import spacy
            from presidio_analyzer import AnalyzerEngine
            from presidio_analyzer.nlp_engine import NlpEngineProvider
        except ImportError:
            raise MissingExtraError(
                f"queries.names_and_places needs presidio: {install_extra('names-and-places')}"
            ) from None
        if not Path(model).is_dir() and not spacy.util.is_package(model):
            raise CheckpointError(
                f"spaCy has no model {model}: python -m spacy download {model}, or give its folder"
            )
        setup = {
            "nlp_engine_name": "spacy",
            "models": [{"lang_code": "en", "model_name": model}],
        }
        try:
            engine = NlpEngineProvider(nlp_configuration=setup).create_engine()
        except (OSError, ValueError, LookupError) as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(
                f"{model}: not a folder of a spaCy model ({reason}); give one that `nlp.to_disk` "
                f"wrote"
            ) from None
        self._analyzer = AnalyzerEngine(nlp_engine=engine)

    def finds(self, text: str) -> bool:
        """Whether a text names a person or a place."""
        return bool(self._analyzer.analyze(text=text, entities=list(_ENTITIES), language="en"))
