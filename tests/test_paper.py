"""A recipe against the paper itself: nothing in it is neither the paper's nor said to be ours."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator

import pytest

from augesc_builder.choices import CHOICES, differences_from_paper
from augesc_builder.config.recipe import RECIPES, load_recipe, shipped_recipes
from augesc_builder.config.training import CONFIGS
from augesc_builder.paper import (
    FIGURE_4,
    PROMPTED,
    QUERIES,
    SECTION_4_3,
    SELF_CHAT,
    SETTINGS,
    TABLE_1,
    TABLE_2,
    TABLE_3,
    TABLE_3_WITHIN_ONE,
    TABLE_4,
    value_of,
)
from augesc_builder.pipeline.generate.backends import backend_of
from tests.conftest import shared

WITH_CLASSIFIER = "safety.classifier={model: a/b, revision: main, threshold: 1, labels: {}}"
WITH_TOKENIZER = "requirements.tokenizer={name: a/b}"
WITH_OVERLAP = "requirements.test_overlap={sessions: esconv, similarity: 0.8, span: 13}"
BOTH = "queries.sources=[{source: empathetic_dialogues}, {source: reddit, path: x}]"

NO_DIFFERENCE = {
    **dict.fromkeys(("name", "about"), "what the recipe is called"),
    "safety": "said once: sessions are flagged, and none is dropped",
    "quality": "said once: sessions are measured, and none is dropped",
    **dict.fromkeys(
        (
            *("backbone.revision", "finetune.revision", "queries.classifiers.emotions.*.revision"),
            "queries.classifiers.toxicity.revision",
            *("generate.backend.seeker.revision", "generate.backend.supporter.revision"),
        ),
        "said once, of all commits",
    ),
    "queries.sources.*.path": "where the source's posts are",
    "queries.strict": "whether a bad line is counted or stops the run",
    **dict.fromkeys(
        ("queries.reddit.subreddits", "queries.reddit.lexicons"), "said once: the lists are ours"
    ),
    **dict.fromkeys(
        (
            *("finetune.micro_batch_size", "finetune.device_map"),
            *("queries.classifiers.batch_size", "generate.shard_size"),
            *("generate.backend.device_map", "generate.backend.tensor_parallel"),
            *("generate.backend.slots", "generate.backend.workers", "generate.backend.batch_size"),
        ),
        "how the work is cut: rounding at most",
    ),
    **dict.fromkeys(
        (
            *("generate.backend.base_url", "generate.backend.key_env", "generate.backend.keyring"),
            *("generate.backend.concurrency", "generate.backend.timeout"),
            *("generate.backend.deadline", "generate.backend.budget", "generate.backend.prices"),
        ),
        "where and how fast an endpoint is asked, and for how much",
    ),
    "generate.backend.request": "what a chat model is asked for, which the paper has none of",
    "generate.backend.send_seed": "promises nothing",
    "backbone.sha256": "what must be so, or the build is refused",
    "backbone.base_model": "what tables and cards call the model",
    "statistics.beside": "what is measured beside the corpus",
    "statistics.tested_on": "what the corpus is held against",
    "reading": "which lines are too long to be a text",
    "executor": "who does the work: rounding at most",
    "finetune.save_state_every": "how often a run that is killed can go on",
    "finetune.held_out": "sessions that are measured on, and not learned from",
    **dict.fromkeys(
        (
            *("queries.classifiers.emotions.*.name", "queries.classifiers.emotions.*.multi_label"),
            "queries.classifiers.emotions.*.labels",
        ),
        "what the paper's own models are and mean",
    ),
}
"""Keys that no line of the list is about, and why."""


def keys_of(values: object, path: str = "") -> Iterator[str]:
    """Give the path of every key, sections before what they hold; ``*`` is any entry of a list."""
    if isinstance(values, dict):
        for name, inner in values.items():
            yield f"{path}{name}"
            yield from keys_of(inner, f"{path}{name}.")
    elif isinstance(values, list) and values and isinstance(values[0], dict):
        yield from keys_of(values[0], f"{path}*.")


def without_sections(keys: Iterable[str]) -> set[str]:
    every = set(keys)
    return {key for key in every if not any(other.startswith(f"{key}.") for other in every)}


def used(name: str, *overrides: str) -> dict[str, object]:
    """Give the settings of a recipe that its build comes to."""
    recipe = load_recipe(name, overrides)
    return backend_of(recipe).settings_used(recipe)


SYSTEMS = ("paper", "paper-gpt3", "paper-blender")


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_key_is_the_papers_or_ours_or_makes_no_difference(name):
    said = {*SETTINGS, *PROMPTED, *SELF_CHAT, *(choice.key for choice in CHOICES), *NO_DIFFERENCE}
    keys = keys_of(used(name, WITH_CLASSIFIER, WITH_TOKENIZER, WITH_OVERLAP))
    unsaid = {
        key
        for key in without_sections(keys)
        if not any(f"{key}.".startswith(f"{known}.") for known in said)
    }
    assert not unsaid, (
        "say in paper.py what the paper says of them, or in choices.py that they are ours"
    )


def test_every_key_that_is_named_is_one():
    keys = {
        key
        for name in SYSTEMS
        for key in keys_of(
            load_recipe(name, [WITH_CLASSIFIER, WITH_TOKENIZER, WITH_OVERLAP]).settings()
        )
    }
    named = {*SETTINGS, *PROMPTED, *SELF_CHAT, *NO_DIFFERENCE, *(c.key for c in CHOICES if c.key)}
    assert named <= keys


ANOTHER = {
    "prompt.instruction": "Talk.",
    "prompt.form": "chat",
    "backbone.name": "some/model",
    "finetune.sessions": "sample",
    "finetune.n_sessions": 101,
    "finetune.epochs": 2,
    "finetune.batch_size": 4,
    "finetune.learning_rate": 6.1e-5,
    "finetune.warmup_steps": 4,
    "finetune.max_tokens": 1499,
    "finetune.gradient_checkpointing": False,
    "finetune.lora": {"rank": 1, "alpha": 1, "dropout": 0, "target_modules": None},
    "queries.sources.1.source": "sample",
    "queries.n_words.max": 61,
    "queries.classifiers.enabled": False,
    "queries.classifiers.emotions.1.model": "some/model",
    "queries.classifiers.toxicity": None,
    "generate.max_tokens": 1501,
    "generate.top_p": 0.91,
    "generate.temperature": 1,
    "generate.repetition_penalty": 1,
    "generate.top_k": 50,
    "generate.min_p": 0.1,
    "generate.greedy": True,
    "requirements.session_length.max": 1451,
    "requirements.counted": "generated",
    "requirements.total_utterances.min": 9,
    "requirements.continuous_utterances.max": 4,
    "requirements.balanced_utterances.max_ratio": 2.6,
    "requirements.role_words.words": ["Human"],
    "requirements.seeker_utterance_length.short": 8,
    "requirements.supporter_utterance_length.mean.min": 8,
    "statistics.query_sample": None,
    "statistics.topic_sample": 9_999,
    "statistics.stop_words": "drop",
}
"""For each setting of the paper, in the same order, another value."""


@pytest.mark.parametrize(
    ("key", "override"), [*zip(SETTINGS, ANOTHER.items(), strict=True)], ids=list(SETTINGS)
)
def test_another_value_of_each_setting_is_a_difference(key, override):
    given = f"{override[0]}={json.dumps(override[1])}"
    (line,) = (said for said in differences_of(BOTH, given) if not said.startswith("ours: "))
    assert line.startswith(f"`{key}`: ")
    assert line.endswith(f" ({SETTINGS[key].where})")


def differences_of(*overrides: str, recipe: str = "paper") -> list[str]:
    return differences_from_paper(load_recipe(recipe, overrides).settings())


def test_with_reddit_posts_the_papers_recipe_does_all_that_the_paper_says():
    assert not [line for line in differences_of(BOTH) if not line.startswith("ours: ")]


def test_the_papers_recipe_as_it_is_lacks_reddit_alone():
    said = [line for line in differences_of() if not line.startswith("ours: ")]
    assert said == [
        '`queries.sources.*.source`: `["empathetic_dialogues"]`; the paper: '
        '`["empathetic_dialogues", "reddit"]` (section 4.2)'
    ]


def test_the_blenders_lack_nothing_that_section_6_1_says():
    assert not [said for said in differences_of_blenders() if not said.startswith("ours: ")]


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("generate.top_p=0.8", "`generate.top_p`: `0.8`; the paper: `0.9` (section 6.1)"),
        ("generate.temperature=1", "`generate.temperature`: `1.0`; the paper: `0.9` (section 6.1)"),
        (
            "generate.backend.max_utterances=20",
            "`generate.backend.max_utterances`: `20`; the paper: `30` (section 6.1)",
        ),
        ("generate.backend.end_words=[goodbye]", 'end a conversation are `["goodbye"]`'),
        ("generate.top_k=5", "top-k is `5`; section 6.1 names none"),
        ("generate.backend.max_utterance_tokens=7", "utterances have at most `7` tokens"),
    ],
)
def test_other_blenders_are_a_difference(override, line):
    assert not [said for said in differences_of_blenders() if line in said]
    assert [said for said in differences_of_blenders(override) if line in said]


def differences_of_blenders(*overrides: str) -> list[str]:
    return differences_from_paper(used("paper-blender", *overrides))


def test_without_a_gpu_the_classifiers_can_be_left_out_and_that_is_said():
    off = differences_of(BOTH, "queries.classifiers.enabled=false")
    assert "`queries.classifiers.enabled`: `false`; the paper: `true` (appendix A)" in off
    assert not [line for line in off if "emotion counts" in line]


@pytest.mark.parametrize(
    "what",
    [
        "posts with personal data are no queries",
        "posts that repeat an earlier one are no queries",
        "fine-tuning sessions are drawn from ESConv's train split",
        "fine-tuning computes in `bf16`",
        "the texts are made with weights of the type `auto`",
        "role words are whole words in this very case",
        "scores from which an emotion counts",
        "of Detoxify's models it is `unitary/toxic-bert`",
        "score from which a post is toxic: `0.5`",
        "count as negative are",
        "every random choice follows from the seed `13`",
    ],
)
def test_what_is_ours_in_the_papers_recipe_is_said(what):
    assert len([line for line in differences_of(BOTH) if what in line]) == 1


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("queries.near_duplicates={threshold: 0.8, shingle: 3, permutations: 64}", "much like"),
        ("queries.names_and_places=some_model", "as `some_model` finds them"),
        ("queries.max_per_source=7", "no source gives more than `7` queries"),
        ("generate.backend.bfloat16_head=true", "rounded to bfloat16 on CPU"),
        ("generate.backend.weights=int8", "rounded to the type `int8`, with a scale"),
        (
            WITH_CLASSIFIER,
            "raises safety flags too: `a/b`",
        ),
    ],
)
def test_steps_of_our_own_are_said_where_they_are_taken(override, what):
    assert not [line for line in differences_of() if what in line]
    assert [line for line in differences_of(override) if what in line]


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("finetune.sessions=sample", "train split"),
        ('finetune.mixed_precision="no"', "fine-tuning computes"),
        ("finetune.max_grad_norm=null", "clipped"),
        ("queries.sources=[{source: sample}]", "count as negative"),
    ],
)
def test_what_a_recipe_does_without_is_not_said(override, what):
    assert [line for line in differences_of() if what in line]
    assert not [line for line in differences_of(override) if what in line]


@pytest.mark.parametrize(
    ("name", "shown"), [("a`b", "`` a`b ``"), ("a\n# b", r'`"a\n# b"`'), ("a b", "`a b`")]
)
def test_a_value_is_code_on_one_line(name, shown):
    (line,) = (
        said
        for said in differences_of(f"backbone.name={json.dumps(name)}")
        if said.startswith("`backbone.name`")
    )
    assert line.startswith(f"`backbone.name`: {shown}; the paper: `EleutherAI/gpt-j-6b`")


@pytest.mark.parametrize("name", shipped_recipes())
def test_no_recipe_is_without_a_difference(name):
    assert differences_of(recipe=name)


def test_values_are_found_by_their_keys():
    settings = {"a": {"b": 1}, "c": [{"d": 2}, {"d": 3}], "e": None}
    assert value_of(settings, "a.b") == 1
    assert value_of(settings, "c.*.d") == [2, 3]
    assert value_of(settings, "e.f") is None
    assert value_of(settings, "e.*.f") == []


# -- the recipe itself ---------------------------------------------------------------------------


def comments_of(text: str) -> dict[str, str]:
    """Give, for each key, the comment above it and those above the sections that it is in.

    Keys that stand together share the comment above the first of them.
    """
    found: dict[str, str] = {}
    above: list[str] = []
    path: list[str] = []
    begun = False
    for line in text.splitlines():
        key = re.match(r"( *)(?:- )?([a-z_0-9]+):", line)
        if line.strip().startswith("#"):
            above = [*above, line] if begun else [line]
            begun = True
        elif key:
            begun = False
            path = [*path[: len(key[1]) // 2], key[2]]
            holder = found.get(".".join(path[:-1]), "")
            found[".".join(path)] = "\n".join([holder, *above])
    return found


def test_what_is_ours_is_marked_as_ours():
    comments = comments_of((RECIPES / "paper.yaml").read_text())
    ours = {choice.key for choice in CHOICES if choice.key in comments} - set(SETTINGS)
    assert {"finetune.weight_decay", "generate.backend.dtype", "seed"} <= ours
    unmarked = [key for key in ours if not re.search(r"\b[Oo]urs\b", comments[key])]
    assert not unmarked


def test_the_recipe_for_gpt3_marks_all_that_the_paper_does_not_give():
    comments = comments_of((RECIPES / "paper-gpt3.yaml").read_text())
    keys = {key for key in comments if key.startswith("generate.backend.")}
    keys -= {*PROMPTED, "generate.backend.type"}
    assert len(keys) > 10
    unmarked = [key for key in keys if not re.search(r"\b[Oo]urs\b", comments[key])]
    assert not unmarked


@pytest.mark.parametrize("name", ["esconv", "esconv_then_augesc", "esconv_equal_steps"])
def test_training_configs_mark_all_that_the_paper_does_not_give(name):
    comments = comments_of((CONFIGS / f"{name}.yaml").read_text())
    for key in without_sections(comments):
        assert re.search(r"\b[Oo]urs\b|\b[Pp]aper", comments[key]), f"{name}.yaml: {key}"


# -- its figures, digit for digit, where its text is at hand ---------------------------------------


@pytest.fixture(scope="module")
def text() -> str:
    return shared("../paper.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("model", list(TABLE_1))
def test_table_1_is_the_papers(text, model):
    (row,) = re.findall(rf"^{re.escape(model)}\t(.*%.*)$", text, re.MULTILINE)
    assert [float(n) for n in re.findall(r"\d+\.\d", row)] == list(TABLE_1[model].values())


def test_table_2_is_the_papers(text):
    part = text[text.index("# Sessions\t") : text.index("Table 2: Statistics")]
    rows = [re.findall(r"\d[\d.]*K?", line) for line in part.splitlines() if line.strip()]
    columns = [TABLE_2[name] for name in ("ESConv", "AugESC ED", "AugESC Reddit")]
    assert [tuple(row) for row in rows] == list(zip(*columns, strict=True))
    assert f"contains {TABLE_2['AugESC'][0]} dialog sessions" in text
    assert f"unique words ({TABLE_2['AugESC'][2]} vs." in text


def test_figure_4_is_the_papers(text):
    part = text[text.index("Seeker\t\t\tSupporter") : text.index("Figure 4: Top 10")]
    rows = [re.findall(r"(\S+) \((\d+)\)", line) for line in part.splitlines()]
    for role, first in (("seeker", 0), ("supporter", 3)):
        for column, name in enumerate(FIGURE_4[role], first):
            found = [(row[column][0], int(row[column][1])) for row in rows if row]
            assert found == [*FIGURE_4[role][name].items()]
            assert len(found) == 10


def test_table_2_has_the_sessions_of_the_prose_and_not_of_table_1():
    """24,766 queries, four texts each."""
    texts = 4 * QUERIES["reddit"][0]
    said, printed = (
        round(texts * of["GPT-J (Reddit)"]["retention"] / 100, -3) / 1000
        for of in (SECTION_4_3, TABLE_1)
    )
    assert f"{said:.0f}K" == TABLE_2["AugESC Reddit"][0] == "49K"
    assert f"{printed:.0f}K" == "48K"
    for model, differing in SECTION_4_3.items():
        for name, share in differing.items():
            assert 0 < abs(share - TABLE_1[model][name]) < 1


def test_tables_3_and_4_are_the_papers(text):
    part = text[text.index("$\\Delta \\leq 1$\t") : text.index("Table 3: Results")]
    rows = [re.findall(r"\d\.\d\d", line) for line in part.splitlines() if line.strip()]
    assert [tuple(map(float, row)) for row in rows] == [TABLE_3_WITHIN_ONE, *TABLE_3.values()]
    part = text[text.index("AUGESC vs. ESConv\tWin") : text.index("Table 4: Results")]
    found = re.findall(r"^(\w+)\t(\d+)\t(\d+)$", part, re.MULTILINE)
    assert {name.lower(): (int(win), int(lose)) for name, win, lose in found} == TABLE_4
