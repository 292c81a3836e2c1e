"""Plain lines where no bar can be drawn: when they come, and what they say."""

from __future__ import annotations

import io
import re
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from augesc_builder.errors import DiskError
from augesc_builder.run import heartbeat, progress
from augesc_builder.run.heartbeat import Work
from augesc_builder.run.progress import EVERY, FIRST, Progress


@pytest.fixture(autouse=True)
def on_no_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())


class Clock:
    """A clock that a test turns; nobody looks at what is at work but the test."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    monkeypatch.setattr(progress, "Beat", lambda _: SimpleNamespace(stop=lambda: None))
    return clock


def ignore(_: Work) -> None:
    """Be told."""


def beats() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "augesc-beat"]


# -- when -----------------------------------------------------------------------------------------


def test_a_line_comes_soon_and_then_before_every_minute_is_over(clock, capsys):
    assert EVERY + heartbeat.TICK <= 60
    assert FIRST < EVERY
    said = Progress()
    said.begin("finetune", ignore)
    for after, n_lines in ((FIRST - 0.1, 0), (FIRST, 1), (FIRST + EVERY - 0.1, 1)):
        clock.now = 1000.0 + after
        said._look()
        assert len(said_lines := capsys.readouterr().out.splitlines()) == n_lines - (after > FIRST)
    assert said_lines == []
    clock.now = 1000.0 + FIRST + EVERY
    said._look()
    assert capsys.readouterr().out == "  finetune: at work for 01:05\n"


def test_the_next_stage_begins_anew(clock, capsys):
    said = Progress()
    said.begin("queries", ignore)
    clock.now += FIRST - 1
    said.begin("finetune", ignore)
    clock.now += 1
    said._look()
    assert capsys.readouterr().out == ""


def test_a_bar_within_a_stage_does_not_put_the_line_off(clock, capsys):
    said = Progress()
    said.begin("finetune", ignore)
    clock.now += FIRST - 1
    with said.bar(8, "fine-tuning", "step"):
        clock.now += 1
        said._look()
    assert capsys.readouterr().out == (
        "  finetune, fine-tuning: 0 of 8 steps (0%), at work for 00:10\n"
    )


def test_lines_come_while_nothing_advances_and_end_with_the_work(monkeypatch, capsys):
    """The thread itself: one slow step, and a bar outside of any stage."""
    monkeypatch.setattr(heartbeat, "TICK", 0.01)
    monkeypatch.setattr(progress, "FIRST", 0.0)
    monkeypatch.setattr(progress, "EVERY", 0.01)
    said, out = Progress(), ""
    with said.bar(3, "perplexity of a", "response"):
        (beat,) = beats()
        while out.count("\n") < 3:
            time.sleep(0.01)
            out += capsys.readouterr().out
    assert not beat.is_alive()
    capsys.readouterr()
    pattern = r"  perplexity of a: 0 of 3 responses \(0%\), at work for \d\d:\d\d"
    assert all(re.fullmatch(pattern, line) for line in out.splitlines())
    time.sleep(0.05)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("quiet", "terminal"), [(True, False), (False, True)])
def test_quiet_and_terminals_have_no_lines_and_are_told(
    clock, capsys, monkeypatch, quiet, terminal
):
    if terminal:
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        monkeypatch.delenv("CI", raising=False)
    said, works = Progress(quiet=quiet), []
    said.begin("generate", works.append)
    clock.now += FIRST
    said._look()
    assert capsys.readouterr().out == ""
    assert [work.seconds for work in works] == [0, FIRST]


def test_in_ci_a_terminal_has_lines(clock, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("CI", "true")
    said = Progress()
    said.begin("generate", ignore)
    clock.now += FIRST
    said._look()
    assert capsys.readouterr().out == "  generate: at work for 00:10\n"


def test_what_fills_no_folder_says_that_it_is_at_work_until_it_ends(clock, capsys):
    said = Progress()
    with pytest.raises(KeyError), said.working("evaluation"):
        clock.now += FIRST
        said._look()  # a model is loaded
        with said.bar(3, "responses of a", "response"):
            pass
        clock.now += EVERY
        said._look()
        raise KeyError
    clock.now += EVERY
    said._look()
    assert capsys.readouterr().out.splitlines() == [
        "  evaluation: at work for 00:10",
        "  evaluation: at work for 01:05",
    ]


def test_nobody_looks_where_there_is_nothing_to_say_or_tell():
    with Progress(quiet=True).bar(3, "judging", "text"):
        assert beats() == []


def test_what_cannot_be_said_is_no_error_of_the_thread(clock, monkeypatch):
    """The main thread meets it."""
    said, works = Progress(), []
    said.begin("generate", works.append)
    clock.now += FIRST
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        said._look()
        assert len(works) == 2
        with pytest.raises(DiskError, match="standard output cannot be written"):
            said.say("12 conversations")
        monkeypatch.undo()
        with pytest.raises(OSError, match="No space"):
            full.close()


def test_interrupts_are_the_main_threads(monkeypatch):
    monkeypatch.setattr(heartbeat, "TICK", 0.01)
    said, works = Progress(quiet=True), []
    said.begin("generate", works.append)
    try:
        (beat,) = beats()
        while len(works) < 2:
            time.sleep(0.01)
        status = Path(f"/proc/self/task/{beat.native_id}/status").read_text()
    finally:
        said.end()
    blocked = re.search(r"SigBlk:\s+([0-9a-f]+)", status)
    assert blocked
    assert int(blocked[1], 16) & 0b10  # SIGINT is number 2
    assert not beat.is_alive()


# -- what -----------------------------------------------------------------------------------------


def test_the_rate_is_that_of_this_process_and_leaves_out_what_came_before_the_first_unit(clock):
    said = Progress(quiet=True)
    bar = said.bar(1000, "fine-tuning", "step", done=900)
    clock.now += 600  # loading
    said._bar.look()
    assert (said.work().done, said.work().rate, said.work().seconds_left) == (900, None, None)
    for _ in range(11):
        bar.update(1, loss=2.5)
        bar.look()
        clock.now += 10
    work = said.work()
    assert work.done == 911
    assert work.rate == pytest.approx(10 / 110)
    assert work.seconds_left == pytest.approx(89 / (10 / 110))
    clock.now += 1000  # nothing advances
    assert said.work().rate == pytest.approx(10 / 1110)


@given(
    done=st.integers(0, 10**9),
    speed=st.floats(1e-3, 1e6),
    ticks=st.lists(st.floats(0.1, 300), min_size=3, max_size=200),
)
def test_a_steady_speed_is_told_as_it_is(done, speed, ticks):
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "time", clock)
        bar = progress.Bar("x", "step", None, done, drawn=False, close=lambda: None)
        for seconds in ticks:
            clock.now += seconds
            bar.update(seconds * speed)
            bar.look()
        assert bar.rate() == pytest.approx(speed, rel=1e-3)


@pytest.mark.parametrize(
    ("rate", "says"),
    [
        (1234.5, "1,234 a second"),
        (99.96, "100 a second"),
        (1.0, "1.00 a second"),
        (0.999, "59.9 a minute"),
        (1 / 60, "1.00 a minute"),
        (0.99 / 60, "59.4 an hour"),
        (1e-5, "0.0360 an hour"),
    ],
)
def test_speeds_are_in_the_unit_that_makes_them_more_than_one(rate, says):
    assert progress._speed(rate) == says


def test_a_line_has_all_that_is_known(clock):
    said = Progress(quiet=True)
    said.begin("generate", ignore)
    bar = said.bar(160, "generating", "session", done=40)
    for kept in (2, 4):
        clock.now += 4
        bar.update(10, kept=kept, judged=9, tokens_a_second=812.34, loss=float("nan"))
        bar.look()
    line = progress.line_of(said.work())
    assert line == (
        "generate, generating: 60 of 160 sessions (38%), 2.50 a second, 00:40 left, "
        "kept 4, judged 9, tokens a second 812"
    )
    said.bar(0, "judging", "text")
    assert progress.line_of(said.work()) == "generate, judging: 0 of 0 texts, at work for 00:08"
    said.bar(None, "judging", "post").update(1200, kept=7)
    assert progress.line_of(said.work()) == (
        "generate, judging: 1,200 posts, at work for 00:08, kept 7"
    )


def test_what_strangers_named_stays_in_its_line(clock, capsys):
    said = Progress()
    bar = said.bar(3, "perplexity of \x1b[2J\n\u202ex\ud800" + "y" * 900, "response")
    clock.now += FIRST
    said._look()
    (line,) = capsys.readouterr().out.splitlines()
    assert r"\x1b[2J \u202ex\ud800y" in line
    assert len(line) < 600
    with bar:
        pass
