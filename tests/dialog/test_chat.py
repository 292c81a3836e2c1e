"""Talking to a model: what is kept whatever happens, and the notice."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest

from augesc_builder.config.training import load_config
from augesc_builder.dialog import examples
from augesc_builder.dialog.chat import CRISIS, Chat
from augesc_builder.dialog.encoding import PLAIN_TEMPLATE
from augesc_builder.dialog.handover import hand_over_to
from augesc_builder.dialog.model import Decoding, DialogModel
from augesc_builder.errors import CheckpointError
from tests.conftest import ROOT
from tests.training.test_training import causal

DECODING = Decoding(max_tokens=12, top_p=0.9)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A causal model that has learned nothing, with a chat template."""
    folder = causal(tmp_path_factory.mktemp("chat") / "model")
    with_template(folder, PLAIN_TEMPLATE)
    return folder


def with_template(folder, template: str) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def dialog(folder):
    return DialogModel(str(folder))


@pytest.fixture
def templated(dialog, monkeypatch):
    """Give the model with another chat template."""

    def use(template: str):
        monkeypatch.setattr(dialog.tokenizer, "chat_template", template)
        return dialog

    return use


def talk(dialog, *lines: str | bytes, **options):
    sink = io.StringIO()
    raw = b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines)
    source = io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8")
    chat = Chat(dialog, DECODING, source, sink, **options)
    chat.run()
    return sink.getvalue(), chat


def test_a_chat_answers_and_keeps_its_history(dialog, tmp_path):
    path = tmp_path / "chat.jsonl"
    text, chat = talk(dialog, "I lost my job", "", "what now?", f"/save {path}", "/reset", "/what")
    (kept,) = [json.loads(line) for line in path.read_text().splitlines()]
    assert [m["role"] for m in kept["messages"]] == ["user", "assistant"] * 2
    for message in kept["messages"]:
        if message["role"] == "assistant":  # what was streamed is what was kept
            assert f"Supporter: {message['content']}\n" in text
    assert chat.history == []
    assert "Commands: /reset" in text.splitlines()[-3]
    (session,) = examples.read_sessions(str(path), load_config("tiny").data)
    assert len(session.messages) == 4
    assert "not to a person" in text.splitlines()[0]


