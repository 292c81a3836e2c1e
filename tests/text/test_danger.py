"""Signs of danger: what of the lists is found, in which disguise, and in what time."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from augesc_builder.text.danger import KINDS, DangerLexicon, _uncovered
from augesc_builder.text.folding import STOP, Folder
from augesc_builder.text.lexicon import bare_words
from augesc_builder.text.safety import DangerScanner
from benchmarks import danger as benchmark
from tests.conftest import ROOT, often, shared

LEXICON = DangerLexicon(hints=True)
PLAIN = DangerLexicon(hints=False)


def signs(text: str) -> list[tuple[str, str]]:
    return [(sign.kind, text[sign.start : sign.end]) for sign in LEXICON.find(text)]


class TestLists:
    @pytest.mark.parametrize(
        ("name", "n"),
        [
            *(("danger_dev.tsv", 95), ("danger_heldout.tsv", 200)),
            *(("danger_second.tsv", 200), ("danger_third.tsv", 200)),
        ],
    )
    def test_the_notice_comes_for_nearly_all_statements(self, name, n):
        said = [text for kind, text in benchmark.read_list(name) if kind != "none"]
        assert len(set(said)) == len(said) >= n
        missed = [text for text in said if not benchmark.noticed(text)]
        assert len(missed) <= 0.05 * len(said), missed

    @pytest.mark.parametrize("name", ["danger_second.tsv", "danger_third.tsv"])
    def test_flags_stand_on_nearly_all_that_seekers_say_of_it(self, name):
        found, n = benchmark.flagged(name)
        assert found >= 0.95 * n

    def test_the_flags_stand_on_nearly_all_utterances_of_either_role(self):
        roles = {"S": "user", "A": "assistant"}
        lines = benchmark.read_list(benchmark.FLAGS_LIST)
        said = [(role, text) for kind, role, text in lines if kind != "none"]
        missed = [text for role, text in said if not benchmark.flags_of(text, roles[role])]
        assert len(missed) <= 0.05 * len(said), missed
        ordinary = [(role, text) for kind, role, text in lines if kind == "none"]
        wrong = [text for role, text in ordinary if benchmark.flags_of(text, roles[role])]
        assert len(wrong) <= 0.07 * len(ordinary), wrong
        found, n = benchmark.flags_recall()
        assert n >= 200
        assert found >= 0.95 * n

    def test_the_docs_say_what_was_found(self):
        page = (ROOT / "docs" / "danger.md").read_text()
        assert benchmark.notice_table() in page, benchmark.notice_table()
        assert benchmark.flags_table() in page, benchmark.flags_table()
        assert "{} of {}".format(*benchmark.flags_recall()) in page, benchmark.flags_recall()

    def test_the_docs_say_how_often_it_is_wrong(self):
        shared("esconv/train.txt")
        shared("reddit/RS_dreaddit_train.zst")
        page = " ".join((ROOT / "docs" / "danger.md").read_text().split())
        drawn = benchmark.seekers()
        said = benchmark.false_alarms(drawn)
        assert said in page, said
        first = int(said.split()[0])
        assert first <= 0.03 * len(drawn)
        assert " ".join(benchmark.reddit_table().split()) in page, benchmark.reddit_table()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("i am not okay i want to end my life", "suicide"),
        ("i can't do this anymore i'm suicidal", "suicide"),
        ("he didn't stop when i said no he raped me", "sexual_violence"),
        ("i took 30 pills an hour ago", "overdose"),
        ("kill my self", "suicide"),
        ("my stepfather abuses me", "abuse"),
        ("eating disorder again. I eat and then I vomit", "eating_disorder"),
        ("I'm going to kill him tonight", "harm_to_others"),
        ("i cut my arms", "self_harm"),
    ],
)
def test_the_kind_is_told(text, kind):
    assert kind in {found for found, _ in signs(text)}
    assert kind in KINDS


class TestDisguises:
    @pytest.mark.parametrize(
        "text",
        [
            "\uff49 \uff57\uff41\uff4e\uff54 \uff54\uff4f \uff44\uff49\uff45",  # full-width
            "i wa\u200bnt t\u200do d\ufeffi\u00ade",  # zero-width
            "\U0001d456 \U0001d464\U0001d44e\U0001d45b\U0001d461 to \U0001d451\U0001d456\U0001d452",
            "\u0456 w\u0430nt t\u043e di\u0435",  # Cyrillic
            "i w\u00e0nt t\u00f6 d\u00ede",
            "I WANT TO DIE",
            "i want to dieeeee",
            "i waaaant to die",
            "i wanna die",
            "i want 2 die",
            "i want to d1e",
            "i want to d i e, k i l l m y s e l f",
            "su1c1de",
            "s.u.i.c.i.d.e",
            "s u i c i d e",
            "sui-cide",
            "su!cide",
            "s*icide",
            "sucide",
            "siucide",
            "suicidee",
            "#killmyself",
            "he r*ped me",
            "he r4ped me",
            "i want to k!ll myself",
            "kill  my   self",
            "I don\u2019t want to live",
            "I don`t want to live",
            "I dont want to live",
            "I do not want to live",
            "i want to die.i mean it",
        ],
    )
    def test_it_is_found(self, text):
        assert LEXICON.find(text)

    @given(
        st.sampled_from(["i want to die", "he raped me", "i cut my arms again", "my dad beats me"]),
        st.lists(
            st.tuples(st.integers(0, 30), st.sampled_from("\u200b\u200c\u200d\u2060\ufeff\u00ad")),
            max_size=8,
        ),
        st.booleans(),
        st.booleans(),
    )
    def test_what_cannot_be_seen_hides_nothing(self, text, holes, upper, wide):
        for place, what in holes:
            text = text[:place] + what + text[place:]
        text = text.upper() if upper else text
        if wide:
            text = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)
        assert LEXICON.find(text)

    @pytest.mark.parametrize(
        "text",
        [
            "I am dying to see you",
            "my feet are killing me",
            "I want to die of embarrassment",
            "I don't want to die my hair",
            "he beats me at chess",
            "it hit me that I was alone",
            "I cut myself shaving",
            "I threw up all night, it was food poisoning",
            "my landlord kicked me out",
            "She stabbed me in the back at work",
        ],
    )
    def test_idioms_are_let_pass(self, text):
        assert not signs(text)

    @pytest.mark.parametrize(
        "text",
        [
            "I want to die of embarrassment. Also I want to die.",
            "he beats me at chess and he beats me at home",
            "my feet are killing me and I want to kill myself",
            "pregnant and i make myself throw up after meals",
            "i hurt myself in the bathroom",
            "i will take my life in my room",
            "he hit me in the face",
            "I want to die from this pain",
            "I don't want to live in this world",
        ],
    )
    def test_an_idiom_covers_nothing_but_itself(self, text):
        assert signs(text)


class TestPlaces:
    def test_the_span_is_of_the_text_as_it_was_typed(self):
        text = "\u00c9h bien\u2026 \uff29 w\u200bant to DIE!"
        (sign,) = PLAIN.find(text)
        assert (sign.kind, text[sign.start : sign.end]) == ("suicide", "w\u200bant to DIE")

    @given(st.text(max_size=200))
    def test_of_any_text(self, text):
        for lexicon in (LEXICON, PLAIN):
            for sign in lexicon.find(text):
                assert 0 <= sign.start < sign.end <= len(text)

    @given(st.text(alphabet="abdeiklmst '*!.-17\n", max_size=80))
    def test_words_are_in_order_and_the_quick_look_knows_them_all(self, text):
        folder = LEXICON._folder
        words = folder.fold(text)
        assert [w.start for w in words] == sorted(w.start for w in words)
        maybe = folder.may_say(text, frozenset(bare_words(text.lower())))
        said = {w.text for w in words}
        assert maybe is None or said <= maybe or (not maybe and not said & folder._keys)

    def test_one_sentence_after_the_other(self):
        folder = Folder(["kill", "dont"], ["kill"], {}, {"do not": "dont"}, [], {}, [])
        assert [w.text for w in folder.fold("Do not!\nKill? 7 2")] == [
            *("dont", STOP, STOP, "kill", STOP, "many", "few")
        ]

    def test_a_sign_may_begin_a_message_before(self):
        said = [
            {"role": "user", "content": "i want to"},
            {"role": "assistant", "content": "what? kill yourself?"},
            {"role": "user", "content": "die"},
        ]
        (flag,) = DangerScanner().scan(said)
        assert (flag.flag, flag.utterance, flag.start, flag.end) == ("suicide", 2, 0, 3)


PIECES = (
    *("i want to ", "kill my ", "he hit me ", "k i l l ", "a.b.c.", "a*a*", "'", "my dad my dad "),
    *("\u200b", "\uff49 ", "z", "1 ", "i eat and i eat and ", "not not ", "throw up ", "aaa", "x-"),
)


@pytest.mark.parametrize("piece", PIECES)
def test_the_time_grows_as_the_text_does(piece):
    def seconds(n: int) -> float:
        text = piece * (n // len(piece))
        best = float("inf")
        for _ in range(2):
            begun = time.process_time()
            LEXICON.find(text)
            best = min(best, time.process_time() - begun)
        return max(best, 1e-3)

    seconds(2_000)  # patterns are made when first needed
    short = seconds(2_000)
    assert seconds(32_000) < 80 * short  # sixteen times the text; squared would be 256


SAID = (
    "od'd ",
    "odd ",
    "i want ",
    "self harm",
    "self ",
    "die",
    "kil",
    "_",
    "don't ",
    "live. ",
    "to ",
)


@pytest.mark.slow
@settings(max_examples=often(60), deadline=None)
@given(st.lists(st.sampled_from([*PIECES, *SAID]), min_size=1, max_size=9).map("".join))
def test_the_quick_look_misses_nothing(text):
    """What may be said by the words alone is all that folding finds, wherever that is looked at."""
    lexicon = DangerLexicon(hints=False)
    found = lexicon.find(text)
    lexicon._folder.may_say = lambda *_: None
    assert lexicon.find(text) == found


@pytest.mark.parametrize(("cover", "is_covered"), [((4, 9), True), ((5, 9), False), ((0, 5), True)])
def test_what_is_harmless_covers_the_last_word_of_a_sign(cover, is_covered):
    """A harmless phrase that only follows the sign takes nothing from it."""
    hit = ("suicide", 0, 5)
    assert list(_uncovered([hit], [("", *cover)])) == ([] if is_covered else [hit])
