"""Bad turns drawn again: where a text is cut, what follows and stands; the same in any company."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from augesc_builder.config.recipe import load_recipe
from augesc_builder.engine import Continuation, Prompt, Sampling
from augesc_builder.engine import generate as run_engine
from augesc_builder.engine.continuous import ContinuousBatchingEngine
from augesc_builder.engine.sampling import stream_key
from augesc_builder.errors import DownloadError, RecipeError, SettingsChangedError
from augesc_builder.pipeline.generate.conversations import conversation_rows
from augesc_builder.pipeline.generate.generator import generation_rows
from augesc_builder.pipeline.generate.resampling import bad_turns
from augesc_builder.pipeline.generate.tasks import Task
from augesc_builder.pipeline.quality.measures import measures_of
from augesc_builder.sources.sample import read_sample_sessions
from augesc_builder.text.prompt_form import prompt_form
from augesc_builder.text.prompts import PLAIN, parse, whole_text
from tests.chat_models import chat_tokenizer, save_chat_model
from tests.classifiers import causal_backbone, classifier
from tests.conftest import SOAK, rows_of

AGAIN = (
    "quality.measures=[consistency,topic_drift]",
    "generate.resample={by: [consistency.contradictions, topic_drift.drifted], attempts: 3}",
)
QUERY = "My dog is 14 and he is ill."
TASK = Task({"query_id": "q0", "source": "sample", "text": QUERY}, 0, 0, 0)


@pytest.fixture(scope="module", params=["paper", "chat"])
def form(request, tiny_file, small_llama, tmp_path_factory):
    folder = small_llama
    if request.param == "chat":
        folder = save_chat_model(tmp_path_factory.mktemp("chat") / "model", chat_tokenizer())
    given = [f"prompt.form={request.param}", f"backbone.name={folder}"]
    prompt = load_recipe(tiny_file, [*given, "backbone.from_scratch=null"]).prompt
    return prompt_form(prompt, AutoTokenizer.from_pretrained(folder), folder)


def tokens_of(form, text):
    """Give the tokens that a model writes behind the supporter's cue for a text of lines."""
    said = [{"role": "user", "content": "x"}, *parse(f"AI:{text}")]
    whole, cue = form.template.for_session(said), form.template.for_query("x")
    assert whole.startswith(cue)
    return tuple(form.codec.encode(whole[len(cue) :]))


class Says:
    """An engine that knows what it says to each prompt in its turn, and notes the prompts."""

    def __init__(self, form, *texts):
        self._drawn = iter(texts)
        self._form, self.prompts = form, []

    def stream(self, prompts, on_step):
        for number, prompt in enumerate(prompts):
            self.prompts.append(prompt)
            drawn = next(self._drawn)
            if not isinstance(drawn, Continuation):
                drawn = Continuation(drawn, "eos")
            yield number, drawn


def again(form, drawn, bad, attempts=3):
    """Give the row of drawn continuations, of which ``bad`` tells the bad turns, and the engine."""
    overrides = ["quality.measures=[consistency]"]
    overrides += [
        f"generate.resample={{by: [consistency.contradictions], attempts: {attempts}}}",
        f"prompt.form={'paper' if isinstance(form.template, type(PLAIN)) else 'chat'}",
    ]
    name = ["backbone.from_scratch=null", "backbone.name=EleutherAI/gpt-j-6b"]
    recipe = load_recipe("tiny", [*name, *overrides])
    engine = Says(form, *drawn)
    ((_, row),) = conversation_rows(engine, form, recipe, [TASK], lambda *_: None, bad_turns=bad)
    return row, engine


def says(word):
    """Find the utterances with a word in them bad."""

    def find(messages):
        return [(i, "why") for i, m in enumerate(messages) if i and word in m["content"]]

    return find


FIRST = " I am sorry.\nHuman: He is awful.\nAI: How old?\nHuman: 13."


