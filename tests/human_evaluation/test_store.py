"""The store: places, answers and changes of mind, from threads and processes, through kills."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from augesc_builder.errors import AugescError, DiskError, StudyError
from augesc_builder.human_evaluation.create import create
from augesc_builder.human_evaluation.design import balance
from augesc_builder.human_evaluation.form import LEFT, RIGHT, TIE
from augesc_builder.human_evaluation.settings import load_settings
from augesc_builder.human_evaluation.store import Store
from augesc_builder.human_evaluation.study import Study
from tests.conftest import SOAK
from tests.human_evaluation.studies import QUIET, Clock, enter, make_study, rate, rate_all

HOUR = 3600


def people(store: Store, n: int) -> list[str]:
    return list(store.study.tokens.links)[:n]


# -- the way in ------------------------------------------------------------------------------------


def test_somebody_goes_all_the_way(store):
    (name,) = people(store, 1)
    assert store.progress(name).stage == "new"
    store.arrive(name)
    store.arrive(name)
    store.consent(name)
    assert store.progress(name).stage == "consented"
    assert store.comprehension(name, {0: 1, 1: 2}) == "passed"
    assert store.progress(name).stage == "ready"
    place = store.assign(name)
    assert store.assign(name) == place
    for i, item in enumerate(place.items):
        found = store.progress(name)
        assert (found.stage, found.next_item, len(found.finished)) == ("working", item, i)
        rate(store, name, item)
    assert store.progress(name).stage == "done"
    assert store.progress(name).next_item is None
    # Who is done can still go back.
    rate(store, name, place.items[0], lambda key: 4)
    assert store.progress(name).stage == "done"


def test_without_consent_and_comprehension_there_is_no_place(store):
    one, two = people(store, 2)
    for begin in (lambda: None, lambda: store.arrive(one), lambda: store.consent(one)):
        begin()
        with pytest.raises(StudyError) as raised:
            store.assign(one)
        assert raised.value.reason == "no_place"
    assert store.comprehension(two, {0: 1, 1: 2}) == "again"  # it was not asked yet
    assert store.progress(two).stage == "new"


def test_the_comprehension_check_has_two_tries(store):
    one, two = people(store, 2)
    for name in (one, two):
        store.consent(name)
        assert store.comprehension(name, {0: 2, 1: 2}, "first") == "again"
        # The same try sent twice is one.
        assert store.comprehension(name, {0: 2, 1: 2}, "first") == "again"
    assert store.comprehension(one, {0: 1, 1: 2}, "second") == "passed"
    assert store.comprehension(two, {0: 1, 1: 1}, "second") == "screened_out"
    assert store.comprehension(two, {0: 1, 1: 2}, "third") == "screened_out"
    with pytest.raises(StudyError):
        store.assign(two)
    assert store.progress(two).tries == 2


def test_a_missing_answer_is_a_wrong_one(store):
    (name,) = people(store, 1)
    store.consent(name)
    assert store.comprehension(name, {0: 1}, "first") == "again"
    assert store.comprehension(name, {}, "second") == "screened_out"


def test_without_comprehension_questions_consent_is_enough(tmp_path):
    with Store.open(make_study(tmp_path / "study", "comprehension.questions=[]")) as store:
        (name,) = people(store, 1)
        store.consent(name)
        assert store.assign(name).number == 0


# -- places ----------------------------------------------------------------------------------------


def test_all_places_are_given_and_no_more(store):
    names = [*people(store, 9), "one-more"]
    for name in names:
        enter(store, name)
    places = [store.assign(name) for name in names]
    assert [place.number for place in places[:9]] == list(range(9))
    assert places[9] is None
    assert [place.items for place in places[:9]] == [p.items for p in store.study.places]


def test_who_leaves_gives_back_what_is_undone(store):
    names = [*people(store, 9), "later"]
    for name in names:
        enter(store, name)
    first = store.assign(names[0])
    for name in names[1:9]:
        store.assign(name)
    rate(store, names[0], first.items[0])
    store.leave(names[0])
    assert store.progress(names[0]).stage == "left"
    later = store.assign("later")
    assert set(later.items) == set(first.items[1:])
    assert later.items != first.items[1:]
    assert set(later.checks) <= set(later.items)
    with pytest.raises(StudyError):
        store.assign(names[0])
    # What they did counts, and nothing more is taken.
    assert {rating.annotator for rating in store.ratings()} == {names[0]}
    with pytest.raises(StudyError) as raised:
        rate(store, names[0], first.items[1])
    assert raised.value.reason == "not_assigned"


@pytest.mark.parametrize(("seconds", "lost"), [(2 * HOUR, False), (2 * HOUR + 0.001, True)])
def test_a_place_is_given_on_after_the_time_out_and_not_before(store, clock, seconds, lost):
    names = [*people(store, 9), "later"]
    for name in names:
        enter(store, name)
    places = {name: store.assign(name) for name in names[:9]}
    clock.pass_(seconds - 60)
    for name in names[1:9]:
        store.record("opened", name, places[name].items[0])
    clock.pass_(60)
    given = store.assign("later")
    assert (given is not None) == lost
    assert store.progress(names[0]).stage == ("timed_out" if lost else "working")
    if lost:
        assert set(given.items) == set(places[names[0]].items)
        assert [(e.annotator, e.body) for e in store.events() if e.kind == "released"] == [
            (names[0], {"place": 0, "reason": "timeout"})
        ]
        with pytest.raises(StudyError):
            rate(store, names[0], places[names[0]].items[0])
    else:
        rate(store, names[0], places[names[0]].items[0])


def test_nobody_loses_a_place_that_nobody_needs(store, clock):
    one, two = people(store, 2)
    for name in (one, two):
        enter(store, name)
    place = store.assign(one)
    clock.pass_(90 * 24 * HOUR)
    assert store.assign(two).number != place.number
    assert store.assign(one) == place
    rate(store, one, place.items[0])


def test_the_longest_silent_loses_first_and_who_is_done_loses_nothing(store, clock):
    names = [*people(store, 9), "x", "y"]
    for name in names:
        enter(store, name)
    for name in names[:9]:
        store.assign(name)
        clock.pass_(1)
    for item in store.progress(names[0]).place.items:
        rate(store, names[0], item)
    clock.pass_(3 * HOUR)
    assert store.assign("x").number == 1
    assert store.assign("y").number == 2
    assert store.progress(names[0]).stage == "done"


def test_a_place_goes_from_hand_to_hand(tmp_path, clock):
    """Whoever comes and goes, every session is rated by three different people in the end."""
    with Store.open(make_study(tmp_path / "study", "links=0"), clock) as store:
        for i in range(60):
            name = f"person{i}"
            enter(store, name)
            place = store.assign(name)
            if place is None:
                break
            done = place.items if i % 3 == 0 else place.items[: i % len(place.items)]
            for item in done:
                rate(store, name, item)
            if i % 3 == 1:
                store.leave(name)
            if i % 3 == 2:
                clock.pass_(3 * HOUR)
        else:
            raise AssertionError("places never come to an end")
        times = Counter((rating.session, rating.question) for rating in store.ratings())
        assert set(times.values()) == {3}
        assert len(times) == 12 * 7
        pairs = {(r.session, r.annotator) for r in store.ratings()}
        assert len(pairs) == 36
        orders = [tuple(e.body["items"]) for e in store.events() if e.kind == "placed"]
        assert len({order for order in orders if len(order) > 2}) == len(
            [order for order in orders if len(order) > 2]
        )


def test_nobody_is_given_what_they_had_before(tmp_path, clock):
    """One session, three people: who lost a place cannot take another person's part of it."""
    study = make_study(tmp_path / "study", "sessions=1", "per_person=3", "links=0")
    with Store.open(study, clock) as store:
        for name in ("a", "b", "c", "d"):
            enter(store, name)
        for name in ("a", "b", "c"):
            store.assign(name)
        clock.pass_(3 * HOUR)
        assert store.assign("d").number == 0
        assert store.progress("a").stage == "timed_out"
        with pytest.raises(StudyError):
            store.assign("a")


