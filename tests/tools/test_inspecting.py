import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from kit.errors import LoraFileError
from kit.tools.inspecting import describe, inspect

GOLDEN = Path(__file__).parents[1] / "golden"
EXAMPLE = json.loads((GOLDEN / "metadata_example.json").read_text())["tiny3"]
UNET = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0"


def weights(*shape):
    return np.ones(shape, np.float32)


def lora(name=f"{UNET}_attn2_to_k", rank=4, wide=768, alpha=2.0):
    return {
        f"{name}.lora_down.weight": weights(rank, wide),
        f"{name}.lora_up.weight": weights(320, rank),
        f"{name}.alpha": np.array(alpha, np.float32),
    }


@pytest.fixture
def report_of(tmp_path):
    def report_of(tensors, metadata=None):
        save_file(tensors, tmp_path / "a.safetensors", metadata)
        return inspect(tmp_path / "a.safetensors")

    return report_of


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """A file of ours, with the metadata of a file of the reference."""
    torch = pytest.importorskip("torch")
    from kit.lorafile.tensors import cast, write_lora

    tensors = {name: torch.from_numpy(value) for name, value in lora().items()}
    tensors |= {name: torch.from_numpy(v) for name, v in lora("lora_te_x_fc1").items()}
    path = tmp_path_factory.mktemp("written") / "dog.safetensors"
    write_lora(path, cast(tensors, "fp16"), EXAMPLE, save_as="safetensors")
    return path


@pytest.mark.parametrize(("name", "rank", "alpha"), [("a", 8, 4.0), ("b", 8, 8.0), ("c", 4, 2.0)])
def test_a_file_of_the_reference_is_told(name, rank, alpha):
    path = GOLDEN / f"lora_small_{name}.safetensors"
    report = inspect(path)
    assert report["file"] == path.name
    assert report["bytes"] == path.stat().st_size
    assert report["tensors"] == 12
    assert report["dtypes"] == {"F32": 12}
    assert report["kind"] == "LoCon", "one of its layers is a 3x3 convolution"
    assert report["family"] == "sd1"
    assert report["parts"] == {"unet": 3, "te": 1}
    assert report["ranks"] == {rank: 4}
    assert report["alphas"] == {alpha: 4}
    assert report["metadata"]["ss_training_comment"] == "hello"
    assert report["hashes"]["matches"] is None, "its metadata has no hash"
    assert report["notices"] == []


def test_names_types_and_shapes_are_told(report_of):
    shapes = report_of(lora())["shapes"]
    assert shapes[f"{UNET}_attn2_to_k.lora_down.weight"] == ["F32", [4, 768]]
    assert shapes[f"{UNET}_attn2_to_k.alpha"] == ["F32", []]


def test_a_report_is_ready_for_json(written):
    assert json.loads(json.dumps(inspect(written)))["metadata"]["ss_output_name"] == "tiny3"


def test_the_hash_of_a_file_of_ours_agrees(written):
    report = inspect(written)
    assert report["hashes"]["matches"] is True
    assert report["hashes"]["sshs_model_hash"] == report["hashes"]["computed"]
    assert report["hashes"]["sshs_legacy_hash"] == "e3b0c442"


def test_a_changed_weight_is_noticed(written, tmp_path):
    content = bytearray(written.read_bytes())
    content[-1] ^= 1
    (tmp_path / "a.safetensors").write_bytes(content)
    report = inspect(tmp_path / "a.safetensors")
    assert report["hashes"]["matches"] is False
    assert any("changed or damaged" in notice for notice in report["notices"])


@pytest.mark.parametrize(
    ("dtype", "raw", "value"),
    [
        ("F32", struct.pack("<f", 0.75), 0.75),
        ("F16", struct.pack("<e", 0.75), 0.75),
        ("BF16", struct.pack("<f", 0.75)[2:], 0.75),
        ("F64", struct.pack("<d", 0.75), 0.75),
        ("I64", struct.pack("<q", 8), 8.0),  # how the reference writes a default alpha
    ],
)
def test_alphas_of_every_type_are_read(tmp_path, dtype, raw, value):
    entries = {
        "lora_unet_x.lora_down.weight": {"dtype": "U8", "shape": [1, 3], "data_offsets": [0, 3]},
        "lora_unet_x.alpha": {"dtype": dtype, "shape": [], "data_offsets": [3, 3 + len(raw)]},
    }
    header = json.dumps(entries).encode()
    content = len(header).to_bytes(8, "little") + header + b"abc" + raw
    (tmp_path / "a.safetensors").write_bytes(content)
    assert inspect(tmp_path / "a.safetensors")["alphas"] == {value: 1}


