from __future__ import annotations

import pytest

from augesc_builder.human_evaluation.store import Store
from tests.human_evaluation.studies import Clock, make_study


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def study(tmp_path):
    """Four sessions of each of three corpora, three people each, four a person: nine people."""
    return make_study(tmp_path / "study")


@pytest.fixture
def store(study, clock):
    with Store.open(study, clock) as opened:
        yield opened
