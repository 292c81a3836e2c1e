"""The package as a stranger installs it: built, put into a clean environment, run elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT


def run(*command: object, cwd: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, cwd=ROOT)
    (path,) = out.glob("*.whl")
    return path


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
        *("dataset_card/model.md", "text/lexicons/safety.yaml"),
        *("sources/sample_data/sessions.jsonl", "sources/sample_data/queries.jsonl"),
        *(f"training/configs/{name}.yaml" for name in ("tiny", "esconv", "esconv_then_augesc")),
        *("metrics/session_statistics/session_statistics.py", "py.typed"),
        *(f"human_evaluation/pages/{name}" for name in ("base.html.j2", "look.css", "icon.svg")),
        "human_evaluation/judges/judge.yaml",
    ):
        assert f"augesc_builder/{needed}" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


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