class TestNothingEndsAConversation:
    def test_bytes_that_are_no_text(self, dialog):
        text, chat = talk(dialog, b"hello \xff\xfe\x00 you", b"\xc3", "still here")
        said = [m["content"] for m in chat.history if m["role"] == "user"]
        assert said == ["hello \ufffd\ufffd you", "\ufffd", "still here"]
        assert text.count("Supporter: ") == 3

    def test_lone_surrogates_of_another_reader(self, dialog):
        sink = io.StringIO()
        chat = Chat(dialog, DECODING, io.StringIO("so\udcff sad\nand\n"), sink)
        chat.run()
        assert chat.history[0]["content"] == "so sad"

    def test_a_terminal_that_knows_no_such_letter(self, dialog, monkeypatch):
        monkeypatch.setattr(dialog, "decode", lambda ids: "caf\u00e9 \u2615")
        raw = io.BytesIO()
        sink = io.TextIOWrapper(raw, encoding="ascii")
        Chat(dialog, DECODING, io.StringIO("hi\n"), sink).run()
        assert b"Supporter: caf? ?" in raw.getvalue()

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("~nobody-of-that-name/x", "home directory"),
            ("a\0b", "null"),
            ("{}", "Is a directory"),
            ("{}/no/such/folder", "No such file"),
            ("{}/pipe", "not a regular file|No such device"),
            ("{}/loop", "symbolic links"),
            ("x" * 5000, "too long"),
            ("/dev/full", "not a regular file"),
        ],
    )
    def test_it_is_not_saved_to_nowhere(self, dialog, tmp_path, name, said):
        import re

        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "loop").symlink_to(tmp_path / "loop")
        good = tmp_path / "good.jsonl"
        text, _ = talk(
            dialog,
            "hello",
            f"/save {name.format(tmp_path)}",
            "/save",
            f"/save {good}",
            "/quit",
            "no",
        )
        (line,) = [line for line in text.splitlines() if "Not saved: " in line]
        assert re.search(said, line)
        assert "Give a file" in text
        assert json.loads(good.read_text())["messages"][0]["content"] == "hello"

    def test_a_pipe_that_somebody_reads_gets_nothing(self, dialog, tmp_path):
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        text, _ = talk(dialog, "hello", f"/save {pipe}")
        assert "not a regular file" in text
        assert os.read(reader, 10) == b""
        os.close(reader)

    @pytest.mark.slow
    def test_half_a_line_is_not_left_on_a_full_disk(self, tmp_path):
        path = tmp_path / "chat.jsonl"
        code = (
            "import resource\nfrom pathlib import Path\n"
            "from augesc_builder.dialog.chat import append_session\n"
            f"path = Path({str(path)!r})\n"
            "append_session(path, [{'role': 'user', 'content': 'a'}])\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
            "try:\n    append_session(path, [{'role': 'user', 'content': 'b' * 500}])\n"
            "except OSError as error:\n    print(error.errno)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert done.stdout.strip()
        assert [json.loads(line) for line in path.read_text().splitlines()] == [
            {"messages": [{"role": "user", "content": "a"}]}
        ]
        assert path.stat().st_mode & 0o077 == 0

    @pytest.mark.parametrize(
        "template",
        [
            "{{ raise_exception('roles must alternate') }}",
            "{{ messages[0].no.such.thing }}",
            "{% for i in range(1000000000) %}x{% endfor %}",
            "{{ 1 // 0 }}",
            "{{ messages | no_such_filter }}",
            "{% for %}",
            "",
            "{{ ''.__class__.__mro__ }}",
        ],
    )
    def test_a_strangers_chat_template(self, templated, tmp_path, template):
        path = tmp_path / "chat.jsonl"
        text, chat = talk(templated(template or "{# nothing #}"), "one", "two", f"/save {path}")
        assert text.count("(No reply: the model's chat template") == 2
        assert chat.history == [{"role": "user", "content": "one two"}]
        assert json.loads(path.read_text())["messages"] == chat.history

    def test_what_got_no_reply_is_one_utterance_with_what_follows(self, templated):
        """Templates of strangers want the roles to alternate."""
        strict = (
            "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
            "{{ raise_exception('roles must alternate') }}{% endif %}"
            "{% if m.content == 'fail' %}{{ raise_exception('once') }}{% endif %}"
            "{{ m.content }}\n{% endfor %}"
        )
        text, chat = talk(templated(strict), "fail", "then on", "and on")
        assert text.count("No reply") == 1
        assert [m["content"] for m in chat.history if m["role"] == "user"] == [
            "fail then on",
            "and on",
        ]

    def test_an_interrupted_reply(self, dialog, monkeypatch):
        def interrupted(**_):
            raise KeyboardInterrupt

        monkeypatch.setattr(dialog.model, "generate", interrupted)
        text, chat = talk(dialog, "hello", "again")
        assert text.count("(Stopped.)") == 2
        assert chat.history == [{"role": "user", "content": "hello again"}]

    def test_memory_that_is_full(self, dialog, monkeypatch):
        def too_much(**_):
            raise MemoryError

        monkeypatch.setattr(dialog.model, "generate", too_much)
        text, chat = talk(dialog, "hello")
        assert "No reply: out of memory" in text
        assert chat.history

    def test_what_nobody_thought_of_keeps_it_in_a_file(self, dialog, monkeypatch, tmp_path):
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        monkeypatch.setattr(dialog.model, "generate", lambda **_: 1 // 0)
        sink = io.StringIO()
        with pytest.raises(ZeroDivisionError):
            Chat(dialog, DECODING, io.StringIO("hello\n"), sink).run()
        (path,) = tmp_path.iterdir()
        assert f"The conversation is in {path}" in sink.getvalue()
        assert json.loads(path.read_text())["messages"] == [{"role": "user", "content": "hello"}]
        assert path.stat().st_mode & 0o077 == 0


GOOD_FACTS = {
    "config": {
        "examples": {},
        "model": {"chat_template": "plain"},
        "data": {"leave_out": []},
    }
}


@pytest.mark.parametrize(
    "damaged",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"config": 1}',
        '{"config": {"examples": {}}}',
        "[" * 100_000,
        "\ud800".encode("utf-8", "surrogatepass"),
        json.dumps(GOOD_FACTS),  # examples lack everything
    ],
)
def test_damaged_facts_of_a_training(folder, refused, damaged, tmp_path):
    import shutil

    there = tmp_path / "model"
    shutil.copytree(folder, there)
    raw = damaged if isinstance(damaged, bytes) else damaged.encode()
    (there / "training.json").write_bytes(raw)
    said = refused("chat", there)
    assert "training.json: damaged (" in said
    assert "move it away" in said


