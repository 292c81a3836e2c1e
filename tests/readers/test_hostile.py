"""Files that strangers made: damaged, endless, or meant to take the machine down."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from augesc_builder.config.recipe import READING, load_recipe
from augesc_builder.errors import InputError
from augesc_builder.readers.csv_records import _Lines, _records, read_records
from augesc_builder.readers.jsonl import read_json_rows, read_lines
from augesc_builder.readers.parquet import open_table, read_rows
from augesc_builder.readers.records import MIB, USUAL, BadLines, Limits, parse_each
from augesc_builder.sources.empathetic_dialogues import COLUMNS, read_empathetic_dialogues
from augesc_builder.sources.esconv import read_esconv
from augesc_builder.sources.reddit import parse_posts, read_posts
from augesc_builder.sources.sessions import iterate_sessions

SMALL = Limits(max_line_bytes=20)


def parted(found):
    """Part what a reader gives into what could be read and the errors."""
    found = list(found)
    good = [(number, row) for number, row in found if not isinstance(row, InputError)]
    return good, [str(row) for _, row in found if isinstance(row, InputError)]


def reddit(path, **changes):
    """Read the posts of a file; give their texts and what was counted."""
    bad = BadLines(**changes)
    results = (post for raw in read_posts(path, bad) for post in parse_posts(raw))
    return [post.text for post in bad.good(results)], bad


class TestLines:
    @pytest.mark.parametrize("block", [1, 7, 1000])
    @pytest.mark.parametrize("name", ["x", "x.gz", "x.zst"])
    def test_a_line_may_be_so_long_and_no_longer(self, tmp_path, monkeypatch, name, block):
        monkeypatch.setattr("augesc_builder.readers.compressed.MIB", block)
        data = b"%s\n%s\nc\n%s" % (b"a" * 20, b"b" * 21, b"d" * 21)
        path = tmp_path / name
        packed = {".gz": gzip.compress, ".zst": zstandard.compress}.get(path.suffix, bytes)(data)
        path.write_bytes(packed)
        good, bad = parted(read_lines(path, SMALL))
        assert good == [(1, b"a" * 20), (3, b"c")]
        assert [said.partition(": ")[0] for said in bad] == [f"{path}, line {n}" for n in (2, 4)]
        assert (
            "longer than 20 bytes; remove the line, or give reading.max_line_bytes more" in bad[0]
        )

    def test_a_value_of_a_list_is_a_line(self, tmp_path):
        path = tmp_path / "x.json"
        path.write_text('[\n"a",\n["bbbbbbb",\n"bbbbbbb",\n"bbbbbbb"],\n"c"]')
        good, bad = parted(read_json_rows(path, SMALL))
        assert good == [(1, b'"a"'), (3, b'"c"')]
        assert len(bad) == 1
        path.write_text("[\n" + "[" * 5000 + "]" * 5001)
        with pytest.raises(InputError, match="nested too deep"):
            list(read_json_rows(path))

    @pytest.mark.parametrize("window", [20, 27, 31])
    def test_a_small_file_that_gives_gigabytes(self, tmp_path, window):
        parameters = zstandard.ZstdCompressionParameters.from_level(
            3, window_log=window, enable_ldm=False
        )
        path, said = tmp_path / "bomb.zst", b'{"title": "one"}\n'
        with path.open("wb") as file:
            compressor = zstandard.ZstdCompressor(compression_params=parameters)
            with compressor.stream_writer(file, closefd=False) as stream:
                stream.write(said)
                for _ in range(300):
                    stream.write(bytes(MIB))
        assert path.stat().st_size < 64 << 10
        tracemalloc.start()
        texts, bad = reddit(path)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert texts == ["one"]
        assert bad.count == 1
        assert "line 2: cannot be read further (more than 200 bytes come of each" in bad.examples[0]
        assert peak < 200 * MIB  # of 300
        texts, bad = reddit(path, limits=Limits(max_expansion=10**6))
        assert (texts, bad.count) == (["one"], 1)
        assert "longer than 1,048,576 bytes" in bad.examples[0]

    @pytest.mark.parametrize("name", ["x.gz", "x.zst"])
    def test_a_wrong_checksum_is_told(self, tmp_path, name):
        lines = b"".join(b'{"title": "post %d"}\n' % i for i in range(1000))
        if name.endswith("gz"):
            data = bytearray(gzip.compress(lines))
            data[-8] ^= 1
        else:
            parameters = zstandard.ZstdCompressionParameters.from_level(3, write_checksum=True)
            data = bytearray(
                zstandard.ZstdCompressor(compression_params=parameters).compress(lines)
            )
            data[-1] ^= 1
        path = tmp_path / name
        path.write_bytes(data)
        _, bad = reddit(path)
        assert bad.count == 1
        assert "cannot be read further" in bad.examples[0]


class TestCsv:
    def read(self, tmp_path, text, limits=USUAL):
        path = tmp_path / "x.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return parted(read_records(path, limits))

    def test_quotes_commas_and_line_ends_in_cells(self, tmp_path):
        text = '\ufeffid,text\r\n1,"a, ""b""\nc"\r\n\r\n2,say "hi"\r\n3,\n'
        good, bad = self.read(tmp_path, text)
        assert good == [
            (1, ["id", "text"]),
            (2, ["1", 'a, "b"\nc']),
            (5, ["2", 'say "hi"']),
            (6, ["3", ""]),
        ]
        assert not bad

    @pytest.mark.parametrize(
        ("line", "says"),
        [
            ('2,"never closed', "not a record of CSV (unexpected end of data)"),
            ('2,"closed" too early', "not a record of CSV (',' expected after '\"')"),
            ("2,three,cells", "not a record of CSV (expected 2 cells, found 3)"),
            ("2", "not a record of CSV (expected 2 cells, found 1)"),
            ("2," + "x" * 60, "longer than 50 bytes"),
        ],
    )
    def test_a_bad_record_spoils_no_other(self, tmp_path, line, says):
        text = "\n".join(["id,text", "1,one", line, "3,three"])
        good, bad = self.read(tmp_path, text, Limits(max_line_bytes=50))
        assert [cells for _, cells in good] == [["id", "text"], ["1", "one"], ["3", "three"]]
        (said,) = bad
        assert f"line 3: {says}" in said

    def test_one_stray_quote_among_very_many_rows(self, tmp_path):
        rows = [f'{i},"post number {i}, quoted"' for i in range(20_000)]
        rows[1000] = '1000,"a quote that opens, and nothing closes it'
        path = tmp_path / "posts.csv"
        path.write_text("\n".join(["id,text", *rows]))
        texts, bad = reddit(path)
        assert len(texts) == 19_999
        assert bad.count == 1
        assert bad.examples[0].startswith(f"{path}, line 1002: not a record of CSV")
        rows = [f"{i},post number {i}" for i in range(60_000)]  # no quote for a megabyte
        rows[1000] = '1000,"a quote that opens, and nothing closes it'
        path.write_text("\n".join(["id,text", *rows]))
        texts, bad = reddit(path)
        assert (len(texts), bad.count) == (59_999, 1)
        assert "a quote is not closed within 1,048," in bad.examples[0]

    def test_quotes_that_open_whatever_stands_before_are_no_square(self, tmp_path):
        """Each of these lines opens a quote, and keeps one open too."""
        path = tmp_path / "x.csv"
        path.write_text("a,b\n" + 'x","y\n' * 20_000)
        with path.open(newline="") as file:
            lines = _Lines(file, path, USUAL)
            good, bad = parted(_records(lines, path))
            assert len(good) + len(bad) == 20_001
            assert lines._n_read == path.stat().st_size
            assert lines._n_given < 10 * lines._n_read

    def test_bytes_that_are_no_text(self, tmp_path):
        path = tmp_path / "x.csv"
        path.write_bytes(b"id,text\n1,caf\xe9\n2,two\n")
        texts, bad = reddit(path)
        assert (texts, bad.count) == (["two"], 1)
        assert "line 2: cannot be read (UnicodeEncodeError" in bad.examples[0]


HEADER = ",".join(COLUMNS)
ONE = "c1,1,sad,p,0,I was so sad,,"


def tarball(path, kind, *, spoil=lambda data: data):
    """Write the official tarball's form, compressed; ``spoil`` changes its bytes."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        text = "\n".join([HEADER, ONE, *(ONE.replace("c1", f"c{i}") for i in range(999))]).encode()
        member = tarfile.TarInfo("ed/train.csv")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text))
    pack = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "": bytes}[kind]
    path.write_bytes(spoil(bytearray(pack(file.getvalue()))))
    return path


