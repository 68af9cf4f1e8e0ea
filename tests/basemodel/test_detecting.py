import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants, errors

from kit.basemodel import ModelFile, check_claims, decide_prediction, detect, locate, locate_vae
from kit.basemodel.weight_names import choose_weights, wanted_files
from kit.errors import ModelError

UNET_IN = "model.diffusion_model.input_blocks.0.0.weight"
VAE = "first_stage_model.decoder.conv_in.weight"
TEXT = {
    "sd1": "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight",
    "sd2": "cond_stage_model.model.positional_embedding",
    "sdxl": "conditioner.embedders.1.model.positional_embedding",
}


def write_safetensors(path: Path, names, *, metadata=None, channels: int = 4) -> Path:
    """A file with these names and hardly any weights."""
    shapes = {name: [8, channels, 1, 1] if name == UNET_IN else [1] for name in names}
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 2 * (8 * channels if len(shape) > 1 else 1)
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    if metadata:
        header["__metadata__"] = metadata
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(end))
    return path


def write_folder(
    folder: Path, *, unet=None, scheduler=None, parts=("unet", "vae", "text_encoder")
) -> Path:
    for part in parts:
        (folder / part).mkdir(parents=True)
        stem = "model" if part.startswith("text") else "diffusion_pytorch_model"
        (folder / part / f"{stem}.safetensors").write_bytes(b"")
        settings = {"in_channels": 4} | (unet or {}) if part == "unet" else {}
        (folder / part / "config.json").write_text(json.dumps(settings))
    if scheduler is not None:
        (folder / "scheduler").mkdir()
        (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    return folder


# ------------------------------------------------------------------------------------- single files


@pytest.mark.parametrize("family", TEXT)
@pytest.mark.parametrize(
    ("extra", "metadata", "predicts", "zero_snr"),
    [
        ([], None, None, False),
        (["v_pred"], None, "v_prediction", False),
        (["v_pred", "ztsnr"], None, "v_prediction", True),
        ([], {"modelspec.prediction_type": "v"}, "v_prediction", False),
        ([], {"modelspec.prediction_type": "epsilon"}, "epsilon", False),
        ([], {"modelspec.prediction_type": "flow"}, None, False),
    ],
)
def test_a_single_file_tells_its_family_by_names(
    tmp_path, family, extra, metadata, predicts, zero_snr
):
    names = [UNET_IN, VAE, TEXT[family], *extra]
    path = write_safetensors(tmp_path / "model.safetensors", names, metadata=metadata)
    assert detect(path) == ModelFile(path, False, family, predicts, zero_snr)


def test_a_file_without_vae_says_so(tmp_path):
    path = write_safetensors(tmp_path / "m.safetensors", [UNET_IN, TEXT["sdxl"]])
    assert not detect(path).has_vae


WRONG_NAMES = [
    (["lora_unet_mid_block_attentions_0_proj_in.lora_down.weight"], "is a LoRA", "network_weights"),
    (["unet.mid_block.attentions.0.proj_in.lora_A.weight"], "is a LoRA", "network_weights"),
    (["lora_unet_x.hada_w1_a"], "is a LyCORIS file", "network_weights"),
    (["lora_unet_x.lokr_w1"], "is a LyCORIS file", "network_weights"),
    (["encoder.conv_in.weight", "decoder.conv_in.weight"], "is a VAE alone", "vae setting"),
    ([VAE], "is a VAE alone", "vae setting"),
    (["model.diffusion_model.joint_blocks.0.x"], "is a Stable Diffusion 3 model", "another base"),
    (["double_blocks.0.img_attn.qkv.weight"], "is a Flux model", "another base"),
    (["control_model.input_blocks.0.0.weight"], "is a ControlNet", "base model"),
    (["emb_params"], "is a textual inversion", "base model"),
    (["down_blocks.0.resnets.0.time_emb_proj.weight"], "is a U-Net alone", "text encoder"),
    (["text_model.embeddings.token_embedding.weight"], "is a text encoder alone", "U-Net"),
    ([UNET_IN, VAE], "is a model without text encoder", "all its parts"),
    ([UNET_IN, "conditioner.embedders.0.model.ln_final.bias"], "is the SDXL refiner", "SDXL base"),
    (["some.other.weight"], "is none of the models known here", "another file"),
    ([], "is none of the models known here", "another file"),
]


@pytest.mark.parametrize(("names", "found", "do"), WRONG_NAMES)
def test_another_sort_of_file_is_named_and_refused(tmp_path, names, found, do):
    path = write_safetensors(tmp_path / "wrong.safetensors", names)
    with pytest.raises(ModelError) as caught:
        detect(path)
    assert found in caught.value.found
    assert do in caught.value.do


@pytest.mark.parametrize(
    ("channels", "found"),
    [(8, "instruct-pix2pix"), (5, "depth"), (7, "7")],
)
@pytest.mark.parametrize("single", [True, False])
def test_a_unet_that_reads_more_than_latents_is_refused(tmp_path, channels, found, single):
    if single:
        names = [UNET_IN, VAE, TEXT["sd1"]]
        path = write_safetensors(tmp_path / "m.safetensors", names, channels=channels)
    else:
        path = write_folder(tmp_path / "model", unet={"in_channels": channels})
    with pytest.raises(ModelError, match=found):
        detect(path)


@pytest.mark.parametrize(
    ("contents", "seems"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a git-lfs pointer"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"PK\x03\x04" + bytes(80), "a torch file"),
        (b"", "empty"),
        (b"\x00" * 100, "something else"),
        ((20).to_bytes(8, "little") + b'{"a": {"shape": 1}} ', "or damaged: its table"),
        ((9).to_bytes(8, "little") + b'{"a": 12}', "or damaged: its table"),
        ((2).to_bytes(8, "little") + b"{]", "or damaged: its table"),
    ],
)
def test_what_is_no_safetensors_file_is_told_apart(tmp_path, contents, seems):
    path = tmp_path / "model.safetensors"
    path.write_bytes(contents)
    with pytest.raises(ModelError, match=seems):
        detect(path)


@pytest.mark.parametrize("kept", [0.3, 0.999])
def test_a_file_that_broke_off_is_told(tmp_path, kept):
    path = write_safetensors(tmp_path / "m.safetensors", [UNET_IN, VAE, TEXT["sd1"]])
    contents = path.read_bytes()
    path.write_bytes(contents[: int(len(contents) * kept)])
    with pytest.raises(ModelError, match="cut short"):
        detect(path)


def test_a_ckpt_is_looked_into_whether_zip_or_old_format(tmp_path):
    import torch

    names = {UNET_IN: torch.zeros(8, 4, 1, 1), VAE: torch.zeros(1), TEXT["sd2"]: torch.zeros(1)}
    for modern in (True, False):
        path = tmp_path / f"{modern}.ckpt"
        contents = {"state_dict": names, "epoch": 3}
        torch.save(contents, path, _use_new_zipfile_serialization=modern)
        assert detect(path) == ModelFile(path, False, "sd2", None, False)


@pytest.mark.parametrize("contents", [b"", b"PK\x03\x04" + bytes(50), b"nothing"])
def test_a_broken_ckpt_is_refused(tmp_path, contents):
    path = tmp_path / "broken.ckpt"
    path.write_bytes(contents)
    with pytest.raises(ModelError, match=r"broken\.ckpt"):
        detect(path)


def test_a_picture_is_no_model(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ModelError, match="not a file of weights"):
        detect(tmp_path / "a.png")
    with pytest.raises(ModelError, match="There is no"):
        detect(tmp_path / "b.png")


# ------------------------------------------------------------------------------------------ folders


@pytest.mark.parametrize(
    ("unet", "family"),
    [
        ({}, "sd1"),
        ({"cross_attention_dim": 96}, "sd1"),
        ({"cross_attention_dim": 1024}, "sd2"),
        ({"use_linear_projection": True, "cross_attention_dim": 48}, "sd2"),
        ({"use_linear_projection": True, "addition_embed_type": "text_time"}, "sdxl"),
    ],
)
def test_a_folder_tells_its_family_by_layout(tmp_path, unet, family):
    parts = ["unet", "vae", "text_encoder"] + ["text_encoder_2"] * (family == "sdxl")
    folder = write_folder(tmp_path / "model", unet=unet, parts=parts)
    assert detect(folder) == ModelFile(folder, True, family, None, False)


@pytest.mark.parametrize(
    ("scheduler", "predicts", "zero_snr"),
    [
        ({}, None, False),
        ({"prediction_type": "epsilon"}, "epsilon", False),
        ({"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}, "v_prediction", True),
    ],
)
def test_a_folders_scheduler_tells_what_is_predicted(tmp_path, scheduler, predicts, zero_snr):
    file = detect(write_folder(tmp_path / "model", scheduler=scheduler))
    assert (file.predicts, file.zero_terminal_snr) == (predicts, zero_snr)


def test_a_folder_that_predicts_something_else_is_refused(tmp_path):
    with pytest.raises(ModelError, match="predicts 'sample'"):
        detect(write_folder(tmp_path / "model", scheduler={"prediction_type": "sample"}))


def test_missing_parts_are_told_all_at_once(tmp_path):
    folder = write_folder(tmp_path / "model", parts=("unet", "vae"))
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ModelError) as caught:
        detect(folder)
    for lost in ("weights in vae/", "text_encoder/config.json", "weights in text_encoder/"):
        assert lost in caught.value.found
    assert "unet" not in caught.value.found.removeprefix(str(folder))


@pytest.mark.parametrize(
    ("files", "found", "do"),
    [
        ({"adapter_config.json": "{}"}, "is a LoRA", "network_weights"),
        ({"pytorch_lora_weights.safetensors": ""}, "is a LoRA", "network_weights"),
        ({"model_index.json": '{"_class_name": "FluxPipeline"}'}, "FluxPipeline", "another"),
        (
            {"model_index.json": '{"_class_name": "StableDiffusion3Pipeline"}'},
            "3Pipeline",
            "another",
        ),
        (
            {"model_index.json": '{"_class_name": "StableDiffusionPipeline"}'},
            "lacks unet/",
            "again",
        ),
        ({"model_index.json": "{"}, "is no JSON", "again"),
        ({"some.safetensors": ""}, "is not a diffusers model", "some.safetensors"),
        ({}, "is not a diffusers model", "another folder"),
    ],
)
def test_another_sort_of_folder_is_named_and_refused(tmp_path, files, found, do):
    for name, contents in files.items():
        (tmp_path / name).write_text(contents)
    with pytest.raises(ModelError) as caught:
        detect(tmp_path)
    assert found in caught.value.found
    assert do in caught.value.do


def test_a_refiner_folder_is_refused(tmp_path):
    parts = ("unet", "vae", "text_encoder_2")
    unet = {"addition_embed_type": "text_time"}
    with pytest.raises(ModelError, match="SDXL refiner"):
        detect(write_folder(tmp_path / "model", unet=unet, parts=parts))


# ---------------------------------------------------------------------------------- weights, chosen


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (
            ["model.safetensors", "model.fp16.safetensors", "pytorch_model.bin"],
            ("model.safetensors", None),
        ),
        (["model.fp16.safetensors", "pytorch_model.bin"], ("model.fp16.safetensors", "fp16")),
        (["pytorch_model.bin", "pytorch_model.fp16.bin"], ("pytorch_model.bin", None)),
        (["diffusion_pytorch_model.fp16.bin"], ("diffusion_pytorch_model.fp16.bin", "fp16")),
        (["diffusion_pytorch_model.non_ema.safetensors", "openvino_model.bin"], None),
        (["config.json"], None),
    ],
)
def test_one_set_of_weights_is_chosen(names, chosen):
    weights = choose_weights(names)
    assert (weights and (weights.names[0], weights.variant)) == chosen
    assert weights is None or len(weights.names) == 1


