"""Releases, who may have them, and under which licence: to a Hub on loopback."""

from __future__ import annotations

import hashlib
import json
import re

import pyarrow.parquet as pq
import pytest
import yaml

from augesc_builder import tables
from augesc_builder.config.recipe import load_recipe
from augesc_builder.errors import PublishError
from augesc_builder.hub.release import How
from augesc_builder.pipeline.build import build
from augesc_builder.pipeline.card.ingredients import check_licence, terms_text
from augesc_builder.pipeline.card.metadata import join_card, split_card
from augesc_builder.run.progress import Progress
from augesc_builder.sources.registry import find_source
from tests.conftest import rows_of
from tests.hub.conftest import push, refused
from tests.hub_stub import Fault

WRITES = re.compile(r"/(create|preupload|batch|commit|tag|settings)(/|$)|^/lfs")


def touch(run):
    path = run / "corpus" / "safety_review.json"
    path.write_text(path.read_text() + "\n")


def card(hub):
    return split_card(hub.files("datasets", hub.repo)["README.md"].decode())[0]


class TestTags:
    def test_a_release_is_a_tag_of_its_commit(self, hub, run):
        planned = push(hub, run, "--tag", "v1", "--dry-run")
        assert f"one commit to {hub.repo}, tagged v1" in planned.stdout
        assert not hub.tags
        done = push(hub, run, "--tag", "v1")
        assert done.returncode == 0, done.stderr
        assert hub.tags == {hub.repo: {"v1": hub.head(hub.repo)}}
        assert f"Tagged v1: commit {hub.head(hub.repo)}" in done.stdout

    def test_one_that_is_there_is_refused_before_anything_is_sent(self, hub, run):
        assert push(hub, run, "--tag", "v1").returncode == 0
        first, before = hub.head(hub.repo), hub.files("datasets", hub.repo)
        touch(run)
        hub.requests.clear()
        for options in ((), ("--dry-run",)):
            line = refused(push(hub, run, "--tag", "v1", *options))
            assert f"{hub.repo} was not changed: it has a tag or branch v1" in line
            assert first in line
        assert not [path for path in hub.requests if WRITES.search(path)]
        assert hub.files("datasets", hub.repo) == before
        assert push(hub, run, "--tag", "v2").returncode == 0
        assert hub.tags == {hub.repo: {"v1": first, "v2": hub.head(hub.repo)}}
        assert hub.head(hub.repo) != first

    def test_what_is_there_already_can_be_released(self, hub, run):
        assert push(hub, run).returncode == 0
        done = push(hub, run, "--tag", "v1")
        assert done.returncode == 0, done.stderr
        assert "No file has changed" in done.stdout
        assert hub.commits == {hub.repo: 1}
        assert hub.tags == {hub.repo: {"v1": hub.head(hub.repo)}}

    def test_a_model_too(self, hub, run):
        assert push(hub, run, "--model", "--tag", "v1.0").returncode == 0
        assert hub.tags == {hub.repo: {"v1.0": hub.head(hub.repo)}}

    @pytest.mark.parametrize("taken", ["main", "v1"])
    def test_the_name_of_a_branch_and_of_a_new_repo(self, hub, run, taken):
        if taken == "main":
            assert "has a tag or branch main" in refused(push(hub, run, "--tag", taken))
            assert not list(hub.root.iterdir())
        else:
            assert push(hub, run, "--tag", taken).returncode == 0

    @pytest.mark.parametrize("how", ["lose the answer", 500])
    def test_a_tag_that_does_not_go_through(self, hub, run, how):
        hub.faults.append(Fault("POST", "/tag/", how, times=99))
        done = push(hub, run, "--tag", "v1")
        if how == 500:
            assert "without the tag v1" in refused(done)
            hub.faults.clear()
            done = push(hub, run, "--tag", "v1")
        assert done.returncode == 0, done.stderr
        assert hub.commits == {hub.repo: 1}
        assert hub.tags == {hub.repo: {"v1": hub.head(hub.repo)}}

    @pytest.mark.parametrize(
        "name", ["", "-v1", "a b", "v1/2", "a..b", "v1.lock", "v1.", "ä", "v1\n", "0a" * 20]
    )
    def test_what_cannot_be_a_tag(self, name):
        with pytest.raises(PublishError, match=r"--tag .*such as v1$"):
            How(tag=name)

    @pytest.mark.parametrize("name", ["v1", "1", "2026-11-22", "v1.0_rc.2", "0a" * 19])
    def test_what_can(self, name):
        assert How(tag=name).tag == name