@pytest.mark.parametrize(
    ("utterance", "kept"),
    [
        (1, ""),
        (2, " I am sorry.\nHuman:"),
        (3, " I am sorry.\nHuman: He is awful.\nAI:"),
        (4, " I am sorry.\nHuman: He is awful.\nAI: How old?\nHuman:"),
    ],
)
def test_a_text_is_cut_before_the_words_of_the_bad_turn(form, utterance, kept):
    ids, new = tokens_of(form, FIRST), tuple(form.codec.encode(" Said anew."))
    calls = []

    def bad(messages):
        calls.append(messages)
        return [] if len(calls) == 2 else [(utterance, "why"), (4, "later")]

    row, engine = again(form, [ids, new], bad)
    first, second = engine.prompts
    assert second.token_ids[: len(first.token_ids)] == first.token_ids
    whole = form.text(second.token_ids[len(first.token_ids) :])
    assert whole.rstrip() == kept
    assert row["text"].rstrip() == f"{kept} Said anew."
    assert (first.stream, second.stream) == (
        stream_key(13, "q0", 0),
        stream_key(13, "q0", 0, "resample", 0),
    )
    assert row["resampled"] == ["why"]
    n_kept = len(second.token_ids) - len(first.token_ids)
    assert row["n_tokens"] == n_kept + len(new)
    assert row["n_resampled_tokens"] == len(ids) - n_kept
    assert row["n_prompt_tokens"] == len(first.token_ids)
    assert calls[0] == PLAIN.parse(whole_text(QUERY, FIRST))


def test_what_is_not_bad_is_as_it_was(form):
    row, engine = again(form, [tokens_of(form, FIRST)], says("nothing of it"))
    assert (row["text"], row["resampled"], row["n_resampled_tokens"]) == (FIRST, [], 0)
    assert len(engine.prompts) == 1


def test_the_fewest_bad_turns_stand_and_of_equals_the_first(form):
    one, two = " a bad turn", " bad\nHuman: bad"
    encode = {text: tokens_of(form, text) for text in (one, two, " b bad")}
    for drawn, stands in (
        ([two, one, " b bad", two], one),
        ([one, two, " b bad", two], one),
        ([two, two, two, one], one),
        ([two, two, two, two], two),
    ):
        row, engine = again(form, [encode[text] for text in drawn], says("bad"))
        assert row["text"] == stands
        assert row["resampled"] == ["why"] * 3
        assert row["n_resampled_tokens"] == sum(len(encode[t]) for t in drawn) - row["n_tokens"]
        keys = [stream_key(13, "q0", 0, "resample", n) for n in range(3)]
        assert [prompt.stream for prompt in engine.prompts[1:]] == keys


def test_attempts_end(form):
    bad = tokens_of(form, " bad")
    for attempts in (1, 2):
        row, engine = again(form, [bad] * (attempts + 1), says("bad"), attempts)
        assert len(engine.prompts) == attempts + 1
        assert row["resampled"] == ["why"] * attempts


def test_no_conversation_is_drawn_again_only_in_the_place_of_one(form):
    """A draw without a speaker loses to the bad turn before it, and is drawn again from there."""
    stray = (*form.codec.encode(" x"), form.end, *form.codec.encode(" y"))
    bad, good = tokens_of(form, " good.\nHuman: bad"), tuple(form.codec.encode(" good"))
    row, engine = again(form, [stray], says("x"))
    assert (row["resampled"], len(engine.prompts)) == ([], 1)
    row, engine = again(form, [bad, stray, good], says("bad"))
    assert row["resampled"] == ["why", "no_conversation"]
    assert engine.prompts[1].token_ids == engine.prompts[2].token_ids
    assert row["text"] == " good.\nHuman: good"
    lost = Continuation((), "not_finite")
    row, _ = again(form, [bad, lost, lost, lost], says("bad"))
    assert row["text"] == " good.\nHuman: bad"
    assert row["finish_reason"] == "eos"
    row, engine = again(form, [lost], says("bad"))
    assert (row["finish_reason"], row["resampled"]) == ("not_finite", [])


def test_tags_of_strategies_are_drawn_again_with_their_turn(tiny_file, small_llama):
    recipe = load_recipe(
        tiny_file, [*AGAIN, "prompt.strategies=true", "prompt.instruction=Be kind."]
    )
    form = prompt_form(recipe.prompt, AutoTokenizer.from_pretrained(small_llama), small_llama)
    first = form.codec.encode(" [Question] How old?\nHuman: 14.\nAI: [Other] bad")
    engine = Says(form, tuple(first), tuple(form.codec.encode(" [Question] Since when?")))
    ((_, row),) = conversation_rows(
        engine, form, recipe, [TASK], lambda *_: None, bad_turns=says("bad")
    )
    assert row["text"] == " How old?\nHuman: 14.\nAI: Since when?"
    assert row["strategies"] == [None, "Question", None, "Question"]