def test_shards_come_with_their_index_or_not_at_all():
    stem = "diffusion_pytorch_model"
    shards = [f"{stem}-0000{n}-of-00002.safetensors" for n in (1, 2)]
    index = f"{stem}.safetensors.index.json"
    assert set(choose_weights([*shards, index]).names) == {*shards, index}
    assert choose_weights(shards) is None
    assert choose_weights([shards[0], index]) is None


def test_of_a_repository_only_the_model_is_wanted():
    files = [
        "model_index.json",
        "README.md",
        "v1-5-pruned.safetensors",
        "safety_checker/model.safetensors",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "text_encoder/pytorch_model.bin",
        "tokenizer/merges.txt",
        "unet/config.json",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ]
    unwanted = ("README", "v1-5", "safety", ".bin", "fp16", "non_ema")
    assert set(wanted_files(files)) == {f for f in files if not any(word in f for word in unwanted)}


# ------------------------------------------------------------------------------------------- places


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty Hub cache, offline."""
    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return cache


def cached_snapshot(cache: Path, repo: str) -> Path:
    """Where a repository's files lie in the cache; the reference to it is written too."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    storage = cache / f"models--{repo.replace('/', '--')}"
    (storage / "refs").mkdir(parents=True)
    (storage / "refs" / "main").write_text(commit)
    (storage / "blobs").mkdir()
    return storage / "snapshots" / commit


