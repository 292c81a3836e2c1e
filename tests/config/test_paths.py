from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from augesc_builder.config.paths import LONGEST_NAME, LONGEST_PATH, check_path


def test_paths_that_could_be(tmp_path):
    for path in (tmp_path, tmp_path / "new", Path("字/é"), Path(), Path("n" * LONGEST_NAME)):
        assert check_path(path) is path
    file = tmp_path / "file"
    file.touch()
    (tmp_path / "link").symlink_to(file)
    assert check_path(f"{tmp_path}/link") == f"{tmp_path}/link"
    assert check_path(f"{file}/below") == f"{file}/below"  # there is none, and others say so
    whole = ("d" * 99 + "/") * (LONGEST_PATH // 100)
    assert check_path(whole) == whole


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("n" * (LONGEST_NAME + 1), "a name of 256 bytes; a file's has up to 255"),
        ("é" * 128, "a name of 256 bytes"),
        (("d" * 99 + "/") * (LONGEST_PATH // 100) + "dd", "has 3,502 bytes"),
        ("a\0b", "has a NUL character"),
        ("a\udcff", "is not UTF-8"),
        ("loop", "the links of loop lead in a circle"),
        ("loop/x", "lead in a circle"),
        ("dangling", "the link dangling leads to nothing"),
        ("fifo", "a device, a pipe or a socket"),
        ("/dev/zero", "a device, a pipe or a socket"),
    ],
)
def test_paths_that_no_file_can_have(path, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, there in {"loop": "pool", "pool": "loop", "dangling": "nowhere"}.items():
        Path(name).symlink_to(there)
    os.mkfifo("fifo")
    with pytest.raises(ValueError, match=re.escape(says)):
        check_path(path)


@given(st.text(max_size=300))
def test_what_passes_can_be_looked_up(text):
    try:
        check_path(text)
    except ValueError:
        return
    Path(text).is_file()
    Path(text).is_dir()
    Path(text).exists()
