"""The package as a stranger installs it: built, put into a clean environment, run elsewhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from augesc_builder import __version__
from augesc_builder.citations import cite
from augesc_builder.errors import install_extra
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def run(*command: object, cwd: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(source: Path, out: Path, *options: str) -> Path:
    """Build what is published, without an index; give the wheel."""
    run(sys.executable, "-m", "build", "--no-isolation", *options, "--outdir", out, cwd=source)
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel that `python -m build` makes of the sdist, which lies beside it."""
    return build(ROOT, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A clean virtual environment with the wheel; its dependencies come from ours."""
    venv = tmp_path_factory.mktemp("venv") / "venv"
    run(sys.executable, "-m", "venv", venv, cwd=venv.parent)
    python = venv / "bin" / "python"
    run(
        python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=venv.parent
    )
    (site,) = venv.glob("lib/python*/site-packages")
    # Bare paths: what our environment knows of this clone (an editable install) does not follow.
    places = [path for path in sys.path if path.endswith("site-packages")]
    (site / "dependencies.pth").write_text("\n".join(places) + "\n")
    return venv


def test_the_wheel_holds_what_a_run_needs_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"augesc.py", "augesc_builder"}
    for needed in (
        *(
            "recipes/paper.yaml",
            "recipes/paper-lora.yaml",
            "recipes/quickstart.yaml",
            "recipes/tiny.yaml",
        ),
        *("recipes/accelerate/fsdp.yaml", "dataset_card/template.md", "dataset_card/citations.bib"),
        "dataset_card/access.yaml",
        *("dataset_card/model.md", "text/lexicons/safety.yaml"),
        *("sources/sample_data/sessions.jsonl", "sources/sample_data/queries.jsonl"),
        *(f"training/configs/{name}.yaml" for name in ("tiny", "esconv", "esconv_then_augesc")),
        *("metrics/session_statistics/session_statistics.py", "py.typed"),
        *(f"human_evaluation/pages/{name}" for name in ("base.html.j2", "look.css", "icon.svg")),
        "human_evaluation/judges/judge.yaml",
        *("simulation/simulations/simulation.yaml", "simulation/card.md"),
    ):
        assert f"augesc_builder/{needed}" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_wheel_is_the_same_from_what_an_image_is_built_of(wheel, tmp_path):
    """It is made of the sdist, and again of the files that `.dockerignore` lets in alone."""
    source = tmp_path / "source"
    source.mkdir()
    let_in = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    for name in let_in:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, source / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, source / name)
    again = build(source, tmp_path / "dist", "--wheel")
    assert again.name == wheel.name
    assert again.read_bytes() == wheel.read_bytes()
    copied = re.findall(r"^COPY (?!--from)(.+) /tmp/$", DOCKERFILE.read_text(), re.MULTILINE)
    assert {name for names in copied for name in names.split()} <= {*let_in}


def test_the_sdist_has_what_a_clone_has(wheel):
    (sdist,) = wheel.parent.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    left_out = {".ci", ".git", ".gitignore"}
    for path in ROOT.iterdir():
        if path.is_file() and path.name not in left_out:
            assert path.name in names
    for folder in ("augesc_builder", "benchmarks", "dataset_card", "docs", "tests", "training"):
        assert any(name.startswith(f"{folder}/") for name in names)


def test_the_version_is_said_at_one_place(wheel, installed, tmp_path):
    assert f"-{__version__}-" in wheel.name
    assert run(installed / "bin" / "augesc", "--version", cwd=tmp_path).strip() == __version__
    said = re.compile(rf"^[ \"']*version[\"']?\s*[:=].*{re.escape(__version__)}", re.MULTILINE)
    for name in ("pyproject.toml", "CITATION.cff", "Dockerfile", "docs/conf.py", "augesc.py"):
        assert not said.search((ROOT / name).read_text()), name


@pytest.mark.slow
def test_the_installed_command_tests_the_builder(installed, tmp_path):
    out = run(installed / "bin" / "augesc", "test", "--name", "sample", cwd=tmp_path)
    assert "Test successful" in out


def test_an_extra_is_installed_from_the_repository():
    """No index has the package by its name: no message and no page says so."""
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("training/**/*.yaml")]
    code = [*ROOT.glob("augesc_builder/**/*.py"), *ROOT.glob("augesc_builder/**/*.yaml")]
    by_name = re.compile(r"augesc-builder(\[|==)|pip install ['\"]?augesc")
    for path in [*pages, *code, *ROOT.glob("tests/**/*.py"), *ROOT.glob("dataset_card/*")]:
        assert not by_name.search(path.read_text()), path
    extras = set(PROJECT["optional-dependencies"])
    for path in code:
        text = path.read_text()
        assert set(re.findall(r"install_extra\([\"']([^\"']+)", text)) <= extras, path
        assert path.name == "errors.py" or "pip install -e" not in text, path
    assert install_extra("app") == "pip install -e '.[app]' in the clone of augesc"


DOCKERFILE = ROOT / "Dockerfile"


def instructions() -> list[tuple[str, str]]:
    """Give the instructions of the Dockerfile and what each is given."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    found = [tuple(line.split(maxsplit=1)) for line in lines if line.strip()]
    return [(name, rest) for name, rest in found]


class TestImage:
    """What can be said of the image where nothing can build it."""

    def test_every_base_is_pinned(self):
        bases = [given for name, given in instructions() if name == "FROM"]
        assert len(bases) == 2
        for base in bases:
            assert re.match(r"python:\d+\.\d+\.\d+-slim-\w+( AS wheel)?$", base), base

    def test_it_runs_the_command_without_rights(self):
        last = dict(instructions())  # the last of each name holds
        assert json.loads(last["ENTRYPOINT"]) == ["augesc"]
        assert last["USER"].isdecimal()
        assert int(last["USER"]) > 0
        assert f"--uid {last['USER']} " in "".join(given for _, given in instructions())
        names = [name for name, _ in instructions()]
        assert "RUN" not in names[names.index("USER") :]

    def test_it_is_for_cpus_or_cuda(self):
        given = [given for name, given in instructions() if name == "ARG"]
        assert "DEVICE=cpu" in given
        devices = re.findall(r"^ +(\w+)\) .*;;", DOCKERFILE.read_text(), re.MULTILINE)
        assert devices == ["cpu", "cuda"]
        (extras,) = [arg.partition("=")[2] for arg in given if arg.startswith("EXTRAS=")]
        assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])

    def test_what_it_installs_are_the_versions_that_work_together(self):
        known = (ROOT / "constraints.txt").read_text()
        pinned = re.findall(r"(\w+==[\w.]+)", DOCKERFILE.read_text())
        assert len(pinned) == 3
        for requirement in pinned:
            assert re.search(rf"^{re.escape(requirement)}$", known, re.MULTILINE), requirement
        for name, given in instructions():
            if name == "RUN" and "pip install" in given:
                for line in given.split("pip install")[1:]:
                    assert re.search(r"==|--constraint|--require-hashes", line), given

    def test_hadolint_finds_nothing(self, tmp_path):
        hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
        if hadolint is None:
            pytest.skip("hadolint is not installed: the extra dev")
        assert run(hadolint, DOCKERFILE, cwd=tmp_path) == ""

    def test_the_shell_takes_every_step(self, tmp_path):
        for name, given in instructions():
            if name == "RUN":
                run("sh", "-n", "-c", given, cwd=tmp_path)


