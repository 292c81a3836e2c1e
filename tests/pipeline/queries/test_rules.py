"""Every rule of appendix A, hit and missed by a little."""

from __future__ import annotations

import pytest
import yaml

from augesc_builder.config.base import Bounds
from augesc_builder.errors import InputError
from augesc_builder.pipeline.queries import rules
from augesc_builder.pipeline.queries.rules import load_rules, load_subreddits
from augesc_builder.pipeline.queries.screen import Screen
from augesc_builder.sources.base import Post
from augesc_builder.text.lexicon import LEXICONS
from augesc_builder.text.personal_data import has_personal_data

FILLER = "and so I went home and cried about it for a while"


@pytest.fixture(scope="module")
def text_rules(paper):
    return load_rules(paper.queries.reddit)


HITS = {
    "url": [
        "see https://example.org/x for it",
        "see HTTP://EXAMPLE.ORG",
        "it is on www.example.org",
        "my [story](example)",
        "look at example.com please",
        "look at sub.example.co.uk please",
        "this photo.jpg of me",
        "on imgur there is one",
        "a link: <url>",
        "[image] of my room",
    ],
    "serious_issue": [
        "he was raped",
        "RAPE is what it was",
        "I think of suicide",
        "feeling suicidal again",
        "I self-harm",
        "I self harmed",
        "selfharm is back",
        "I want to kill myself",
        "kill... myself",
        "I was sexually assaulted",
        "an abusive home",
        "su1cide",
        "thoughts of r*pe",
        "she took an overdose",
    ],
    "medication": [
        "they put me on Zoloft",
        "alprazolam helps",
        "LORAZEPAM",
        "on an SSRI now",
        "my meds ran out",
        "two sleeping pills",
        "beta-blockers before a talk",
        "Wellbutrin.",
    ],
    "reddit_lingo": [
        "OP here",
        "as OP said",
        "this subreddit",
        "hello r/anxiety",
        "hello /r/anxiety",
        "thanks u/someone",
        "using a throwaway",
        "please upvote",
        "EDIT: thanks",
        "Edit 2: thanks",
        "TL;DR I cried",
        "TLDR I cried",
        "tl;dr: I cried",
        "NSFW",
        "AITA for this",
        "long time lurker",
        "sorry for the formatting",
    ],
}
MISSES = {
    "url": ["the end.So I left", "e.g.this one", "3.5 times", "etc.and so on", "a.m. and p.m."],
    "serious_issue": [
        "grapes and drapes",
        "the therapist was nice",
        "I skipped the suit",
        "my self and harm none",
        "kill time by myself",
        "disabused of it",
    ],
    "medication": ["the medical bill", "a lyrical song", "pill bug", "abilities"],
    "reddit_lingo": [
        "the op was fine",
        "the hop and the stop",
        "the credit is gone",
        "either/or",
        "and/or us",
        "I edited: the text",
        "stop. STOP it",
        "throw away the bag",
        "a tilde",
    ],
}


@pytest.mark.parametrize(
    ("reason", "text"), [(reason, text) for reason, texts in HITS.items() for text in texts]
)
@pytest.mark.parametrize("form", ["{} {}", "{1} {0}"])
def test_hits(text_rules, reason, text, form):
    assert reason in text_rules.reasons(form.format(text, FILLER))


@pytest.mark.parametrize(
    ("reason", "text"), [(reason, text) for reason, texts in MISSES.items() for text in texts]
)
def test_misses(text_rules, reason, text):
    assert text_rules.reasons(f"{text} {FILLER}") == []


def test_every_entry_of_every_list_is_found(text_rules):
    for name, reason in (("serious_issues", "serious_issue"), ("medications", "medication")):
        for entry in yaml.safe_load((LEXICONS / f"{name}.yaml").read_text()):
            for form in (entry, entry.upper(), f'"{entry.title()}",', entry.replace(" ", "-")):
                found = text_rules.reasons(f"well {form} {FILLER}")
                assert reason in found, form
    lingo = yaml.safe_load((LEXICONS / "reddit_lingo.yaml").read_text())
    for entry in lingo["any_case"]:
        assert "reddit_lingo" in text_rules.reasons(f"well {entry.upper()}, {FILLER}"), entry
    for entry in lingo["capitals"]:
        assert "reddit_lingo" in text_rules.reasons(f"well ({entry}), {FILLER}"), entry
        assert "reddit_lingo" not in text_rules.reasons(f"well {entry.lower()} {FILLER}"), entry


def test_the_lists_are_what_they_promise(paper):
    medications = yaml.safe_load((LEXICONS / "medications.yaml").read_text())
    assert len(medications) == len(set(medications)) >= 150
    assert {"alprazolam", "lorazepam", "zoloft"} <= set(medications)
    assert {"rape", "suicide", "self harm"} <= set(
        yaml.safe_load((LEXICONS / "serious_issues.yaml").read_text())
    )
    shipped = load_subreddits(paper.queries.reddit)
    assert {"anxiety", "depression", "mentalhealth", "ptsd", "stress", "offmychest"} <= shipped
    assert not {"suicidewatch", "selfharm", "domesticviolence"} & shipped
    for path in LEXICONS.glob("*.yaml"):
        groups = path.read_text().split("\n# ")
        assert len(groups) > 2, f"{path.name} has no comments on its groups"