# -- which turns are bad --------------------------------------------------------------------------


def settings(*overrides):
    recipe = load_recipe("paper", [*AGAIN, *overrides])
    return recipe.generate.resample, recipe.quality


def spoken(*said):
    return [
        {"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(said)
    ]


def test_a_contradiction_is_a_bad_turn_and_a_confusion_of_roles_where_it_is_asked_for():
    talk = spoken(QUERY, "Oh. How old is he?", "My dog is 13 years old.", "What should I do?")
    only = ["generate.resample.by=[consistency.contradictions]"]
    found = bad_turns(*settings(*only))(talk)
    assert found == [(2, "consistency.contradictions")]
    same = spoken(QUERY, "Oh. How old is he?", "My dog is 14 years old.", "What should I do?")
    assert bad_turns(*settings(*only))(same) == []
    both = ["generate.resample.by=[consistency.role_confusions,consistency.contradictions]"]
    assert bad_turns(*settings(*both))(talk) == [
        (2, "consistency.contradictions"),
        (3, "consistency.role_confusions"),
    ]
    # What is wrong with the query is not the model's to mend.
    assert bad_turns(*settings(*both))(spoken("I recommend that you rest, and I am sad.")) == []


@pytest.mark.parametrize("above", [False, True])
def test_a_turn_drifts_from_the_threshold_on(above):
    talk = read_sample_sessions()[0].messages
    _, quality = settings()
    (measure,) = measures_of(quality, ["topic_drift"])
    scores = measure.score([talk])[0].scores
    highest = max(score for score in scores if score)
    threshold = highest + 1e-9 if above else highest
    given = ["generate.resample.by=[topic_drift.drifted]"]
    given += [f"quality.topic_drift.threshold={threshold!r}"]
    expected = [i for i, score in enumerate(scores) if score is not None and score >= threshold]
    assert [i for i, _ in bad_turns(*settings(*given))(talk)] == expected
    assert bool(expected) != above


# -- with a model ---------------------------------------------------------------------------------

TEXTS = ["I lost my job in May and I cannot sleep.", "My friend moved away.", "I failed an exam."]
TASKS = [
    Task({"query_id": f"q{i}", "source": "sample", "text": text}, sample, 0, 2 * i + sample)
    for i, text in enumerate(TEXTS)
    for sample in range(2)
]


@pytest.fixture(scope="module")
def trained(built, tiny_file):
    """The tiny build's model, which writes conversations, in a form."""
    recipe = load_recipe(tiny_file, [*AGAIN, "generate.max_tokens=200"])
    folder = built / "checkpoint"
    form = prompt_form(recipe.prompt, AutoTokenizer.from_pretrained(folder), folder)
    return recipe, AutoModelForCausalLM.from_pretrained(folder).eval(), form


def engine_of(trained, slots=4):
    recipe, model, form = trained
    sampling = Sampling(max_tokens=recipe.generate.max_tokens)
    return ContinuousBatchingEngine(model, form.end, sampling, slots)


def by_hash(messages):
    """Find two turns of three bad, by what they say."""
    return [(i, "why") for i, m in enumerate(messages) if i and sum(map(ord, m["content"])) % 3]


def drawn_rows(trained, tasks=TASKS, slots=4):
    recipe, _, form = trained
    steps = []
    found = conversation_rows(
        engine_of(trained, slots),
        *(form, recipe, tasks, lambda *n: steps.append(n)),
        bad_turns=by_hash,
    )
    made = {(task.query["query_id"], task.sample): row for task, row in found}
    assert sum(ended for ended, _ in steps) == len(made) == len(tasks)
    assert sum(n for _, n in steps) >= sum(
        row["n_tokens"] + row["n_resampled_tokens"] for row in made.values()
    )
    return made


def test_a_row_is_the_same_in_any_company_and_order(trained):
    made = drawn_rows(trained)
    assert any(row["resampled"] for row in made.values())
    assert drawn_rows(trained, TASKS[::-1], slots=1) == made
    assert drawn_rows(trained, TASKS[3:], slots=16) == {
        key: row for i, (key, row) in enumerate(sorted(made.items())) if i >= 3
    }


def test_each_draw_is_a_continuation_from_its_own_stream(trained):
    """A row that one redraw has mended, again by hand; what comes first is the plain row."""
    recipe, _, form = trained
    plain = {
        (task.query["query_id"], task.sample): row
        for task, row in generation_rows(
            engine_of(trained), form, recipe.seed, TASKS, lambda *_: None
        )
    }
    changed = 0
    for (query_id, sample), row in drawn_rows(trained).items():
        first = plain[query_id, sample]
        if not row["resampled"]:
            assert row["text"] == first["text"]
            continue
        prompt = form.for_query(row["query"])
        (began,) = run_engine(
            engine_of(trained), [Prompt(prompt, stream_key(13, query_id, sample))], lambda *_: None
        )
        assert form.text(began.token_ids) == first["text"]
        if row["text"] == first["text"] or len(row["resampled"]) > 1:
            continue
        for n in range(len(began.token_ids)):
            start = (*prompt, *began.token_ids[:n])
            key = stream_key(13, query_id, sample, "resample", 0)
            (made,) = run_engine(engine_of(trained), [Prompt(start, key)], lambda *_: None)
            if form.text((*began.token_ids[:n], *made.token_ids)) == row["text"]:
                changed += 1
                break
        else:
            pytest.fail("no place of the first text goes on to the row")


# -- the stage ------------------------------------------------------------------------------------

OFTEN = (*AGAIN, "quality.topic_drift.threshold=0.56", "generate.resample.attempts=6")
"""At that threshold many turns of a model that makes no sense are bad, and not all."""


@pytest.fixture(scope="module")
def resampled(built, tiny_file, tmp_path_factory):
    """Give the rows of the stage alone, with the tiny build's checkpoint, and its folder."""
    from augesc_builder.pipeline.generate import stage
    from augesc_builder.run.progress import Progress

    out = tmp_path_factory.mktemp("resampled") / "out"
    recipe = load_recipe(tiny_file, OFTEN)
    stage.standalone(recipe, built / "queries", built / "checkpoint", out, Progress(quiet=True))
    return rows_of(out), out


def test_the_table_of_the_stage_and_what_is_counted(resampled, built):
    rows, out = resampled
    plain = {(row["query_id"], row["sample"]): row for row in rows_of(built / "generations")}
    for row in plain.values():
        assert row["resampled"] is row["n_resampled_tokens"] is None
    reasons = [reason for row in rows for reason in row["resampled"]]
    assert "topic_drift.drifted" in reasons
    find = bad_turns(*settings(*OFTEN))
    fewer = 0
    for row in rows:
        before = plain[row["query_id"], row["sample"]]["text"]
        assert len(row["resampled"]) <= 6
        first, last = (
            None if messages is None else find(messages)
            for text in (before, row["text"])
            for messages in [PLAIN.parse(whole_text(row["query"], text))]
        )
        if not first:
            assert (row["text"], row["resampled"]) == (before, [])
            continue
        assert row["resampled"]
        assert len(last) < len(first) or row["text"] == before
        fewer += len(last) < len(first)
    assert fewer
    facts = json.loads((out / "manifest.json").read_text())["stages"]["generate"]["resampled"]
    assert facts == {
        "conversations": len(rows),
        "changed": sum(bool(row["resampled"]) for row in rows),
        "tokens": sum(row["n_resampled_tokens"] for row in rows),
        "faults": {reason: reasons.count(reason) for reason in sorted(set(reasons))},
    }


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(
            ["generate.backend.workers=2", "generate.shard_size=5"], marks=pytest.mark.slow
        ),
        pytest.param(["generate.backend.engine=static"], marks=pytest.mark.slow),
        ["generate.backend.slots=2", "generate.shard_size=7"],
    ],
)
def test_neither_processes_nor_the_engine_nor_slots_change_a_row(resampled, generate, how):
    assert generate(*OFTEN, *how) == resampled[0]


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_rows(resampled, generate, built, tiny_file, tmp_path):
    overrides = [*OFTEN, "generate.shard_size=1", "generate.backend.slots=2"]
    command = [sys.executable, "-m", "augesc_builder", "generate", built / "queries", "--quiet"]
    command += ["--checkpoint", built / "checkpoint", "--recipe", tiny_file]
    command += ["--out", tmp_path / "out"]
    for override in overrides:
        command += ["--set", override]
    marks = tmp_path / "out" / ".complete"
    for kill in range(1, 2 + SOAK):
        process = subprocess.Popen([*map(str, command)], start_new_session=True)
        try:
            while process.poll() is None and len(list(marks.glob("generate-*"))) < 2 * kill:
                time.sleep(0.02)
            os.kill(process.pid, signal.SIGKILL)
        finally:
            process.wait()
    assert list(marks.glob("generate-*"))
    assert generate(*overrides) == resampled[0]


