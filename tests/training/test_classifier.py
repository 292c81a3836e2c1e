"""Training of classifiers: what they read, how they resume, and what is refused."""

from __future__ import annotations

import pytest
from transformers import pipeline

from augesc_builder.config.training import load_config
from augesc_builder.dialog.folder import find_model
from augesc_builder.dialog.labelled import read_labelled
from augesc_builder.models.sequence_classifier import (
    SequenceClassifier,
)
from augesc_builder.run.progress import Progress
from augesc_builder.training.run import train
from tests import classifiers


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return classifiers.causal_backbone(tmp_path_factory.mktemp("backbone") / "model")


@pytest.fixture(scope="module")
def moods(tmp_path_factory):
    """A file of pairs whose label is plain from one word of the second text."""
    return classifiers.moods(tmp_path_factory.mktemp("moods") / "moods.tsv")


def config_for(backbone, path, *overrides):
    return load_config(
        "strategies",
        [
            f"model.name={backbone}",
            f"data.validation=[{{path: '{path}', weight: 0.25}}]",
            f"phases.first={{sessions: ['{path}'], epochs: 4, learning_rate: 0.01, "
            "warmup_steps: 2}",
            "examples.max_source_tokens=48",
            "train.batch_size=8",
            "train.mixed_precision=no",
            "train.evaluate_every=8",
            "train.patience=null",
            "machine.micro_batch_size=8",
            "machine.save_every=3",
            "machine.keep_checkpoints=null",
            "machine.trackers=[]",
            *overrides,
        ],
    )


@pytest.fixture(scope="module")
def trained(backbone, moods, tmp_path_factory):
    out = tmp_path_factory.mktemp("classifier") / "run"
    train(config_for(backbone, moods), out, Progress(quiet=True))
    return out


def test_it_learns_and_its_folder_is_one_of_transformers(trained, moods):
    classifier = SequenceClassifier(find_model(str(trained)))
    assert classifier.labels == ("glad", "sad")
    rows = read_labelled(str(moods), load_config("tiny").data, load_config("tiny").examples)
    found = classifier.probabilities([(row.text, row.text_pair) for row in rows], 7)
    assert found.sum(1) == pytest.approx(1)
    right = [classifier.labels[i] == row.label for i, row in zip(found.argmax(1), rows)]
    assert sum(right) / len(right) > 0.95
    plain = pipeline("text-classification", model=find_model(str(trained)), device="cpu")
    for row, probabilities in zip(rows[:8], found[:8], strict=True):
        said = plain({"text": row.text, "text_pair": row.text_pair})
        said = said[0] if isinstance(said, list) else said
        assert said["label"] == classifier.labels[probabilities.argmax()]
        assert said["score"] == pytest.approx(probabilities.max(), abs=1e-4)