@pytest.mark.parametrize(
    "text",
    [
        "write to jane.doe@example.org",
        "jane (at) example (dot) org",
        "I am @jane_doe there",
        "thanks u/jane-doe",
        "call 555-123-4567",
        "call (555) 123 4567",
        "call +44 20 7946 0958",
        "my number 5551234567",
        "case 12345678",
    ],
)
def test_personal_data(text):
    assert has_personal_data(f"{FILLER} {text} {FILLER}")


@pytest.mark.parametrize(
    "text",
    [
        "at 10:30 on 12.05.2019",
        "1,000,000 times",
        "from 2015 to 2019",
        "2 or 3 of 10",
        "I pay 1500 a month, 18000 a year",
        "@ home",
        "24/7",
        "born 1998, 2 kids, 3 jobs",
        "3.14159265",
    ],
)
def test_no_personal_data(text):
    assert not has_personal_data(f"{FILLER} {text} {FILLER}")


@pytest.fixture(scope="module")
def examiner(text_rules):
    return Screen(Bounds(min=10, max=60), frozenset({"sad"}), frozenset({"stress"}), text_rules)


class TestOrder:
    def test_words_are_counted_only_of_posts_that_cheap_rules_let_through(self, examiner):
        good = examiner.post(Post(f"I lost {FILLER}"))
        assert (good.reasons, good.n_words) == ((), 14)
        short = examiner.post(Post("too short"))
        assert (short.reasons, short.n_words) == (("length",), 2)
        long = examiner.post(Post("word " * 61))
        assert (long.reasons, long.n_words) == (("length",), None)
        both = examiner.post(Post(f"Zoloft and suicide {FILLER}"))
        assert (both.reasons, both.n_words) == (("serious_issue", "medication"), None)

    def test_blanks_alone_never_decide_wrongly(self, examiner):
        exactly = examiner.post(Post("word " * 60))
        assert (exactly.reasons, exactly.n_words) == ((), 60)
        over = examiner.post(Post("word " * 59 + "word."))
        assert (over.reasons, over.n_words) == (("length",), 61)

    def test_what_the_source_says_comes_first(self, examiner):
        post = examiner.post(Post(f"Zoloft {FILLER}", reasons=("removed", "over_18")))
        assert post.reasons == ("removed", "over_18")

    def test_text_rules_are_not_asked_of_other_sources(self):
        plain = Screen(Bounds(min=10, max=60), frozenset({"sad"}))
        assert plain.post(Post(f"Zoloft {FILLER}", emotion="sad")).reasons == ()
        assert plain.post(Post(f"Zoloft {FILLER}", emotion="joyful")).reasons == ("emotion",)
        assert plain.post(Post(f"a@bc.org {FILLER}", emotion="sad")).reasons == ("personal_data",)


class TestListsOfOnesOwn:
    def settings(self, paper, **lexicons):
        reddit = paper.queries.reddit
        return reddit.model_copy(update={"lexicons": reddit.lexicons.model_copy(update=lexicons)})

    def test_they_take_the_place_of_ours(self, paper, tmp_path):
        path = tmp_path / "mine.yaml"
        path.write_text("- blue pill\n")
        mine = load_rules(self.settings(paper, medication=str(path)))
        assert mine.reasons(f"the blue pill {FILLER}") == ["medication"]
        assert mine.reasons(f"on Zoloft {FILLER}") == []

    @pytest.mark.parametrize("text", ["a: 1", "- 1", "[", ""])
    def test_a_wrong_form_is_an_error(self, paper, tmp_path, text):
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        with pytest.raises(InputError, match=str(path)):
            load_rules(self.settings(paper, serious_issue=str(path)))
        with pytest.raises(InputError, match=str(path)):
            load_rules(self.settings(paper, reddit_lingo=str(path)))

    def test_a_missing_file_is_an_error(self, paper):
        with pytest.raises(InputError, match="cannot be read"):
            load_rules(self.settings(paper, medication="no/file.yaml"))

    def test_subreddits(self, paper, tmp_path):
        reddit = paper.queries.reddit
        assert load_subreddits(reddit.model_copy(update={"subreddits": ["A", "b"]})) == {"a", "b"}
        assert load_subreddits(reddit.model_copy(update={"subreddits": []})) == frozenset()
        path = tmp_path / "subs.yaml"
        path.write_text("- Stress\n")
        found = load_subreddits(reddit.model_copy(update={"subreddits": str(path)}))
        assert found == {"stress"}


def test_the_lists_can_be_pickled_to_workers(text_rules):
    import pickle

    assert pickle.loads(pickle.dumps(text_rules)).reasons("OP") == ["reddit_lingo"]
    assert rules.LEXICONS.is_dir()
