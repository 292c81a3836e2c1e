"""README and docs: every command is one that exists, every block of Python runs, no link is broken.

A block of Python that must not run here has a comment in front: ``<!-- not run: REASON -->``. Those
that need files of the clone say ``<!-- from: clone -->``; the others run beside a finished build
called ``corpus-quickstart``. Blocks of a page are run one after the other in one process.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

import augesc as module
from augesc_builder.cli.app import app
from augesc_builder.config import training
from augesc_builder.config.recipe import Recipe, load_recipe
from augesc_builder.human_evaluation.settings import StudySettings, load_settings
from augesc_builder.simulation.settings import load_simulation
from tests.cli.wrong_calls import leaves
from tests.conftest import ROOT

DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", *DOCS.glob("**/*.md")])
PAGES = [page for page in PAGES if "_build" not in page.parts]
LINKED = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]

ENTRY_POINTS = "augesc.plugins"
"""Looks like a module, and is a group of entry points."""

COMMANDS = dict(leaves(typer.main.get_command(app)))
"""Commands by their words: those of a group are called ``study create``."""
FENCE = re.compile(r"(?:<!-- ([^\n]*) -->\n)?^```(\S*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(?<!`)`([^`\n]+(?:\n[^`\n]+)?)`(?!`)")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def on_pages(test):
    return pytest.mark.parametrize("page", PAGES, ids=name_of)(test)


def fences(page: Path, language: str) -> list[tuple[str, str]]:
    """Give the blocks of a language, each with the comment in front of it."""
    found = FENCE.findall(page.read_text())
    return [(comment, text) for comment, name, text in found if name == language]


def inline(page: Path) -> list[str]:
    prose = FENCE.sub("", page.read_text())
    return [" ".join(text.split()) for text in CODE.findall(prose)]


def shell_lines(page: Path) -> Iterator[list[str]]:
    """Give the words of every line in blocks without a language, but for drawings."""
    for _, block in fences(page, ""):
        if re.search("[─►]", block):
            continue
        for line in re.sub(r"\\\n", " ", block).splitlines():
            yield shlex.split(line, comments=True)


# -- commands -------------------------------------------------------------------------------------


@on_pages
def test_every_command_can_be_given(page):
    for words in shell_lines(page):
        if words:
            check_command(words)


@on_pages
def test_every_command_in_the_prose_can_be_given(page):
    for text in inline(page):
        if re.match(r"(augesc|make|python|pip|accelerate) \S", text):
            check_command(shlex.split(text), in_prose=True)
        elif text.startswith("--set "):
            check_overrides("build", [shlex.split(text)[1]])


def check_command(words: list[str], *, in_prose: bool = False) -> None:
    program, *rest = words
    if program == "augesc":
        check_augesc(rest, in_prose=in_prose)
    elif program == "make":
        (target,) = rest
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), words
    elif words[:3] == ["python", "-m", "pip"]:
        check_pip(rest[2:])
    elif words[:3] == ["python", "-m", "build"]:
        assert len(words) == 3, words
    elif program == "python":
        script = rest[0]
        code = (ROOT / script).read_text()
        if "benchmarks.harness" in code:
            code += (ROOT / "benchmarks" / "harness.py").read_text()
        for option in options_of(rest):
            assert f'"{option}"' in code, words
    elif program == "pip":
        check_pip(rest)
    else:
        assert words[:2] == ["accelerate", "launch"], f"not a command known to this test: {words}"
        check_launch(rest[1:])


def options_of(words: list[str]) -> list[str]:
    return [word.partition("=")[0] for word in words if word.startswith("-")]


def check_augesc(words: list[str], *, in_prose: bool = False) -> None:
    """Parse a command by the very options of the program; in prose it may be cut short."""
    name, *rest = words
    if name.startswith("-") or name == "COMMAND":
        assert {name, *rest} <= {"COMMAND", "--help", "--version"}, words
        return
    if rest and f"{name} {rest[0]}" in COMMANDS:
        name = f"{name} {rest.pop(0)}"
    assert name in COMMANDS, f"no command {name}"
    try:
        given = COMMANDS[name].make_context(name, rest).params
    except Exception as error:  # of click, wherever typer keeps it
        if in_prose and type(error).__name__ == "MissingParameter":
            return
        raise AssertionError(f"{' '.join(words)}: {error}") from error
    check_overrides(name, given.get("override") or (), given.get("config") or given.get("recipe"))


def check_overrides(command: str, overrides: Sequence[str], base: str | None = None) -> None:
    """Load them, but for those that are to come."""
    if command == "study create":
        systems = [f"interactive.systems.{name}.folder=x" for name in "ab"]
        load_settings(base or "quality", [*(systems if base == "interactive" else []), *overrides])
        return
    load, shipped = load_recipe, module.shipped_recipes()
    if command == "train":
        load, shipped = training.load_config, sorted(p.stem for p in training.CONFIGS.glob("*"))
    named = base if base in shipped else "esconv" if command == "train" else "paper"
    load(named, [o for o in overrides if not o.startswith("KEY.PATH=")])


def check_pip(words: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert words[0] == "install", words
    for extras in re.findall(r"\[([^]]+)\]", " ".join(words)):
        assert set(extras.split(",")) <= set(project["optional-dependencies"]), words


def check_launch(words: list[str]) -> None:
    if words[0] == "--config_file":
        assert (ROOT / words[1]).is_file(), words
        words = words[2:]
    if words[:2] == ["-m", "augesc_builder"]:
        check_augesc(words[2:])
    else:
        assert (ROOT / words[0]).is_file(), words
        check_augesc(["train", *words[1:]])


def test_every_command_and_recipe_is_in_the_docs():
    text = (DOCS / "commands.md").read_text()
    for name, command in COMMANDS.items():
        assert f"| `augesc {name}" in text, f"docs/commands.md lacks augesc {name}"
        assert command.help
    recipes = (DOCS / "recipes.md").read_text()
    for name in module.shipped_recipes():
        assert f"| `{name}` |" in recipes


def test_every_extra_is_in_the_readme():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    readme = (ROOT / "README.md").read_text()
    for extra in project["optional-dependencies"]:
        assert f"`{extra}`" in readme, extra


# -- keys and names -------------------------------------------------------------------------------


@on_pages
def test_every_key_in_the_prose_is_one(page):
    config = training.load_config("esconv_then_augesc")
    recipes = [load_recipe(name) for name in module.shipped_recipes()]
    sections: dict[str, list[Any]] = dict.fromkeys(Recipe.model_fields, recipes)
    sections |= {name: [config] for name in training.Config.model_fields if name not in sections}
    study = load_settings("interactive", [f"interactive.systems.{n}.folder=x" for n in "ab"])
    sections |= {name: [study] for name in StudySettings.model_fields if name not in sections}
    simulated = load_simulation("simulation", ["seeker.folder=x", "systems={a: {folder: x}}"])
    sections |= {name: [simulated] for name in ("cards", "seeker", "endpoints")}
    for text in inline(page):
        head, dot, _ = text.partition(".")
        if not dot or head not in sections or not re.fullmatch(r"[a-z_]+(\.[a-z0-9_]+)+", text):
            continue
        if text.endswith((".py", ".yaml", ".json", ".txt")):
            continue
        assert any(has_key(each.model_dump(), text) for each in sections[head]), (
            f"{name_of(page)}: no key {text}"
        )


def has_key(value: Any, key: str) -> bool:
    """Whether settings have a key, or an optional section that would hold it."""
    for part in key.split("."):
        if value is None:
            return True
        if part not in value:
            return False
        value = value[part]
    return True


@on_pages
def test_every_name_of_the_package_is_one(page):
    for text in inline(page):
        found = re.match(r"(augesc(?:_builder)?(?:\.\w+)+)(?:\(|$)", text)
        stage = re.fullmatch(r"(?:pipeline|hub)(?:\.\w+)+", text)
        if found and found[1] != ENTRY_POINTS and not found[1].endswith((".py", ".txt", ".yaml")):
            assert resolve(found[1]), f"{name_of(page)}: {text}"
        elif stage:
            assert resolve(f"augesc_builder.{text}"), f"{name_of(page)}: {text}"


def resolve(dotted: str) -> bool:
    """Whether there is such a module or a name in one."""
    parts = dotted.split(".")
    for n in range(len(parts), 0, -1):
        try:
            there = importlib.import_module(".".join(parts[:n]))
        except ModuleNotFoundError:
            continue
        try:
            functools.reduce(getattr, parts[n:], there)
        except AttributeError:
            return False
        return True
    return False


@on_pages
def test_every_file_that_is_named_is_there(page):
    for text in inline(page):
        if re.fullmatch(r"(augesc_builder|benchmarks|tests|training|docs)/[\w./-]+", text):
            assert (ROOT / text).exists(), f"{name_of(page)}: {text}"


# -- Python ---------------------------------------------------------------------------------------


@on_pages
def test_python_is_python(page):
    for _, block in fences(page, "python"):
        compile(block, name_of(page), "exec")


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(
            page, id=name_of(page), marks=() if page.name == "README.md" else pytest.mark.slow
        )
        for page in PAGES
        if fences(page, "python")
    ],
)
def test_python_runs(page, built, tmp_path):
    blocks = []
    for comment, block in fences(page, "python"):
        if comment.startswith("not run: "):
            continue
        assert comment in {"", "from: clone"}, f"not a comment known to this test: {comment}"
        where = ROOT if comment else tmp_path
        blocks.append(f"import os; os.chdir({str(where)!r})\n{block}")
    (tmp_path / "corpus-quickstart").symlink_to(built)
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)],
        env={**os.environ, "HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr


def test_recipes_in_yaml_load(tmp_path):
    for page in PAGES:
        for _, block in fences(page, "yaml"):
            (tmp_path / "recipe.yaml").write_text(block)
            assert load_recipe(tmp_path / "recipe.yaml")


# -- links ----------------------------------------------------------------------------------------


def links(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", CODE.sub("", FENCE.sub("", page.read_text())))


def anchors(page: Path) -> set[str]:
    """Name a page's headings as GitHub and the site do."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", LINKED, ids=name_of)