def test_a_path_is_taken_as_it_is(tmp_path, monkeypatch):
    path = write_safetensors(tmp_path / "my model.safetensors", [])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (str(path), "my model.safetensors", f' "{path}" ', "~/my model.safetensors"):
        assert locate(name) == path


def test_a_cached_hub_id_needs_no_network(hub):
    folder = write_folder(cached_snapshot(hub, "owner/name"))
    assert locate("owner/name") == folder
    assert locate("https://huggingface.co/owner/name/") == folder
    assert detect(folder).family == "sd1"


def test_a_half_fetched_hub_id_is_told_by_detect(hub):
    folder = write_folder(cached_snapshot(hub, "owner/name"), parts=("unet", "text_encoder"))
    assert locate("owner/name") == folder
    with pytest.raises(ModelError, match="incomplete; it lacks vae"):
        detect(folder)


@pytest.mark.parametrize(
    "name",
    [
        "owner/name/model.safetensors",
        "owner/name/blob/main/model.safetensors",
        "https://huggingface.co/owner/name/resolve/main/model.safetensors?download=true",
    ],
)
def test_one_file_of_a_repository_can_be_named(hub, name):
    folder = cached_snapshot(hub, "owner/name")
    folder.mkdir(parents=True)
    path = write_safetensors(folder / "model.safetensors", [UNET_IN, VAE, TEXT["sd1"]])
    assert locate(name) == path