# -- answers ---------------------------------------------------------------------------------------


def test_a_submission_counts_once(store):
    (name,) = people(store, 1)
    enter(store, name)
    item = store.assign(name).items[0]
    assert store.answer(name, item, {"empathy": 2}, "page1")
    assert not store.answer(name, item, {"empathy": 2}, "page1")
    assert store.answer(name, item, {"empathy": 2}, "page2")
    # The same page sent again with another answer is a change of mind, and is kept.
    assert store.answer(name, item, {"empathy": 3}, "page1")
    assert store.answers(name, item) == {"empathy": 3}
    # Nobody's submission stands in the way of somebody else's.
    other = people(store, 2)[1]
    enter(store, other)
    assert store.answer(other, store.assign(other).items[0], {"empathy": 2}, "page1")


def test_a_late_copy_of_an_old_page_changes_nothing(store):
    (name,) = people(store, 1)
    enter(store, name)
    item = store.assign(name).items[0]
    store.answer(name, item, {"empathy": 2}, "page1")
    store.answer(name, item, {"empathy": 4}, "page2")
    assert not store.answer(name, item, {"empathy": 2}, "page1")
    assert store.answers(name, item) == {"empathy": 4}


def test_every_change_of_mind_is_kept_and_the_last_counts(store, clock):
    (name,) = people(store, 1)
    enter(store, name)
    item = store.assign(name).items[0]
    rate(store, name, item, lambda key: 1)
    clock.pass_(5)
    store.answer(name, item, {"logic": 4})
    clock.pass_(5)
    store.answer(name, item, {"logic": 2, "empathy": 3})
    kept = [e.body["answers"]["logic"] for e in store.events() if e.kind == "answered"]
    assert kept == [1, 4, 2]
    values = {rating.question: rating.value for rating in store.ratings()}
    assert (values["logic"], values["empathy"], values["coherence"]) == (2, 1, 3)