def test_ranks_and_alphas_that_differ_are_counted(report_of):
    tensors = lora() | lora("lora_unet_b", alpha=1) | lora("lora_unet_c", rank=2, alpha=1)
    report = report_of(tensors)
    assert report["ranks"] == {4: 2, 2: 1}
    assert report["alphas"] == {1.0: 2, 2.0: 1}


@pytest.mark.parametrize(
    ("roles", "kind", "ranks"),
    [
        ({"lora_down.weight": (4, 8), "lora_up.weight": (8, 4)}, "LoRA", {4: 1}),
        ({"lora_down.weight": (4, 8, 3, 3), "lora_up.weight": (8, 4, 1, 1)}, "LoCon", {4: 1}),
        ({"lora_down.weight": (4, 8, 1, 1), "lora_up.weight": (8, 4, 1, 1)}, "LoRA", {4: 1}),
        (
            {"lora_down.weight": (4, 8), "lora_up.weight": (8, 4), "dora_scale": (8, 1)},
            "LoRA with DoRA",
            {4: 1},
        ),
        ({"hada_w1_a": (8, 4), "hada_w1_b": (4, 8), "hada_w2_a": (8, 4)}, "LoHa", {4: 1}),
        ({"lokr_w1": (2, 2), "lokr_w2_a": (4, 3), "lokr_w2_b": (3, 4)}, "LoKr", {3: 1}),
        ({"lokr_w1": (2, 2), "lokr_w2": (4, 4)}, "LoKr", {}),
        ({"oft_blocks": (4, 2, 2)}, "OFT", {}),
        ({"on_input": (1,), "weight": (8,)}, "IA3", {}),
        ({"diff": (8, 8)}, "full difference", {}),
        ({"w_norm": (8,), "b_norm": (8,)}, "norm", {}),
    ],
)
def test_kinds_are_told_by_their_tensors(report_of, roles, kind, ranks):
    report = report_of({f"lora_unet_x.{role}": weights(*shape) for role, shape in roles.items()})
    assert (report["kind"], report["ranks"]) == (kind, ranks)


def test_a_mixed_file_names_the_most_frequent_kind_first(report_of):
    norm = {"lora_unet_n.w_norm": weights(8), "lora_unet_n.b_norm": weights(8)}
    assert report_of(norm | lora() | lora("lora_unet_b"))["kind"] == "LoRA + norm"


@pytest.mark.parametrize(
    ("module", "wide", "family"),
    [
        (f"{UNET}_attn2_to_k", 768, "sd1"),
        (f"{UNET}_attn2_to_k", 1024, "sd2"),
        (f"{UNET}_attn2_to_k", 2048, "sdxl"),  # some tools keep diffusers' names for it
        ("lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k", 48, "sdxl"),
        ("unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k", 768, "sd1"),
        (f"{UNET}_attn1_to_k", 768, None),
        ("lora_unet_double_blocks_0_img_attn_proj", 3072, None),
    ],
)
def test_the_family_is_told_by_names_and_widths(report_of, module, wide, family):
    assert report_of(lora(module, wide=wide))["family"] == family


def test_two_text_encoders_are_told_apart(report_of):
    report = report_of(lora("lora_te1_x", wide=768) | lora("lora_te2_x", wide=1280))
    assert report["parts"] == {"te1": 1, "te2": 1}
    assert report["family"] == "sdxl"


def test_where_names_do_not_tell_the_family_its_own_words_do(report_of):
    tensors = lora("lora_te_x_fc1")
    v2 = {"modelspec.architecture": "stable-diffusion-v2-768-v/lora"}
    assert report_of(tensors, {"ss_base_model_version": "sd_v1_v"})["family"] == "sd1"
    assert report_of(tensors, v2)["family"] == "sd2"
    assert report_of(tensors, {"ss_base_model_version": "flux1"})["family"] is None


def test_words_that_contradict_the_tensors_are_noticed(report_of):
    report = report_of(lora(wide=2048), {"ss_base_model_version": "sd_v1"})
    assert report["family"] == "sdxl"
    (notice,) = report["notices"]
    assert "Stable Diffusion 1.x" in notice and "Stable Diffusion XL" in notice


def test_half_a_module_is_noticed(report_of):
    tensors = lora()
    del tensors[f"{UNET}_attn2_to_k.lora_up.weight"]
    assert any("only one of lora_down" in n for n in report_of(tensors)["notices"])


