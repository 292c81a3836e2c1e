"""What is behind the pages of the quality study, apart from any server."""

from __future__ import annotations

import socket

import anyio
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from augesc_builder.errors import ServeError
from augesc_builder.human_evaluation.form import load_form
from augesc_builder.human_evaluation.guesses import WINDOW, WRONG, Guesses
from augesc_builder.human_evaluation.pages.drawing import render
from augesc_builder.human_evaluation.quality_app import application
from augesc_builder.human_evaluation.quality_pages import Go, QualityPages
from augesc_builder.human_evaluation.quality_views import Views, grouped, linked, numbers
from augesc_builder.human_evaluation.serve import Site, address_of
from augesc_builder.human_evaluation.store import Store
from augesc_builder.human_evaluation.unfit import Unfit
from augesc_builder.run.progress import Progress
from tests.human_evaluation.studies import Clock, enter, make_study

SAID = [
    {"role": role, "content": f"{role} {i}"} for i in range(3) for role in ("user", "assistant")
]


# -- guesses -----------------------------------------------------------------------------------


def test_the_last_wrong_link_is_looked_at_and_the_next_waits():
    clock = Clock(0.0)
    guesses = Guesses(clock)
    for i in range(WRONG):
        assert guesses.wait("1.2.3.4", f"wrong{i}") == 0
        assert guesses.wrong("1.2.3.4") == (i == 0)
    assert guesses.wait("1.2.3.4", "x") == WINDOW
    assert guesses.wait("1.2.3.5", "x") == 0  # another address
    clock.pass_(WINDOW - 1)
    assert guesses.wait("1.2.3.4", "x") == 1
    clock.pass_(1)
    assert guesses.wait("1.2.3.4", "x") == 0
    assert guesses.wrong("1.2.3.4")  # the first in a new window


def test_a_link_that_was_right_from_an_address_passes_from_there():
    guesses = Guesses(Clock(0.0))
    guesses.right("1.2.3.4", "mine")
    for _ in range(WRONG):
        guesses.wrong("1.2.3.4")
        guesses.wrong("1.2.3.5")
    assert guesses.wait("1.2.3.4", "mine") == 0
    assert guesses.wait("1.2.3.4", "other") > 0
    assert guesses.wait("1.2.3.5", "mine") > 0


def test_what_is_remembered_of_guesses_is_bounded(monkeypatch):
    monkeypatch.setattr("augesc_builder.human_evaluation.guesses._KEPT", 10)
    guesses = Guesses(Clock(0.0))
    for i in range(100):
        guesses.wrong(str(i))
        guesses.right(str(i), "x")
    assert len(guesses._wrong) == len(guesses._known) == 10
    assert guesses._wrong["99"].maxlen == WRONG


# -- forms -------------------------------------------------------------------------------------

SLOTS = load_form("paper").slots(SAID, attention=2)
KEYS = [slot.key for slot in SLOTS]


@given(st.dictionaries(st.sampled_from(KEYS), st.integers(1, 4)))
def test_what_a_page_can_send_is_read_as_it_is(chosen):
    form = {key: str(number) for key, number in chosen.items()} | {"nonce": "x"}
    assert numbers(form, SLOTS, ["nonce"]) == chosen


@given(st.sampled_from(KEYS), st.text().filter(lambda text: text not in {"1", "2", "3", "4"}))
def test_no_other_value_is_an_option(key, value):
    with pytest.raises(ValueError, match="no option"):
        numbers({key: value}, SLOTS, [])


@given(st.text().filter(lambda text: text not in KEYS))
def test_no_other_field_is_a_question(key):
    with pytest.raises(ValueError, match="no question"):
        numbers({key: "1"}, SLOTS, [])


def test_questions_stand_under_their_part_or_their_utterance():
    parts = grouped(load_form("paper"), SLOTS)
    assert [(heading, len(some)) for heading, some in parts] == [
        *(("Seeker Evaluation", 1), ("Supporter Evaluation", 3), ("Overall Evaluation", 3)),
        ("", 1),  # the check of attention
    ]
    form = load_form("behaviours")
    turns = grouped(form, form.slots(SAID))
    assert [heading for heading, _ in turns] == ["Utterance 2", "Utterance 4", "Utterance 6"]
    assert all(len(some) == len(form.questions) for _, some in turns)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("call 988.", [("call 988.", False)]),
        ("at https://a.org/b.", [("at ", False), ("https://a.org/b", True), (".", False)]),
        ("http://a.org javascript:x", [("http://a.org javascript:x", False)]),
        ("https://a.org\"onclick='x'", [("https://a.org", True), ("\"onclick='x'", False)]),
    ],
)
def test_only_https_addresses_become_links(text, pieces):
    assert linked(text) == pieces


# -- pages -------------------------------------------------------------------------------------


