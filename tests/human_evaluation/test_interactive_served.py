"""The interactive study in a real browser, with a server of its own process that can be killed."""

from __future__ import annotations

import json
import re
import time

import pytest

from augesc_builder.dialog.notice import SERIOUS
from augesc_builder.human_evaluation.events import REPLIED, SAID
from augesc_builder.human_evaluation.store import Store
from tests.dialog_models import causal
from tests.endpoint_stub import Stub, streamed
from tests.human_evaluation.browsers import PHONE, chromium, shot, tab
from tests.human_evaluation.people import Server
from tests.human_evaluation.talks import endpoint, make_study

PAUSE = "Thank you for telling me. What would help you most right now?"


@pytest.fixture
def stub():
    with Stub(lambda asked: streamed(PAUSE)) as found:
        yield found


@pytest.fixture
def study(tmp_path, stub):
    folder = causal(tmp_path / "model")
    return make_study(
        tmp_path / "study",
        {"mine": f"{{folder: '{folder}'}}", "theirs": endpoint(stub.url)},
        *("interactive.min_utterances=3", "interactive.replies.max_tokens=8"),
        "interactive.replies.timeout_seconds=30",
    )


def link(study, server: Server, number: int = 0) -> str:
    return f"{server.address}/a/{list(study.tokens.links.values())[number]}"


def begin(page, address: str) -> None:
    page.goto(address)
    page.get_by_role("checkbox").check()
    page.get_by_role("button", name="Begin").click()


def settle(page) -> None:
    page.wait_for_selector("[data-writing]", state="detached")


def events(study, kind: str) -> list[dict]:
    with Store.open(study) as store:
        return [event.body for event in store.events() if event.kind == kind]


def at_least(page, selector, n):
    """Wait until there are so many, however slow the machine is."""
    found = "([selector, n]) => document.querySelectorAll(selector).length >= n"
    page.wait_for_function(found, arg=[selector, n], timeout=300_000)


@pytest.mark.slow
def test_somebody_talks_with_both_and_compares_them_by_keyboard(study):
    with Server(study.folder) as server, chromium() as browser, tab(browser) as page:
        begin(page, link(study, server))
        shot(page, "talk-first")
        page.get_by_label("Your first message").fill("I lost my job and cannot sleep.")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        settle(page)
        page.locator("#text-left").focus()
        page.keyboard.type("I want to kill myself")
        page.keyboard.press("Enter")
        page.get_by_text(SERIOUS).nth(1).wait_for()
        shot(page, "talk-danger")
        settle(page)
        assert page.locator("[data-lines=left] > li").count() == 5
        assert page.locator("[data-lines=right] > li").count() == 3
        assert page.locator("#text-left").input_value() == ""
        assert page.get_by_role("link", name="Compare the bots").count() == 0
        for side, number in (("left", 1), ("right", 2), ("right", 3)):
            lines = f"[data-lines={side}] > li"
            n_lines = page.locator(lines).count()
            page.locator(f"#text-{side}").focus()
            page.keyboard.type(f"What should I do, number {number}?")
            page.keyboard.press("Shift+Enter")
            page.keyboard.type("Tell me.")
            page.keyboard.press("Enter")
            at_least(page, lines, n_lines + 2)  # what was said, and the reply
            settle(page)
        page.get_by_role("link", name="Compare the bots").focus()
        shot(page, "talk-open")
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="Compare the two bots").wait_for()
        page.wait_for_load_state()
        for n, number in enumerate("12312", 1):
            page.keyboard.press(number)
            at_least(page, "input:checked", n)
        shot(page, "talk-compare")
        page.keyboard.press("Enter")
        page.get_by_role("heading", name=re.compile("Thank you")).wait_for()
    with Store.open(study) as store:
        found = {p.question: p.winner for p in store.preferences()}
    left = next(iter(study.items.values())).left
    assert found["fluency"] == found["suggestion"] != found["identification"] == found["overall"]
    assert found["comforting"] is None
    assert left in found.values()
    assert any("\n" in event["text"] for event in events(study, SAID))


@pytest.mark.slow
def test_a_server_killed_while_it_writes_loses_nothing_and_doubles_nothing(study, stub):
    stub.behave = lambda asked: streamed(PAUSE, pause=2.0)
    with Server(study.folder) as server, chromium() as browser, tab(browser) as page:
        begin(page, link(study, server))
        page.get_by_label("Your first message").fill("I lost my job.")
        page.get_by_role("button", name="Send to both").dblclick()
        page.wait_for_selector("[data-writing]")
        end = time.monotonic() + 60
        while not stub.asked:
            assert time.monotonic() < end
            time.sleep(0.05)
        server.kill()
        page.locator("#text-left").fill("a draft that stays")
        stub.behave = lambda asked: streamed(PAUSE)
        server.start()
        settle(page)  # the page itself comes back to the server
        assert page.locator("#text-left").input_value() == "a draft that stays"
        page.reload()
        settle(page)
        assert page.get_by_text(PAUSE).count() == 1
    assert [event["text"] for event in events(study, SAID)] == ["I lost my job."]
    assert sorted(event["system"] for event in events(study, REPLIED)) == ["mine", "theirs"]


@pytest.mark.slow
def test_a_phone_a_dead_bot_and_a_browser_without_scripts(study, stub):
    stub.stop()
    with (
        Server(study.folder) as server,
        chromium() as browser,
        tab(browser, PHONE, java_script_enabled=False) as page,
    ):
        begin(page, link(study, server))
        page.get_by_label("Your first message").fill("I lost my job.")
        page.get_by_role("button", name="Send to both").click()
        dead = "left" if next(iter(study.items.values())).left == "theirs" else "right"
        alive = "right" if dead == "left" else "left"
        end = time.monotonic() + 90
        while page.get_by_text(f"The {dead} bot did not answer").count() == 0:
            assert time.monotonic() < end
            page.locator(f"#text-{dead}").fill("kept <while> waiting")
            page.get_by_role("button", name="Look for the reply").first.click()
            assert page.locator(f"#text-{dead}").input_value() == "kept <while> waiting"
            time.sleep(0.5)
        shot(page, "talk-phone-dead", whole=False)
        for number in range(2):
            page.locator(f"#text-{alive}").fill(f"on we go, {number}")
            page.locator(f"button[value=say-{alive}]").click()
            while not page.locator(f"button[value=say-{alive}]").is_enabled():
                assert time.monotonic() < end + 60
                page.get_by_role("button", name="Look for the reply").first.click()
        width = page.locator("body").bounding_box()["width"]
        assert width <= PHONE["width"]
        stub.start()
        page.get_by_role("button", name=f"Ask the {dead} bot again").click()
        while page.get_by_text(PAUSE).count() == 0:
            assert time.monotonic() < end + 120
            page.get_by_role("button", name="Look for the reply").first.click()
    said = json.dumps(events(study, SAID))
    assert "kept <while> waiting" not in said
