"""`augesc view`: rows that are found as a plain loop finds them, pages as a browser shows them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from augesc_builder.human_evaluation.pages.serving import LOOPBACK, Guarded
from augesc_builder.human_evaluation.shelf import ANY, NONE, Shelf, Wanted
from augesc_builder.human_evaluation.view import A_PAGE, application, open_corpus, pieces
from augesc_builder.run.progress import Progress
from augesc_builder.tables import QUALITY, REJECTED, SESSIONS, to_table
from tests.conftest import ROOT, SHARED

EVIL = '<script>alert(1)</script><img src=x onerror="alert(2)"> **bold** {{ 7*7 }} (a+)+$ \x1b[2J'
TURNED = "\u202eabc שלום \u200f(end)"
QUIET = Progress(quiet=True)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


def session(i: int, *said: str, source: str = "one", flags=()) -> dict:
    messages = [
        {"role": ("user", "assistant")[k % 2], "content": text} for k, text in enumerate(said)
    ]
    return {"session_id": f"s{i}", "source": source, "messages": messages, "n_tokens": 10 * i,
            "safety_flags": flags}  # fmt: skip


def flag(name: str, utterance: int, start: int, end: int) -> dict:
    return {"flag": name, "utterance": utterance, "start": start, "end": end}


SAID = [
    session(0, "I lost my Job today.", "Which job?", "At the bakery."),
    session(1, "I want to die.", "I hear you.", source="two",
            flags=[flag("crisis", 0, 7, 13), flag("abuse", 0, 2, 9), flag("crisis", 1, 0, 1)]),
    session(2, EVIL, TURNED, EVIL, TURNED, source="<b>three</b>"),
    session(3, "Not looked at", "Yes", flags=None),
    session(4, "A flag out of place", "Yes", flags=[flag("abuse", 7, 0, 3), flag("abuse", 0, 9, 4),
                                                     flag("x", 1, -5, 99), flag("y", None, 0, 1),
                                                     flag(None, 0, 0, 1), None]),
]  # fmt: skip
FAILED = [
    {"query_id": "q", "sample": 0, "source": "one", "query": "My cat ran away", "text": " Oh.",
     "n_prompt_tokens": 7, "n_tokens": 3, "finish_reason": "eos", "seed": 1,
     "violations": ["total_utterances", "session_length"]},
    {"query_id": "q", "sample": 1, "source": "two", "query": "Cat", "text": f" Oh.\n{EVIL}",
     "n_prompt_tokens": None, "n_tokens": None, "finish_reason": "length", "seed": 1,
     "violations": ["format"]},
]  # fmt: skip


def write(path, rows, features=SESSIONS, group=2):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(to_table(rows, features), path, row_group_size=group)
    return path


@pytest.fixture
def corpus(tmp_path):
    """A corpus of two shards with several row groups, and rejected texts."""
    write(tmp_path / "c/data/train-00000-of-00002.parquet", SAID[:3])
    write(tmp_path / "c/data/train-00001-of-00002.parquet", SAID[3:])
    write(tmp_path / "c/rejected/train-00000-of-00001.parquet", FAILED, REJECTED)
    return tmp_path / "c"


@pytest.fixture
def browse(tmp_path):
    """Open a corpus; give what its pages answer, by address."""

    def opened(path):
        app = application(open_corpus(path, tmp_path, QUIET))
        client = TestClient(Guarded(app, LOOPBACK), "http://localhost")

        def get(address: str, status: int = 200) -> str:
            answer = client.get(address)
            assert answer.status_code == status, address
            return answer.text

        return get

    return opened


def names(page: str) -> list[str]:
    return re.findall(r"<bdi>(\S*)</bdi></a>", page)


def fits(row: dict, wanted: Wanted) -> bool:
    """Say what :meth:`Shelf.find` says, the slow way."""
    marks = {f["flag"] for f in row["safety_flags"] or ()}
    said = [row["session_id"], *(m["content"] for m in row["messages"])]
    n = len(row["messages"])
    return (
        wanted.source in {"", row["source"]}
        and (wanted.mark in {"", *marks} or (wanted.mark == ANY and bool(marks))
             or (wanted.mark == NONE and not marks))
        and (wanted.shortest is None or n >= wanted.shortest)
        and (wanted.longest is None or n <= wanted.longest)
        and any(wanted.text.lower() in text.lower() for text in said)
    )  # fmt: skip


WORDS = st.text("aAbB .*\\(é", max_size=3)
ROWS = st.builds(
    lambda said, source, marks: (said, source, marks),
    st.lists(WORDS, max_size=4),
    st.sampled_from("xy"),
    st.none() | st.lists(st.sampled_from(["crisis", "abuse"]), max_size=2),
)
WANTED = st.builds(
    Wanted, WORDS, st.sampled_from(["", "x", "y", "z"]),
    st.sampled_from(["", ANY, NONE, "crisis", "nope"]),
    st.none() | st.integers(0, 5), st.none() | st.integers(0, 5),
)  # fmt: skip


@given(st.lists(ROWS, max_size=9), WANTED, st.integers(1, 4), st.integers(0, 9))
def test_rows_are_found_and_read_as_a_plain_loop_does(tmp_path_factory, rows, wanted, group, cut):
    folder = tmp_path_factory.mktemp("shelf")
    made = [
        session(i, *said, source=source, flags=marks and [flag(m, 0, 0, 1) for m in marks])
        for i, (said, source, marks) in enumerate(rows)
    ]
    files = [
        write(folder / f"{i}.parquet", part, group=group)
        for i, part in enumerate((made[:cut], made[cut:]))
    ]
    shelf = Shelf(files)
    assert len(shelf) == len(made)
    found = [i for i, row in enumerate(made) if fits(row, wanted)]
    assert shelf.find(wanted).tolist() == found
    assert shelf.find(wanted).tolist() == found  # as it is kept
    items = shelf.read(found)
    assert [item.number for item in items] == found
    assert [item.messages for item in items] == [made[i]["messages"] for i in found]
    assert shelf.unmarked == sum(row["safety_flags"] is None for row in made)
    shutil.rmtree(folder)


@given(
    st.text(max_size=12),
    st.lists(st.tuples(st.integers(0, 14), st.integers(0, 16), st.sampled_from("ab")), max_size=5),
)
def test_pieces_are_the_text_and_each_character_has_its_labels(text, spans):
    cut = pieces(text, spans)
    assert "".join(piece for piece, _ in cut) == text
    assert all(piece for piece, _ in cut)
    at = 0
    for piece, labels in cut:
        for place in range(at, at + len(piece)):
            assert set(labels) == {label for a, b, label in spans if a <= place < b}
        at += len(piece)


def test_what_is_asked_for_is_listed(browse, corpus):
    get = browse(corpus)
    assert names(get("/sessions")) == [f"s{i}" for i in range(5)]
    for query, found in {
        "q=JOB": ["s0"], "q=%28a%2B%29%2B%24": ["s2"], "q=.%2A": [], "q=s3": ["s3"],
        "source=two": ["s1"], "source=%3Cb%3Ethree%3C/b%3E": ["s2"], "source=nope": [],
        "mark=crisis": ["s1"], "mark=*": ["s1", "s4"], "mark=-": ["s0", "s2", "s3"],
        "shortest=3": ["s0", "s2"], "longest=2": ["s1", "s3", "s4"], "shortest=3&longest=3": ["s0"],
        "q=yes&mark=abuse": ["s4"], "shortest=x&longest=-1": [f"s{i}" for i in range(5)],
        "page=0": [f"s{i}" for i in range(5)], "page=99999999999": [f"s{i}" for i in range(5)],
        "q=%00": [], "q=%ff": [], f"q={'a' * 5000}": [],
    }.items():  # fmt: skip
        assert names(get(f"/sessions?{query}")) == found, query
    assert names(get("/rejected?mark=format")) == ["q-1"]
    assert names(get("/rejected?q=cat+ran")) == ["q-0"]
    assert names(get("/rejected?shortest=1")) == ["q-0"]  # the other one is no conversation
    assert "· no conversation" in get("/rejected?mark=format")
    assert "10 tokens" in get("/rejected?q=cat+ran")


def test_the_next_row_is_the_next_that_was_asked_for(browse, corpus):
    get = browse(corpus)
    page = get("/sessions/3?longest=2")
    assert 'rel="prev" href="/sessions/1?longest=2&amp;"' in page
    assert 'rel="next" href="/sessions/4?longest=2&amp;"' in page
    assert "List of 3 found" in page
    page = get("/sessions/4")
    assert 'rel="prev" href="/sessions/3"' in page
    assert 'rel="next"' not in page


def test_flags_are_marked_where_they_stand_and_measures_stand_beside(browse, corpus):
    get = browse(corpus)
    page = get("/sessions/1")
    assert re.findall(r"<mark title=\"([^\"]*)\">([^<]*)<", page) == [
        ("abuse", "want "),
        ("abuse, crisis", "to"),
        ("crisis", " die"),
        ("crisis", "I"),
    ]
    assert "<dt>utterances</dt><dd>2</dd>" in page
    assert "<dt>tokens, prompt included</dt><dd>10</dd>" in page
    assert "<dt>words an utterance, seeker</dt><dd>5.0</dd>" in page
    assert "No safety pass looked at it" in get("/sessions/3")
    assert "<mark" not in get("/sessions/4").replace('<mark title="x">Yes<', "")
    assert "<mark>job</mark>" in get("/sessions/0?q=JOB")
    page = get("/rejected/1")
    assert "No conversation: a line has no role" in page
    assert "format</li>" in page


def test_findings_are_marked_where_a_table_of_quality_stands(browse, corpus):
    def row(name, *findings):
        return {"session_id": name, "findings": findings}

    def finding(utterance, start, end, reason):
        where = {"utterance": utterance, "start": start, "end": end}
        return {"measure": "consistency", "kind": "kin_ship", "reason": reason, **where}

    rows = [
        row("s1", finding(1, 2, 6, "a reason"), finding(0, 2, 6, None), finding(7, 0, 1, "far")),
        row("s2", finding(0, 0, 8, EVIL), finding(1, 0, 1, TURNED), None),
        row("s0", finding(0, -3, 99, "below and beyond"), finding(1, 5, 2, "backwards")),
    ]
    (corpus / "quality").mkdir()
    for n in (0, 1):
        path = corpus / "quality" / f"train-{n:05d}-of-00002.parquet"
        pq.write_table(to_table(rows[2 * n : 2 * n + 2], QUALITY), path, row_group_size=1)
    get = browse(corpus)
    page = get("/sessions/1")
    assert ("kin ship", "hear") in re.findall(r"<mark title=\"([^\"]*)\">([^<]*)<", page)
    assert '<a href="#u2">kin ship, utterance 2</a>: <bdi>a reason</bdi>' in page
    assert page.count('<mark title="kin ship">') == 1
    page = get("/sessions/2")
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "docs/quality.md" in page
    assert "Findings" not in get("/sessions/3")
    assert "Findings" not in get("/rejected/1")
    assert "<mark" not in get("/sessions/0")


def test_a_background_stands_before_its_conversation(browse, tmp_path):
    flags = [flag("crisis", -1, 0, 1)]
    told = {**session(0, "I lost my job.", "Which?", flags=flags), "background": "I <bake>."}
    write(tmp_path / "c/data/train-00000-of-00001.parquet", [told, session(1, "Hi", "Yes")])
    rejected = {**FAILED[0], "background": "I am a cook."}
    write(tmp_path / "c/rejected/train-00000-of-00001.parquet", [rejected], REJECTED)
    get = browse(tmp_path / "c")
    page = get("/sessions/0")
    assert '<p class="card" id="u0" dir="auto">I &lt;bake&gt;.</p>' in page
    assert '<a href="#u0">crisis, background</a>' in page
    assert "I am a cook." in get("/rejected/0")
    assert "Background" not in get("/sessions/1")


def test_hostile_text_is_shown_as_text(browse, corpus):
    get = browse(corpus)
    for page in (
        get("/sessions"),
        get("/sessions/2"),
        get("/rejected/1"),
        get("/sessions?q=alert"),
        get("/sessions?q=%3Cscript%3Ealert(3)"),
        get("/sessions?source=%22%3E%3Cscript"),
    ):
        assert re.findall(r"<script|<img|<b>|\x1b|\u202e", page) == []
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in get("/sessions/2")
    assert r"{{ 7*7 }} (a+)+$ \x1b[2J" in get("/sessions/2")
    assert "\\u202eabc שלום \u200f(end)" in get("/sessions/2")


def test_what_is_not_there_is_a_page_that_says_so(browse, corpus):
    (corpus / "figures").mkdir()
    (corpus / "figures/good.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (corpus / "figures/note.txt").write_text("secret")
    (corpus / "figures/link.png").symlink_to("/etc/hostname")
    get = browse(corpus)
    get("/figures/good")
    for address in (
        *("/nope", "/nope/1", "/a/b/c", "/sessions/5", "/sessions/-1", "/sessions/x"),
        *("/sessions/\u00b2", f"/sessions/{'9' * 5000}", "/figures/link", "/figures/note"),
        *("/figures/good.svg", "/figures/..%2fdata", "/figures/../filter_report.json"),
    ):  # fmt: skip
        assert "There is no such page" in get(address, 404)
    (corpus / "figures/good.svg").unlink()
    get("/figures/good", 404)


def test_a_row_that_is_wrong_hides_no_other(browse, tmp_path):
    rows = [*SAID[:2], session(2, "x")]
    rows[1] = {**rows[1], "messages": [{"role": "narrator", "content": "It rained."}]}
    rows[2] = {**rows[2], "messages": [{"role": "user", "content": None}]}
    write(tmp_path / "data/train-00000-of-00001.parquet", [*rows, {"session_id": "s3"}])
    get = browse(tmp_path)
    page = get("/sessions")
    assert names(page) == ["s0", "train-00000-of-00001-2", "train-00000-of-00001-3", "s3"]
    assert page.count("expected messages with role user or assistant and content") == 2
    assert "found {&#39;role&#39;: &#39;narrator&#39;" in get("/sessions/1")
    assert "0 utterances" in page


def test_a_file_that_is_gone_is_told_of(browse, corpus):
    get = browse(corpus)
    (corpus / "data/train-00001-of-00002.parquet").unlink()
    assert "no such file; check the path" in get("/sessions/3", 500)
    assert names(get("/sessions?longest=4&shortest=3")) == ["s0", "s2"]


def test_a_list_has_pages(browse, tmp_path):
    n = 2 * A_PAGE + 1
    write(tmp_path / "data/x.parquet", [session(i, "a") for i in range(n)])
    get = browse(tmp_path)
    seen = [name for at in (1, 2, 3) for name in names(get(f"/sessions?q=a&page={at}"))]
    assert seen == [f"s{i}" for i in range(n)]
    assert 'rel="next" href="?q=a&amp;page=3"' in get("/sessions?q=a&page=2")
    assert "page 3 of 3" in get("/sessions?q=a&page=4")
    assert 'href="/sessions?page=2">List' in get(f"/sessions/{A_PAGE}")


def test_a_build_is_told_of_on_the_first_page(browse, built):
    get = browse(built)
    page = get("/")
    kept = pq.read_table(built / "corpus/data").num_rows
    assert re.search(rf'sessions kept</span>\s*<strong class="number">{kept}<', page)
    for part in ("posts read", "Table 1", "Table 2", "paper: GPT-J (Reddit)", "paper: ESConv"):
        assert part in page
    figures = re.findall(r'<img src="(/figures/\w+)"', page)
    assert {"/figures/session_statistics", "/figures/lexical_diversity"} <= set(figures)
    for address in figures:
        assert get(address).startswith("<?xml")
    assert len(names(get("/sessions"))) == min(kept, A_PAGE)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"by_source": 3}', "[" * 100_000, '"x"', "\xff"])
def test_reports_that_are_broken_leave_the_rest(browse, corpus, text):
    for name in ("filter_report", "safety_report", "statistics"):
        (corpus / f"{name}.json").write_bytes(text.encode("latin-1"))
    page = browse(corpus)("/")
    assert len(re.findall(r"\w+\.json cannot be read", page)) == 3
    assert "Sessions (5)" in page


def test_lines_and_other_tables_are_read_too(browse, tmp_path):
    lines = tmp_path / "lines.jsonl"
    lines.write_text(
        '{"messages": [{"role": "user", "content": "One"}]}\nbroken\n'
        '[["usr", "Two"], ["sys", "Yes"]]\n'
    )
    page = browse(lines)("/sessions")
    assert "Sessions (2)" in page
    assert "lines-1" in page
    assert "had no safety pass" in page


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no real corpora in {SHARED}")
def test_esconv_is_shown_with_its_greetings(browse):
    get = browse(SHARED / "esconv" / "valid.txt")
    assert "Sessions (195)" in get("/sessions")
    assert 'class="turn supporter" id="u1"' in get("/sessions/0")


@contextmanager
def served(path, *arguments):
    """Run the command; give its address, and the process."""
    command = [sys.executable, "-m", "augesc_builder", "view", str(path), "--port", "0", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            said = ""
            while not (at := re.search(r"http://127\.0\.0\.1:\d+/", said)):
                line = process.stdout.readline()
                assert line, said
                said += line
            yield at[0], process
        finally:
            process.kill()


def test_the_command_serves_until_it_is_interrupted(corpus):
    with served(corpus) as (address, process):
        with urllib.request.urlopen(f"{address}sessions?q=job") as answer:
            assert names(answer.read().decode()) == ["s0"]
            assert answer.headers["cache-control"] == "no-store"
        request = urllib.request.Request(address, headers={"Host": "rebound.example"})
        with pytest.raises(urllib.error.HTTPError, match="421"):
            urllib.request.urlopen(request)
        process.send_signal(signal.SIGINT)
        assert process.stdout.read().strip() == "Ended."
        assert process.wait() == 0


def test_mistakes_are_one_line(refused, tmp_path, corpus):
    assert "no such file" in refused("view", tmp_path / "nope")
    (tmp_path / "empty").mkdir()
    assert "no Parquet files; expected a corpus folder" in refused("view", tmp_path / "empty")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    assert "not a readable Parquet file" in refused("view", tmp_path / "broken.parquet")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    assert "no column messages" in refused("view", tmp_path / "other.parquet")
    pq.write_table(pa.table({"query": [1], "text": [2]}), tmp_path / "c/rejected/b.parquet")
    assert "expected columns query and text" in refused("view", corpus)
    (tmp_path / "c/rejected/b.parquet").unlink()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert "something else listens there" in refused("view", corpus, "--port", port)


@pytest.mark.slow
def test_a_corpus_of_the_papers_size_stays_on_disk(tmp_path):
    rows = [session(i, *("I feel so alone in this. " * 8,) * 6) for i in range(500)]
    table = to_table(rows, SESSIONS)
    with pq.ParquetWriter(tmp_path / "x.parquet", table.schema) as writer:
        for _ in range(200):
            writer.write_table(table)
    text = 100_000 * 6 * 25 * 8
    pool = pa.default_memory_pool()
    before = pool.max_memory()
    shelf = Shelf([tmp_path / "x.parquet"])
    assert len(shelf.find(Wanted("ALONE"))) == len(shelf) == 100_000
    assert shelf.read([99_999])[0].name == "s499"
    assert pool.max_memory() - before < text / 20


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_a_browser_shows_it_by_keyboard_on_a_phone_and_in_the_dark(corpus, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright")
    (corpus / "figures").mkdir()
    drawing = (
        "<svg xmlns='http://www.w3.org/2000/svg' width='40' height='30'><rect style='fill:"
        "#ff0000' width='40' height='30'/></svg>"
    )
    (corpus / "figures/red.svg").write_text(drawing)
    with served(corpus) as (address, _), playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        said = []
        for options in ({"color_scheme": "dark"}, {"viewport": {"width": 360, "height": 640}}):
            page = browser.new_context(**options).new_page()
            page.set_default_timeout(120_000)
            page.on("console", lambda message: said.append(message.text))
            page.on("dialog", lambda dialog: said.append(dialog.message))
            for path in ("", "sessions", "sessions/2", "sessions/1", "rejected/1", "nope"):
                page.goto(address + path)
                wide = page.evaluate("document.documentElement.scrollWidth")
                assert wide <= page.viewport_size["width"], path
        page.goto(address)
        assert page.locator("figure img").evaluate("image => image.decode().then(() => true)")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "To the content"
        page.goto(f"{address}sessions")
        page.focus("#q")
        page.keyboard.type("(A+)+$")
        page.keyboard.press("Enter")
        page.wait_for_url("**/sessions?q=**")
        assert page.locator(".rows > li").count() == 1
        assert page.locator(".rows mark").inner_text() == "(a+)+$"
        page.locator(".rows a").focus()
        page.keyboard.press("Enter")
        page.wait_for_url("**/sessions/2?q=**")
        assert page.locator(".bubble").first.inner_text().startswith("<script>alert(1)</script>")
        assert page.locator(".bubble img, .bubble script").count() == 0
        page.screenshot(path=tmp_path / "phone.png")
        browser.close()
    assert [text for text in said if "404" not in text] == []
