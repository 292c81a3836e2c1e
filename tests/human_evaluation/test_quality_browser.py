"""The quality study in a browser: by keys, by touch, without scripts, for small screens and ears.

With `AUGESC_SHOTS=FOLDER` pictures of the pages are made, to be looked at.
"""

from __future__ import annotations

import json
from collections import Counter

import pytest

from augesc_builder.human_evaluation.report import report
from augesc_builder.human_evaluation.store import Store
from augesc_builder.human_evaluation.study import Study
from augesc_builder.run import layout
from augesc_builder.run.progress import Progress
from tests.human_evaluation.browsers import PHONE, chromium, shot, tab
from tests.human_evaluation.people import Person, Server, leave_all, links_of
from tests.human_evaluation.studies import make_study

THREE = ("sessions=1", "per_person=3", "ratings=3", "crowd.completion_code=DONE77", "links=12")


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def served(browser, tmp_path_factory):
    """A server of three conversations, one of each of three corpora, for nine people."""
    folder = tmp_path_factory.mktemp("served") / "study"
    make_study(folder, *THREE, "ratings=9")
    table = folder.with_name("links.csv")
    with Server(folder, "--links", str(table)) as server:
        yield server, iter(links_of(table).items())
    leave_all()


@pytest.fixture
def link(served):
    return next(served[1])[1]


def press(page, *keys):
    for key in keys:
        page.keyboard.press(key)


def come_in(page, link):
    """Agree and pass the check, by keys alone."""
    page.goto(link)
    focus_on(page, "[name=agree]")
    press(page, "Space", "Tab", "Enter")
    page.wait_for_url("**/check")
    press(page, "1", "2", "Enter")
    page.wait_for_url("**/1")


def focus_on(page, selector):
    """Go there by the tabulator, as somebody without a mouse does."""
    for _ in range(40):
        press(page, "Tab")
        if page.evaluate("(s) => document.activeElement.matches(s)", selector):
            return
    raise AssertionError(f"no way to {selector} by the tabulator")


def is_checked(page):
    return page.locator("input[type=radio]:checked").count()


def kept(page, n):
    """Wait until what was chosen last is in the store."""
    page.wait_for_function("(n) => document.querySelectorAll('input:checked').length >= n", arg=n)
    page.wait_for_load_state("networkidle")


def rate(page, number, digits, *, last=False):
    """Answer all questions of a conversation by number keys, and go on by Enter."""
    page.wait_for_url(f"**/{number}")
    check = page.locator("#q-attention_check")
    press(page, *digits)
    if check.count():
        said = check.locator(".definition").inner_text()
        press(page, said.split("option ")[1][0])
    press(page, "Enter")
    page.wait_for_url("**/done" if last else f"**/{number + 1}")


@pytest.mark.slow
def test_three_people_rate_three_corpora(browser, tmp_path):  # noqa: PLR0915 - three people
    """One reloads in the middle, one goes back, one is there when the server is killed."""
    study = make_study(tmp_path / "study", *THREE)
    table = tmp_path / "links.csv"
    with Server(study.folder, "--links", str(table)) as server:
        people = list(links_of(table).items())[:3]

        with tab(browser) as page:  # reloads in the middle; keys alone
            come_in(page, people[0][1])
            shot(page, "conversation", whole=False)
            press(page, "1", "2", "3")
            kept(page, 3)
            page.reload()
            assert is_checked(page) == 3
            rate(page, 1, "4321")
            rate(page, 2, "1111111")
            rate(page, 3, "2222222", last=True)
            assert page.get_by_text("DONE77").is_visible()
            shot(page, "done")

        with tab(browser) as page:  # goes back, changes an answer; a mouse
            come_in(page, people[1][1])
            rate(page, 1, "1111111")
            page.get_by_role("button", name="Back").click()
            page.wait_for_url("**/1")
            page.get_by_role("radio", name="No understanding").check()
            page.get_by_role("button", name="Send and go on").click()
            rate(page, 2, "2222222")
            rate(page, 3, "3333333", last=True)

        with tab(browser, PHONE, has_touch=True, is_mobile=True) as page:  # killed; a phone
            come_in(page, people[2][1])
            shot(page, "phone", whole=False)
            page.get_by_role("radio", name="Minor description").tap()
            kept(page, 1)
            server.kill()
            server.start()
            page.reload()
            assert is_checked(page) == 1
            press(page, "1")
            server.kill()
            press(page, *"1111")  # nobody is there to keep it
            server.start()
            rate(page, 1, "11")
            rate(page, 2, "2222222")
            rate(page, 3, "4444444", last=True)

        with Store.open(Study.open(server.study)) as store:
            ratings = list(store.ratings())
            places = {name: store.progress(name).place.items for name, _ in people}
    assert Counter(r.annotator for r in ratings) == {name: 21 for name, _ in people}
    assert Counter((r.session, r.question) for r in ratings).most_common(1)[0][1] == 3
    values = {}
    for rating in ratings:
        values.setdefault((rating.annotator, rating.session), []).append(4 - rating.value)
    names = [name for name, _ in people]
    assert values[names[0], places[names[0]][0]] == [1, 2, 3, 4, 3, 2, 1]
    assert values[names[1], places[names[1]][0]] == [1, 4, 1, 1, 1, 1, 1]
    assert values[names[2], places[names[2]][0]] == [3, 1, 1, 1, 1, 1, 1]
    for name in names:
        assert {r.set for r in ratings if r.annotator == name} == {"A", "B", "C"}
    assert sorted(values[names[2], places[names[2]][2]]) == [4] * 7
    report(Study.open(server.study), tmp_path / "report", Progress(quiet=True), with_paper=True)
    found = json.loads((tmp_path / "report" / layout.STUDY_REPORT).read_text())
    assert {name: of["ratings"] for name, of in found["sets"].items()} == {"A": 3, "B": 3, "C": 3}
    empathy = [r.value for r in ratings if (r.set, r.question) == ("A", "empathy")]
    assert found["means"]["A"]["empathy"]["value"] == pytest.approx(sum(empathy) / 3)
    assert "paper: AugESC ED" in (tmp_path / "report" / layout.STUDY_REPORT_MD).read_text()


