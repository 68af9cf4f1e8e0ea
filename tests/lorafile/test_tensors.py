import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file

from kit.errors import LoraFileError, OutputError
from kit.lorafile.tensors import cast, model_hashes, read_lora, split_name, write_lora

GOLDEN = Path(__file__).parents[1] / "golden"
NAME = "lora_unet_mid_block_attentions_0_proj_in"
METADATA = {"ss_network_dim": "4", "modelspec.title": "Kätzchen 猫", "lorakit_settings": "{}"}


def small_lora(rank=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        f"{NAME}.lora_down.weight": torch.randn(rank, 8, generator=generator),
        f"{NAME}.lora_up.weight": torch.randn(6, rank, generator=generator),
        f"{NAME}.alpha": torch.tensor(2.0),
    }


def reference_lora():
    """The tensors of the file whose metadata is "tiny2" in metadata_example.json."""
    arrays = np.load(GOLDEN / "parity" / "tiny2_lora.npz")
    tensors = {
        name.partition("/")[2]: torch.from_numpy(arrays[name])
        for name in arrays.files
        if name.startswith("final/") or name.endswith(".alpha")
    }
    return tensors


def header_of(path):
    raw = path.read_bytes()
    return json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])


# ------------------------------------------------------------------------------------- writing


def test_the_hashes_are_those_of_the_reference(tmp_path):
    golden = json.loads((GOLDEN / "metadata_example.json").read_text())["tiny2"]
    own = {key: value for key, value in golden.items() if not key.startswith("sshs_")}
    write_lora(tmp_path / "a.safetensors", reference_lora(), own, save_as="safetensors")
    assert read_lora(tmp_path / "a.safetensors").metadata == golden


def test_the_hashes_of_a_larger_file_are_those_of_kohyas_way_of_making_them(tmp_path):
    tensors = small_lora() | {f"{NAME}_2.lora_up.weight": torch.randn(700, 700)}
    write_lora(tmp_path / "a.safetensors", tensors, METADATA, save_as="safetensors")
    found = read_lora(tmp_path / "a.safetensors").metadata
    # As in trainer behaviour 10.4: serialised with the ss_* entries alone.
    data = save(tensors, {"ss_network_dim": "4"})
    start = 8 + int.from_bytes(data[:8], "little")
    assert found["sshs_model_hash"] == hashlib.sha256(data[start:]).hexdigest()
    assert found["sshs_legacy_hash"] == hashlib.sha256(data[0x100000:0x110000]).hexdigest()[:8]
    assert found["sshs_legacy_hash"] != "e3b0c442", "the file must reach into the window"


def test_the_hashes_do_not_depend_on_what_else_is_written(tmp_path):
    write_lora(tmp_path / "a.safetensors", small_lora(), METADATA, save_as="safetensors")
    write_lora(tmp_path / "b.safetensors", small_lora(), {"ss_epoch": "2"}, save_as="safetensors")
    a, b = (read_lora(tmp_path / name).metadata for name in ("a.safetensors", "b.safetensors"))
    assert a["sshs_model_hash"] == b["sshs_model_hash"]


def test_the_safetensors_library_reads_what_we_write(tmp_path):
    path = tmp_path / "a.safetensors"
    write_lora(path, small_lora(), METADATA, save_as="safetensors")
    assert load_file(path).keys() == small_lora().keys()
    with safe_open(path, "pt") as file:
        assert METADATA.items() <= file.metadata().items()
        for name, tensor in small_lora().items():
            assert torch.equal(file.get_tensor(name), tensor)
    assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0, "tensors begin aligned"


def test_tensors_are_in_the_order_of_the_reference(tmp_path):
    order = json.loads((GOLDEN / "metadata_example.json").read_text())["key_order_first10"]
    tensors = {name: torch.ones(2, 2) for name in reversed(order)}
    write_lora(tmp_path / "a.safetensors", tensors, {}, save_as="safetensors")
    assert [
        name for name in header_of(tmp_path / "a.safetensors") if name != "__metadata__"
    ] == order


def test_the_same_content_gives_the_same_bytes(tmp_path):
    forwards, backwards = small_lora(), dict(reversed(small_lora().items()))
    metadata = {f"ss_{i}": str(i) for i in range(50)}
    write_lora(tmp_path / "a.safetensors", forwards, metadata, save_as="safetensors")
    write_lora(tmp_path / "b.safetensors", backwards, metadata, save_as="safetensors")
    a, b = ((tmp_path / name).read_bytes() for name in ("a.safetensors", "b.safetensors"))
    assert a == b
    assert list(header_of(tmp_path / "a.safetensors")["__metadata__"])[:50] == list(metadata)


def test_hashes_of_an_older_file_are_replaced(tmp_path):
    old = {"sshs_model_hash": "old", "sshs_legacy_hash": "old"}
    write_lora(tmp_path / "a.safetensors", small_lora(), old, save_as="safetensors")
    assert "old" not in read_lora(tmp_path / "a.safetensors").metadata.values()


