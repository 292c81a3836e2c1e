"""The quality study as its server answers: real requests to a process of its own, then its log."""

from __future__ import annotations

import csv
import json
import os
import re
import resource
import signal
import stat
import subprocess
import sys
from collections import Counter
from pathlib import Path

import httpx
import pytest

from augesc_builder.human_evaluation.create import create
from augesc_builder.human_evaluation.pages.serving import HEADERS
from augesc_builder.human_evaluation.settings import load_settings
from augesc_builder.human_evaluation.store import Store
from augesc_builder.human_evaluation.study import Study
from augesc_builder.run.progress import Progress
from tests.human_evaluation.people import Person, Server, fill, leave_all, links_of
from tests.human_evaluation.studies import make_study

CROWD = (
    *("crowd.enabled=true", "crowd.completion_code=DONE77", "crowd.screen_out_code=OUT55"),
    *("crowd.study_id=abc", "crowd.completion_url=https://example.org/back?cc={code}"),
)
PATIENT = ("sessions=16", "per_person=4", "min_seconds=0")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A server of a study with many places, and the links that nobody has used."""
    folder = tmp_path_factory.mktemp("served") / "study"
    make_study(folder, *PATIENT, *CROWD, "contact=Ada Doe", n=16)
    table = folder.with_name("links.csv")
    with Server(folder, "--links", str(table)) as server:
        yield server, iter(links_of(table).items())


@pytest.fixture(scope="module", autouse=True)
def _quiet_sockets():
    yield
    leave_all()


@pytest.fixture
def server(served):
    return served[0]


@pytest.fixture
def someone(served):
    """A person with a link of their own, and how the log calls them."""
    name, link = next(served[1])
    person = Person(link)
    person.name = name
    yield person
    person.close()


@pytest.fixture
def worker(someone):
    """A person who has agreed, and sees the first conversation."""
    someone.begin()
    return someone


def log_of(server, name, *kinds):
    with Store.open(Study.open(server.study)) as store:
        return [e for e in store.events() if e.annotator == name and e.kind in kinds]


def answers_of(server, person):
    """Give the answers that count, by item."""
    with Store.open(Study.open(server.study)) as store:
        place = store.progress(person.name).place
        return {item: store.answers(person.name, item) for item in place.items}


def chosen(form):
    return {key: int(value) for key, value in form.items()}


# -- the way through ---------------------------------------------------------------------------


def test_from_the_link_to_the_code(server, someone):
    page = someone.open()
    assert page.step == "consent"
    for said in ("research study", "We keep your answers", "about distress", "stop at any time"):
        assert said in page.text
    assert "116 123" in page.text
    assert "Ada Doe" in page.text

    page = someone.send({})
    assert (page.status, page.step) == (422, "consent")
    assert someone.send({"agree": "yes"}).step == "check"
    assert "level of detail" in someone.page.text  # the guideline stands above the check
    assert someone.check_rightly().step == "1"

    sent = {}
    for number in range(1, 5):
        assert someone.page.heading == f"Conversation {number} of 4"
        assert f"{number - 1} of 4 conversations done" in someone.page.text
        given = fill(someone.page, lambda i, n=number: (i + n) % 4 + 1)
        sent[someone.page.form.values["item"]] = chosen(given)
        someone.send(given)
    assert someone.page.step == "done"
    assert "DONE77" in someone.page.text
    assert "https://example.org/back?cc=DONE77" in someone.page.html
    assert answers_of(server, someone) == sent
    assert len(log_of(server, someone.name, "finished")) == 1
    assert someone.open().step == "done"
    assert len(log_of(server, someone.name, "finished")) == 1


def test_the_set_of_a_conversation_is_nowhere_on_its_page(server, worker):
    study = Study.open(server.study)
    item = study.items[worker.page.form.values["item"]]
    for hidden in (item.session_id, f"{item.set}.jsonl", "seconds", "min_seconds"):
        assert hidden not in worker.page.html.replace(item.messages[0]["content"], "")


def test_who_fails_the_check_twice_gets_the_code_for_it(server, someone):
    someone.open()
    someone.send({"agree": "yes"})
    wrong = {name: values[-1] for name, values in someone.page.form.choices.items()}
    first = someone.page
    assert "Not everything was right" in someone.send(wrong).text
    someone.send(wrong, page=first)  # the same form again is the same try
    assert someone.page.step == "check"
    assert someone.send(wrong).step == "done"
    assert "OUT55" in someone.page.text
    assert someone.open(f"{someone.address}/1").step == "done"
    assert [e.body["right"] for e in log_of(server, someone.name, "comprehension")] == [False] * 2


def test_who_would_rather_not_take_part_is_let_go(server, someone):
    someone.open()
    assert someone.send({}, go="decline").step == "done"
    assert "You have left the study" in someone.page.text
    assert log_of(server, someone.name, "consented", "placed") == []


def test_a_missing_answer_is_asked_for_and_the_others_stay(server, worker):
    given = fill(worker.page, lambda i: 3)
    logic = given.pop("logic")
    page = worker.send(given)
    assert page.status == 422
    assert 'href="#q-logic"' in page.html
    assert page.html.count("Please choose an answer.") == 1
    assert {k: v for k, v in page.form.values.items() if k in given} == given
    assert worker.send({"logic": logic}).step == "2"


def test_one_goes_back_and_changes_an_answer(server, worker):
    item = worker.page.form.values["item"]
    worker.send(fill(worker.page, lambda i: 1))
    assert worker.send({}, go="back").step == "1"
    assert worker.page.form.values["empathy"] == "1"
    assert worker.send({"empathy": "4"}).step == "2"
    assert answers_of(server, worker)[item]["empathy"] == 4
    history = [e.body["answers"]["empathy"] for e in log_of(server, worker.name, "answered")]
    assert history == [1, 4]


def test_what_is_chosen_is_there_after_a_reload_though_never_sent(server, worker):
    assert worker.send({"logic": "2"}, go="keep").status == 204
    page = worker.open(f"{worker.address}/1")
    assert page.form.values["logic"] == "2"
    assert worker.open().step == "1"


def test_later_conversations_come_one_by_one(worker):
    assert worker.open(f"{worker.address}/3").step == "1"
    for nowhere in ("0", "5", "9" * 5000, "²", "nothing", "1/2", "%00", "..%2f"):
        assert worker.open(f"{worker.address}/{nowhere}").status == 404, nowhere


def test_a_double_click_and_a_late_copy_count_once(server, worker):
    first = worker.page
    given = fill(first, lambda i: 2)
    for _ in range(3):
        worker.send(given, page=first)
    assert len(log_of(server, worker.name, "answered")) == 1
    worker.open(f"{worker.address}/1")
    worker.send(fill(worker.page, lambda i: 4))
    worker.send(given, page=first)  # it was lost on the way, and comes now
    assert set(answers_of(server, worker)[first.form.values["item"]].values()) == {4}


def test_haste_is_in_the_log_and_nothing_is_dropped(tmp_path):
    study = make_study(tmp_path / "study", "min_seconds=1000")
    with Server(study.folder, "--links", str(tmp_path / "l.csv")) as server:
        ((name, link),) = list(links_of(tmp_path / "l.csv").items())[:1]
        person = Person(link)
        person.name = name
        person.begin()
        person.send(fill(person.page, lambda i: 2))
        (flag,) = log_of(server, name, "too_fast")
        assert flag.body["min_seconds"] == 1000
        assert 0 <= flag.body["seconds"] < 1000
        assert len(answers_of(server, person)[flag.item]) >= 7


# -- what is refused ---------------------------------------------------------------------------


def test_ratings_of_what_others_have_are_refused_and_logged(served, worker):
    server, others = served
    study = Study.open(server.study)
    mine = set(answers_of(server, worker))
    theirs = next(item for item in study.items if item not in mine)
    for item in (theirs, "nothing", ""):
        page = worker.send({**fill(worker.begun, lambda i: 1), "item": item}, page=worker.begun)
        assert (page.status, "not among yours" in page.text) == (409, True)
    refused = log_of(server, worker.name, "refused")
    assert [(e.body["reason"], e.item) for e in refused] == [
        ("not_assigned", theirs),
        ("not_assigned", ""),
        ("not_assigned", ""),
    ]
    assert refused[0].body["sent"]["empathy"] == "1"
    assert log_of(server, worker.name, "answered") == []
    del others


@pytest.mark.parametrize(
    "changed",
    [
        *({"empathy": value} for value in ("0", "5", "-1", "1.0", "²", "", " 1", "x" * 200)),
        *({"made_up": "1"}, {"empathy.3": "1"}, {"attention_check.1": "1"}, {"nonce": ""}),
        *({"nonce": "<script>"}, {"n": "-1"}, {"n": "9" * 50}, {"empathy": "1\x00"}),
    ],
    ids=repr,
)
def test_tampered_values_are_refused_and_logged(served, tampering, changed):
    server, person = served[0], tampering
    before = len(log_of(server, person.name, "refused"))
    page = person.send({**fill(person.begun, lambda i: 1), **changed}, page=person.begun)
    assert (page.status, "This was not taken" in page.text) == (400, True)
    assert len(log_of(server, person.name, "refused")) == before + 1
    assert log_of(server, person.name, "answered") == []


@pytest.fixture(scope="module")
def tampering(served):
    name, link = next(served[1])
    person = Person(link)
    person.name = name
    person.begin()
    yield person
    person.close()


def test_what_is_no_form_is_refused(server, tampering):
    address = f"{tampering.address}/1"
    fields = tampering.begun.form.values
    body = "&".join(f"{key}={value}" for key, value in fields.items())
    form = {"content-type": "application/x-www-form-urlencoded"}
    for content, headers in (
        (json.dumps(fields), {"content-type": "application/json"}),
        (body, {}),
        (f"{body}&item={fields['item']}", form),
        (b"empathy=%ff", form),
        (b"empathy=\xff", form),
        (f"{body}&x={'y' * 70_000}", form),
        ("&".join(f"x{i}=1" for i in range(3000)), form),
    ):
        answer = httpx.post(address, content=content, headers=headers)
        assert answer.status_code == 400, content[:80]
        assert "This was not taken" in answer.text
    assert httpx.post(address, content=b"x" * (2 << 20), headers=form).status_code == 413
    for method in ("PUT", "DELETE", "PATCH"):
        assert httpx.request(method, address).status_code == 405
    assert log_of(server, tampering.name, "answered") == []


def test_a_link_that_nobody_has_is_refused_and_guesses_are_slowed(server, tampering):
    known = tampering.address
    token = known.rsplit("/", 1)[1]
    elsewhere = httpx.HTTPTransport(local_address="127.0.0.9")
    with httpx.Client(transport=elsewhere) as guesser:
        # A link that came in from there before goes on to work, whatever others try.
        assert guesser.get(known).status_code == 303
        tried = [guesser.get(f"{server.address}/a/{token[:-1]}{i:02}") for i in range(25)]
        assert [answer.status_code for answer in tried] == [404] * 20 + [429] * 5
        assert 1 <= int(tried[-1].headers["retry-after"]) <= 60
        assert "not known here" in tried[0].text
        assert token not in tried[0].text
        assert guesser.get(known).status_code == 303
    assert httpx.get(known).status_code == 303  # others are somewhere else
    unknown = [e for e in log_of(server, "", "refused") if e.body["reason"] == "unknown_link"]
    assert len(unknown) == 1  # of many
    for odd in ("a", "a/", "a/%ff", "a/" + "x" * 3000, "a/\u0661", "a/..", "b", "static/x", "a//1"):
        assert httpx.get(f"{server.address}/{odd}").status_code in {404, 307}, odd


def test_every_answer_has_strict_headers_and_loads_nothing_from_elsewhere(server, tampering):
    for address in (
        *(server.address, tampering.address, f"{tampering.address}/1", f"{server.address}/nowhere"),
        *(f"{tampering.address}/leave", f"{server.address}/?PROLIFIC_PID=%00"),
    ):
        answer = httpx.get(address)
        for name, value in HEADERS.items():
            assert answer.headers[name] == value
        assert "set-cookie" not in answer.headers
        assert "server" not in answer.headers
        page = answer.text
        assert not re.search(r"<(script|link|img|iframe)[^>]*(src|href)=\"(https?:)?//", page)
        assert not re.search(r"<script(?![^>]*src=)|<[^>]+ on[a-z]+=|<[^>]+ style=", page)


def test_hostile_text_is_text(tmp_path):
    texts = [
        "<script>document.title='pwned'</script><img src=x onerror=alert(1)>",
        "**bold** [link](javascript:alert(1)) # heading {{ 7 * 7 }} {% raw %}",
        "\u202egnirts desrever\u202c and \u2067isolated\u2069 \u05e9\u05dc\u05d5\u05dd",
        "a\x00b\x1b[31mc\x7f\u0085",
        "</p></li></ol></section><form action='//evil'><input name=nonce value=x>",
    ]
    lines = []
    for i in range(8):
        said = [
            {"role": role, "content": f"{text} {i} {'x' * (i + 1)}"}
            for text in texts
            for role in ("user", "assistant")
        ]
        lines.append(json.dumps({"messages": said}) + "\n")
    corpora = {}
    for name in ("A", "B"):
        corpora[name] = str(tmp_path / f"{name}.jsonl")
        Path(corpora[name]).write_text("".join(lines).replace("xx", name))
    settings = load_settings("quality", ["sessions=4", "title=<b>Our & study</b>"])
    study = create(settings, corpora, tmp_path / "study", Progress(quiet=True))
    with Server(study.folder, "--links", str(tmp_path / "l.csv")):
        person = Person(next(iter(links_of(tmp_path / "l.csv").values())))
        person.begin()
        html = person.page.html
    assert html.count("<form") == html.count("<script") == 1
    assert "<img" not in html
    assert "&lt;script&gt;document.title=" in html
    assert "&lt;b&gt;Our &amp; study&lt;/b&gt;" in html
    assert "**bold** [link](javascript:alert(1)) # heading {{ 7 * 7 }} {% raw %}" in html
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", html)
    assert "\u05e9\u05dc\u05d5\u05dd" in html  # what is written from right to left stays readable


# -- crowd platforms ---------------------------------------------------------------------------


def test_a_platform_sends_people_and_knows_them_again(server):
    address = f"{server.address}/?PROLIFIC_PID=5f00ba4&STUDY_ID=abc&SESSION_ID=s1"
    one, again = Person(address), Person(address)
    assert one.open().step == "consent"
    one.begin(one.page)
    assert one.page.step == "1"
    assert again.open().address == one.page.address
    other = Person(address.replace("5f00ba4", "5f00ba5"))
    assert other.open().step == "consent"
    assert other.page.address != one.page.address
    assert "5f00ba4" not in one.page.address


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 404),
        ("x=1", 404),
        ("STUDY_ID=abc&SESSION_ID=s", 400),
        ("PROLIFIC_PID=&STUDY_ID=abc&SESSION_ID=s", 400),
        ("PROLIFIC_PID={{%25PROLIFIC_PID%25}}&STUDY_ID=abc&SESSION_ID=s", 400),
        ("PROLIFIC_PID=%3Cscript%3E&STUDY_ID=abc&SESSION_ID=s", 400),
        (f"PROLIFIC_PID={'5' * 65}&STUDY_ID=abc&SESSION_ID=s", 400),
        ("PROLIFIC_PID=%ff&STUDY_ID=abc&SESSION_ID=s", 400),
        ("PROLIFIC_PID=5f00ba9&STUDY_ID=other&SESSION_ID=s", 400),
        ("PROLIFIC_PID=5f00ba9&SESSION_ID=s", 400),
    ],
)
def test_who_comes_without_a_right_id_is_told_so_kindly(server, query, status):
    answer = httpx.get(f"{server.address}/?{query}")
    assert answer.status_code == status
    said = "personal link" if status == 404 else "no disadvantage for you"
    assert said in answer.text
    assert "<script>" not in answer.text


def test_where_no_platform_sends_people_nobody_comes_in_so(tmp_path):
    study = make_study(tmp_path / "study")
    with Server(study.folder) as server:
        answer = httpx.get(f"{server.address}/?PROLIFIC_PID=5f00ba4&STUDY_ID=abc&SESSION_ID=s")
    assert answer.status_code == 400
    assert "personal links alone" in answer.text


# -- ways out ----------------------------------------------------------------------------------


def test_a_place_that_somebody_leaves_is_given_to_the_next(tmp_path):
    study = make_study(tmp_path / "study", "links=10")  # of nine places
    with Server(study.folder, "--links", str(tmp_path / "l.csv")) as server:
        people = [Person(link) for link in links_of(tmp_path / "l.csv").values()]
        for person in people[:9]:
            assert person.begin().step == "1"
        late = people[9]
        assert late.begin().status == 503
        assert "All places are taken" in late.page.text
        items = people[3].page.form.values["item"]
        people[3].open(f"{people[3].address}/leave")
        assert "cannot be undone" in people[3].page.text
        assert people[3].send({}, go="leave").step == "done"
        assert "You have left" in people[3].page.text
        assert (
            people[3].send(fill(people[3].begun, lambda i: 1), page=people[3].begun).status == 409
        )
        assert late.open().step == "1"
        with Store.open(Study.open(server.study)) as store:
            placed = [e for e in store.events() if e.kind == "placed"]
        assert items in placed[-1].body["items"]


def test_the_answers_of_who_wants_none_used_are_in_no_report(server, worker):
    worker.send(fill(worker.page, lambda i: 1))
    assert worker.name in raters(server)
    worker.open(f"{worker.address}/leave")
    assert worker.send({"answers": "discard"}, go="leave").step == "done"
    assert "left out" in worker.page.text
    assert worker.open(f"{worker.address}/1").step == "done"
    assert worker.name not in raters(server)
    assert len(log_of(server, worker.name, "answered")) == 1  # the log keeps what was done


def raters(server):
    with Store.open(Study.open(server.study)) as store:
        return {rating.annotator for rating in store.ratings()}


def test_a_study_that_has_closed_says_so_and_takes_nothing(tmp_path):
    study = make_study(tmp_path / "study")
    table = tmp_path / "l.csv"
    with Server(study.folder, "--links", str(table)) as server:
        person = Person(next(iter(links_of(table).values())))
        person.begin()
    closed = make_study(tmp_path / "closed", "expires=2020-01-01")
    for name in ("tokens.json", "events.sqlite"):
        (closed.folder / name).write_bytes((study.folder / name).read_bytes())
    with Server(closed.folder, port=server.port) as server:
        assert "It closes at 2020-01-01" in server.said
        page = person.send(fill(person.begun, lambda i: 1))
        assert (page.status, "has closed" in page.text) == (410, True)
        assert person.open().step == "done"
        assert "has closed" in person.page.text
        with Store.open(Study.open(closed.folder)) as store:
            kinds = Counter(e.kind for e in store.events())
        assert (kinds["answered"], kinds["refused"]) == (0, 1)


# -- the process -------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(tmp_path, number):
    study = make_study(tmp_path / "study")
    with Server(study.folder) as server:
        assert httpx.get(server.address).status_code == 404
        code, said = server.stop(number)
    assert code == 0
    assert said == "Stopped. Everything that was sent is in the study's folder.\n"


def test_a_second_server_and_a_taken_port_are_refused_in_a_line(tmp_path, server):
    study = make_study(tmp_path / "study")
    for folder, wrong in ((server.study, "another server"), (study.folder, "something else")):
        command = [sys.executable, "-m", "augesc_builder", "study", "serve", str(folder)]
        ended = subprocess.run(
            [*command, "--port", str(server.port)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert ended.returncode == 2
        assert ended.stdout == ""
        (line,) = ended.stderr.splitlines()
        assert wrong in line


def test_after_a_kill_people_go_on_where_they_were(tmp_path):
    study = make_study(tmp_path / "study")
    table = tmp_path / "l.csv"
    with Server(study.folder, "--links", str(table)) as server:
        person = Person(next(iter(links_of(table).values())))
        person.begin()
        given = fill(person.page, lambda i: 3)
        person.send(given)
        server.kill()
        server.start()
        assert person.send(given, page=person.begun).step == "2"  # sent again: known
        assert person.open().step == "2"
        assert person.open(f"{person.address}/1").form.values["empathy"] == "3"


def test_a_full_disk_is_said_and_the_answer_can_be_sent_again(tmp_path):
    study = make_study(tmp_path / "study")
    table = tmp_path / "l.csv"
    with Server(study.folder, "--links", str(table)) as server:
        name, link = next(iter(links_of(table).items()))
        person = Person(link)
        person.name = name
        person.begin()
        before = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (1, before[1]))
        page = person.send(fill(person.begun, lambda i: 3), page=person.begun)
        assert page.status == 503
        assert "could not keep this" in page.text
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, before)
        assert person.send(fill(person.begun, lambda i: 3), page=person.begun).step == "2"
        (kept,) = log_of(server, name, "answered")
        assert set(kept.body["answers"].values()) >= {3}
        assert "not kept: " in server.stop()[1]


def test_links_are_written_for_nobody_elses_eyes(tmp_path):
    study = make_study(tmp_path / "study")
    table = tmp_path / "links.csv"
    table.write_text("old")
    table.chmod(0o644)
    prefix = "https://example.org/our/study"
    with Server(study.folder, "--links", str(table), "--url-prefix", prefix) as server:
        links = links_of(table)
        assert stat.S_IMODE(table.stat().st_mode) == 0o600
        assert len(links) == 9
        assert all(link.startswith(f"{prefix}/a/") for link in links.values())
        assert f"9 personal links: {prefix}/a/TOKEN" in server.said
        assert not any(link.rsplit("/", 1)[1] in server.said for link in links.values())
        # The web server in front may take the path off, or leave it on.
        path = next(iter(links.values())).removeprefix("https://example.org")
        for asked in (path, path.removeprefix("/our/study")):
            answer = httpx.get(server.address + asked)
            assert answer.headers["location"] == f"{path}/consent"
            page = httpx.get(f"{server.address}{asked}/consent").text
            assert f'action="{path}/consent"' in page
            for sheet in re.findall(r'href="(/our/study/static/[^"]+)"', page):
                assert httpx.get(server.address + sheet).status_code == 200
            assert page.count("/our/study/static/") == 3
        assert httpx.get(f"{server.address}/our/studyx/a/b").status_code == 404


def test_opening_it_to_others_says_what_that_means(tmp_path):
    study = make_study(tmp_path / "study")
    with Server(study.folder, "--host", "0.0.0.0") as server:
        assert "open to every machine" in server.said
        assert "http://127.0.0.1:" in server.said
    with Server(study.folder, "--host", "127.0.0.1") as server:
        assert "open to every machine" not in server.said


def test_a_corpus_that_has_changed_is_said_and_the_study_goes_on(tmp_path):
    study = make_study(tmp_path / "study")
    with (tmp_path / "B.jsonl").open("a") as file:
        file.write("\n")
    with Server(study.folder) as server:
        assert "B.jsonl has changed since the study was created" in server.said
        assert httpx.get(server.address).status_code == 404


@pytest.mark.parametrize(
    "prefix",
    [
        *("study", "ftp://x/y", "//x/y", "/a b", "/x?y", "/x#y", "?", "#", "/x?"),
        *("https://", "http://[x", "/a/../b%"),
    ],
)
def test_a_prefix_that_is_none_is_refused(refused, tmp_path, prefix):
    study = make_study(tmp_path / "study")
    assert "--url-prefix" in refused("study", "serve", study.folder, "--url-prefix", prefix)


def test_links_that_cannot_be_written_are_refused(refused, tmp_path):
    study = make_study(tmp_path / "study")
    (tmp_path / "loop").symlink_to("loop")
    for place in (
        tmp_path,
        tmp_path / "A.jsonl" / "x",
        "/dev/null",
        "/dev/full",
        "n" * 300,
        tmp_path / "loop" / "x",
    ):
        said = refused("study", "serve", study.folder, "--port", "0", "--links", place)
        assert "--links" in said
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".new")]


def test_what_is_no_study_is_refused(refused, tmp_path):
    assert "study.json" in refused("study", "serve", tmp_path)
    study = make_study(tmp_path / "study")
    assert "no-such" in refused("study", "serve", study.folder, "--host", "no-such-host.invalid")
    (study.folder / "items.jsonl").write_text("")
    assert "items.jsonl" in refused("study", "serve", study.folder)


def test_links_of_the_table_are_those_of_the_study(served):
    server, _ = served
    with (server.study.with_name("links.csv")).open() as file:
        rows = list(csv.DictReader(file))
    tokens = Study.open(server.study).tokens
    assert {row["annotator"]: row["link"].rsplit("/", 1)[1] for row in rows} == tokens.links
