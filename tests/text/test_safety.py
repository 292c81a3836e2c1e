"""The safety pass: what it finds, where, and what it lets pass."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from augesc_builder.sources.esconv import read_esconv
from augesc_builder.tables import SESSIONS, to_table
from augesc_builder.text.folding import Folder
from augesc_builder.text.lexicon import PhraseMatcher
from augesc_builder.text.safety import (
    FLAGS,
    Flag,
    LexiconScanner,
    Scanners,
    count_flags,
    flag_sessions,
    merge_counts,
)
from tests.conftest import ROOT, rows_of, shared

SCANNER = LexiconScanner()


def scan(*turns: str) -> list[Flag]:
    """Scan turns such as ``S: I am sad.`` (seeker) and ``A: Why?`` (supporter)."""
    roles = {"S": "user", "A": "assistant"}
    return SCANNER.scan([{"role": roles[t[0]], "content": t[3:]} for t in turns])


def spans(*turns: str) -> list[tuple[str, str]]:
    return [(f.flag, turns[f.utterance][3:][f.start : f.end]) for f in scan(*turns)]


@pytest.mark.parametrize(
    ("turns", "found"),
    [
        (["S: Last night I wanted to die."], [("crisis", "wanted to die")]),
        (["S: I\u2019ve been CUTTING  myself."], [("crisis", "CUTTING  myself")]),
        (["S: self-harm, again"], [("crisis", "self-harm")]),
        (["S: I don\u2019t want to live."], [("crisis", "don\u2019t want to live")]),
        (["S: I dont want to live."], [("crisis", "dont want to live")]),
        (
            ["A: Sad.", "S: Ok.", "A: You should take Xanax."],
            [("medical_advice", "You should take Xanax")],
        ),
        (["A: You should just hit him."], [("harmful_agreement", "You should just hit him")]),
        (["S: I will hit him.", "A: Good idea!"], [("harmful_agreement", "Good idea")]),
        (["S: Mail me: a.b@example.org!"], [("personal_data", "a.b@example.org")]),
        (["A: Call 0171 555 2368 now"], [("personal_data", "0171 555 2368")]),
        (["S: I live at 12 Old Mill Lane."], [("personal_data", "12 Old Mill Lane")]),
    ],
)
def test_the_span_is_what_raised_it(turns, found):
    assert spans(*turns) == found


@pytest.mark.slow
def test_the_quick_look_at_words_misses_nothing(monkeypatch):
    rows = (ROOT / "tests" / "data" / "safety_sentences.tsv").read_text().splitlines()
    said = [row.split("\t")[-1] for row in rows]
    roles = ("user", "assistant")
    sessions = [
        [{"role": roles[(i + j) % 2], "content": text} for i, text in enumerate(said)]
        for j in range(2)
    ]
    files = ("train", "valid", "test")
    sessions += [
        list(s.messages) for name in files for s in read_esconv(shared(f"esconv/{name}.txt"))
    ]
    found = [SCANNER.scan(messages) for messages in sessions]
    monkeypatch.setattr(PhraseMatcher, "may_stand_in", lambda *_: True)
    monkeypatch.setattr(Folder, "may_say", lambda *_: None)
    assert [SCANNER.scan(messages) for messages in sessions] == found
    assert sum(map(len, found)) > 100


@pytest.mark.parametrize("word", ["kill", "kills", "killed", "killing"])
def test_word_forms(word):
    assert [f.flag for f in scan(f"S: He {word} himself.")] == ["crisis"]


class TestNegation:
    @pytest.mark.parametrize("n", range(9))
    def test_both_sides_of_the_window(self, n):
        text = f"S: I never {'really ' * n}thought of suicide."
        between = n + 2  # the words of the text between negation and phrase
        assert bool(scan(text)) == (between >= 3)

    @pytest.mark.parametrize(
        ("text", "flagged"),
        [
            ("I am not suicidal.", False),
            ("I am not fine, suicidal even.", True),
            ("I am not fine. Suicidal thoughts all day.", True),
            ("I can't sleep but suicide is on my mind.", True),
            ("I am not only suicidal.", True),
            ("I can't stop thinking about suicide.", True),
            ("No suicide, no self-harm.", False),
            ("There is no reason to live.", True),
            ("I cant take it anymore i wanna die", True),
            ("I don't really want to die.", False),
        ],
    )
    def test_clauses_and_negations_that_are_none(self, text, flagged):
        assert bool(scan(f"S: {text}")) == flagged


class TestWhoSaysIt:
    @pytest.mark.parametrize(
        ("said", "flag"),
        [
            ("suicide is on {} mind", "crisis"),
            ("did {} stepfather beat you?", "abuse"),
            ("rape is never {} fault", "sexual_violence"),
            ("the bulimia of {} sister", "eating_disorder"),
        ],
    )
    def test_danger_is_flagged_whoever_speaks_of_it(self, said, flag):
        for role, whose in (("S", "my"), ("A", "your")):
            assert [f.flag for f in scan(f"{role}: {said.format(whose)}")] == [flag]

    def test_advice_is_the_supporters(self):
        assert not scan("S: You should take Xanax.")
        assert not scan("S: Cheating on your wife is a great idea.")

    def test_agreement_is_with_the_turn_before(self):
        assert scan("S: I will take revenge.", "A: Go for it!")
        assert not scan("S: I will take revenge.", "A: Why?", "S: Or I go home.", "A: Go for it!")
        assert not scan(
            "S: I will take revenge.", "A: I see how hurt you are. You can go for it later."
        )

    def test_advice_is_near_what_is_advised(self):
        near, far = "one two three four five six", "one two three four five six seven"
        assert scan(f"A: You should {near} Xanax.")
        assert not scan(f"A: You should {far} Xanax.")
        assert not scan("A: You should rest. Xanax is a brand.")


SAID = st.tuples(st.sampled_from("SA"), st.text(max_size=80)).map(": ".join)
TEXTS = st.lists(SAID, max_size=5)


@given(TEXTS)
def test_any_text_is_scanned_and_spans_are_inside_it(turns):
    for flag in scan(*turns):
        assert flag.flag in FLAGS
        assert 0 <= flag.start < flag.end <= len(turns[flag.utterance]) - 3


@pytest.mark.parametrize("letter", ["\u0130", "\u1e9e", "\U0001f600", "\ufb03"])
def test_letters_that_change_their_length_move_no_span(letter):
    ((_, said),) = spans(f"S: {letter * 7} I want to die {letter}")
    assert said == "want to die"


def test_a_long_text_takes_no_long_time():
    import time

    def seconds(n: int) -> float:
        text = "S: " + "I do not want to die and you should not hit him " * n
        start = time.perf_counter()
        scan(text)
        return time.perf_counter() - start

    few = max(seconds(50), 1e-3)
    assert seconds(400) < 200 * few  # eight times the text; squared would be 64 times


def test_a_table_is_flagged_and_counted():
    rows = [
        {"session_id": "a", "messages": [{"role": "user", "content": "I want to die. Suicide!"}]},
        {"session_id": "b", "messages": [{"role": "user", "content": "I am sad."}]},
        {"session_id": "c", "messages": [{"role": "user", "content": "Suicide? me@example.org"}]},
    ]
    table, counts = flag_sessions(to_table(rows, SESSIONS), SCANNER)
    flags = table["safety_flags"].to_pylist()
    assert [len(f) for f in flags] == [2, 0, 2]
    assert flags[0][0] == {"flag": "crisis", "utterance": 0, "start": 2, "end": 13}
    assert table.schema.names == list(SESSIONS)
    assert counts == {
        "sessions": 3,
        "flagged": 2,
        "not_scanned": 0,
        "flags": {
            "crisis": {"sessions": 2, "spans": 3},
            "abuse": {"sessions": 0, "spans": 0},
            "sexual_violence": {"sessions": 0, "spans": 0},
            "eating_disorder": {"sessions": 0, "spans": 0},
            "medical_advice": {"sessions": 0, "spans": 0},
            "harmful_agreement": {"sessions": 0, "spans": 0},
            "personal_data": {"sessions": 1, "spans": 1},
        },
    }
    parts = [count_flags([f]) for f in flags]
    assert merge_counts(parts) == counts
    assert merge_counts([]) == count_flags([])
    assert count_flags([None])["not_scanned"] == 1


def test_a_background_is_scanned_too_and_moves_no_other_flag():
    said = [{"role": "user", "content": "I am sad."}, {"role": "user", "content": "Suicide?"}]
    rows = [
        {"session_id": "a", "messages": said, "background": "Write to me@example.org."},
        {"session_id": "b", "messages": said, "background": None},
    ]
    table, counts = flag_sessions(to_table(rows, SESSIONS), SCANNER)
    crisis = {"flag": "crisis", "utterance": 1, "start": 0, "end": 7}
    address = {"flag": "personal_data", "utterance": -1, "start": 9, "end": 23}
    assert table["safety_flags"].to_pylist() == [[address, crisis], [crisis]]
    assert counts["flags"]["personal_data"] == {"sessions": 1, "spans": 1}


def test_every_session_of_a_build_was_scanned(built):
    import json

    rows = rows_of(built / "corpus" / "data")
    assert all(row["safety_flags"] is not None for row in rows)
    for row in rows:
        again = [flag._asdict() for flag in SCANNER.scan(row["messages"])]
        assert row["safety_flags"] == again
    report = json.loads((built / "corpus" / "safety_report.json").read_text())
    assert report == count_flags(row["safety_flags"] for row in rows)
    card = (built / "corpus" / "README.md").read_text()
    assert f"{report['flagged']:,} of {report['sessions']:,} sessions carry a flag" in card
    for name, numbers in report["flags"].items():
        assert re.search(rf"\| {name} +\| +{numbers['sessions']} \| +{numbers['spans']} \|", card)


def test_the_docs_say_how_often_it_is_right():
    from benchmarks import safety as benchmark

    sentences = benchmark.read_sentences()
    assert len(sentences) >= 150
    assert len({tuple(t["content"] for t in turns) for _, _, turns in sentences}) == len(sentences)
    assert {flag for _, flags, _ in sentences for flag in flags} == set(FLAGS)
    page = (ROOT / "docs" / "filtering.md").read_text()
    assert benchmark.table() in page, benchmark.table()
    assert f"{len(sentences)} sentences" in page


def always_says(folder, label: str) -> None:
    """Make a text classifier that gives a label to whatever is said."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"[UNK]": 0, "[PAD]": 1, "vile": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]", model_max_length=32
    ).save_pretrained(folder)
    size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=3,
            intermediate_size=8,
            num_labels=2,
            id2label={0: label, 1: "other"},
            max_position_embeddings=32,
            **size,
        )
    )
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([9.0, -9.0]))
    model.save_pretrained(folder)


def test_a_classifier_behind_the_same_interface(tmp_path):
    from augesc_builder.config.recipe import SafetyClassifier
    from augesc_builder.errors import CheckpointError
    from augesc_builder.text.safety import scanner_of

    always_says(tmp_path, "Toxic")
    settings = SafetyClassifier(
        model=str(tmp_path), revision=None, threshold=0.5, labels={"toxic": "toxicity"}
    )
    scanner = scanner_of(settings)
    assert isinstance(scanner, Scanners)
    found = scanner.scan(
        [{"role": "user", "content": "I want to die"}, {"role": "assistant", "content": "vile"}]
    )
    assert found == [
        Flag("toxicity", 0, 0, 13),
        Flag("crisis", 0, 2, 13),
        Flag("toxicity", 1, 0, 4),
    ]
    with pytest.raises(CheckpointError, match="lacks the labels hateful"):
        scanner_of(settings.model_copy(update={"labels": {"hateful": "x"}}))