def test_a_half_done_session_is_no_rating(store):
    (name,) = people(store, 1)
    enter(store, name)
    one, two = store.assign(name).items[:2]
    rate(store, name, one)
    questions = store.study.form.question_names
    store.answer(name, two, dict.fromkeys(questions[:-1], 1))
    assert {rating.session for rating in store.ratings()} == {one}
    store.answer(name, two, {questions[-1]: 1})
    assert {rating.session for rating in store.ratings()} == {one, two}


def test_scores_are_four_less_the_option(store):
    (name,) = people(store, 1)
    enter(store, name)
    item = store.assign(name).items[0]
    for option in (1, 2, 3, 4):
        rate(store, name, item, lambda key, option=option: option)
        assert {rating.value for rating in store.ratings()} == {4 - option}


def test_what_is_not_ones_own_is_refused(store):
    one, two = people(store, 2)
    for name in (one, two):
        enter(store, name)
    mine, others = store.assign(one), store.assign(two)
    foreign = next(item for item in others.items if item not in mine.items)
    for item in (foreign, "s999", "", "x' OR 1=1 --"):
        with pytest.raises(StudyError) as raised:
            store.answer(one, item, {"empathy": 1})
        assert raised.value.reason == "not_assigned"
    with pytest.raises(StudyError):
        store.answer("nobody", mine.items[0], {"empathy": 1})
    assert not [event for event in store.events() if event.kind == "answered"]


@pytest.mark.parametrize(
    "answers",
    [
        {},
        {"empathy": 0},
        {"empathy": 5},
        {"empathy": "1"},
        {"empathy": 1.0},
        {"empathy": True},
        {"empathy": None},
        {"empathy.1": 1},
        {"empathy": 1, "charm": 1},
        {"attention_check": 1},
        {"<script>": 1},
    ],
)
def test_answers_that_the_form_does_not_have_are_refused(store, answers):
    (name,) = people(store, 1)
    enter(store, name)
    place = store.assign(name)
    item = next(item for item in place.items if item not in place.checks)
    with pytest.raises(StudyError) as raised:
        store.answer(name, item, answers)
    assert raised.value.reason == "bad_answer"
    assert store.answers(name, item) == {}


