"""Digests of what a run reads, and the commit of its backbone."""

from __future__ import annotations

import pytest

from augesc_builder.config.recipe import SafetyClassifier
from augesc_builder.errors import InputError
from augesc_builder.run import provenance
from augesc_builder.run.folder import RunFolder
from augesc_builder.run.progress import Progress
from augesc_builder.run.provenance import (
    digest,
    files_below,
    is_new,
    pin_backbone,
    pin_safety_classifier,
)


def test_a_digest_is_of_all_bytes_in_order(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"one")
    b.write_bytes(b"two")
    assert digest([a]) == "7692c3ad3540bb80"  # sha256sum of "one"
    assert len({digest([a]), digest([b]), digest([a, b]), digest([b, a])}) == 4
    with pytest.raises(InputError, match="cannot be read: No such file"):
        digest([a, tmp_path / "nothing"])


@pytest.mark.parametrize(("size", "through"), [(100, True), (101, False)])
def test_of_a_huge_file_the_middle_does_not_count(tmp_path, monkeypatch, size, through):
    monkeypatch.setattr(provenance, "_HUGE", 100)
    monkeypatch.setattr(provenance, "_BLOCK", 10)
    path = tmp_path / "dump"

    def with_x_at(at: int | None) -> str:
        data = bytearray(size)
        if at is not None:
            data[at] = 1
        path.write_bytes(data)
        return digest([path])

    whole = with_x_at(None)
    assert (with_x_at(10) != whole) is through
    assert (with_x_at(size - 11) != whole) is through
    for at in (0, 9, size - 10, size - 1):
        assert with_x_at(at) != whole
    path.write_bytes(bytes(size + 1))
    assert digest([path]) != whole


def test_files_below_a_folder_and_a_file(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("b/2", "b/1", "a"):
        (tmp_path / name).write_text("")
    assert files_below(tmp_path) == [tmp_path / name for name in ("a", "b/1", "b/2")]
    assert files_below(tmp_path / "a") == [tmp_path / "a"]


def test_a_stage_is_new_until_it_is_complete(tmp_path, capsys):
    with RunFolder(tmp_path / "run", {}) as run:
        assert is_new(run, "queries", Progress())
        assert {"python", "datasets", "augesc-builder"} <= set(run.manifest["versions"])
        run.record(versions={"python": "another"})
        assert is_new(run, "queries", Progress())
        assert run.manifest["versions"]["python"] != "another"  # those of the last command
        run.complete("queries")
        assert capsys.readouterr().out == ""
        assert not is_new(run, "queries", Progress())
        assert "is complete: nothing to do" in capsys.readouterr().out


def test_a_commit_of_the_safety_classifier_is_recorded_and_a_folder_is_not(tmp_path):
    commit = "0123456789" * 4
    classifier = SafetyClassifier(model="a/b", revision=commit, threshold=1, labels={})
    local = classifier.model_copy(update={"model": str(tmp_path), "revision": None})
    with RunFolder(tmp_path / "run", {}) as run:
        assert pin_safety_classifier(run, None) is None
        assert pin_safety_classifier(run, local) is local
        assert "revisions" not in run.manifest
        assert pin_safety_classifier(run, classifier) == classifier
        assert run.manifest["revisions"] == {"a/b": commit}
        # A later attempt goes on with the commit of the first.
        later = classifier.model_copy(update={"revision": "main"})
        assert pin_safety_classifier(run, later) == classifier


def test_a_commit_of_the_backbone_is_recorded_and_a_folder_is_not(tiny, paper, tmp_path):
    commit = "0123456789" * 4
    backbone = paper.backbone.model_copy(update={"revision": commit})
    recipe = paper.model_copy(update={"backbone": backbone})
    with RunFolder(tmp_path / "run", {}) as run:
        assert pin_backbone(run, tiny) is tiny  # made from scratch
        local = backbone.model_copy(update={"name": str(tmp_path)})
        assert pin_backbone(run, paper.model_copy(update={"backbone": local})).backbone == local
        assert "revisions" not in run.manifest
        assert pin_backbone(run, recipe).backbone.revision == commit
        assert run.manifest["revisions"] == {"backbone": commit}
        # A later attempt goes on with the commit of the first.
        later = recipe.model_copy(
            update={"backbone": backbone.model_copy(update={"revision": "main"})}
        )
        assert pin_backbone(run, later).backbone.revision == commit


def test_of_a_package_the_release_is_recorded(paper, tmp_path):
    changed = {"name": "package:pytest", "revision": None, "gguf_file": "a.gguf"}
    backbone = paper.backbone.model_copy(update=changed)
    recipe = paper.model_copy(update={"backbone": backbone})
    with RunFolder(tmp_path / "run", {}) as run:
        assert pin_backbone(run, recipe) is recipe
        assert "revisions" not in run.manifest
        assert run.manifest["packages"] == {"backbone": f"pytest {pytest.__version__}"}
