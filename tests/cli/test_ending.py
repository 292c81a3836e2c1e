"""How commands end: on full disks and narrow terminals, on mistakes, and on bugs of ours."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from augesc_builder.cli import ending
from tests.conftest import ROOT


def augesc_in(folder: Path, *arguments: str | bytes, **how) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **how.pop("env", {})}
    command = [sys.executable, "-m", "augesc_builder", *arguments]
    how = {"capture_output": True, **how}
    return subprocess.run(command, cwd=folder, env=environment, check=False, **how)


def one_line(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = [line for line in done.stderr.decode().splitlines() if line.startswith("augesc: ")]
    assert done.returncode == ending.MISTAKE, done.stderr
    assert len(lines) == 1, done.stderr
    assert b"Traceback" not in done.stderr
    return lines[0]


@pytest.mark.parametrize(
    "command",
    [
        *("--help", "--version", "stats --help"),
        pytest.param("build --dry-run --out run", marks=pytest.mark.slow),
    ],
)
def test_a_full_disk_behind_the_output_is_one_line(command, tmp_path):
    with Path("/dev/full").open("wb") as full:
        done = augesc_in(
            tmp_path, *command.split(), stdout=full, stderr=subprocess.PIPE, capture_output=False
        )
    assert "standard output cannot be written: No space left on device" in one_line(done)


def test_a_reader_that_has_enough_is_no_error(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as gone:
        done = augesc_in(
            tmp_path, "--help", stdout=gone, stderr=subprocess.PIPE, capture_output=False
        )
    assert done.returncode == ending.READER_GONE
    assert done.stderr == b""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.slow
def test_a_terminal_that_lacks_characters_gets_them_written_out(encoding, tmp_path):
    narrow = {"PYTHONIOENCODING": encoding}
    done = augesc_in(tmp_path, "build", "--dry-run", "--out", "字", "--set", "name=字", env=narrow)
    assert done.returncode == 0, done.stderr
    assert rb"\u5b57" in done.stdout
    done = augesc_in(tmp_path, "card", "字", env=narrow)
    assert r"\u5b57" in one_line(done)


def test_arguments_that_are_not_utf_8_are_refused(tmp_path):
    for arguments in (("card", b"bad\xff"), ("build", "--out", "x", "--set", b"name=\xff")):
        assert "is not UTF-8" in one_line(augesc_in(tmp_path, *arguments))
    strange = tmp_path / os.fsdecode(b"bad\xff")
    strange.mkdir()
    assert "is not UTF-8" in one_line(augesc_in(strange, "card", "x"))


def test_a_pipe_as_input_is_refused_before_it_is_emptied(tmp_path):
    for command in ("stats", "filter"):
        done = augesc_in(tmp_path, command, "/dev/stdin", "--out", "out", input=b'{"text": "x"}\n')
        assert "a device, a pipe or a socket" in one_line(done)
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "command",
    [
        "train --config tiny --out out",
        "finetune --out out",
        "build --out out",
    ],
)
def test_a_rank_that_is_no_number(command, tmp_path, refused, monkeypatch):
    monkeypatch.setenv("RANK", "x")
    monkeypatch.chdir(tmp_path)
    assert "RANK='x' in the environment" in refused(*command.split())


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("test --name nope", "--name nope: expected one of published, regenerated"),
        ("stats x --out out --num-proc 99999999999999999999", "--num-proc"),
        ("stats x --out out --num-proc 1025", "less than or equal to 1024"),
        (
            "stats x --out out --finetuned-on s3://bucket/x",
            "is an address; give a path on this machine",
        ),
        (f"stats x --out {'n' * 300}", "a name of 300 bytes"),
    ],
)
def test_limits_of_options(command, says, refused):
    assert says in refused(*command.split())


def test_slots_that_no_memory_holds_are_refused(generate):
    from augesc_builder.errors import RecipeError

    with pytest.raises(RecipeError, match=r"generate.backend.slots: 1,000,000,000 conversations"):
        generate("generate.backend.slots=1000000000")


def test_a_bug_is_one_line_and_its_traceback_a_file(augesc, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def broken(*_):
        raise KeyError("of \x1b[31mours")

    monkeypatch.setattr("augesc_builder.pipeline.queries.stage.standalone", broken)
    code, _, err = augesc("queries", "--out", tmp_path / "new")
    assert code == ending.BUG
    found = re.fullmatch(
        r"augesc: this is a bug of augesc: KeyError: .*; the traceback is in (\S+), please "
        r"report it\n",
        err,
    )
    assert found, err
    assert "\x1b" not in err
    text = Path(found[1]).read_text()
    assert "Traceback (most recent call last)" in text
    assert "raise KeyError" in text
    assert "queries" in text.splitlines()[0]
    assert Path(found[1]).stat().st_mode & 0o077 == 0

    code, _, err = augesc("queries", "--out", tmp_path / "new", "--debug")
    assert code == ending.BUG
    assert "Traceback (most recent call last)" in err
    assert "\x1b" not in err
    assert len(list(tmp_path.glob("augesc-*"))) == 1