class TestTarball:
    @pytest.mark.parametrize("kind", ["gz", "bz2", "xz", ""])
    def test_every_compression_is_read(self, tmp_path, kind):
        path = tarball(tmp_path / "ed.tar", kind)
        assert len(list(read_empathetic_dialogues(path, BadLines()))) == 1000

    @pytest.mark.parametrize(("kind", "at"), [("gz", -8), ("gz", -5), ("xz", -20), ("bz2", -5)])
    def test_a_wrong_checksum_is_refused(self, tmp_path, kind, at):
        def spoil(data):
            data[at] ^= 1
            return data

        path = tarball(tmp_path / "ed.tar", kind, spoil=spoil)
        with pytest.raises(InputError, match="not a whole tarball"):
            list(read_empathetic_dialogues(path, BadLines()))

    @pytest.mark.parametrize("kind", ["gz", "bz2", "xz", ""])
    def test_damage_anywhere_is_one_line(self, tmp_path, kind):
        whole = tarball(tmp_path / "ed.tar", kind).read_bytes()
        path = tmp_path / "damaged.tar"
        for at in range(0, len(whole), max(1, len(whole) // 60)):
            for data in (whole[:at], whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :]):
                path.write_bytes(data)
                try:
                    list(read_empathetic_dialogues(path, BadLines()))
                except InputError as error:
                    assert "\n" not in str(error)  # noqa: PT017

    def test_a_member_made_of_nothing(self, tmp_path):
        path = tmp_path / "ed.tar"
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
            member = tarfile.TarInfo("ed/train.csv")
            member.pax_headers = {"GNU.sparse.map": "0,0", "GNU.sparse.size": str(1 << 50)}
            tar.addfile(member)
        with pytest.raises(InputError, match="not there"):
            list(read_empathetic_dialogues(path, BadLines()))


class TestParquet:
    def test_rows_that_are_too_long(self, tmp_path):
        path = tmp_path / "t.parquet"
        texts = ["a", "b" * 30, "c", "d" * 9]
        for column in (pa.array(texts), pa.array(texts).dictionary_encode()):
            pq.write_table(pa.table({"text": column}), path)
            good, bad = parted(read_rows(path, ["text"], SMALL))
            assert [(n, row["text"]) for n, row in good] == [(1, "a"), (3, "c"), (4, "d" * 9)]
            (said,) = bad
            assert "line 2: longer than 20 bytes" in said

    def test_two_columns_of_one_name(self, tmp_path):
        path = tmp_path / "t.parquet"
        pq.write_table(pa.table([pa.array([1]), pa.array([2])], names=["text", "text"]), path)
        with pytest.raises(InputError, match="several columns called text"), open_table(path):
            pass

    def test_nulls_and_wrong_kinds_in_empathetic_dialogues(self, tmp_path):
        good = {"utterance_idx": 1, "context": "sad", "utterance": "hello"}
        rows = [good, *({**good, name: None} for name in good), {**good, "context": "blue"}]
        path = tmp_path / "ed.parquet"
        pq.write_table(pa.Table.from_pylist(rows), path)
        bad = BadLines()
        (post,) = read_empathetic_dialogues(path, bad)
        assert post.text == "hello"
        assert bad.count == 4
        pq.write_table(pa.table({"utterance": ["x"]}), path)
        with pytest.raises(InputError, match="no column utterance_idx, context; found utterance"):
            list(read_empathetic_dialogues(path, bad))


DEEP = "[" * 5000 + "]" * 5000
REDDIT_LINES = {
    "half of a pair": '{"title": "x \\ud83d"}',
    "a reference of 5,000 digits": json.dumps({"title": f"&#{'1' * 5000};"}),
    "brackets nested 5,000 deep": '{"title": "x", "more": ' + DEEP + "}",
    "a number of 5,000 digits": '{"title": "x", "score": ' + "1" * 5000 + "}",
    "bytes": b'{"title": "caf\xe9"}',
    "a list as text": '{"title": ["x"]}',
    "a key that is half of a pair": '{"\\ud83d": "x"}',
}


@pytest.mark.parametrize("name", REDDIT_LINES)
def test_a_line_of_reddit_that_was_an_end_of_everything(tmp_path, name):
    line = REDDIT_LINES[name]
    path = tmp_path / "RS.jsonl"
    line = line if isinstance(line, bytes) else line.encode()
    path.write_bytes(b'{"title": "one"}\n' + line + b'\n{"title": "two"}\n')
    texts, bad = reddit(path)
    assert (texts, bad.count) == (["one", "two"], 1)
    assert bad.examples[0].startswith(f"{path}, line 2: ")
    bad.examples[0].encode()
    with pytest.raises(InputError, match="line 2: "):
        reddit(path, strict=True)


FINE = {"messages": [{"role": "user", "content": "hi"}]}
SESSION_LINES = {
    "a list as role": {"messages": [{"role": ["user"], "content": "hi"}]},
    "a number as source": {**FINE, "source": 3},
    "brackets nested 5,000 deep": DEEP,
    "half of a pair": '{"messages": [{"role": "user", "content": "\\ud83d"}]}',
    "a list as speaker": {"dialog": [{"speaker": ["usr"], "text": "hi"}]},
    "an object as speaker": '[[{"usr": 1}, "hi"]]',
    "a number of 5,000 digits": '{"messages": ' + "1" * 5000 + "}",
}


@pytest.mark.parametrize("name", SESSION_LINES)
def test_a_line_of_sessions_that_was_an_end_of_everything(augesc, refused, tmp_path, name):
    line = SESSION_LINES[name]
    line = line if isinstance(line, str) else json.dumps(line)
    path, out = tmp_path / "s.jsonl", tmp_path / "out"
    path.write_text("\n".join([json.dumps(FINE), line, json.dumps(FINE)]))
    for command in ("stats", "filter"):
        code, text, err = augesc(command, path, "--out", out / command)
        assert code == 0, err
        assert f"  unreadable: {path}, line 2: " in text
    found = json.loads((out / "stats" / "statistics.json").read_text())
    assert found["sessions"] == 2
    assert found["bad_lines"]["count"] == 1
    with pytest.raises(InputError, match="line 2: "):
        list(iterate_sessions(path))
    with pytest.raises(InputError, match=r"line \d: "):
        read_esconv(path)
    path.write_text(line)
    assert "no session in it that can be read" in refused("stats", path, "--out", out / "a")
    assert "none of the first 1 rows can be read" in refused("filter", path, "--out", out / "b")


def test_the_guard_tells_a_mistake_of_ours_by_its_name():
    def wrong(value, number):
        return value.nothing_of_that_name

    def broken(value, number):
        return {}[value]

    with pytest.raises(AttributeError):
        list(parse_each([(1, "x")], wrong, "f"))
    (error,) = parse_each([(7, "x")], broken, "f")
    assert str(error) == "f, line 7: cannot be read (KeyError: 'x'); mend or remove the line"


def test_the_limits_are_keys_with_these_defaults():
    shipped = load_recipe("paper").reading
    assert shipped.model_dump() == READING
    assert Limits(**READING) == USUAL
    assert shipped.unusual() == {}
    given = load_recipe("paper", ["reading.max_line_bytes=7"]).reading
    assert given.unusual() == {"reading": {**READING, "max_line_bytes": 7}}


def test_the_limits_of_a_recipe_reach_the_readers(augesc, tmp_path):
    words = "and so I went home and cried about it for a while"
    dump = tmp_path / "RS.jsonl"
    dump.write_text("\n".join(json.dumps({"title": f"{w} {words}"}) for w in ("one", "x" * 90)))
    given = ["--set", "queries.reddit.subreddits=[]", "--set", "reading.max_line_bytes=100"]
    code, text, err = augesc(
        "queries", "--source", f"reddit={dump}", "--out", tmp_path / "q", *given
    )
    assert code == 0, err
    assert f"unreadable: {dump}, line 2: longer than 100 bytes" in text
    rows = [{"query": "q", "text": "x" * n} for n in (5, 90)]
    path = tmp_path / "g.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    code, text, err = augesc("filter", path, "--out", tmp_path / "f", "--set", given[3])
    assert code == 0, err
    assert f"unreadable: {path}, line 2: longer than 100 bytes" in text