class TestGated:
    def test_access_is_asked_for_before_files_are_there(self, hub, run):
        done = push(hub, run, "--gated", "manual")
        assert done.returncode == 0, done.stderr
        assert hub.gated == {hub.repo: "manual"}
        paths = [path for path in hub.requests if WRITES.search(path)]
        settings = next(i for i, path in enumerate(paths) if path.endswith("/settings"))
        sent = [i for i, path in enumerate(paths) if re.search(r"/lfs|/commit/", path)]
        assert settings < min(sent)
        values = card(hub)
        assert "distress" in values["extra_gated_prompt"]
        kinds = {"text", "checkbox", "country"}
        assert set(values["extra_gated_fields"].values()) == kinds
        again = push(hub, run, "--gated", "manual")
        assert "nothing to do" in again.stdout

    def test_it_is_not_unless_it_is_said(self, hub, run):
        assert push(hub, run).returncode == 0
        assert not hub.gated
        assert not [key for key in card(hub) if key.startswith("extra_gated")]
        planned = push(hub, run, "--gated", "auto", "--dry-run")
        assert "and access is asked for" in planned.stdout
        assert not hub.gated
        assert push(hub, run, "--gated", "auto").returncode == 0
        assert hub.gated == {hub.repo: "auto"}
        touch(run)
        assert push(hub, run).returncode == 0  # and stays so
        assert hub.gated == {hub.repo: "auto"}
        assert "extra_gated_prompt" in card(hub)

    def test_the_owners_own_questions_stay(self, hub, run):
        assert push(hub, run).returncode == 0
        path = hub.root / "datasets" / hub.repo / "README.md"
        values, body = split_card(path.read_text())
        path.write_text(join_card({**values, "extra_gated_fields": {"Why": "text"}}, body))
        assert push(hub, run, "--gated", "auto").returncode == 0
        assert card(hub)["extra_gated_fields"] == {"Why": "text"}
        assert "distress" in card(hub)["extra_gated_prompt"]

    def test_a_model_too(self, hub, run):
        assert push(hub, run, "--model", "--gated", "auto").returncode == 0
        values, _ = split_card(hub.files("models", hub.repo)["README.md"].decode())
        assert values["extra_gated_fields"]
        assert hub.gated == {hub.repo: "auto"}

    def test_where_it_cannot_be_set_no_file_is_sent(self, hub, run):
        hub.faults.append(Fault("PUT", "/settings", 403, times=99))
        assert "role `write`" in refused(push(hub, run, "--gated", "auto"))
        assert not hub.commits


def infos(*names):
    return [find_source(name) for name in names]