@pytest.mark.parametrize("name", ["owner/name", "owner/name/model.safetensors"])
def test_a_missing_hub_id_says_what_it_is_not_and_that_the_hub_is_off(hub, name):
    with pytest.raises(ModelError) as caught:
        locate(name)
    text = str(caught.value)
    for part in (
        name,
        "no such file or folder on this machine",
        "not in the Hub's cache",
        "HF_HUB_OFFLINE",
    ):
        assert part in text


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "models/typo.safetensors",
        "./typo",
        "../up/typo",
        "/no/such/folder",
        r"C:\models\sd.safetensors",
        "two words/and more",
        "name",
    ],
)
def test_what_is_neither_path_nor_id_says_both(hub, name):
    with pytest.raises(ModelError) as caught:
        locate(name)
    assert name in caught.value.found
    assert "no such file or folder" in caught.value.found
    assert "Hub id" in str(caught.value)


def test_a_mistyped_path_says_how_far_it_is_right(hub, tmp_path):
    with pytest.raises(ModelError) as caught:
        locate(str(tmp_path / "modles" / "sd.safetensors"))
    assert f"{tmp_path} exists, modles" in caught.value.do


@pytest.mark.parametrize("name", ["", "  "])
def test_nothing_is_asked_for(name):
    with pytest.raises(ModelError, match="pretrained_model_name_or_path is empty"):
        locate(name)


def test_a_vae_repository_holds_it_at_its_root(hub):
    folder = cached_snapshot(hub, "owner/vae")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert locate_vae("owner/vae") == folder
    with pytest.raises(ModelError, match="vae = owner/other"):
        locate_vae("owner/other")


class FakeHub:
    """A reachable Hub with one repository."""

    def __init__(self, root: Path, files: list[str]) -> None:
        self.root, self.files, self.fetched = root, files, []

    def snapshot_download(self, repo, *, token, dry_run=False, allow_patterns=None):
        if dry_run:
            facts = {"file_size": 1, "will_download": True}
            return [SimpleNamespace(filename=file, **facts) for file in self.files]
        self.fetched += allow_patterns
        return str(self.root)