def test_each_utterance_is_asked_about_where_the_form_says_so(tmp_path):
    study = make_study(tmp_path / "study", "form=behaviours", "min_seconds=0")
    with Store.open(study, Clock()) as store:
        enter(store, "someone")
        place = store.assign("someone")
        progress = store.progress("someone")
        page = Views(study).session(progress, place, place.items[0], {})
        html = render(
            page.template,
            **{**Views(study).always, **page.values},
            static=str,
            to=lambda step: f"/a/x/{step}",
        )
    for turn in (1, 3):
        assert f'name="{study.form.questions[0].name}.{turn}"' in html
        assert f"of utterance {turn + 1}</span>" in html
        assert f'id="u{turn + 1}"' in html


def test_a_page_is_drawn_from_the_store_alone(tmp_path):
    """Another process, or the same one later, shows the same to the same person."""
    study = make_study(tmp_path / "study")
    with Store.open(study) as store:
        enter(store, "someone")
        first = QualityPages(study, store).get("someone", "")
        assert QualityPages(study, store).get("someone", "") == first == Go("1")
        item = store.progress("someone").place.items[0]
        form = {slot.key: "2" for slot in study.slots(item)} | {"item": item, "nonce": "n" * 16}
        assert QualityPages(study, store).post("someone", "1", form) == Go()
        assert QualityPages(study, store).get("someone", "") == Go("2")


def test_an_expired_study_shows_its_end_and_the_code_to_who_was_done(tmp_path):
    clock = Clock()
    study = make_study(
        tmp_path / "study",
        *("expires=2027-01-20", "crowd.completion_code=DONE77", "sessions=1", "per_person=3"),
    )
    clock.now = study.settings.end
    with Store.open(study, clock) as store:
        pages = QualityPages(study, store)
        enter(store, "quick")
        enter(store, "slow")
        place = store.assign("quick")
        for item in place.items:
            slots = study.slots(item, place.checks.get(item))
            form = {slot.key: "2" for slot in slots} | {"item": item, "nonce": f"{item:n>16}"[:16]}
            pages.post("quick", "1", form)
        store.assign("slow")
        assert pages.get("slow", "") == Go("1")
        clock.pass_(1)
        assert pages.get("slow", "") == Go("done") == pages.get("slow", "1")
        assert "closed" in pages.get("slow", "done").values["heading"]
        with pytest.raises(Unfit, match="closed"):
            pages.post("slow", "1", {**form, "nonce": "m" * 16})
        ended = pages.get("quick", "done")
        assert ended.values["code"] == "DONE77"
        assert not ended.values["rated"]  # nothing can be changed any more


def test_who_was_away_for_too_long_is_told_and_their_late_answer_is_in_the_log(tmp_path):
    clock = Clock()
    study = make_study(tmp_path / "study", "sessions=1", "per_person=3", "ratings=1", "links=2")
    with Store.open(study, clock) as store:
        pages = QualityPages(study, store)
        enter(store, "slow")
        assert pages.get("slow", "") == Go("1")
        item = store.progress("slow").place.items[0]
        enter(store, "next")
        with pytest.raises(Unfit, match="places are taken"):
            pages.get("next", "")
        clock.pass_(study.settings.timeout_seconds + 1)
        assert pages.get("next", "") == Go("1")
        form = {slot.key: "2" for slot in study.slots(item)} | {"item": item, "nonce": "n" * 16}
        with pytest.raises(Unfit, match="not among yours"):
            pages.post("slow", "1", form)
        refused = [event.body for event in store.events() if event.kind == "refused"]
        assert [body["reason"] for body in refused] == ["not_assigned"]
        assert refused[0]["sent"]["empathy"] == "2"
        assert "somebody else" in pages.get("slow", "done").values["heading"]


def test_a_mistake_of_ours_is_a_page_and_its_error_goes_to_the_server(tmp_path):
    """People read that it is not their fault; nothing of the error itself."""
    study = make_study(tmp_path / "study")
    with Store.open(study) as store:
        pages = QualityPages(study, store)
        pages.entrance = lambda given: 1 // 0
        app = application(pages, "/study", Progress(quiet=True))
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)

        async def ask():
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                return await client.get("/study/?PROLIFIC_PID=5f00ba4")

        answer = anyio.run(ask)
    assert answer.status_code == 503
    assert "not your fault" in answer.text
    assert "ZeroDivisionError" not in answer.text


# -- addresses ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefix", "origin", "path"),
    [
        ("", "", ""),
        ("/", "", ""),
        ("/study", "", "/study"),
        ("/our/study/", "", "/our/study"),
        ("https://example.org", "https://example.org", ""),
        ("http://example.org:8443/a/", "http://example.org:8443", "/a"),
    ],
)
def test_a_prefix_is_a_path_or_an_address(prefix, origin, path):
    assert Site.of(prefix) == Site(origin, path)


@given(st.text(st.characters(codec="utf-8"), max_size=30))
def test_any_prefix_is_taken_or_refused(prefix):
    try:
        site = Site.of(prefix)
    except ServeError:
        return
    assert site.path == "" or site.path.startswith("/")
    assert not set(site.path) & set(" \"'<>?#\\\n")


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1")])
def test_an_address_can_be_opened_on_this_machine(host, shown):
    with socket.create_server((host, 0)) as door:
        assert address_of(door) == f"http://{shown}:{door.getsockname()[1]}"
