"""A Hub on loopback, a process that speaks to it, and a build to push."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, rows_of
from tests.hub_stub import HubStub, serving


class Child:
    """A process that runs commands one after the other: libraries are imported, and read the
    address of the Hub, once."""

    LOOP = """
import contextlib, io, json, os, sys
from augesc_builder.cli import app
for line in sys.stdin:
    token, sys.argv = json.loads(line)
    os.environ.pop("HF_TOKEN", None)
    os.environ |= {"HF_TOKEN": token} if token else {}
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            app.main()
        except SystemExit as end:
            code = end.code or 0
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", self.LOOP],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: object, token: str | None = "hf_write"):
        self._process.stdin.write(json.dumps([token, ["augesc", *map(str, arguments)]]) + "\n")
        self._process.stdin.flush()
        code, out, err = json.loads(self._process.stdout.readline())
        return subprocess.CompletedProcess(arguments, code, out, err)

    def close(self) -> None:
        with self._process:
            self._process.stdin.close()


def environment(hub: HubStub, home: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in {"HF_HUB_OFFLINE", "HF_TOKEN"}}
    return {
        **kept,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "PYTHONPATH": str(ROOT),
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A Hub for all tests of this module, with a process that speaks to it."""
    root = tmp_path_factory.mktemp("hub")
    with serving(root) as server:
        server.home = tmp_path_factory.mktemp("home")
        server.child = Child(environment(server, server.home))
        try:
            yield server
        finally:
            server.child.close()


NUMBERS = itertools.count()


@pytest.fixture
def hub(place):
    """The Hub with no repo, and the name of a new one: clients cache by name and commit."""
    place.forget()
    place.repo = f"someone/my-augesc-{next(NUMBERS)}"
    return place


@pytest.fixture
def run(built, tmp_path):
    """A build whose flags a person has looked at; tests may change it."""
    folder = tmp_path / "run"
    shutil.copytree(built, folder)
    flagged = [r["session_id"] for r in rows_of(folder / "corpus" / "data") if r["safety_flags"]]
    (folder / "corpus" / "safety_review.json").write_text(json.dumps(flagged))
    return folder


def push(hub, run, *arguments: object, **options):
    return hub.child.run("push", run, "--repo", hub.repo, *arguments, **options)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("augesc: ")]
    return line