@pytest.mark.parametrize(("seconds", "closed"), [(-1, False), (0, False), (1, True)])
def test_a_study_closes_at_its_end(tmp_path, clock, seconds, closed):
    overrides = ("expires='2027-03-31T18:00+01:00'",)
    study = make_study(tmp_path / "study", *overrides)
    clock.now = 1_806_512_400.0 - 60  # a minute before
    with Store.open(study, clock) as store:
        one, two = people(store, 2)
        for name in (one, two):
            enter(store, name)
        item = store.assign(one).items[0]
        clock.pass_(60 + seconds)
        if not closed:
            assert rate(store, one, item)
            return
        for call in (lambda: rate(store, one, item), lambda: store.assign(two)):
            with pytest.raises(StudyError, match="the study closed at 2027-03-31") as raised:
                call()
            assert raised.value.reason == "expired"


def test_checks_of_attention_are_counted_and_are_no_ratings(store):
    one, two = people(store, 2)
    for name, right in ((one, True), (two, False)):
        enter(store, name)
        place = store.assign(name)
        for item in place.items:
            rate(store, name, item)
        ((item, wanted),) = place.checks.items()
        if not right:
            store.answer(name, item, {"attention_check": wanted % 4 + 1})
    assert store.checks() == {one: (1, 1), two: (0, 1)}
    assert {rating.question for rating in store.ratings()} == set(store.study.form.question_names)


def test_seconds_are_those_of_all_visits(store, clock):
    (name,) = people(store, 1)
    enter(store, name)
    one, two = store.assign(name).items[:2]

    def opened(item: str, then: float) -> None:
        store.record("opened", name, item)
        clock.pass_(then)

    opened(one, 40)  # reads, reloads the page,
    opened(one, 10)
    rate(store, name, one)
    clock.pass_(3)
    opened(two, 20)  # looks at the next, goes back,
    opened(one, 5)
    store.answer(name, one, {"empathy": 1})
    opened(two, 4 * HOUR)  # and has lunch.
    rate(store, name, two)
    seconds = {rating.session: rating.seconds for rating in store.ratings()}
    assert seconds == {one: 55, two: 600}


def test_labels_of_turns_are_ratings_of_turns(tmp_path, clock):
    study = make_study(tmp_path / "study", "form=behaviours", "attention_checks=0")
    with Store.open(study, clock) as store:
        rate_all(store, lambda key: 1 if key == "unsafe.3" else 2)
        ratings = list(store.ratings())
    assert len(ratings) == 12 * 3 * 2 * 6
    assert {rating.turn for rating in ratings} == {1, 3}
    unsafe = {(r.turn, r.value) for r in ratings if r.question == "unsafe"}
    assert unsafe == {(1, 0), (3, 1)}


def test_preferences_name_the_winner_whichever_side_it_stood(tmp_path, clock):
    systems = [f"interactive.systems.{name}.folder=x" for name in "AB"]
    settings = load_settings("interactive", [*systems, "interactive.pairs=4"])
    study = create(settings, {}, tmp_path / "study", QUIET)
    with Store.open(study, clock) as store:
        for name in store.study.tokens.links:
            enter(store, name)
            (item,) = store.assign(name).items
            pair = study.items[item]
            side = LEFT if pair.left == "A" else RIGHT
            rate(store, name, item, lambda key, side=side: TIE if key == "fluency" else side)
        found = list(store.preferences())
    assert len(found) == 4 * 5
    assert {(p.question, p.winner) for p in found} == {
        ("fluency", None),
        *((name, "A") for name in ("identification", "comforting", "suggestion", "overall")),
    }
    assert {p.systems for p in found} == {("A", "B")}
    assert {study.items[p.pair].left for p in found} == {"A", "B"}


def test_a_judge_needs_no_place_and_is_marked(store):
    store.arrive("judge-gpt", via="judge", model="gpt")
    for item in store.study.items:
        rate(store, "judge-gpt", item)
    ratings = list(store.ratings())
    assert len(ratings) == 12 * 7
    assert all(rating.is_judge for rating in ratings)
    (name,) = people(store, 1)
    enter(store, name)
    rate(store, name, store.assign(name).items[0])
    assert {r.annotator for r in store.ratings() if not r.is_judge} == {name}