@pytest.mark.parametrize("save_as", ["safetensors", "ckpt", "pt"])
@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("float", torch.float32), ("fp16", torch.float16), ("bf16", torch.bfloat16)],
)
def test_what_is_written_is_read_again(tmp_path, save_as, precision, dtype):
    path = tmp_path / f"a.{save_as}"
    tensors = cast(small_lora(), precision)
    write_lora(path, tensors, METADATA, save_as=save_as)
    found = read_lora(path)
    assert found.tensors.keys() == tensors.keys()
    for name, tensor in found.tensors.items():
        assert tensor.dtype == dtype
        assert torch.equal(tensor, tensors[name])
    assert found.tensors[f"{NAME}.alpha"].shape == ()
    assert bool(found.metadata) is (save_as == "safetensors"), "pickles carry no metadata"


def test_a_whole_number_as_alpha_is_cast_too():
    assert cast({"a.alpha": torch.tensor(4)}, "float")["a.alpha"].dtype == torch.float32


def test_weights_in_training_and_views_of_one_memory_can_be_written(tmp_path):
    shared = torch.randn(8, 4)
    tensors = {
        f"{NAME}.lora_down.weight": shared.T,  # not contiguous
        f"{NAME}.lora_up.weight": shared,
        f"{NAME}.lora_mid.weight": torch.nn.Parameter(shared),
    }
    write_lora(tmp_path / "a.safetensors", tensors, {}, save_as="safetensors")
    found = read_lora(tmp_path / "a.safetensors").tensors
    assert torch.equal(found[f"{NAME}.lora_down.weight"], shared.T)
    assert torch.equal(found[f"{NAME}.lora_mid.weight"], shared)


def test_the_folder_is_made(tmp_path):
    write_lora(tmp_path / "new" / "er" / "a.pt", small_lora(), {}, save_as="pt")
    assert (tmp_path / "new" / "er" / "a.pt").is_file()


@pytest.mark.parametrize("save_as", ["safetensors", "ckpt"])
def test_a_place_that_cannot_be_written_is_told(tmp_path, save_as):
    (tmp_path / "taken").write_text("a file, not a folder")
    with pytest.raises(OutputError, match="cannot be written"):
        write_lora(tmp_path / "taken" / f"a.{save_as}", small_lora(), {}, save_as=save_as)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has an always full disk")
@pytest.mark.parametrize("save_as", ["safetensors", "pt"])
def test_a_full_disk_leaves_the_old_file_and_nothing_half_written(tmp_path, save_as):
    path = tmp_path / f"a.{save_as}"
    path.write_text("the old one")
    (tmp_path / f"a.{save_as}.part").symlink_to("/dev/full")
    with pytest.raises(OutputError, match="No space left"):
        write_lora(path, small_lora(), {}, save_as=save_as)
    assert path.read_text() == "the old one"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_never_written(tmp_path, bad):
    tensors = small_lora()
    tensors[f"{NAME}.lora_up.weight"][0, 0] = bad
    with pytest.raises(LoraFileError, match=r"not finite.*lora_up"):
        write_lora(tmp_path / "a.safetensors", tensors, {}, save_as="safetensors")
    assert not list(tmp_path.iterdir())


def test_a_weight_too_large_for_fp16_is_told(tmp_path):
    tensors = {f"{NAME}.lora_up.weight": torch.full((2, 2), 1e5)}
    with pytest.raises(LoraFileError, match="save_precision"):
        write_lora(tmp_path / "a.pt", cast(tensors, "fp16"), {}, save_as="pt")


# ------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_files_of_the_reference_are_read(name):
    found = read_lora(GOLDEN / f"lora_small_{name}.safetensors")
    assert len(found.tensors) == 12
    assert found.metadata["ss_network_module"] == "networks.lora"


def test_a_file_of_the_reference_without_metadata_is_read(tmp_path):
    save_file(small_lora(), tmp_path / "a.safetensors")
    assert read_lora(tmp_path / "a.safetensors").metadata == {}


def test_weights_inside_a_checkpoint_are_found(tmp_path):
    torch.save({"state_dict": small_lora(), "step": 3}, tmp_path / "a.ckpt")
    assert read_lora(tmp_path / "a.ckpt").tensors.keys() == small_lora().keys()


OTHERS = {
    "a base model": ["model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.x"],
    "a VAE": ["decoder.conv_in.weight", "encoder.conv_in.weight"],
    "an embedding": ["emb_params"],
    "a ControlNet": ["control_model.input_hint_block.0.weight"],
    "a U-Net alone": ["down_blocks.0.resnets.0.time_emb_proj.weight", "conv_in.weight"],
    "a text encoder alone": ["text_model.embeddings.token_embedding.weight"],
    "something else": ["weight"],
}


@pytest.mark.parametrize("what", OTHERS)
@pytest.mark.parametrize("ending", ["safetensors", "ckpt"])
def test_a_file_that_is_no_lora_is_told_by_what_it_is(tmp_path, what, ending):
    path = tmp_path / f"a.{ending}"
    tensors = {name: torch.ones(2) for name in OTHERS[what]}
    save_file(tensors, path) if ending == "safetensors" else torch.save(tensors, path)
    with pytest.raises(LoraFileError, match=f"{what}.* and no LoRA"):
        read_lora(path)