def test_of_a_reachable_repository_only_the_model_is_fetched(monkeypatch, tmp_path):
    files = [
        "model_index.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "x.bin",
    ]
    fake = FakeHub(tmp_path, files)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake.snapshot_download)
    assert locate("owner/name") == tmp_path
    assert fake.fetched == files[:3]


def test_a_repository_of_single_files_asks_which(monkeypatch, tmp_path):
    fake = FakeHub(tmp_path, ["README.md", "a.safetensors", "b.safetensors"])
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake.snapshot_download)
    with pytest.raises(ModelError) as caught:
        locate("owner/name")
    assert "a.safetensors, b.safetensors" in caught.value.possible
    assert "owner/name/a.safetensors" in caught.value.do


@pytest.mark.parametrize(
    ("kind", "found", "do"),
    [
        (errors.GatedRepoError, "asks for permission", "https://huggingface.co/owner/name"),
        (errors.RepositoryNotFoundError, "no such repository on the Hub", "spelling"),
        (ConnectionError, "could not be reached", "connection"),
    ],
)
def test_the_hubs_refusals_are_told_apart(monkeypatch, hub, kind, found, do):
    def refuse(repo, **options):
        raise errors.DryRunError("no") from kind.__new__(kind)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(ModelError) as caught:
        locate("owner/name")
    assert found in caught.value.found
    assert do in caught.value.do


# ------------------------------------------------------------------------------------------- claims


def claims(family, predicts, *, v2=None, v=None, sdxl=None) -> tuple[str, ...]:
    file = ModelFile(Path("m.safetensors"), False, family, predicts, False)
    return check_claims(file, v2=v2, v_parameterization=v, sdxl=sdxl)


@pytest.mark.parametrize(
    ("family", "predicts", "said"),
    [
        ("sd1", None, {}),
        ("sd1", None, {"v2": False, "sdxl": False, "v": False}),
        ("sd2", "epsilon", {"v2": True, "v": False}),
        ("sd2", "v_prediction", {"v2": True, "v": True}),
        ("sd2", None, {"v": True}),
        ("sd2", None, {"v": False}),
        ("sdxl", "v_prediction", {"sdxl": True}),
        ("sdxl", "epsilon", {}),
    ],
)
def test_true_claims_pass_in_silence(family, predicts, said):
    assert claims(family, predicts, **said) == ()


@pytest.mark.parametrize(
    ("family", "predicts", "said", "named"),
    [
        ("sd1", None, {"v2": True}, ["v2 is on"]),
        ("sd1", None, {"v2": True, "sdxl": True}, ["v2 is on", "sdxl is on"]),
        ("sd2", None, {"v2": False}, ["v2 is off"]),
        ("sdxl", None, {"sdxl": False}, ["sdxl is off"]),
        ("sd2", "epsilon", {"v": True}, ["v_parameterization is on"]),
        ("sdxl", "v_prediction", {"v": False}, ["v_parameterization is off"]),
    ],
)
def test_false_claims_are_refused_all_at_once(family, predicts, said, named):
    with pytest.raises(ModelError) as caught:
        claims(family, predicts, **said)
    for part in named:
        assert part in caught.value.found


@pytest.mark.parametrize(
    ("family", "predicts", "v", "notice"),
    [
        ("sd2", None, None, "epsilon is assumed"),
        ("sd1", None, True, "does not say that it predicts v"),
        ("sdxl", "epsilon", True, "says that it predicts epsilon"),
    ],
)
def test_doubtful_claims_are_noticed(family, predicts, v, notice):
    (text,) = claims(family, predicts, v=v)
    assert notice in text


@pytest.mark.parametrize(
    ("predicts", "v", "decided"),
    [
        (None, None, "epsilon"),
        ("v_prediction", None, "v_prediction"),
        (None, True, "v_prediction"),
        ("epsilon", True, "v_prediction"),
        (None, False, "epsilon"),
    ],
)
def test_what_is_predicted_is_decided_by_claim_then_file(predicts, v, decided):
    file = ModelFile(Path("m"), False, "sd1", predicts, False)
    assert decide_prediction(file, v_parameterization=v) == decided


def test_the_door_opens_without_torch():
    code = (
        "import sys, kit.basemodel; sys.exit(bool({'torch', 'huggingface_hub'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