def test_no_local_link_is_broken(page):
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        to = (page.parent / path).resolve() if path else page
        assert to.exists(), f"{name_of(page)}: {link}"
        assert not anchor or anchor in anchors(to), f"{name_of(page)}: no heading {link}"


def test_every_page_can_be_reached():
    trees = re.findall(r"```\{toctree\}\n(.*?)```", (DOCS / "index.md").read_text(), re.DOTALL)
    listed = {
        line for tree in trees for line in tree.splitlines() if line and not line.startswith(":")
    }
    assert listed == {page.stem for page in PAGES if page.parent == DOCS} - {"index"}
    reached, new = set(), {ROOT / "README.md"}
    while new:
        page = new.pop()
        reached.add(page)
        new |= {
            to
            for link in links(page)
            if (to := (page.parent / link.partition("#")[0]).resolve()) in PAGES
        } - reached
    assert set(PAGES) <= reached, "from the README too"


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    for needed in ("sphinx", "furo", "myst_parser"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed: the extra docs")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "-q"),
            *("-b", "html", str(DOCS), str(tmp_path / "html")),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    for page in DOCS.glob("*.md"):
        html = (tmp_path / "html" / f"{page.stem}.html").read_text()
        assert "<title>" in html
    assert "augesc.load_recipe" in (tmp_path / "html" / "api.html").read_text()
