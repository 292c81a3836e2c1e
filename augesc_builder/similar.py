"""Optional eyes on posts: near-duplicates by MinHash, names and places by presidio."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from augesc_builder.errors import CheckpointError, MissingExtraError
from augesc_builder.settings import NearDuplicates

_WORD = re.compile(r"\w+")
_ENTITIES = ("PERSON", "LOCATION")


class NearDuplicateIndex:
    """Remembers texts, and says which are like one it knows.

    Approximate, as MinHash is: the standard error of the estimated Jaccard similarity falls with
    the square root of the number of permutations.
    """

    def __init__(self, settings: NearDuplicates) -> None:
        try:
            import datasketch
        except ImportError:
            raise MissingExtraError(
                "queries.near_duplicates needs datasketch: pip install "
                "'augesc-builder[near-duplicates]'"
            ) from None
        self._datasketch = datasketch
        self._settings = settings
        self._index = datasketch.MinHashLSH(settings.threshold, settings.permutations)
        self._sketches: list[Any] = []

    def seen(self, text: str) -> bool:
        """Say whether a text is like one remembered; remember it if not."""
        sketch = self._sketch(text)
        for other in self._index.query(sketch):
            if sketch.jaccard(self._sketches[other]) >= self._settings.threshold:
                return True
        self._index.insert(len(self._sketches), sketch)
        self._sketches.append(sketch)
        return False

    def _sketch(self, text: str) -> Any:
        words, size = _WORD.findall(text.casefold()), self._settings.shingle
        shingles = {" ".join(words[i : i + size]) for i in range(max(1, len(words) - size + 1))}
        sketch = self._datasketch.MinHash(self._settings.permutations)
        sketch.update_batch([shingle.encode() for shingle in shingles])
        return sketch


class NameFinder:
    """Finds names of people and places with presidio and a spaCy model, by name or folder."""

    def __init__(self, model: str) -> None:
        try:
            import spacy
            from presidio_analyzer import AnalyzerEngine
            from presidio_analyzer.nlp_engine import NlpEngineProvider
        except ImportError:
            raise MissingExtraError(
                "queries.names_and_places needs presidio: pip install "
                "'augesc-builder[names-and-places]'"
            ) from None
        if not Path(model).is_dir() and not spacy.util.is_package(model):
            raise CheckpointError(
                f"spaCy has no model {model}: python -m spacy download {model}, or give its folder"
            )
        setup = {
            "nlp_engine_name": "spacy",
            "models": [{"lang_code": "en", "model_name": model}],
        }
        engine = NlpEngineProvider(nlp_configuration=setup).create_engine()
        self._analyzer = AnalyzerEngine(nlp_engine=engine)

    def finds(self, text: str) -> bool:
        """Say whether a text names a person or a place."""
        return bool(self._analyzer.analyze(text=text, entities=list(_ENTITIES), language="en"))
