import json
import tarfile
import time
from pathlib import Path

import pytest
from PIL import Image

import kit
from kit.lorafile.metadata import BaseFacts, training_metadata
from kit.lorafile.tensors import model_hashes, read_lora, write_lora
from kit.planning import plan
from kit.settings import Settings, declarations
from kit.settings.public import public_name, public_settings

GOLDEN = Path(__file__).parents[1] / "golden"
EXAMPLES = json.loads((GOLDEN / "metadata_example.json").read_text())
ADAMW = "torch.optim.adamw.AdamW"
# Ours says who made the file, and keeps the settings.
OWN = {"ss_sd_scripts_commit_hash", "modelspec.implementation_version", "lorakit_settings"}


def picture(path, size=(64, 64), caption=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "orange").save(path)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The pictures and captions of the reference's runs tiny2 and tiny3."""
    folder = tmp_path_factory.mktemp("tiny")
    with tarfile.open(GOLDEN / "parity" / "tiny_images.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def dogs(tmp_path):
    """One picture, seen ten times."""
    picture(tmp_path / "images" / "10_sks dog" / "0.png", caption="Sks dog, grass, , sks DOG")
    return tmp_path / "images"


def settings_for(folder, **changes):
    values = {
        "train_data_dir": str(folder),
        "output_dir": str(folder / "out"),
        "resolution": "128,128",
        "min_bucket_reso": 64,
        "max_bucket_reso": 256,
        "bucket_no_upscale": False,
        "optimizer_type": "AdamW",
        "unet_lr": None,
        "text_encoder_lr": None,
        "lr_warmup": 0,
        "mixed_precision": "no",
        "save_precision": "float",
        "seed": 1,
    }
    return Settings.of(values | changes)


def metadata_for(planned, **changes):
    facts = {
        "family": "sd1",
        "base": BaseFacts("tiny-sd15", "IsADirectory", "IsADirectory"),
        "vae": None,
        "optimizer": ADAMW,
        "started_at": 1000.5,
        "finished_at": 2000.25,
        "session_id": 7,
        "step": planned.total_steps,
        "epoch": planned.epochs,
    }
    return training_metadata(planned, **(facts | changes))


def metadata_of(folder, **changes):
    return metadata_for(plan(settings_for(folder, **changes)))


# ----------------------------------------------------------------------- files of the reference


def run_full(tmp_path, _tiny):
    captions = [
        "a photo of sks dog, sitting on a carpet",
        "sks dog, outdoors, grass, smiling",
        "close-up portrait of sks dog, looking at viewer",
        "sks dog, sunny day",
        "sks dog, a corgi puppy, (cute:1.2)",
    ]
    for i, caption in enumerate(captions):
        picture(tmp_path / "images" / "10_sks dog" / f"{i}.png", (128, 128), caption)
    return settings_for(
        tmp_path / "images",
        output_name="ref_128_b1",
        max_bucket_reso=512,
        max_train_steps=12,
        network_dim=8,
        network_alpha=1,
        learning_rate=1e-4,
        lr_scheduler="constant",
        save_precision="fp16",
        seed=42,
    ), {"base": BaseFacts("/models/sd15-random", "IsADirectory", "IsADirectory")}


def run_tiny2(tmp_path, tiny):
    return settings_for(
        tiny / "tiny",
        output_dir=str(tmp_path),
        output_name="tiny2",
        train_batch_size=2,
        max_train_steps=4,
        LoRA_type="Kohya LoCon",
        network_dim=4,
        network_alpha=4,
        conv_dim=2,
        conv_alpha=1,
        optimizer_args="weight_decay=0.1 betas=0.9,0.99",
        learning_rate=2e-3,
        lr_warmup_steps=1,
        text_encoder_lr=0,
        min_snr_gamma=5,
        noise_offset=0.1,
        gradient_accumulation_steps=2,
        max_grad_norm=0.05,
        seed=8,
    ), {"optimizer": f"{ADAMW}(weight_decay=0.1,betas=(0.9, 0.99))"}


def run_tiny3(tmp_path, tiny):
    return settings_for(
        tiny / "tiny",
        reg_data_dir=str(tiny / "tinyreg"),
        output_dir=str(tmp_path),
        output_name="tiny3",
        train_batch_size=2,
        max_train_steps=5,
        network_dim=4,
        network_alpha=2,
        learning_rate=1e-3,
        unet_lr=2e-3,
        text_encoder_lr=5e-4,
        lr_scheduler="linear",
        lr_warmup_steps=2,
        prior_loss_weight=0.5,
        scale_weight_norms=0.015,
        clip_skip=2,
        max_token_length=150,
        gradient_checkpointing=True,
        seed=9,
    ), {
        "base": BaseFacts(
            "tiny-sd15",
            "IsADirectory",
            "IsADirectory",
            predicts="v_prediction",
            zero_terminal_snr=True,
        )
    }


CASES = {
    # name: what makes it, and values that differ on purpose
    "full": (run_full, set()),
    "tiny2": (run_tiny2, {"ss_text_encoder_lr"}),  # frozen by 0.0, where the reference has a switch
    "tiny3": (run_tiny3, {"ss_loss_type"}),  # smooth_l1 there; we have no such setting yet
}


@pytest.fixture
def utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.usefixtures("utc")
def test_the_metadata_is_that_of_the_reference(case, tmp_path, tiny):
    expected = {k: v for k, v in EXAMPLES[case].items() if not k.startswith("sshs_")}
    make, differing = CASES[case]
    settings, facts = make(tmp_path, tiny)
    found = metadata_for(
        plan(settings),
        started_at=float(expected["ss_training_started_at"]),
        finished_at=float(expected["ss_training_finished_at"]),
        session_id=int(expected["ss_session_id"]),
        **facts,
    )
    assert found.keys() - {"lorakit_settings"} == expected.keys()
    skipped = OWN | differing
    assert {k: v for k, v in found.items() if k not in skipped} == {
        k: v for k, v in expected.items() if k not in skipped
    }


@pytest.mark.parametrize("case", CASES)
def test_the_file_has_the_keys_of_the_references_file(case, tmp_path, tiny):
    torch = pytest.importorskip("torch")
    settings, facts = CASES[case][0](tmp_path, tiny)
    tensors = {"lora_unet_x.lora_up.weight": torch.ones(2, 2)}
    path = tmp_path / "a.safetensors"
    write_lora(path, tensors, metadata_for(plan(settings), **facts), save_as="safetensors")
    assert read_lora(path).metadata.keys() - {"lorakit_settings"} == EXAMPLES[case].keys()


# --------------------------------------------------------------------------------- one by one


def test_every_value_is_text(dogs):
    assert all(isinstance(value, str) for value in metadata_of(dogs).values())


def test_it_says_that_we_made_it(dogs):
    found = metadata_of(dogs)
    assert found["modelspec.implementation_version"] == f"lora-kit/{kit.__version__}"
    assert found["ss_sd_scripts_commit_hash"] == f"lora-kit/{kit.__version__}"


def test_step_and_epoch_are_those_of_the_save(dogs):
    found = metadata_for(plan(settings_for(dogs, epoch=3)), step=15, epoch=2)
    assert (found["ss_steps"], found["ss_epoch"]) == ("15", "2")
    assert (found["ss_max_train_steps"], found["ss_num_epochs"]) == ("30", "3")


def test_tags_are_counted_in_lower_case_without_repeats_and_blanks(dogs):
    tags = json.loads(metadata_of(dogs)["ss_tag_frequency"])
    assert tags == {"10_sks dog": {"sks dog": 2, "grass": 1}}


def test_the_runs_own_name_and_drawn_seed_are_told(dogs):
    (dogs / "out").mkdir()
    (dogs / "out" / "cat.safetensors").write_text("an older one")
    planned = plan(settings_for(dogs, output_name="cat", seed=None))
    found = metadata_for(planned)
    assert found["ss_output_name"] == found["modelspec.title"] == "cat-2"
    assert found["ss_seed"] == str(planned.seed) != "None"
    assert json.loads(found["lorakit_settings"])["seed"] == planned.seed


@pytest.mark.parametrize(
    ("family", "predicts", "version", "architecture", "v2", "prediction"),
    [
        ("sd1", "epsilon", "sd_v1", "stable-diffusion-v1", "False", "epsilon"),
        ("sd1", "v_prediction", "sd_v1_v", "stable-diffusion-v1", "False", "v"),
        ("sd2", "epsilon", "sd_v2", "stable-diffusion-v2-512", "True", "epsilon"),
        ("sd2", "v_prediction", "sd_v2_v", "stable-diffusion-v2-768-v", "True", "v"),
        ("sdxl", "epsilon", "sdxl_base_v1-0", "stable-diffusion-xl-v1-base", "False", "epsilon"),
        ("sdxl", "v_prediction", "sdxl_base_v1-0", "stable-diffusion-xl-v1-base", "False", "v"),
    ],
)
def test_families_have_kohyas_names(dogs, family, predicts, version, architecture, v2, prediction):
    base = BaseFacts("m.safetensors", "aaaa", "bbbb", predicts=predicts)
    found = metadata_for(plan(settings_for(dogs)), family=family, base=base)
    assert found["ss_base_model_version"] == version
    assert found["modelspec.architecture"] == f"{architecture}/lora"
    assert found["ss_v2"] == v2
    assert found["modelspec.prediction_type"] == prediction


def test_the_implementation_is_that_of_the_familys_names(dogs):
    planned = plan(settings_for(dogs))
    spec = "modelspec.implementation"
    assert metadata_for(planned, family="sd1")[spec] == "diffusers"
    assert "generative-models" in metadata_for(planned, family="sdxl")[spec]


def test_hashes_of_base_model_and_vae_are_told(dogs, tmp_path):
    (tmp_path / "vae.safetensors").write_bytes(b"weights")
    legacy, whole = model_hashes(tmp_path / "vae.safetensors")
    vae = BaseFacts(str(tmp_path / "vae.safetensors"), legacy, whole)
    base = BaseFacts("owner/name", "", "")  # fetched from the Hub: no single file, no hash
    found = metadata_for(plan(settings_for(dogs)), base=base, vae=vae)
    assert found["ss_vae_name"] == "vae.safetensors"
    assert (found["ss_vae_hash"], found["ss_new_vae_hash"]) == (legacy, whole)
    assert found["ss_sd_model_name"] == "owner/name"
    assert not {"ss_sd_model_hash", "ss_new_sd_model_hash"} & found.keys()


def test_without_buckets_nothing_is_said_about_them(dogs):
    found = metadata_of(dogs, enable_bucket=False)
    assert found["ss_bucket_info"] == "null"
    assert found["ss_enable_bucket"] == found["ss_bucket_no_upscale"] == "False"
    assert found["ss_min_bucket_reso"] == found["ss_max_bucket_reso"] == "None"


def test_bucket_bounds_are_told_as_they_are_rounded(dogs):
    found = metadata_of(dogs, min_bucket_reso=100, max_bucket_reso=200)
    assert (found["ss_min_bucket_reso"], found["ss_max_bucket_reso"]) == ("64", "256")


def test_clip_skip_is_told_where_it_counts(dogs):
    planned = plan(settings_for(dogs, clip_skip=2))
    assert metadata_for(planned)["modelspec.encoder_layer"] == "2"
    ignoring = metadata_for(planned, family="sdxl")
    assert ignoring["ss_clip_skip"] == "None"
    assert "modelspec.encoder_layer" not in ignoring
    assert metadata_of(dogs, clip_skip=1)["ss_clip_skip"] == "None"


def test_what_the_person_says_about_the_file_is_kept(dogs):
    found = metadata_of(
        dogs,
        metadata_title="My dog",
        metadata_author="Anna",
        metadata_description="A good dog.",
        metadata_license="CC-BY-4.0",
        metadata_tags="dog, pet",
        training_comment="für Oma 🐕",
    )
    assert found["modelspec.title"] == "My dog"
    assert found["modelspec.author"] == "Anna"
    assert found["modelspec.description"] == "A good dog."
    assert found["modelspec.license"] == "CC-BY-4.0"
    assert found["modelspec.tags"] == "dog, pet"
    assert found["ss_training_comment"] == "für Oma 🐕"


def test_an_optimizer_with_its_own_rate_is_told_as_the_reference_does(dogs):
    own = metadata_of(dogs, optimizer_type="Adafactor", unet_lr=1e-4, text_encoder_lr=0)
    assert own["ss_lr_scheduler"] == "adafactor:0.0001"
    assert (own["ss_unet_lr"], own["ss_text_encoder_lr"]) == ("None", "0.0")
    given = metadata_of(
        dogs, optimizer_type="Adafactor", optimizer_args="relative_step=False", unet_lr=1e-4
    )
    assert (given["ss_lr_scheduler"], given["ss_unet_lr"]) == ("cosine", "0.0001")


def test_an_alpha_of_zero_is_told_as_what_it_means(dogs):
    found = metadata_of(
        dogs, LoRA_type="Kohya LoCon", network_dim=16, network_alpha=0, conv_alpha=0
    )
    assert found["ss_network_alpha"] == "16.0"
    assert json.loads(found["ss_network_args"]) == {
        "conv_dim": "16",
        "conv_alpha": "16",
        "dropout": None,
    }


def test_dropouts_are_told_where_kohya_has_them(dogs):
    found = metadata_of(dogs, network_dropout=0.1, rank_dropout=0.2, module_dropout=0.3)
    assert found["ss_network_dropout"] == "0.1"
    assert json.loads(found["ss_network_args"]) == {
        "rank_dropout": "0.2",
        "module_dropout": "0.3",
        "dropout": 0.1,
    }


def test_a_rank_taken_from_a_file_is_not_claimed_to_be_the_settings(dogs, tmp_path):
    found = metadata_of(
        dogs, dim_from_weights=True, network_weights=str(tmp_path / "old.safetensors")
    )
    assert found["ss_network_dim"] == found["ss_network_alpha"] == "Dynamic"
    assert "ss_network_args" not in found


def test_a_name_that_is_no_proper_text_does_not_end_the_run(dogs):
    base = BaseFacts("b\udce4r.safetensors", "a", "b")  # as Linux hands out undecodable names
    found = metadata_for(plan(settings_for(dogs)), base=base)
    assert found["ss_sd_model_name"] == "b?r.safetensors"


# -------------------------------------------------------------------------------------- privacy


def test_no_private_path_is_told(tmp_path):
    home = tmp_path / "home" / "anna" / "private"
    picture(home / "photos" / "10_dog" / "0.png", caption="dog")
    picture(home / "more photos" / "1_dog" / "0.png", caption="dog")
    (home / "prompts.txt").write_text("a dog")
    settings = settings_for(
        home / "photos",
        reg_data_dir=str(home / "more photos"),
        output_dir=str(home / "out"),
        pretrained_model_name_or_path=str(home / "base.safetensors"),
        vae=str(home / "vae"),
        network_weights=str(home / "old.safetensors"),
        sample_prompts=str(home / "prompts.txt"),
        sample_every_n_epochs=1,
    )
    base = BaseFacts(str(home / "base.safetensors"), "a", "b")
    found = metadata_for(plan(settings), base=base, vae=BaseFacts(str(home / "vae"), "a", "b"))
    assert not [key for key, value in found.items() if "anna" in value or "private" in value]
    assert (
        json.loads(found["lorakit_settings"]).items()
        >= {
            "train_data_dir": "photos",
            "reg_data_dir": "more photos",
            "output_dir": "out",
            "pretrained_model_name_or_path": "base.safetensors",
            "vae": "vae",
            "network_weights": "old.safetensors",
            "sample_prompts": "prompts.txt",
        }.items()
    )


@pytest.mark.parametrize(
    ("name", "public"),
    [
        ("/home/anna/models/base.safetensors", "base.safetensors"),
        ("~/models/base/", "base"),
        ("./models/base.ckpt", "base.ckpt"),
        ("../models/base.ckpt", "base.ckpt"),
        (r"C:\Users\anna\base.safetensors", "base.safetensors"),
        (r"models\base.safetensors", "base.safetensors"),
        ("C:/Users/anna/base.safetensors", "base.safetensors"),
        ('"/home/anna/base"', "base"),
        ("base.safetensors", "base.safetensors"),
        ("my models/base", "base"),
        ("owner/name", "owner/name"),
        ("owner/name/file.safetensors", "owner/name/file.safetensors"),
        ("https://huggingface.co/owner/name", "owner/name"),
        ("https://huggingface.co/owner/name/resolve/main/a.ckpt?token=s3", None),
        ("https://anna:s3@example.com/files/a.ckpt?token=s3", "a.ckpt"),
    ],
)
def test_of_a_models_place_only_what_is_public_is_told(name, public):
    assert public_name(name) == (public or "owner/name/resolve/main/a.ckpt")


def test_a_folder_that_looks_like_a_hub_id_is_still_a_folder(tmp_path, monkeypatch):
    (tmp_path / "anna" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert public_name("anna/model") == "model"


def test_the_settings_in_the_file_make_the_recipe_again(dogs):
    planned = plan(
        settings_for(dogs, sample_prompts="a dog --w 64\na cat", sample_every_n_epochs=1)
    )
    text = metadata_for(planned)["lorakit_settings"]
    assert ", " not in text.replace("--", ""), "compact"
    again = Settings.of(json.loads(text))
    paths = {d.name for d in declarations().values() if d.type == "path"}
    different = {
        name for name, value in again.flat().items() if value != planned.settings.flat()[name]
    }
    assert different <= paths
    assert again.samples.sample_prompts == "a dog --w 64\na cat"
    assert again.basic.unet_lr is None, "a blank is kept, where the default is a number"


def test_only_changed_settings_are_kept(dogs):
    kept = public_settings(Settings.of({"network_dim": 32, "seed": None}))
    assert kept == {"network_dim": 32}


def test_secrets_would_not_be_kept(monkeypatch):
    changed = {"hub_token": "s3", "wandb_api_key": "s3", "max_token_length": 150}
    monkeypatch.setattr(Settings, "changed", lambda self: changed)
    everything = dict.fromkeys(changed, declarations()["max_token_length"])
    monkeypatch.setattr("kit.settings.public.declarations", lambda: everything)
    assert public_settings(Settings()) == {"max_token_length": 150}
