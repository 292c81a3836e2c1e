"""Figures: whole, the same each time, legible with one, two and five sets, whatever the words."""

from __future__ import annotations

import json
import struct
from xml.etree import ElementTree

import matplotlib.image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from augesc_builder.metrics.tokenized import spoken
from augesc_builder.pipeline.statistics import figures
from augesc_builder.pipeline.statistics.drawing import label
from augesc_builder.pipeline.statistics.measure import Counts, Measuring, statistics
from augesc_builder.sources.sessions import iterate_sessions
from tests.conftest import shared

FIGURES = ("session_statistics", "lexical_diversity", "query_effect", "duplication")


@pytest.fixture(scope="module")
def measured():
    """Measure so many sets of ESConv's sessions."""
    sessions = [list(m) for _, m in iterate_sessions(shared("esconv/test.txt"))]

    def measure(n_sets):
        what = Measuring(trained_on=tuple(m["content"] for m in sessions[0]))
        columns = {}
        for i in range(n_sets):
            columns[f"set {i}"] = Counts(what)
            columns[f"set {i}"].add([spoken(s) for s in sessions[i::n_sets]])
        return statistics(columns, what)

    return measure


@pytest.mark.parametrize("n_sets", [1, 2, pytest.param(5, marks=pytest.mark.slow)])
def test_no_panel_is_left_empty_and_every_set_is_named(measured, tmp_path, n_sets):
    figures.draw(measured(n_sets), tmp_path)
    names = {*FIGURES, "novelty"} | ({"topic_correlates"} if n_sets > 1 else set())
    assert {path.stem for path in tmp_path.iterdir()} == names
    for name in names:
        svg = ElementTree.parse(tmp_path / f"{name}.svg")
        texts = [element.text or "" for element in svg.iter() if element.tag.endswith("text")]
        shown = {i for i in range(n_sets) if any(f"set {i}" in text for text in texts)}
        assert shown == set(range(n_sets)) or (n_sets == 1 and name != "query_effect")
        picture = matplotlib.image.imread(tmp_path / f"{name}.png")[:, :, :3]
        if n_sets == 1 or name != "query_effect":  # five panels in two rows leave a place
            height, width = picture.shape[:2]
            right = picture[: int(0.7 * height), int(0.6 * width) :]
            assert (right.min(axis=2) < 0.8).any(), f"{name}: its right is empty"


def test_the_effect_of_queries_fills_its_axis(measured):
    columns = {n: part["query_effect"] for n, part in measured(1)["by_source"].items()}
    figure = figures._query_effect(columns, {"before_filtering": True})
    (ax,) = figure.get_axes()
    low, high = ax.get_ylim()
    means = [b["mean"] for b in columns["set 0"]["bins"] if b["sessions"] >= 10]
    spread = [b["sd"] for b in columns["set 0"]["bins"] if b["sessions"] >= 10]
    assert 0 < low < min(means)
    assert max(means) < high < max(means) + 2 * max(spread)
    assert "before any filtering" in figure.get_supxlabel()
    for count_query, said in ((False, "without the query"), (True, "with the query")):
        figure = figures._query_effect(columns, {"count_query": count_query})
        assert f"mean utterance lengths ({said})" in " ".join(figure.get_supxlabel().split())


def test_a_set_more_is_a_curve_more_and_a_set_alone_is_bars(measured):
    for n_sets in (1, 2):
        figure = figures.session_statistics(measured(n_sets)["by_source"])
        assert len(figure.get_axes()) == 4  # two distributions of each role
        for ax in figure.get_axes():
            assert len(ax.get_lines()) == (0 if n_sets == 1 else n_sets)
            assert bool(ax.patches) is (n_sets == 1)
            drawn = [bar.get_height() for bar in ax.patches]
            drawn += [share for line in ax.get_lines() for share in line.get_ydata()]
            low, high = ax.get_ylim()
            assert low == 0
            assert max(drawn) <= high


def test_shares_of_a_distribution_are_those_of_the_histogram(measured):
    found = measured(1)["by_source"]
    figure = figures.session_statistics(found)
    for ax in figure.get_axes():
        heights = [bar.get_height() for bar in ax.patches]
        assert 99 <= sum(heights) <= 100.001  # the last of a hundred are not shown


def test_figures_are_the_same_each_time_and_survive_odd_words(tmp_path, built):
    found = json.loads((built / "corpus" / "statistics.json").read_text())
    odd = {"a $x_1$ set": "sample", "_hidden": "sample", "\x1b[31m\x00\u202e\ud800": "sample"}
    for name, like in odd.items():
        found["by_source"][name] = found["by_source"][like]
    words = [["$\\frac", 3.0], ["\U0001f622\u4f60", 2.0], ["<b>&", 1.0], ["\x0b\ufffe]]>", 0.5]]
    found["topic_correlates"] = {
        name: {"seeker": words, "supporter": []} for name in ("sample", *odd)
    }
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        figures.draw(found, tmp_path / folder)
    for name in {*FIGURES, "novelty", "topic_correlates"}:
        file = tmp_path / "one" / f"{name}.svg"
        assert file.read_text() == (tmp_path / "two" / f"{name}.svg").read_text()
        texts = "".join(e.text or "" for e in ElementTree.parse(file).iter())
        assert "_hidden" in texts
        assert "a $x_1$ set" in texts
        png = (tmp_path / "one" / f"{name}.png").read_bytes()
        width, height = struct.unpack(">II", png[16:24])
        assert width > 600
        assert height > 300
    assert "&lt;b&gt;&amp;" in (tmp_path / "one" / "topic_correlates.svg").read_text()


@given(st.text())
@pytest.mark.hypothesis
def test_labels_are_lines_that_xml_allows(text):
    shown = label(text)
    assert shown.strip()
    assert len(shown.splitlines()) == 1
    assert not shown.startswith("_")
    ElementTree.fromstring(f"<a>{shown.replace('&', '').replace('<', '')}</a>")
