"""A thousand calls that are wrong on purpose end in a line, never in a traceback."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import signal
import subprocess
import sys

import pytest

from augesc_builder.cli.ending import BUG
from tests.cli.wrong_calls import RIGHT, WORKS_LONG, commands, draw, lay_out
from tests.conftest import ROOT, SOAK

QUICK, ALL, PART = 65, 1425, 85
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class Stuck(BaseException):
    """A call has worked for longer than any that is refused should."""


@contextlib.contextmanager
def at_most(seconds: int):
    """Interrupt what hangs: a FIFO that nobody writes, a device that never ends."""

    def stop(*_):
        raise Stuck

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def place(built, tiny_file, tmp_path, monkeypatch):
    folder = tmp_path / "place"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return lay_out(folder, built, tiny_file)


def wrong_with(call: list[str], code: int, out: str, err: str) -> str | None:
    """Say what is wrong with the end of a call."""
    lines = [line for line in err.splitlines() if line.startswith("augesc: ")]
    if code == BUG or "Traceback" in err:
        return err[-600:]
    if code not in {0, 2}:
        return f"exit code {code}: {err[-300:]}"
    if code == 2 and len(lines) != 1:
        return f"{len(lines)} lines: {err[-600:]}"
    if found := CONTROL.search((out + err).replace("\r", "")):
        return f"the terminal is given {found[0]!r}"
    return None


@pytest.fixture
def failures(place, augesc, monkeypatch):
    def run(seeds) -> list[str]:
        found = []
        for seed in seeds:
            call = draw(seed, place)
            monkeypatch.setattr(sys, "stdin", io.StringIO("hello\n/quit\n"))
            try:
                with at_most(200):
                    wrong = wrong_with(call, *augesc(*call))
            except Stuck:
                wrong = "hangs"
            if wrong:
                found.append(f"{seed}: augesc {shlex.join(call)[:300]}\n    {wrong}")
        return found

    return run


def test_every_command_and_every_option_is_drawn(place):
    drawn = [draw(seed, place) for seed in range(ALL)]
    for name, options in commands().items():
        calls = [call for call in drawn if " ".join(call).startswith(name)]
        assert calls, name
        for option in options:
            if option.name:
                assert any(option.name in call for call in calls), (name, option.name)
    assert set(RIGHT) == set(commands())
    assert set(WORKS_LONG) <= set(RIGHT)
    assert len({tuple(call) for call in drawn}) > 0.9 * ALL


def test_some_wrong_calls_end_in_a_line(failures):
    assert "\n".join(failures(range(QUICK))) == ""


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.parametrize("first", range(QUICK, ALL, PART if SOAK else 4 * PART))
def test_a_thousand_wrong_calls_end_in_a_line(failures, first):
    assert "\n".join(failures(range(first, min(first + PART, ALL)))) == ""


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_wrong_calls_end_in_a_line_on_any_terminal(place, encoding, locale):
    environment = {
        **os.environ,
        **{"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding, "LC_ALL": locale},
        **{"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    }
    step = (137 if SOAK else 411) + len(encoding + locale)
    for seed in range(0, ALL, step):
        call = [part.replace("\0", "") for part in draw(seed, place)]
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "augesc_builder",
                *(part.encode("utf-8", "surrogateescape") for part in call),
            ],
            env=environment,
            input=b"hello\n/quit\n",
            capture_output=True,
            check=False,
            timeout=600,
        )
        wrong = wrong_with(
            call, done.returncode, done.stdout.decode(encoding), done.stderr.decode(encoding)
        )
        assert not wrong, shlex.join(call)