# -- the log ---------------------------------------------------------------------------------------


def test_nothing_is_changed_or_removed(store):
    rate_all(store)
    connection = sqlite3.connect(store.log.path)
    for statement in ("UPDATE events SET body = '{}'", "DELETE FROM events"):
        with pytest.raises(sqlite3.Error, match="events are never"):
            connection.execute(statement)
    connection.close()


HOSTILE = st.text(min_size=1, max_size=40) | st.sampled_from(
    ["'; DROP TABLE events; --", "<script>alert(1)</script>", "\u202eabc", "a\0b", "\U0001f600"]
)


@pytest.fixture(scope="module")
def one_store(tmp_path_factory):
    with Store.open(make_study(tmp_path_factory.mktemp("one") / "study")) as opened:
        yield opened


@settings(max_examples=30)
@given(text=HOSTILE, data=st.data())
def test_any_text_is_kept_as_it_is(one_store, text, data):
    before = max((event.id for event in one_store.events()), default=0)
    other = data.draw(HOSTILE)
    one_store.record("said", text, other, {"text": text, other: [text]})
    (event,) = one_store.events(after=before)
    assert (event.annotator, event.item) == (text, other)
    assert event.body == {"text": text, other: [text]}


def test_a_clock_that_is_set_back_harms_nothing(store, clock):
    (name,) = people(store, 1)
    enter(store, name)
    item = store.assign(name).items[0]
    store.record("opened", name, item)
    clock.pass_(-HOUR)
    rate(store, name, item)
    assert {rating.seconds for rating in store.ratings()} == {0}


@pytest.mark.parametrize("harm", ["remove", "noise", "empty", "other"])
def test_a_log_that_is_none_is_one_line(study, harm):
    path = study.folder / "events.sqlite"
    for other in study.folder.glob("events.sqlite-*"):
        other.unlink()
    if harm == "remove":
        path.unlink()
    else:
        path.write_bytes({"noise": os.urandom(4096), "empty": b""}.get(harm, b"x"))
    if harm == "other":
        path.unlink()
        sqlite3.connect(path).execute("CREATE TABLE x (y)")
    with pytest.raises(AugescError, match="put the file back from a copy"):
        Store.open(study)


# -- many at once ----------------------------------------------------------------------------------