def test_keys_do_what_the_page_says(browser, link):
    with tab(browser) as page:
        come_in(page, link)
        focused = "document.activeElement.name"
        press(page, "2")
        assert page.evaluate(focused) == "empathy"  # the next question
        press(page, "ArrowDown", "ArrowDown")  # arrows choose, as in every form
        assert page.locator("[name=empathy]:checked").get_attribute("value") == "3"
        press(page, "Enter")
        assert page.evaluate(focused) == "logic"  # what is still open
        press(page, "9", "0", "a", "Control+1", "Alt+2")
        assert is_checked(page) == 2
        assert page.get_by_text("2 of 7 answered").is_visible()
        press(page, "Enter", "Enter")
        assert page.url.endswith("/1")  # nothing is sent before all is answered
        page.get_by_label("Number keys").uncheck()
        press(page, "1")
        assert is_checked(page) == 2
        page.reload()
        assert not page.get_by_label("Number keys").is_checked()
        assert is_checked(page) == 2


def test_the_browsers_own_way_back_shows_what_was_sent(browser, link):
    with tab(browser) as page:
        come_in(page, link)
        rate(page, 1, "1234123")
        page.go_back()
        page.wait_for_url("**/1")
        assert is_checked(page) == 7
        press(page, "4")  # nothing is open: the last question is meant
        page.get_by_role("button", name="Send and go on").click()
        page.wait_for_url("**/2")
        page.goto(f"{link}/1")
        assert page.locator("[name=ethical_risk]:checked").get_attribute("value") == "4"


def test_a_double_click_on_send_is_one(browser, link, served):
    with tab(browser) as page:
        come_in(page, link)
        for question in page.locator("fieldset").all():
            question.get_by_role("radio").first.check()
        page.get_by_role("button", name="Send and go on").dblclick()
        page.wait_for_url("**/2")
        page.wait_for_load_state("networkidle")
        assert page.get_by_text("1 of 3 conversations done").is_visible()


def test_it_all_works_without_scripts(browser, link):
    with tab(browser, java_script_enabled=False) as page:
        page.goto(link)
        page.get_by_role("checkbox").check()
        page.get_by_role("button", name="Begin").click()
        assert not page.get_by_text("Number keys").is_visible()  # there are none
        page.get_by_role("radio", name="Each conversation as a whole").check()
        page.get_by_role("radio", name="Leave at any time").check()
        page.get_by_role("button", name="Send").click()
        for number in (1, 2, 3):
            page.wait_for_url(f"**/{number}")
            for question in page.locator("fieldset").all():
                question.get_by_role("radio").nth(number).check()
            page.get_by_role("button", name="Send and go on").click()
        page.wait_for_url("**/done")
        page.get_by_role("link", name="Conversation 2").click()
        assert is_checked(page) in {7, 8}