def test_the_citation_is_of_the_paper_that_the_cards_cite():
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert found["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(found)
    paper = found["preferred-citation"]
    entry = cite(["zheng2022augesc"])
    assert f"title={{{paper['title']}}}" in entry
    assert f"journal={{{paper['journal']}}}" in entry
    assert f"year={{{paper['year']}}}" in entry
    names = [f"{who['family-names']}, {who['given-names']}" for who in paper["authors"]]
    assert f"author={{{' and '.join(names)}}}" in entry
    assert entry in (ROOT / "README.md").read_text()


@pytest.mark.slow
def test_the_installed_command_builds_outside_the_clone(installed, tiny_file, built, tmp_path):
    from tests.conftest import corpus_of

    augesc = installed / "bin" / "augesc"
    where = run(
        installed / "bin" / "python",
        "-c",
        "import augesc_builder as a; print(a.__file__)",
        cwd=tmp_path,
    )
    assert str(installed) in where
    out = run(augesc, "build", "--recipe", tiny_file, "--out", "corpus-tiny", cwd=tmp_path)
    assert "[7/7] card" in out
    assert corpus_of(tmp_path / "corpus-tiny") == corpus_of(built)
    for recipe in ("tiny", "paper", "paper-lora"):
        out = run(augesc, "build", "--dry-run", "--recipe", recipe, "--out", "x", cwd=tmp_path)
        assert f"recipe {recipe}" in out


@pytest.mark.slow
def test_the_installed_command_trains_outside_the_clone(installed, tmp_path):
    small = (
        *("model.from_scratch.d_model=16", "model.from_scratch.ffn_dim=16"),
        *("phases.first.sessions=[{path: 'sample:test', weight: 0.1}]", "phases.first.epochs=1"),
        "data.validation=[{path: 'sample:validation', weight: 0.1}]",
    )
    options = [part for override in small for part in ("--set", override)]
    augesc = installed / "bin" / "augesc"
    out = run(augesc, "train", "--config", "tiny", "--out", "tiny", *options, cwd=tmp_path)
    assert "The model is tiny/model-first" in out
    out = run(augesc, "evaluate-model", "tiny", "--sessions", "sample:test", cwd=tmp_path)
    assert "| perplexity_word " in out


def test_the_installed_module_loads_outside_the_clone(installed, tmp_path):
    code = (
        "import augesc, datasets; print(augesc.__file__, "
        "len(datasets.load_dataset('augesc', 'sample', split='train', cache_dir='cache')))"
    )
    where, n = run(installed / "bin" / "python", "-c", code, cwd=tmp_path).split()
    assert where.startswith(str(installed))
    assert n == "100"


def test_importing_is_light():
    heavy = {"torch", "transformers", "matplotlib", "pyarrow", "nltk", "accelerate"}
    code = "import sys, augesc; print(*sorted(set(sys.modules) & %r))" % heavy  # noqa: UP031
    assert run(sys.executable, "-c", code, cwd=ROOT).strip() in {"", "pyarrow"}


@pytest.mark.slow
def test_the_measurement_loads_by_its_path(tmp_path):
    folder = ROOT / "augesc_builder" / "metrics" / "session_statistics"
    code = (
        "import evaluate\n"
        f"m = evaluate.load({str(folder)!r}, module_type='measurement')\n"
        "print(m.compute(messages=[[{'role': 'user', 'content': 'I am sad.'}]])['unique_words'])"
    )
    environment = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "4"


def test_modules_stay_rooms():
    for path in [*ROOT.glob("augesc_builder/**/*.py"), ROOT / "augesc.py"]:
        assert len(path.read_text().splitlines()) <= 350, path


def test_no_assert_on_what_a_user_gives():
    for path in ROOT.glob("augesc_builder/**/*.py"):
        assert not re.search(r"^\s*assert ", path.read_text(), re.MULTILINE), path
