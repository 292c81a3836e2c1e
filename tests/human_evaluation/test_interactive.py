"""The interactive study: who says what to whom, what is kept, what a system that fails does."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from itertools import pairwise

import pytest

from augesc_builder.dialog.notice import PLACES, SERIOUS
from augesc_builder.errors import CheckpointError, EndpointError, HandOverError, StudyError
from augesc_builder.human_evaluation.conversations import HANDED_OVER, MOST_UTTERANCES, NO_REPLY
from augesc_builder.human_evaluation.events import DANGER, REPLIED, SAID
from augesc_builder.human_evaluation.form import LEFT, TIE
from augesc_builder.human_evaluation.pages.drawing import render
from augesc_builder.human_evaluation.quality_pages import Go
from augesc_builder.human_evaluation.quality_views import Page
from augesc_builder.human_evaluation.study import Study
from augesc_builder.human_evaluation.unfit import Unfit
from tests.dialog_models import blender, causal
from tests.endpoint_stub import Reply, Stub, failure, streamed
from tests.human_evaluation.talks import desk, endpoint, make_study

QUESTIONS = ("fluency", "identification", "comforting", "suggestion", "overall")
ALL_LEFT = dict.fromkeys(QUESTIONS, LEFT)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {"blender": blender(folder / "blender"), "gpt": causal(folder / "gpt")}


class Two:
    """Two endpoints on loopback, one a system; each answers as its test wants."""

    def __init__(self, tmp_path) -> None:
        self.a = Stub(lambda asked: streamed("I hear you, from a."))
        self.b = Stub(lambda asked: streamed("Tell me more, from b."))
        self.tmp_path = tmp_path

    def study(self, *overrides: str, **options) -> Study:
        systems = {"a": endpoint(self.a.url), "b": endpoint(self.b.url)}
        return make_study(self.tmp_path / "study", systems, *overrides, **options)


@pytest.fixture
def two(tmp_path):
    found = Two(tmp_path)
    with found.a, found.b:
        yield found


def html(found: Page) -> str:
    """Draw a page as the server would."""
    more = {"to": str, "lang": "en", "leave": None, "rated": ()}
    study = {"title": "T", "support": [], "contact": None}
    return render(found.template, **{"study": study, **more, **found.values})


def histories(stub: Stub) -> list[list[tuple[str, str]]]:
    return [[(m["role"], m["content"]) for m in asked.body["messages"]] for asked in stub.asked]


class TestTwoConversations:
    def test_the_first_message_goes_to_both_and_then_each_goes_its_own_way(self, two):
        with desk(two.study()) as one:
            assert isinstance(one.say("both", "I lost my job"), Go)
            one.wait()
            one.say("left", "only for you")
            talk = one.wait()
        assert talk.left.said == ["I lost my job", "only for you"]
        assert talk.right.said == ["I lost my job"]
        mine, other = (two.a, two.b) if talk.left.system == "a" else (two.b, two.a)
        assert histories(other)[-1] == [("user", "I lost my job")]
        assert [role for role, _ in histories(mine)[-1]] == ["user", "assistant", "user"]
        assert histories(mine)[-1][-1] == ("user", "only for you")

    def test_models_of_both_families_talk(self, models, tmp_path):
        systems = {name: f"{{folder: '{path}'}}" for name, path in models.items()}
        study = make_study(tmp_path / "study", systems, "interactive.replies.max_tokens=12")
        with desk(study) as one:
            talk = one.converse(2)
            assert talk.left.n_replies == talk.right.n_replies == 2
            assert {event["system"] for event in one.events(REPLIED)} == {"blender", "gpt"}

    def test_a_reply_that_is_asked_for_again_is_drawn_as_it_was(self, models, tmp_path):
        """So that a server that died in the middle changes nothing."""
        systems = {name: f"{{folder: '{path}'}}" for name, path in models.items()}
        replies = []
        for folder in ("one", "two"):
            more = ("interactive.replies.max_tokens=12", "interactive.replies.temperature=1.0")
            with desk(make_study(tmp_path / folder, systems, *more)) as one:
                one.say("both", "I lost my job")
                one.wait()
                replies.append([event["text"] for event in one.events(REPLIED)])
        assert sorted(replies[0]) == sorted(replies[1])

    def test_sides_are_drawn_and_balanced_and_no_page_names_a_system(self, two):
        study = two.study("interactive.systems.a.model=secret-name", pairs=8)
        assert sorted(item.left for item in study.items.values()) == ["a"] * 4 + ["b"] * 4
        with desk(study) as one:
            one.converse(1)
            for page in (one.get(), one.send("look", text_left="x")):
                drawn = html(page)
                assert "secret-name" not in drawn
                assert two.a.url not in drawn
                assert str(study.folder) not in drawn

    def test_what_systems_write_is_text(self, two):
        evil = "<script>alert(1)</script> **b** \u202egnp.exe \x00\x1b[2J"
        two.a.behave = two.b.behave = lambda asked: streamed(evil)
        with desk(two.study()) as one:
            one.say("both", "<img src=x onerror=alert(1)> \u202e")
            one.wait()
            drawn = html(one.get())
        assert "<script>alert" not in drawn
        assert "<img" not in drawn
        assert "\u202e" not in drawn
        assert "\x1b" not in drawn
        assert "&lt;script&gt;alert(1)&lt;/script&gt; **b**" in drawn

    def test_a_message_is_kept_once_however_often_it_is_sent(self, two):
        with desk(two.study()) as one:
            for _ in range(3):
                one.say("both", "I lost my job", 0)
            one.wait()
            for _ in range(3):
                one.say("left", "again", 1)
            assert len(one.events(SAID)) == 2
            other = one.say("left", "from another window", 1)
            assert other.status == 409
            assert "from another window" in html(other)
            one.wait()
            assert len(one.events(REPLIED)) == 3

    def test_many_windows_at_once_keep_one_message(self, two):
        with desk(two.study()) as one:
            barrier = threading.Barrier(8)

            def work() -> None:
                barrier.wait()
                one.say("both", "at once", 0)

            threads = [threading.Thread(target=work) for _ in range(8)]
            [thread.start() for thread in threads]
            [thread.join() for thread in threads]
            one.wait()
            assert len(one.events(SAID)) == 1
            assert sorted(event["system"] for event in one.events(REPLIED)) == ["a", "b"]

    @pytest.mark.parametrize(
        ("text", "status", "said"),
        [
            (" \u200b\n", 422, "nothing written"),
            ("x" * 41, 422, "40 characters"),
            ("x" * 40, None, ""),
        ],
    )
    def test_a_message_has_a_text_and_a_length(self, two, text, status, said):
        with desk(two.study("interactive.max_characters=40")) as one:
            found = one.say("both", text)
            if status is None:
                assert isinstance(found, Go)
            else:
                assert found.status == status
                assert said in html(found)
                assert one.events(SAID) == []

    def test_no_message_before_the_reply_and_what_was_written_stays(self, two):
        two.a.behave = two.b.behave = lambda asked: streamed("slowly, slowly", pause=1.0)
        with desk(two.study()) as one:
            one.say("both", "I lost my job")
            found = one.send("say-left", text_left="more", text_right="for later", n_left=1)
            assert found.status == 409
            assert "has not answered yet" in html(found)
            assert found.values["drafts"]["right"] == "for later"

    def test_without_scripts_the_other_message_is_not_lost(self, two):
        with desk(two.study()) as one:
            one.say("both", "I lost my job")
            one.wait()
            found = one.send("say-left", text_left="sent", text_right="half <b>done", n_left=1)
            assert found.status == 200
            assert "half &lt;b&gt;done" in html(found)
            assert one.talk.right.said == ["I lost my job"]

    def test_a_conversation_has_an_end(self, two, monkeypatch):
        from augesc_builder.human_evaluation import conversations

        assert MOST_UTTERANCES >= 100
        monkeypatch.setattr(conversations, "MOST_UTTERANCES", 2)
        with desk(two.study()) as one:
            one.converse(2)
            assert one.say("left", "one more").status == 409
            assert "This conversation is full" in html(one.get())

    @pytest.mark.parametrize(
        "form",
        [
            {"go": "say-middle", "text-middle": "x"},
            {"go": "say-left", "text-left": "x", "n-left": "-1"},
            {"go": "say-left", "text-left": "x", "n-left": "99999999999999999999"},
            {"go": "say-left", "text-left": "x"},
            {"go": "again-both"},
            {"go": ""},
            {"go": "on", "fluency": "4"},
            {"go": "on", "unknown": "1"},
        ],
    )
    def test_tampered_forms_are_refused_and_logged(self, two, form):
        with desk(two.study()) as one:
            given = {"nonce": "0123456789abcdef", "item": one.item, **form}
            with pytest.raises(Unfit) as refused:
                one.pages.post(one.who, "1", given)
            assert refused.value.status == 400
            assert len(one.events("refused")) == 1
            assert one.events(SAID) == []

    def test_nobody_writes_in_the_conversations_of_somebody_else(self, two):
        with desk(two.study()) as one:
            other = one.enter("other")
            assert other.item != one.item
            other.item = one.item
            with pytest.raises(Unfit) as refused:
                other.say("both", "hello", 0)
            assert refused.value.status == 409
            assert one.events(SAID) == []


class TestTheQuestions:
    def test_they_open_after_so_many_of_both_in_both(self, two):
        with desk(two.study("interactive.min_utterances=3")) as one:
            one.converse(2)
            one.say("left", "a third on the left alone")
            assert not one.wait().is_long_enough(3)
            assert one.get("compare-1") == Go("1")
            with pytest.raises(Unfit):
                one.send("on", **ALL_LEFT)
            assert one.events("answered") == []
            assert one.events("refused")[0]["reason"] == "bad_answer"
            one.say("right", "and on the right")
            one.wait()
            assert "Compare the bots" in html(one.get())
            one.say("left", "free to go on")
            assert one.wait().left.n_said == 4
            assert isinstance(one.get("compare-1"), Page)
            assert one.send("on", **ALL_LEFT) == Go()

    def test_eight_is_what_the_paper_asks_for(self, two):
        assert two.study().settings.interactive.min_utterances == 8

    def test_answers_become_preferences_for_the_system_that_stood_there(self, two):
        study = two.study("interactive.min_utterances=1", pairs=2)
        winners = set()
        with desk(study) as first:
            for one in (first, first.enter("other")):
                one.converse(1)
                one.send("on", **{**ALL_LEFT, "overall": TIE})
                winners.add(study.items[one.item].left)
            found = list(first.store.preferences())
        assert winners == {"a", "b"}
        for preference in found:
            left = study.items[preference.pair].left
            assert preference.winner == (None if preference.question == "overall" else left)
        assert len(found) == 2 * len(QUESTIONS)

    def test_all_of_them_are_asked_for(self, two):
        with desk(two.study("interactive.min_utterances=1")) as one:
            one.converse(1)
            found = one.send("on", fluency=2)
            assert found.status == 422
            assert found.values["chosen"] == {"fluency": 2}
            assert one.events("answered") == []

    def test_afterwards_nothing_more_is_said_and_answers_may_change(self, two):
        with desk(two.study("interactive.min_utterances=1")) as one:
            one.converse(1)
            one.send("on", **ALL_LEFT)
            assert one.say("left", "one more", 1).status == 409
            assert len(one.events(SAID)) == 1
            assert one.get("").step == "done"
            assert one.get("1").values["is_change"]
            one.send("on", **{**ALL_LEFT, "overall": TIE})
            assert one.store.answers(one.who, one.item)["overall"] == TIE


class TestASystemThatFails:
    @pytest.mark.parametrize(
        ("behave", "why"),
        [
            (lambda asked: failure(500), "broken"),
            (lambda asked: streamed("I am", finish=None, cut=True), "broken"),
            (lambda asked: streamed("never ends", finish=None), "broken"),
            (lambda asked: Reply(events=["{not json", "[DONE]"]), "broken"),
            (lambda asked: Reply(events=['{"error": {"message": "x"}}']), "broken"),
            (lambda asked: streamed(""), "empty"),
            (lambda asked: streamed("\u200b \n "), "empty"),
            (lambda asked: streamed("slow word by word", pause=30.0), "slow"),
            (lambda asked: Reply({}, delay=60.0), "slow"),
        ],
    )
    def test_it_keeps_neither_the_other_nor_the_person(self, two, behave, why):
        two.a.behave = behave
        with desk(two.study("interactive.replies.timeout_seconds=4")) as one:
            one.say("both", "I lost my job")
            side = "left" if one.talk.left.system == "a" else "right"
            other = "right" if side == "left" else "left"
            one.wait(lambda talk: getattr(talk, other).turn == "person")
            one.say(other, "we go on")
            one.wait(lambda talk: getattr(talk, other).n_replies == 2)
            talk = one.wait()
            assert getattr(talk, side).turn == "failed"
            (failed,) = one.events(NO_REPLY)
            assert (failed["system"], failed["why"]) == ("a", why)
            drawn = html(one.get())
            assert f"The {side} bot did not answer" in drawn
            assert two.a.url not in drawn
            assert any(line.startswith("a: no reply to somebody") for line in one.told)
            two.a.behave = lambda asked: streamed("I am back.")
            one.send(f"again-{side}")
            assert getattr(one.wait(), side).history[-1]["content"] == "I am back."

    def test_one_that_is_not_there_is_asked_until_it_is(self, two):
        two.a.stop()
        with desk(two.study("interactive.replies.timeout_seconds=60")) as one:
            one.say("both", "I lost my job")
            one.wait(lambda talk: len(talk.waiting) == 1)
            two.a.start()
            assert one.wait().left.n_replies == 1
            assert one.talk.right.n_replies == 1

    def test_who_writes_on_says_it_as_one_utterance(self, two):
        two.a.behave = lambda asked: failure(400, "no such thing")
        with desk(two.study()) as one:
            one.say("both", "I lost my job")
            side = "left" if one.talk.left.system == "a" else "right"
            assert getattr(one.wait(), side).turn == "failed"
            two.a.behave = lambda asked: streamed("Now.")
            one.say(side, "and my home")
            one.wait()
        assert histories(two.a)[-1] == [("user", "I lost my job and my home")]

    def test_a_conversation_too_long_for_it_is_shortened_behind_the_first_message(self, two):
        def behave(asked):
            messages = asked.body["messages"]
            if len(messages) > 3:
                return failure(400, "maximum context length is exceeded")
            return streamed("Short.")

        two.a.behave = behave
        with desk(two.study()) as one:
            one.converse(4)
            side = "left" if one.talk.left.system == "a" else "right"
            assert getattr(one.talk, side).n_replies == 4
            last = histories(two.a)[-1]
            left_out = [e["left_out"] for e in one.events(REPLIED) if e["system"] == "a"]
        assert last[0] == ("user", "I lost my job and cannot sleep")
        assert last[-1] == ("user", "and then, 3, what?")
        assert left_out == [0, 0, 2, 4]

    def test_one_that_does_not_stream_is_taken_as_it_is(self, two):
        from tests.endpoint_stub import chat

        two.a.behave = lambda asked: Reply(chat("All at once."))
        with desk(two.study()) as one:
            one.say("both", "I lost my job")
            one.wait()
            assert {event["text"] for event in one.events(REPLIED)} >= {"All at once."}

    def test_a_reply_without_end_is_cut_off(self, two):
        two.a.behave = lambda asked: Reply(
            events=[json.dumps({"choices": [{"delta": {"content": "x" * 100_000}}]})] * 60
        )
        with desk(two.study()) as one:
            one.say("both", "I lost my job")
            one.wait()
            (failed,) = one.events(NO_REPLY)
            assert "more than" in failed["reason"]

    def test_the_key_is_only_in_the_environment(self, two, monkeypatch):
        two.a.key = "sk-very-secret"
        two.a.behave = lambda asked: streamed("My key is sk-very-secret , friend.")
        study = two.study("interactive.systems.a.key_env=TALK_KEY")
        with (
            pytest.raises(EndpointError, match=r"TALK_KEY.*interactive\.systems\.a\.key_env"),
            desk(study),
        ):
            pass
        monkeypatch.setenv("TALK_KEY", "sk-very-secret")
        with desk(study) as one:
            one.say("both", "I lost my job")
            one.wait()
            assert {"My key is [key] , friend."} <= {e["text"] for e in one.events(REPLIED)}
        for path in study.folder.iterdir():
            assert b"sk-very-secret" not in path.read_bytes()

    def test_a_folder_that_is_no_model_is_refused_before_anybody_comes(self, two, tmp_path):
        study = make_study(
            tmp_path / "bad", {"a": endpoint(two.a.url), "b": f"{{folder: '{tmp_path}'}}"}
        )
        with pytest.raises(CheckpointError), desk(study):
            pass


class TestDanger:
    DANGER = "I want to kill myself"

    def test_the_notice_is_there_before_any_reply_and_on_both_sides(self, two):
        gate = threading.Event()

        def behave(asked):
            gate.wait(60)
            return streamed("ok")

        two.a.behave = two.b.behave = behave
        with desk(two.study()) as one:
            one.say("both", self.DANGER)
            drawn = html(one.get())
            assert one.talk.left.n_replies == one.talk.right.n_replies == 0
            assert drawn.count(SERIOUS.replace("'", "&#39;")) == 2
            assert drawn.count("findahelpline.com</a>") == 2
            gate.set()
            talk = one.wait()
            for side in (talk.left, talk.right):
                assert [line.kind for line in side.lines] == ["user", "danger", "assistant"]

    @pytest.mark.parametrize("side", ["left", "right"])
    def test_what_is_said_to_one_gives_the_notice_in_both(self, two, side):
        with desk(two.study()) as one:
            one.converse(1)
            assert one.events(DANGER) == []
            one.say(side, self.DANGER)
            talk = one.wait()
            kinds = {
                name: [line.kind for line in getattr(talk, name).lines]
                for name in ("left", "right")
            }
        other = "right" if side == "left" else "left"
        assert kinds[side] == ["user", "assistant", "user", "danger", "assistant"]
        assert kinds[other] == ["user", "assistant", "danger"]

    def test_a_sign_that_begins_in_the_other_conversation_is_seen(self, two):
        with desk(two.study()) as one:
            one.say("both", "It hurts")
            one.wait()
            one.say("left", "Sometimes I want to kill")
            one.say("right", "myself")
            one.wait()
            assert len(one.events(DANGER)) == 1

    def test_people_are_told_with_the_conversation(self, two, tmp_path):
        kept = tmp_path / "told.jsonl"
        code = f"import sys; open({str(kept)!r}, 'a').write(sys.stdin.read())"
        command = f'{sys.executable} -c "{code}"'
        study = two.study(f"interactive.on_danger={json.dumps(command)}")
        with desk(study) as one:
            one.converse(1)
            one.say("right", self.DANGER)
            one.wait()
            end = time.monotonic() + 60
            while not one.events(HANDED_OVER) and time.monotonic() < end:
                time.sleep(0.05)
            assert one.events(HANDED_OVER)[0]["error"] is None
            drawn = html(one.get())
            assert drawn.count("Nobody may have read it yet") == 2
            assert one.talk.right.history[:3]
        (report,) = map(json.loads, kept.read_text().splitlines())
        assert report["text"] == self.DANGER
        assert report["participant"] == "somebody"
        assert report["study"] == "interactive"
        assert [m["role"] for m in report["messages"]] == ["user", "assistant", "user"]

    def test_that_nobody_could_be_told_is_said(self, two):
        command = f"{sys.executable} -c 'raise SystemExit(3)'"
        with desk(two.study(f"interactive.on_danger={json.dumps(command)}")) as one:
            one.say("both", self.DANGER)
            end = time.monotonic() + 60
            while not one.events(HANDED_OVER) and time.monotonic() < end:
                time.sleep(0.05)
            drawn = html(one.get())
            assert "could not be handed on" in drawn
            assert "exit code" not in drawn
            assert any("handed to nobody" in line for line in one.told)

    def test_what_a_server_did_not_tell_the_next_one_tells(self, two, tmp_path):
        kept = tmp_path / "told.jsonl"
        code = f"import sys; open({str(kept)!r}, 'a').write(sys.stdin.read())"
        command = f'{sys.executable} -c "{code}"'
        study = two.study(f"interactive.on_danger={json.dumps(command)}")
        with desk(study) as one:
            body = {"system": None, "text": self.DANGER}
            one.store.record(SAID, one.who, one.item, body)
            one.store.record(DANGER, one.who, one.item, {"system": None, "signs": ["suicide"]})
        for _ in range(2):
            with desk(study) as one:
                end = time.monotonic() + 60
                while not one.events(HANDED_OVER) and time.monotonic() < end:
                    time.sleep(0.05)
        assert len(kept.read_text().splitlines()) == 1

    def test_a_hook_that_is_nobody_is_refused_before_anybody_comes(self, two):
        with (
            pytest.raises(HandOverError, match="no such program"),
            desk(two.study("interactive.on_danger=no-such-program-anywhere")),
        ):
            pass

    def test_consent_says_who_is_told(self, two):
        command = f"{sys.executable} -c pass"
        study = two.study(f"interactive.on_danger={json.dumps(command)}")
        with desk(study) as one:
            one.store.arrive("new")
            drawn = html(one.pages.get("new", "consent"))
        assert "handed on to" in drawn
        assert "python" in drawn

    def test_the_places_of_the_notice_are_those_of_chat(self):
        from augesc_builder.dialog.chat import CRISIS

        said = " ".join(CRISIS.split())
        assert SERIOUS in said
        assert all(f"- {place}" in said for place in PLACES)


class TestReloads:
    def test_a_reply_that_a_dead_server_was_writing_is_asked_for_again_and_kept_once(self, two):
        two.a.behave = two.b.behave = lambda asked: streamed("never told", pause=60.0)
        study = two.study()
        with desk(study) as one:
            one.say("both", "I lost my job")
            end = time.monotonic() + 60
            while len(two.a.asked) + len(two.b.asked) < 2:
                assert time.monotonic() < end
                time.sleep(0.02)
        two.a.behave = two.b.behave = lambda asked: streamed("Here I am.")
        with desk(study) as one:
            assert one.events(REPLIED) == []
            for _ in range(5):
                one.get()
            one.wait()
            for _ in range(5):
                one.get()
            assert [event["text"] for event in one.events(REPLIED)] == ["Here I am."] * 2

    def test_a_stream_shows_replies_as_they_grow(self, two):
        two.a.behave = two.b.behave = lambda asked: streamed("one two three", pause=0.3)
        with desk(two.study()) as one:
            one.say("both", "I lost my job")

            async def read() -> list[str]:
                return [text async for text in one.get("live-1").events]

            found = asyncio.run(read())
        texts = [
            json.loads(line[6:])
            for event in found
            for line in event.splitlines()
            if line.startswith("data: ") and "text" in line
        ]
        left = [text["text"] for text in texts if text["side"] == "left"]
        assert left[-1] == "one two three"
        assert len(left) >= 2
        assert all(later.startswith(earlier) for earlier, later in pairwise(left))
        assert sum(event.startswith("event: turn") for event in found) == 2
        assert found[-1].startswith("event: end")

    def test_the_stream_of_somebody_without_a_place_ends(self, two):
        with desk(two.study()) as one:

            async def read(who: str, step: str) -> list[str]:
                return [text async for text in one.pages.get(who, step).events]

            for who, step in (("nobody", "live-1"), (one.who, "live-7"), (one.who, "live-x")):
                assert asyncio.run(read(who, step))[-1].startswith("event: end")


def test_the_questions_are_the_papers(two):
    found = {q.name: q.definition for q in two.study().form.questions}
    assert tuple(found) == QUESTIONS
    assert found["overall"] == "generally, which bot's emotional support do you prefer?"


def test_an_answer_before_its_time_says_what_is_missing(two):
    with (
        desk(two.study()) as one,
        pytest.raises(StudyError, match="8 messages of the person and 8 of each system"),
    ):
        one.pages.talks.answer(one.who, one.item, ALL_LEFT, None)