def test_threads_get_different_places_and_lose_no_answer(tmp_path):
    study = make_study(tmp_path / "study", "sessions=8", n=8)
    names = list(study.tokens.links)
    assert len(names) == 18
    failed: list[Exception] = []
    with Store.open(study) as store:
        for name in names:
            enter(store, name)
        barrier = threading.Barrier(len(names))

        def work(name: str) -> None:
            try:
                barrier.wait()
                place = store.assign(name)
                for item in place.items:
                    for _ in range(2):
                        rate(store, name, item, submission=f"page-{item}")
            except Exception as error:
                failed.append(error)

        threads = [threading.Thread(target=work, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        check_whole(store, names)


def check_whole(store: Store, names: list[str]) -> None:
    """Every place was given once, every session rated by three, no submission taken twice."""
    events = list(store.events())
    placed = [event for event in events if event.kind == "placed"]
    assert sorted(event.body["place"] for event in placed) == list(range(len(names)))
    assert {event.annotator for event in placed} == set(names)
    assert len([event for event in events if event.kind == "answered"]) == 24 * 3
    sets: dict[str, list[str]] = {}
    for item in store.study.items.values():
        sets.setdefault(item.set, []).append(item.id)
    orders: dict[str, list[str]] = {}
    for rating in store.ratings():
        if rating.question == "empathy":
            orders.setdefault(rating.annotator, []).append(rating.session)
    assert balance(sets, list(orders.values())).per_item == (3, 3)


WORKER = """
import sys
from augesc_builder.human_evaluation.store import Store
from augesc_builder.human_evaluation.study import Study
from tests.human_evaluation.studies import enter, rate
store = Store.open(Study.open(sys.argv[1]))
sys.stdin.readline()
for name in sys.argv[2:]:
    enter(store, name)
    for item in store.assign(name).items:
        rate(store, name, item, submission=f"page-{item}")
        print(name, item, flush=True)
"""


def start(study: Study, names: list[str]) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(study.folder), *names],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    return process


def test_processes_get_different_places(tmp_path):
    study = make_study(tmp_path / "study", "sessions=8", n=8)
    names = list(study.tokens.links)
    workers = [start(study, names[i::2]) for i in range(2)]
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        worker.communicate()
        assert worker.returncode == 0
    with Store.open(study) as store:
        check_whole(store, names)


@pytest.mark.slow
def test_what_was_taken_is_there_after_kill_9(tmp_path):
    """A process is killed at its work again and again: each answer that it had taken is kept."""
    study = make_study(tmp_path / "study", "sessions=8", n=8)
    names = list(study.tokens.links)
    taken: set[tuple[str, str]] = set()
    for kill in range(max(5, SOAK)):
        worker = start(study, names)
        worker.stdin.write("go\n")
        worker.stdin.flush()
        for _ in range(kill % 7 + 3):
            line = worker.stdout.readline().split()
            if not line:
                break
            taken.add((line[0], line[1]))
        worker.send_signal(signal.SIGKILL)
        worker.communicate()
        with Store.open(study) as store:
            answered = [(e.annotator, e.item) for e in store.events() if e.kind == "answered"]
            assert taken <= set(answered)
            assert len(answered) == len(set(answered))
            for name, item in taken:
                assert len(store.answers(name, item)) >= 7
            assert sqlite3.connect(store.log.path).execute("PRAGMA integrity_check").fetchone() == (
                "ok",
            )
    worker = start(study, names)
    worker.communicate("go\n")
    assert worker.returncode == 0
    with Store.open(study) as store:
        check_whole(store, names)


FILL = """
import resource, sys
from augesc_builder.errors import DiskError
from augesc_builder.human_evaluation.store import Store
from augesc_builder.human_evaluation.study import Study
store = Store.open(Study.open(sys.argv[1]))
size = 200_000
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
n = 0
try:
    while n < 1000:
        store.record("said", "a", "i", {"text": "x" * 2000, "n": n})
        n += 1
except DiskError as error:
    print(n, error)
"""


def test_a_full_disk_is_one_line_and_loses_nothing(study):
    done = subprocess.run(
        [sys.executable, "-c", FILL, str(study.folder)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    number, _, said = done.stdout.partition(" ")
    assert 0 < int(number) < 1000
    assert "no space left to keep an answer" in said
    assert len(said.splitlines()) == 1
    with Store.open(study) as store:
        kept = [event.body["n"] for event in store.events()]
        assert kept == list(range(int(number)))
        store.record("said", "a", "i", {"text": "there is space again"})


def test_a_log_that_another_program_holds_is_one_line(study, monkeypatch):
    from augesc_builder.human_evaluation import events

    monkeypatch.setattr(events, "_WAIT_SECONDS", 0.05)
    other = sqlite3.connect(study.folder / "events.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with Store.open(study) as store:
        with pytest.raises(StudyError, match="another program has held it"):
            store.arrive("a")
        other.execute("ROLLBACK")
        store.arrive("a")
        assert [event.annotator for event in store.events()] == ["a"]
    other.close()


def test_what_fails_in_the_middle_leaves_nothing(store):
    with pytest.raises(RuntimeError), store.log.writing() as connection:
        store.log.append(connection, "said", "a")
        raise RuntimeError
    assert list(store.events()) == []
    assert not isinstance(RuntimeError(), DiskError)
    store.arrive("a")
    assert len(list(store.events())) == 1


def test_names_on_disk(study):
    assert {path.name for path in Path(study.folder).iterdir()} == {
        *("study.json", "items.jsonl", "tokens.json", "events.sqlite"),
    }


def test_the_clock_is_that_of_the_events(study):
    clock = Clock(1_700_000_000.25)
    with Store.open(study, clock) as store:
        store.arrive("a")
        (event,) = store.events()
        assert event.time == clock.now
        assert list(store.events(after=event.id)) == []