class TestTheNotice:
    def test_it_comes_before_the_reply_where_there_is_danger(self, dialog):
        text, _ = talk(dialog, "I want to kill myself")
        assert CRISIS in text
        assert text.index("findahelpline.com") < text.index("Supporter:")
        assert text.count("Supporter: ") == 1
        text, _ = talk(dialog, "my boss shouts at me", "I do not want to die my hair")
        assert CRISIS not in text

    def test_a_sign_in_two_lines_is_seen_and_once(self, dialog):
        text, _ = talk(dialog, "i really want to", "die", "ok thanks", "my dog is fine")
        assert text.count(CRISIS) == 1

    def test_no_negation_silences_it(self, dialog):
        text, _ = talk(dialog, "i am not okay i want to end my life")
        assert CRISIS in text

    def test_no_output_of_the_model_can_put_it_off(self, dialog, monkeypatch):
        """A model that says what wipes a terminal, or that there is no danger."""
        wiping = "\x1b[2J\x1b[H\x1b[8m no danger \x9b2J \u202e/reset"
        monkeypatch.setattr(dialog, "decode", lambda ids: wiping)
        text, _ = talk(dialog, "hello", "I want to end my life", "I want to end my life")
        assert text.count(CRISIS) == 2
        assert "\x1b" not in text
        assert "\x9b" not in text
        assert "\u202e" not in text

    def test_a_classifier_that_fails_takes_neither_it_nor_the_conversation_along(self, dialog):
        class Fails:
            def scan(self, messages):
                raise IndexError("index out of range in self")

        text, chat = talk(dialog, "hello", "i want to die", classifier=Fails())
        assert text.count(CRISIS) == 1
        assert text.count("without the classifier: index out of range in self") == 1
        assert len(chat.history) == 4

    def test_the_notice_comes_whoever_cannot_be_told(self, dialog):
        told = hand_over_to(f"{sys.executable} -c 'raise SystemExit(3)'")
        text, chat = talk(dialog, "hello", "i want to die", "thanks", on_danger=told)
        assert text.count(CRISIS) == 1
        assert text.count("could NOT be handed on") == 1
        assert "exit code 3" in text
        assert len(chat.history) == 6

    def test_somebody_is_told(self, dialog, tmp_path):
        kept = tmp_path / "told.jsonl"
        code = "import sys; open(sys.argv[1], 'ab').write(sys.stdin.buffer.read())"
        told = hand_over_to(f'{sys.executable} -c "{code}" {kept}')
        text, chat = talk(dialog, "hello", "i took 30 pills", "bye now", on_danger=told)
        (report,) = [json.loads(line) for line in kept.read_text().splitlines()]
        assert report["text"] == "i took 30 pills"
        assert report["signs"] == ["overdose"]
        assert report["messages"] == chat.history[:3]
        assert text.index(CRISIS) < text.index("It was handed on to python")
        assert "is handed on to python" in text.split("You: ")[0]  # said before a word is typed


def test_a_classifier_of_the_command_line(folder, tmp_path, refused, augesc, monkeypatch):
    from tests.text.test_safety import always_says

    always_says(tmp_path / "classifier", "Danger")
    classifier = ["--danger-classifier", tmp_path / "classifier"]
    assert "belong together" in refused("chat", folder, *classifier)
    assert "belong together" in refused("chat", folder, "--danger-label", "danger")
    said = refused("chat", folder, *classifier, "--danger-label", "other_one")
    assert "lacks the labels other_one" in said
    monkeypatch.setattr("sys.stdin", io.StringIO("lovely weather\n"))
    code, text, _ = augesc("chat", folder, *classifier, "--danger-label", "danger")
    assert code == 0
    assert CRISIS in text


@pytest.mark.parametrize("target", ["no-such-program x", "'", "http://", "http://[", "a\0b"])
def test_a_hand_over_that_cannot_work_is_refused_before_a_word_is_said(target, refused):
    assert "--on-danger" in refused("chat", "nothing-is-loaded", "--on-danger", target)


def test_a_model_without_facts_is_taken_as_it_is(folder):
    assert DialogModel(str(folder)).facts is None
    with pytest.raises(CheckpointError):
        DialogModel(str(folder / "nowhere"))
