"""Run the tests of load_dataset under other versions of datasets, each in its own environment.

    python tests/versions.py [VERSION ...]

An environment takes from the one that runs this what it does not have itself, so that only datasets
and what it wants in another version are installed; pip then says that packages of the running one
want another datasets, and they are not used there. It is made once, below the running environment.
The newest version is in the running environment itself, whose own tests run with all the others.
Versions are tested side by side, and what each said is printed when it is through.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from concurrent.futures import ThreadPoolExecutor
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


def tested(version: str) -> tuple[str, int]:
    """Run the tests under a version; give what they said and how they ended."""
    try:
        python = python_of(version)
        shown = "import datasets, huggingface_hub as h; print(datasets.__version__, h.__version__)"
        found = subprocess.run([python, "-c", shown], check=True, stdout=subprocess.PIPE, text=True)
    except subprocess.CalledProcessError as error:
        return f"datasets {version}: {error}", 1
    if (there := found.stdout.split())[0] != version:
        return f"expected datasets {version}, found {there[0]}; delete {python.parents[1]}", 1
    command = [python, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *TESTS]
    done = subprocess.run(
        command, cwd=ROOT, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    return f"datasets {version}, huggingface_hub {there[1]}\n{done.stdout}", done.returncode


def main() -> None:
    """Run the tests under each version."""
    with ThreadPoolExecutor() as pool:
        ends = []
        for said, code in pool.map(tested, sys.argv[1:] or VERSIONS):
            print(said, flush=True)
            ends.append(code)
    sys.exit(max(ends))


if __name__ == "__main__":
    main()
