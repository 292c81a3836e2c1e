"""The house: which room may import which, no cycle, and no room too large.

The floors stand in CONTRIBUTING, lowest first; an import goes down or stays in its room. Imports
inside functions count as well: they say what depends on what, only later.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = "augesc_builder"
LONGEST = 350


def floors() -> list[list[str]]:
    """Give the rooms of every floor that CONTRIBUTING lists, from the ground."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    block = re.search(r"```floors\n(.*?)```", text, re.DOTALL)
    assert block, "CONTRIBUTING lists the floors in a block ```floors"
    return [line.split() for line in block[1].splitlines()]


def modules() -> dict[str, Path]:
    """Give every module by its dotted name: the package, augesc.py and the benchmarks."""
    files = [*ROOT.glob(f"{PACKAGE}/**/*.py"), ROOT / "augesc.py", *ROOT.glob("benchmarks/*.py")]
    names = {}
    for path in files:
        parts = path.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imports(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """Give the modules of ours that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        found = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in found:
            parts = name.split(".")
            longest = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
            yield from (prefix for prefix in islice(filter(known.__contains__, longest), 1))


def graph() -> dict[str, set[str]]:
    known = modules()
    return {name: set(imports(path, known)) - {name, PACKAGE} for name, path in known.items()}


def floor_of(module: str, rooms: dict[str, int]) -> int | None:
    """Give the floor of a module, by the room that it stands in."""
    return rooms.get(module.removeprefix(f"{PACKAGE}.").split(".")[0])


def cycle(arrows: dict[str, set[str]]) -> list[str] | None:
    """Give a cycle of imports, if there is one."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str] | None:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return None
        for other in sorted(arrows.get(name, ())):
            if found := visit(other, [*path, name]):
                return found
        done.add(name)
        return None

    for name in sorted(arrows):
        if found := visit(name, []):
            return found
    return None


def test_every_module_stands_on_a_floor():
    rooms = {room: i for i, floor in enumerate(floors()) for room in floor}
    entries = {
        path.stem
        for path in (ROOT / PACKAGE).iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    } - {"__init__", "__main__"}
    assert entries <= set(rooms), "name the new room in CONTRIBUTING's floors"


def test_imports_go_down_or_stay_in_their_room():
    rooms = {room: i for i, floor in enumerate(floors()) for room in floor}
    upward = []
    for name, others in graph().items():
        here = floor_of(name, rooms)
        for other in others:
            there = floor_of(other, rooms)
            same = name.split(".")[:2] == other.split(".")[:2]
            if here is not None and there is not None and there >= here and not same:
                upward.append(f"{name} -> {other}")
    allowed = {f"{PACKAGE}.__main__"}
    assert [arrow for arrow in sorted(upward) if arrow.split(" ")[0] not in allowed] == []


def test_no_import_cycle():
    assert cycle(graph()) is None


def test_a_cycle_and_an_upward_arrow_would_be_found():
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]
    assert cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None


@pytest.mark.parametrize("path", modules().values(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_is_too_long(path):
    assert len(path.read_text().splitlines()) <= LONGEST


def test_the_stages_are_the_folders_of_the_pipeline():
    from augesc_builder.pipeline.build import STAGES
    from augesc_builder.run import layout

    assert tuple(STAGES) == layout.STAGES
    folders = {path.parent.name for path in (ROOT / PACKAGE / "pipeline").glob("*/stage.py")}
    assert folders == set(STAGES)
    for name in folders:
        text = (ROOT / PACKAGE / "pipeline" / name / "stage.py").read_text()
        assert re.search(r"^def run\(", text, re.MULTILINE)
        assert re.search(r"^def standalone\(", text, re.MULTILINE)


def test_names_on_disk_stand_in_one_place():
    """No other module spells the name of a file or folder of a run."""
    names = (
        *(
            "manifest.json",
            "recipe.yaml",
            ".complete",
            ".status.json",
            "filter_report.json",
            "filter_report.md",
        ),
        *("safety_report.json", "safety_review.json", "statistics.json", "queries_report.json"),
        *("training.json", "config.yaml", "curve.jsonl", "evaluation.json", "responses.jsonl"),
        *("corpus/data/*.parquet", "data/*.parquet", "generations/*.parquet"),
    )
    spelled = []
    for name, path in modules().items():
        if not name.startswith(PACKAGE) or name == f"{PACKAGE}.run.layout":
            continue
        nodes = ast.walk(ast.parse(path.read_text()))
        found = [n.value for n in nodes if isinstance(n, ast.Constant) and n.value in names]
        spelled += [f"{name}: {value}" for value in found]
    assert spelled == []


def test_outside_code_may_hold_these_paths():
    """Public import paths that stay, whatever moves."""
    import augesc
    from augesc_builder import metrics

    for name in augesc.__all__:
        assert getattr(augesc, name) is not None
    folders = {path.parent.name for path in Path(metrics.__file__).parent.glob("*/counts.py")}
    assert folders == {
        *("consistency", "duplication", "informativeness", "lexical_diversity", "novelty"),
        *("overlap", "query_effect", "session_statistics", "support_strategies"),
        *("topic_correlates", "topic_drift", "vendi"),
    }