def broken_files():
    whole = save(small_lora(), {"ss_epoch": "1"})
    yield "whole.safetensors", whole[:-10], "cut short"
    yield "header.safetensors", whole[:40], "cut short"
    yield "empty.safetensors", b"", "empty"
    yield "page.safetensors", b"<!DOCTYPE html><html>Log in", "web page"
    yield "pointer.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "git-lfs"
    yield "json.safetensors", (20).to_bytes(8, "little") + b'{"a": {"dtype": 1}} ', "no safetensors"
    yield "text.ckpt", b"just some words, and no weights at all", "no file of weights"
    yield "zip.pt", b"PK\x03\x04 a zip that broke off", "no file of weights"
    yield "empty.ckpt", b"", "no file of weights"
    yield "picture.png", b"\x89PNG", "not a file of weights"


@pytest.mark.parametrize(
    ("name", "content", "words"), list(broken_files()), ids=lambda v: str(v)[:20]
)
def test_a_broken_file_is_told_in_words(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LoraFileError, match=words):
        read_lora(tmp_path / name)


def test_tensors_that_do_not_fill_their_bytes_are_told(tmp_path):
    save_file({"lora_unet_a.lora_up.weight": torch.ones(4)}, tmp_path / "a.safetensors")
    raw = (tmp_path / "a.safetensors").read_bytes().replace(b"[4]", b"[9]")
    (tmp_path / "a.safetensors").write_bytes(raw)
    with pytest.raises(LoraFileError, match="cannot be read"):
        read_lora(tmp_path / "a.safetensors")


@pytest.mark.parametrize("name", ["missing.safetensors", "missing.ckpt", "folder"])
def test_a_missing_file_and_a_folder_are_told(tmp_path, name):
    (tmp_path / "folder").mkdir()
    with pytest.raises(LoraFileError, match=r"does not exist|is a folder"):
        read_lora(tmp_path / name)


class Trap:
    def __reduce__(self):
        return print, ("the pickle ran",)


def test_nothing_of_a_pickle_is_run(tmp_path, capsys):
    torch.save({**small_lora(), "lora_unet_x.lora_up.weight": Trap()}, tmp_path / "a.ckpt")
    assert read_lora(tmp_path / "a.ckpt").tensors.keys() == small_lora().keys()
    assert "the pickle ran" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "module", "kind"),
    [
        ("lora_te_x_fc1.lora_down.weight", "lora_te_x_fc1", "LoRA"),
        ("lora_unet_x.alpha", "lora_unet_x", ""),
        ("lora_unet_x.dora_scale", "lora_unet_x", ""),
        ("lora_unet_x.hada_w1_a", "lora_unet_x", "LoHa"),
        ("lora_unet_x.hada_t2", "lora_unet_x", "LoHa"),
        ("lora_unet_x.lokr_w1", "lora_unet_x", "LoKr"),
        ("lora_unet_x.lokr_w2_b", "lora_unet_x", "LoKr"),
        ("oft_unet_x.oft_blocks", "oft_unet_x", "OFT"),
        ("lora_unet_x.diff", "lora_unet_x", "full difference"),
        ("lora_unet_x.w_norm", "lora_unet_x", "norm"),
        ("lora_unet_x.a1.weight", "lora_unet_x", "GLoRA"),
        ("unet.mid.to_q.lora_A.weight", "unet.mid.to_q", "LoRA"),
        ("base_model.model.to_q.lora_B.default.weight", "base_model.model.to_q", "LoRA"),
        ("unet.mid.processor.to_q_lora.up.weight", "unet.mid.processor.to_q", "LoRA"),
        ("te.q_proj.lora_linear_layer.down.weight", "te.q_proj", "LoRA"),
        ("model.diffusion_model.out.2.weight", "", ""),
        ("first_stage_model.encoder.norm_out.bias", "", ""),
    ],
)
def test_names_tell_module_and_kind(name, module, kind):
    found = split_name(name)
    assert (found[0], found[2]) == (module, kind)


# ---------------------------------------------------------------------------------- base models


def test_a_models_hashes_are_its_window_and_its_whole(tmp_path):
    content = os.urandom(0x110000 + 5)
    (tmp_path / "model.safetensors").write_bytes(content)
    legacy = hashlib.sha256(content[0x100000:0x110000]).hexdigest()[:8]
    whole = hashlib.sha256(content).hexdigest()
    assert model_hashes(tmp_path / "model.safetensors") == (legacy, whole)


def test_a_small_models_window_is_empty(tmp_path):
    (tmp_path / "model.ckpt").write_bytes(b"small")
    assert model_hashes(tmp_path / "model.ckpt")[0] == "e3b0c442"


def test_what_is_no_file_has_the_references_words_for_it(tmp_path):
    assert model_hashes(tmp_path) == ("IsADirectory", "IsADirectory")
    assert model_hashes(tmp_path / "missing") == ("NOFILE", "NOFILE")


def test_looking_at_files_does_not_need_torch():
    code = (
        "import sys, kit.lorafile.tensors, kit.lorafile.metadata; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