class TestLicences:
    @pytest.mark.parametrize("licence", ["mit", "apache-2.0", "cc-by-4.0", "cc0-1.0", "Apache-2.0"])
    @pytest.mark.parametrize("source", ["empathetic_dialogues", "esconv", "reddit"])
    def test_one_that_a_source_forbids(self, licence, source):
        with pytest.raises(PublishError, match=rf"^here: {licence} .* from {source} \("):
            check_licence(licence, infos("sample", source), "here")

    @pytest.mark.parametrize(
        ("licence", "sources"),
        [
            ("mit", ["sample"]),
            ("cc-by-nc-4.0", ["esconv", "reddit"]),
            ("CC-BY-NC-SA-4.0", ["esconv"]),
            ("other", ["reddit"]),
            (None, ["esconv"]),
            ("mit", []),
        ],
    )
    def test_those_that_none_does(self, licence, sources):
        check_licence(licence, infos(*sources), "here")

    def test_a_card_that_says_so_is_not_pushed(self, hub, run):
        """The recipe's sessions are its own, whatever the card was made to say of them."""
        recipe = run / "recipe.yaml"
        settings = yaml.safe_load(recipe.read_text())
        settings["finetune"]["sessions"] = "esconv"
        recipe.write_text(yaml.safe_dump(settings))
        path = run / "corpus" / "README.md"
        values, body = split_card(path.read_text())
        path.write_text(join_card({**values, "license": "mit"}, body))
        line = refused(push(hub, run))
        assert "license: mit lets everybody" in line
        assert line.endswith("give cc-by-nc-4.0")
        assert not list(hub.root.iterdir())

    def test_a_folder_of_filter_is_not_given_one(self, refused, augesc, built, tmp_path, tiny_file):
        rows = tmp_path / "rows.parquet"
        found = [{**row, "source": "reddit"} for row in rows_of(built / "generations")]
        pq.write_table(tables.to_table(found, tables.GENERATIONS), rows)
        out = tmp_path / "out"
        code, _, err = augesc("filter", rows, "--out", out, "--recipe", tiny_file)
        assert code == 0, err
        told = ("--title", "Mine", "--about", "By a model.", "--licence")
        line = refused("card", out, *told, "mit")
        assert "--licence: mit lets everybody use the texts for anything, and some come" in line
        assert not (out / "README.md").exists()
        code, _, err = augesc("card", out, *told, "other")
        assert code == 0, err
        assert "Reddit's terms (https://redditinc.com/policies" in (out / "README.md").read_text()


class TestWhatIsBesideTheFiles:
    def test_croissant_has_the_repos_address_and_keeps_its_date(self, hub, run):
        assert push(hub, run).returncode == 0
        path = hub.root / "datasets" / hub.repo / "croissant.json"
        found = json.loads(path.read_text())
        assert found["url"] == f"{hub.url}/datasets/{hub.repo}"
        today = found["datePublished"]
        assert re.fullmatch(r"20\d\d-\d\d-\d\d", today)
        assert "nothing to do" in push(hub, run).stdout
        path.write_text(path.read_text().replace(today, "2020-02-02"))  # as if long ago
        record = path.with_name(".augesc.json")
        names = json.loads(record.read_text())
        data = path.read_bytes()
        digests = [hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()]
        record.write_text(json.dumps({**names, "files": {**names["files"], path.name: digests}}))
        hub.commits[hub.repo] += 1
        touch(run)
        assert push(hub, run).returncode == 0
        assert json.loads(path.read_text())["datePublished"] == "2020-02-02"

    def test_splits_take_the_place_of_the_one_table(self, hub, run, tiny_file):
        def part(splits):
            recipe = load_recipe(tiny_file, [f"card.splits={splits}"])
            assert build(recipe, run, Progress(quiet=True))
            done = push(hub, run)
            assert done.returncode == 0, done.stderr
            files = hub.files("datasets", hub.repo)
            configs = split_card(files["README.md"].decode())[0]["configs"]
            splits = [files["split"] for files in configs[0]["data_files"]]
            return {name.split("/")[0] for name in files if name.endswith(".parquet")}, splits

        assert part("{test: 0.5}") == ({"splits", "rejected"}, ["train", "test"])
        assert part("null") == ({"data", "rejected"}, ["train"])


def test_the_terms_of_reddit_are_in_the_card_of_what_is_made_of_it():
    assert "deleted is to be taken out here too" in terms_text(infos("sample", "reddit"))
    assert terms_text(infos("sample", "esconv", "empathetic_dialogues")) == ""