def test_a_run_keeps_what_it_goes_by(resampled, generate):
    generate(*OFTEN)
    for other in ("quality.topic_drift.threshold=0.6", "generate.resample.attempts=2"):
        with pytest.raises(SettingsChangedError):
            generate(*OFTEN, other)


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_a_classifier_of_pairs_tells_bad_turns_too(tmp_path, threshold):
    """With random weights it finds what no rule does; from the recipe's threshold on."""
    model = classifier(tmp_path / "pairs", ["entailment", "neutral", "contradiction"])
    given = [
        f"quality.consistency.classifier.model={model}",
        "quality.consistency.classifier.revision=null",
        f"quality.consistency.classifier.threshold={threshold}",
        "generate.resample.by=[consistency.contradictions]",
    ]
    talk = spoken("I went to the party with my friend.", "Oh.", "My friend left the party early.")
    assert bad_turns(*settings("generate.resample.by=[consistency.contradictions]"))(talk) == []
    assert bool(bad_turns(*settings(*given))(talk)) == (threshold < 1)


@pytest.mark.slow
def test_every_process_has_the_models_that_it_goes_by(generate, tmp_path):
    model = causal_backbone(tmp_path / "encoder")
    given = [*OFTEN, "quality.topic_drift.scorer=encoder", f"quality.topic_drift.model={model}"]
    rows = generate(*given, out="alone")
    assert any("topic_drift.drifted" in row["resampled"] for row in rows)
    assert generate(*given, "generate.backend.workers=2", out="two") == rows
    weights = tmp_path / "encoder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes() + b" ")
    with pytest.raises(SettingsChangedError, match=r"quality\.topic_drift"):
        generate(*given, out="alone")


