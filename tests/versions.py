"""Run the tests of load_dataset under other versions of datasets, each in its own environment.

    python tests/versions.py [VERSION ...]

An environment takes from the one that runs this what it does not have itself, so that only datasets
and what it wants in another version are installed; pip then says that packages of the running one
want another datasets, and they are not used there. It is made once, below the running environment.
The newest version is in the running environment itself, whose own tests run with all the others.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
VERSIONS = ("3.6.0", "4.4.2")
"""The oldest that is served, and one in the middle."""

TESTS = ("tests/test_load_dataset.py", "tests/hub/test_publish.py::test_a_corpus_there_and_back")


def python_of(version: str) -> Path:
    """Make the environment of a version, if it is not there; give its Python."""
    folder = Path(sys.prefix) / f"datasets-{version}"
    python = folder / "bin" / "python"
    done = folder / "installed"
    if not done.exists():
        venv.create(folder, with_pip=True, clear=True)
        (site,) = folder.glob("lib/python*/site-packages")
        shared = [str(ROOT), sysconfig.get_path("purelib"), *_paths_beside()]
        (site / "shared.pth").write_text("\n".join(shared) + "\n")
        install = [python, "-m", "pip", "install", "--quiet", f"datasets=={version}"]
        subprocess.run(install, check=True)
        done.touch()
    return python


def _paths_beside() -> list[str]:
    """Give what path files add to the running environment."""
    site = Path(sysconfig.get_path("purelib"))
    lines = [line for file in site.glob("*.pth") for line in file.read_text().splitlines()]
    return [line for line in lines if line.startswith("/") and Path(line).is_dir()]


def main() -> None:
    """Run the tests under each version; stop at the first that fails."""
    for version in sys.argv[1:] or VERSIONS:
        python = python_of(version)
        shown = "import datasets, huggingface_hub as h; print(datasets.__version__, h.__version__)"
        found = subprocess.run(
            [python, "-c", shown], check=True, capture_output=True, text=True
        ).stdout.split()
        if found[0] != version:
            sys.exit(f"expected datasets {version}, found {found[0]}; delete {python.parents[1]}")
        print(f"datasets {version}, huggingface_hub {found[1]}", flush=True)
        command = [python, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *TESTS]
        if code := subprocess.run(command, cwd=ROOT, check=False).returncode:
            sys.exit(code)


if __name__ == "__main__":
    main()
