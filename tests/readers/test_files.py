"""Files of rows: lines of text and JSON, Parquet tables, and chunks of either."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from augesc_builder.errors import InputError
from augesc_builder.readers.chunks import count_rows, read_chunks
from augesc_builder.readers.jsonl import json_of, read_json_rows, read_lines, text_of
from augesc_builder.readers.parquet import open_table, read_table
from augesc_builder.run.marks import table_files


@pytest.fixture
def text(tmp_path):
    def write(content: bytes):
        path = tmp_path / "x.jsonl"
        path.write_bytes(content)
        return path

    return write


def test_lines_keep_their_numbers(text):
    path = text(b"\xef\xbb\xbfone\r\n\n  \n\xef\xbb\xbftwo \r\nthree")
    found = [(number, text_of(line, path, number)) for number, line in read_lines(path)]
    assert found == [(1, "one"), (4, "\ufefftwo "), (5, "three")]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"caf\xe9\n", "line 1: not UTF-8 text: byte 0xe9 at column 4"),
        (b"ok\n\xff\n", "line 2: not UTF-8 text: byte 0xff at column 1"),
    ],
)
def test_what_is_not_utf_8_is_named(text, content, says):
    with pytest.raises(InputError, match=says):
        [text_of(line, "x", number) for number, line in read_lines(text(content))]


def test_a_file_that_is_missing_and_a_folder(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        list(read_lines(tmp_path / "nothing"))
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        list(read_lines(tmp_path))


def test_json_that_is_none_is_shown_in_part():
    with pytest.raises(InputError) as error:
        json_of(b"x" * 99, "x", 2)
    assert "line 2: not JSON" in str(error.value)
    assert f"found {'x' * 60!r};" in str(error.value)


@pytest.mark.parametrize(
    ("line", "fits"),
    [
        (r'"\ud83d\ude22"', True),
        (r'"\uD83D\uDE22"', True),
        (r'"\ud83d"', False),
        (r'"\uDE22 x"', False),
        (r'"\\ud83d"', True),  # a backslash and letters
    ],
)
def test_half_a_surrogate_pair_is_no_character(line, fits):
    if fits:
        assert json_of(line.encode(), "x", 1) == json.loads(line)
    else:
        with pytest.raises(InputError, match="half of a surrogate pair"):
            json_of(line.encode(), "x", 1)


def test_a_json_list_is_rows_too(text):
    rows = [{"a": 1}, {"a": "two\nlines"}]
    path = text(json.dumps(rows, indent=1).encode())
    assert [(n, json.loads(line)) for n, line in read_json_rows(path)] == list(enumerate(rows, 1))
    assert count_rows(path) == 2
    path = text(b'{"a": 1}\n\n{"a": 2}\n')
    assert [n for n, _ in read_json_rows(path)] == [1, 3]
    assert count_rows(path) == 2
    assert list(read_json_rows(text(b"\n"))) == []
    with pytest.raises(InputError, match="begins as a JSON list but is not one"):
        list(read_json_rows(text(b"[\n1,\n")))


@pytest.mark.parametrize("size", [1, 3, 4, 5, 11, 12, 13])
@pytest.mark.parametrize("group", [3, 4, 5, 12])
def test_a_table_comes_in_chunks_of_one_size_whatever_its_row_groups(tmp_path, size, group):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": range(12), "b": ["x"] * 12}), path, row_group_size=group)
    chunks = list(read_chunks(path, 100, size))
    assert [chunk.rows.num_rows for chunk in chunks[:-1]] == [size] * (len(chunks) - 1)
    assert 0 < chunks[-1].rows.num_rows <= size
    assert [row for chunk in chunks for row in chunk.values(["a"])] == [
        (n + 1, {"a": n}) for n in range(12)
    ]
    assert [chunk.first for chunk in chunks] == [100 + n for n in range(0, 12, size)]
    assert [chunk.first_in_file for chunk in chunks] == list(range(0, 12, size))
    assert [n for chunk in chunks for n in chunk.numbers()] == list(range(1, 13))
    assert count_rows(path) == 12


@pytest.mark.parametrize(("size", "parts"), [(1, [[1], [3], [4]]), (2, [[1, 3], [4]]), (3, None)])
def test_lines_come_in_chunks_too(text, size, parts):
    path = text(b'"a"\n\n"b"\n"c"\n')
    chunks = list(read_chunks(path, 7, size))
    assert [chunk.numbers() for chunk in chunks] == (parts or [[1, 3, 4]])
    assert [chunk.first for chunk in chunks] == [7 + n for n in range(0, 3, size)]
    assert [value for chunk in chunks for _, value in chunk.values()] == ["a", "b", "c"]


def test_of_a_table_columns_that_it_lacks_are_left_out(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": [1], "b": [2]}), path)
    (chunk,) = read_chunks(path, 0, 5)
    assert list(chunk.values(["b", "c"])) == [(1, {"b": 2})]
    assert list(chunk.values(["c"])) == [(1, {"a": 1, "b": 2})]
    assert list(chunk.values()) == [(1, {"a": 1, "b": 2})]


def test_text_that_is_not_utf_8_in_a_table(tmp_path):
    path = tmp_path / "t.parquet"
    broken = pa.Array.from_buffers(
        pa.string(),
        3,
        [None, pa.array([0, 1, 2, 3], pa.int32()).buffers()[1], pa.py_buffer(b"ab\xff")],
    )
    pq.write_table(pa.table({"a": broken}), path)
    (chunk,) = read_chunks(path, 0, 5)
    *good, (number, error) = chunk.values()
    assert good == [(1, {"a": "a"}), (2, {"a": "b"})]
    assert number == 3
    assert f"{path}, line 3: cannot be read (UnicodeDecodeError" in str(error)
    with pytest.raises(InputError, match=r"not a readable Parquet file .*UTF8"):
        read_table(path, ["a"])


def test_a_table_that_is_missing_broken_or_lacks_a_column(tmp_path):
    with (
        pytest.raises(InputError, match="no such file"),
        open_table(tmp_path / "nothing.parquet"),
    ):
        pass
    path = tmp_path / "t.parquet"
    path.write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match="not a readable Parquet file"):
        count_rows(path)
    pq.write_table(pa.table({"a": [1], "b": [2]}), path)
    assert read_table(path, ["b"]).to_pydict() == {"b": [2]}
    with pytest.raises(InputError, match="no column c, d; found a, b"):
        read_table(path, ["c", "a", "d"])


def test_the_files_of_a_table(tmp_path):
    with pytest.raises(InputError, match="no Parquet files of queries there"):
        table_files(tmp_path, "queries")
    other, *named = paths = [tmp_path / f"{n}.parquet" for n in ("other", "queries-0", "queries-1")]
    other.touch()
    assert table_files(tmp_path, "queries") == [other]
    for path in paths:
        path.touch()
    assert table_files(tmp_path, "queries") == named
    assert table_files(other, "queries") == [other]