def test_what_cannot_be_measured_cannot_be_gone_by(generate):
    given = ["quality.topic_drift.scorer=encoder", "quality.topic_drift.model=nobody/nothing"]
    given.append(f"quality.topic_drift.revision={'a' * 40}")
    with pytest.raises(
        DownloadError, match=r"generate\.resample goes by topic_drift: config\.json"
    ):
        generate(*AGAIN, *given)


@pytest.mark.parametrize("backend", ["openai_api", "self_chat", "vllm"])
def test_other_backends_refuse_it(backend):
    recipe = {"openai_api": "paper-gpt3", "self_chat": "paper-blender", "vllm": "paper"}[backend]
    chosen = [f"generate.backend.type={backend}"] if backend == "vllm" else []
    assert load_recipe(recipe, chosen).generate.resample is None
    with pytest.raises(RecipeError, match=rf"generate\.resample .* the backend {backend} cannot"):
        load_recipe(recipe, [*chosen, *AGAIN])


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("{by: [topic_drift.drifted], attempts: 1}", "goes by topic_drift, and quality.measures"),
        ("{by: [], attempts: 1}", r"generate\.resample\.by"),
        ("{by: [topic_drift.drift], attempts: 1}", r"generate\.resample\.by\.0"),
        ("{by: [consistency.contradictions], attempts: 0}", r"generate\.resample\.attempts"),
        ("{by: [consistency.contradictions], attempts: 101}", r"generate\.resample\.attempts"),
        ("{by: [consistency.contradictions]}", r"generate\.resample\.attempts"),
    ],
)
def test_what_is_refused(wrong, says):
    with pytest.raises(RecipeError, match=says):
        load_recipe("paper", ["quality.measures=[consistency]", f"generate.resample={wrong}"])


def test_models_and_shared_layers_do_not_go_together():
    given = [*AGAIN, "generate.backend.tensor_parallel=2"]
    assert load_recipe("paper", given).generate.resample is not None
    model = ["quality.consistency.classifier={model: a/b, revision: main, threshold: 0.5}"]
    with pytest.raises(RecipeError, match="goes by consistency with a model"):
        load_recipe("paper", [*given, *model])