def test_a_way_out_is_on_every_page_and_reached_by_keys(browser, link):
    with tab(browser) as page:
        come_in(page, link)
        focus_on(page, "nav a")
        press(page, "Enter")
        page.wait_for_url("**/leave")
        shot(page, "leave", whole=False)
        focus_on(page, "[name=answers]")
        press(page, "ArrowDown")
        focus_on(page, "button")
        press(page, "Enter")
        page.wait_for_url("**/done")
        assert page.get_by_role("heading", name="You have left the study").is_visible()


def steps_of(page, link):
    """Show every page of the study one after the other."""
    page.goto(link)
    yield "consent"
    page.get_by_role("checkbox").check()
    page.get_by_role("button", name="Begin").click()
    page.wait_for_url("**/check")
    yield "check"
    press(page, "2", "2", "Enter")
    page.locator("[role=alert]").wait_for()
    yield "wrong"
    press(page, "1", "2", "Enter")
    page.wait_for_url("**/1")
    yield "conversation"
    page.evaluate("document.querySelector('form').noValidate = true")
    page.get_by_role("button", name="Send and go on").click()
    page.locator("[role=alert]").wait_for()
    yield "missing"
    page.goto(f"{link}/leave")
    yield "leave"
    page.goto(f"{link}x")
    yield "unknown"


PROBLEMS = """() => {
  const found = [];
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  if (wide > 0) found.push(`${wide} pixels too wide`);
  const one = (what) => {
    const n = document.querySelectorAll(what).length;
    if (n !== 1) found.push(`${n} of ${what}`);
  };
  ["html[lang]", "main", "h1", "header", "aside[aria-label]", "title"].forEach(one);
  for (const input of document.querySelectorAll("input:not([type=hidden])")) {
    if (!input.labels.length) found.push(`no label: ${input.name}`);
    const box = (input.labels[0] ?? input).getBoundingClientRect();
    if (box.width && box.height < 24) found.push(`too small: ${input.name} ${box.height}`);
  }
  for (const group of document.querySelectorAll("fieldset"))
    if (!group.querySelector("legend")?.textContent.trim()) found.push("no legend");
  for (const at of document.querySelectorAll("[aria-describedby], [aria-labelledby]"))
    for (const name of ["aria-describedby", "aria-labelledby"])
      for (const id of (at.getAttribute(name) ?? "").split(" ").filter(Boolean))
        if (!document.getElementById(id)) found.push(`no element ${id}`);
  const ids = [...document.querySelectorAll("[id]")].map((at) => at.id);
  if (new Set(ids).size < ids.length) found.push("an id twice");
  const levels = [...document.querySelectorAll("h1, h2, h3")].map((at) => Number(at.tagName[1]));
  levels.forEach((level, i) => {
    if (level > (levels[i - 1] ?? 1) + 1) found.push("a heading skipped");
  });
  const support = document.querySelector("aside.support").getBoundingClientRect();
  if (support.bottom > innerHeight + 1 || support.top < 0) found.push("no support in sight");
  return found;
}"""


@pytest.mark.parametrize("width", [320, 1366])
def test_every_page_is_fit_for_small_screens_and_screen_readers(browser, link, width):
    with tab(browser, {"width": width, "height": 700}) as page:
        for name in steps_of(page, link):
            shot(page, f"{name}-{width}")
            assert page.evaluate(PROBLEMS) == [], name


def test_what_a_screen_reader_hears_of_a_conversation(browser, link):
    with tab(browser) as page:
        come_in(page, link)
        heard = page.locator("body").aria_snapshot()
    for part in (
        *("banner", "main", "contentinfo", 'complementary "Support"', 'form "Questions"'),
        *('region "Conversation 1 of 3"', 'heading "Conversation 1 of 3" [level=1]'),
        *('progressbar "Conversations done"', 'group "Empathy"', 'radio "Complete understanding"'),
        *('heading "Seeker Evaluation" [level=2]', 'button "Send and go on"', "listitem"),
        'link "Leave the study"',
    ):
        assert part in heard


def test_a_person_and_a_browser_see_the_same(browser, served, link):
    """Simulated people of other tests fill in the forms that browsers show."""
    person = Person(link)
    person.begin()
    with tab(browser) as page:
        page.goto(f"{link}/1")
        shown = page.evaluate(
            "() => [...new FormData(document.querySelector('form')).keys()].concat("
            "[...document.querySelectorAll('[type=radio]')].map((at) => at.name))"
        )
    assert set(shown) == set(person.page.form.values) | set(person.page.form.choices)