def test_modules_without_alpha_and_strange_tensors_are_noticed(report_of):
    tensors = lora() | {"strange": weights(1)}
    del tensors[f"{UNET}_attn2_to_k.alpha"]
    text = " ".join(report_of(tensors)["notices"])
    assert "alpha = rank" in text
    assert "belong to no adapter, e.g. strange" in text


# -------------------------------------------------------------------------------------- in words


def test_the_description_says_what_matters(written):
    text = describe(inspect(written))
    for words in (
        "dog.safetensors: LoRA for Stable Diffusion 1.x",
        "1 in the U-Net, 1 in the text encoder",
        "4 (2 modules)",
        "2 (2 modules)",
        "F16 (6 tensors)",
        "tiny-sd15 (sd_v1_v",
        "step 5 of 5, epoch 1 of 1",
        "8 an epoch with repeats, 3 regularisation",
        "as stored",
        "sks dog (3), dog (3)",
        "128x128 (14), 192x64 (2)",
        "lora_down.weight [4, 768]",
    ):
        assert words in text
    assert "None" not in text and "IsADirectory" not in text
    assert max(map(len, text.splitlines())) <= 98


def test_a_file_without_metadata_can_be_described(report_of):
    text = describe(report_of(lora()))
    assert "none is stored" in text
    assert "base model" not in text


def test_badly_written_metadata_is_left_out(report_of):
    bad = {"ss_tag_frequency": "{", "ss_bucket_info": "[]"}
    text = describe(report_of(lora(), bad))
    assert "tags" not in text and "buckets" not in text
    strange = {
        "ss_tag_frequency": '{"a": 1, "b": {"dog": "x"}}',
        "ss_bucket_info": '{"buckets": {"0": 1}}',
    }
    text = describe(report_of(lora(), strange))
    assert "tags" not in text and "buckets" not in text
    describe(report_of(lora(), {"ss_bucket_info": '{"buckets": {"0": {"resolution": 1}}}'}))


def test_a_strangers_text_cannot_steer_the_terminal(report_of):
    comment = {"ss_training_comment": "\x1b[2Jgone\nsecond line"}
    text = describe(report_of(lora(), comment))
    assert "\x1b" not in text
    assert "gone second line" in text


# ------------------------------------------------------------------------------------ bad files


class SomebodysCallback:
    """Stands beside the weights in the files of some trainers."""


@pytest.mark.parametrize("ending", ["ckpt", "pt", "PT", "bin"])
@pytest.mark.parametrize("is_zip", [True, False])
def test_a_torch_file_tells_the_same(tmp_path, report_of, ending, is_zip):
    torch = pytest.importorskip("torch")
    arrays = lora() | lora("lora_te_x_fc1")
    arrays["lora_te_x_fc1.alpha"] = np.array(3, np.int64)
    arrays["lora_te_x_fc1.lora_up.weight"] = np.zeros((320, 4), np.float16)
    tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
    contents = {"state_dict": tensors, "callbacks": {SomebodysCallback: SomebodysCallback()}}
    path = tmp_path / f"a.{ending}"
    torch.save(contents, path, _use_new_zipfile_serialization=is_zip)
    found, expected = inspect(path), report_of(arrays)
    told = ("kind", "family", "parts", "ranks", "alphas", "dtypes", "layout", "shapes", "read_by")
    assert {key: found[key] for key in told} == {key: expected[key] for key in told}
    assert found["metadata"] == {}


def test_a_damaged_torch_file_is_told(tmp_path):
    (tmp_path / "a.pt").write_bytes(b"anything")
    with pytest.raises(LoraFileError, match=r"a\.pt"):
        inspect(tmp_path / "a.pt")


@pytest.mark.parametrize("name", ["missing.safetensors", "missing.ckpt", "folder"])
def test_a_missing_file_is_told(tmp_path, name):
    (tmp_path / "folder").mkdir()
    with pytest.raises(LoraFileError, match=r"does not exist|is a folder"):
        inspect(tmp_path / name)


def test_a_file_that_broke_off_is_told(written, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(written.read_bytes()[:-5])
    with pytest.raises(LoraFileError, match="cut short"):
        inspect(tmp_path / "a.safetensors")


def test_a_base_model_is_told(report_of):
    with pytest.raises(LoraFileError, match="a base model and no LoRA"):
        report_of({"model.diffusion_model.out.2.weight": weights(4)})


def test_inspecting_does_not_need_torch():
    path = str(GOLDEN / "lora_small_a.safetensors")
    code = (
        "import sys, pathlib; from kit.tools.inspecting import describe, inspect; "
        f"describe(inspect(pathlib.Path({path!r}))); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
