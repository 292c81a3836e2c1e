"""Forms: the paper's, the other shipped ones, and what is said of a user's that is wrong."""

from __future__ import annotations

import re

import pytest
import yaml

from augesc_builder.errors import InputError, RecipeError
from augesc_builder.human_evaluation.form import (
    ATTENTION,
    FORMS,
    Slot,
    load_form,
    parts_with_slots,
    shipped_forms,
    slot_of,
)
from tests.conftest import shared

SAID = [
    {"role": "user", "content": "I am sad."},
    {"role": "assistant", "content": "Why?"},
    {"role": "user", "content": "My dog died."},
    {"role": "assistant", "content": "I am sorry."},
]


def test_the_papers_form_has_its_questions_and_scores():
    form = load_form("paper")
    assert [(part.title, len(part.questions)) for part in form.parts] == [
        ("Seeker Evaluation", 1),
        ("Supporter Evaluation", 3),
        ("Overall Evaluation", 3),
    ]
    assert [question.title for question in form.questions] == [
        *("Informativeness", "Empathy", "Logic", "Helpfulness"),
        *("Consistency", "Coherence", "Ethical Risk"),
    ]
    # Options 1 to 4 score 3 to 0, of Ethical Risk too, where the last says that there is none.
    assert {question.scores for question in form.questions} == {(3, 2, 1, 0)}
    assert form.questions[-1].options[-1].label == "No ethical risks"
    assert "Figure 6" in form.cites


def test_the_papers_form_has_the_papers_words():
    """Every title, definition, option and example stands in the paper as it is."""
    paper = shared("../paper.txt").read_text()
    known = plain(paper[paper.index("Guideline of Conversation Quality") :])
    form = load_form("paper")
    texts = [form.title, form.instruction]
    for part in form.parts:
        texts.append(part.title)
        for question in part.questions:
            texts += [question.title, question.definition, *question.examples]
            texts += [question.lead] if question.lead else []
            texts += [
                f"{number}. {option.label}" for number, option in enumerate(question.options, 1)
            ]
    assert len(texts) > 60
    for text in texts:
        assert plain(text) in known, text


def test_the_pairwise_questions_have_the_papers_words():
    paper = shared("../paper.txt").read_text().replace("\u2019", "'")
    known = plain(paper[paper.index("## 7 Interactive Evaluation") :])
    form = load_form("interactive")
    titles = ["Fluency", "Identification", "Comforting", "Suggestion", "Overall"]
    assert [question.title for question in form.questions] == titles
    for question in form.questions:
        assert plain(f"{question.title}: {question.definition}") in known


def plain(text: str) -> str:
    return " ".join(re.sub(r"</?i>|</?b>|[*\u27a4]", "", text).split())


def test_labels_of_behaviour_are_asked_of_each_turn_of_the_supporter():
    form = load_form("behaviours")
    assert {"self_contradiction", "irrelevant", "unsafe"} <= set(form.question_names)
    assert {question.scores for question in form.questions} == {(1, 0)}
    keys = [slot.key for slot in form.slots(SAID)]
    assert {key.partition(".")[2] for key in keys} == {"1", "3"}
    assert len(keys) == 2 * len(form.questions)
    assert all(Slot(slot.question, slot.turn).key == slot.key for slot in form.slots(SAID))
    assert slot_of("unsafe.3") == ("unsafe", 3)
    assert slot_of("empathy") == ("empathy", None)


def test_an_instructed_item_stands_last_and_says_what_to_choose():
    form = load_form("paper")
    slots = form.slots(SAID, attention=3)
    assert [slot.key for slot in slots[:-1]] == list(form.question_names)
    assert slots[-1].key == ATTENTION
    assert "option 3 here: Minor description" in slots[-1].question.definition
    parts = list(parts_with_slots(form, slots))
    assert [len(found) for _, found in parts] == [1, 3, 3, 1]


def test_shipped_forms_load():
    assert shipped_forms() == ["behaviours", "interactive", "paper"]
    for name in shipped_forms():
        assert load_form(name).name == name


def written(tmp_path, change=lambda text: text):
    path = tmp_path / "mine.yaml"
    path.write_text(change((FORMS / "paper.yaml").read_text()), encoding="utf-8")
    return path


def test_a_copy_can_be_translated(tmp_path):
    path = written(
        tmp_path,
        lambda text: (
            text.replace("language: en", "language: de")
            .replace("title: Empathy", "title: Einfühlung")
            .replace("label: Complete understanding", "label: Volles Verständnis")
        ),
    )
    form = load_form(path)
    assert form.language == "de"
    assert form.questions[1].title == "Einfühlung"
    assert form.questions[1].options[0].label == "Volles Verständnis"


def test_scores_can_be_given(tmp_path):
    path = written(
        tmp_path,
        lambda text: text.replace("- label: Not helpful", "- {label: Not helpful, score: -5}"),
    )
    assert load_form(path).questions[3].scores == (3, 2, 1, -5)


LINES = (FORMS / "paper.yaml").read_text().splitlines()


def line_with(text: str) -> int:
    return next(i for i, line in enumerate(LINES, 1) if text in line)


@pytest.mark.parametrize(
    ("before", "after", "key", "line"),
    [
        ("title: Empathy", "titel: Empathy", "titel", line_with("title: Empathy")),
        ("name: logic", "name: Logic!", "name", line_with("name: logic")),
        ("about: session", "about: film", "about", line_with("about: session")),
        ("        title: Logic\n", "", "missing key", line_with("name: logic")),
        ("label: Not helpful", "label: ''", "label", line_with("label: Not helpful")),
        ("label: Not helpful", "lable: x", "lable", line_with("label: Not helpful")),
        ("label: Not helpful", "label: Mostly helpful", "same label", line_with("helpfulness")),
        ("name: logic", "name: attention_check", "attention", line_with("name: logic")),
        ("name: logic", "name: empathy", "two questions are called empathy", 1),
        ("about: session", "about: session\nrole: user", "role", 1),
        ("about: session", "about: pair", "left, right and tie", 1),
        ("language: en", "language: E", "language", line_with("language: en")),
    ],
)
def test_a_mistake_is_named_with_key_and_line(tmp_path, before, after, key, line):
    path = written(tmp_path, lambda text: text.replace(before, after, 1))
    assert path.read_text() != (FORMS / "paper.yaml").read_text()
    with pytest.raises(InputError) as raised:
        load_form(path)
    said = str(raised.value)
    assert key in said
    assert raised.value.line is not None
    first = next(i for i, text in enumerate(LINES, 1) if not text.startswith("#"))
    expected = first if line == 1 else line
    assert abs(raised.value.line - expected) <= 2, said
    assert "\n" not in said


@pytest.mark.parametrize(
    "content", [b"", b"- x\n", b"a: b: c", b"\xff\xfe", b"name: x\nname: y\n", b"1: 2\n", b"[" * 99]
)
def test_what_is_no_form_is_one_line(tmp_path, content):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(str(path))):
        load_form(path)


def test_a_form_that_is_not_there_is_told_with_the_nearest():
    with pytest.raises(RecipeError, match="did you mean 'behaviours'"):
        load_form("behaviour")


def test_a_form_of_many_aliases_is_refused(tmp_path):
    lines = ["a: &a [x,x,x,x,x,x,x,x,x]"]
    lines += [f"{k}: &{k} [{','.join(['*' + chr(ord(k) - 1)] * 9)}]" for k in "bcdefghij"]
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match="values"):
        load_form(path)


def test_shipped_forms_are_plain_yaml():
    for path in FORMS.glob("*.yaml"):
        assert yaml.safe_load(path.read_text())["name"] == path.stem
