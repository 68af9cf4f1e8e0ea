"""What is SDXL's own, from the settings to the U-Net: sizes and cuts, two encoders, its VAE."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from kit import planning
from kit.errors import SettingsError
from kit.families.base_model import find_model, load_model
from kit.lorafile.tensors import write_lora
from tests.support.tiny import build_vae, write_tiny
from tests.support.toys import leave_after, lora, losses, run, same, toy_settings

FROZEN = {"text_encoder_lr": 0}
MEMORY = {**FROZEN, "cache_text_encoder_outputs": True}
DISK = {**FROZEN, "cache_text_encoder_outputs_to_disk": True}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("model"), "sdxl", thin=True)


@pytest.fixture
def ready_for(model, images, prepared, tmp_path):
    def made(folder=images, **changes):
        return prepared(toy_settings(model, folder, tmp_path / "out", **changes))

    return made


# -------------------------------------------------------------------------- sizes and cuts


def sizes_given(ready, number):
    """The six numbers that the U-Net itself is given for a batch of one."""
    seen = []
    hook = ready.family.unet.register_forward_pre_hook(
        lambda _, args, options: seen.append(options["added_cond_kwargs"]["time_ids"]),
        with_kwargs=True,
    )
    ready.training_step.loss(ready.batch_builder.batch(number)).mean()
    hook.remove()
    assert seen[0].dtype == torch.float32
    return tuple(seen[0][0].tolist())


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("random_crop", [True, False])
def test_the_unet_is_told_size_cut_and_target_of_each_use(
    ready_for, tmp_path, random_crop, precision
):
    """A picture of 1023 x 321 whose colours tell the column, in a bucket of 128 x 64."""
    wide = np.zeros((321, 1023, 3), np.uint8)
    wide[...] = np.linspace(0, 255, 1023).astype(np.uint8)[None, :, None]
    folder = tmp_path / "wide" / "30_thing"
    folder.mkdir(parents=True)
    Image.fromarray(wide).save(folder / "one.png")
    asked = {"random_crop": random_crop, "flip_aug": True, "cache_latents": False}
    ready = ready_for(tmp_path / "wide", **asked, mixed_precision=precision, enable_bucket=False)
    [place] = ready.plan.fits
    assert (place.resized, place.bucket) == ((204, 64), (128, 64))
    given = [sizes_given(ready, number) for number in range(30)]
    assert {numbers[:2] for numbers in given} == {(321, 1023)}  # height first, whole in bf16 too
    assert {numbers[4:] for numbers in given} == {(64, 128)}
    assert {numbers[2] for numbers in given} == {0}  # nothing is cut above
    lefts = {numbers[3] for numbers in given}
    assert lefts == {38} if not random_crop else len(lefts) > 15 and max(lefts) <= 204 - 128


# ------------------------------------------------------------------ cached text outputs


def words_of(ready):
    batches = [ready.batch_builder.batch(number) for number in range(4)]
    with torch.no_grad():
        encode = ready.training_step.text.encode
        return [b.text_embeds or encode(b.tokens, b.token_weights) for b in batches]


def close(one, other):
    return all(
        torch.allclose(a.hidden_BND, b.hidden_BND, atol=1e-5)
        and torch.allclose(a.pooled_BP, b.pooled_BP, atol=1e-5)
        for a, b in zip(one, other, strict=True)
    )


@pytest.fixture
def own_images(images, tmp_path):
    return shutil.copytree(images, tmp_path / "images")


def test_cached_words_are_the_live_ones(ready_for, own_images):
    live = words_of(ready_for(own_images, **FROZEN, max_token_length=150))
    for changes in (MEMORY, DISK, DISK):  # the third reads what the second wrote
        assert close(words_of(ready_for(own_images, **changes, max_token_length=150)), live)
    assert len(list((own_images / ".kit_cache" / "captions").iterdir())) == 3


@pytest.mark.parametrize("changes", [MEMORY, DISK], ids=["memory", "disk"])
def test_a_run_on_cached_words_goes_on_exactly(model, own_images, tmp_path, changes):
    def asked(out):
        given = {"max_train_steps": 3, "sample_prompts": "a zib ball --s 1", **changes}
        return toy_settings(model, own_images, tmp_path / out, **given, sample_every_n_steps=2)

    straight = run(asked("a"))
    first = leave_after(1, asked("b"))
    assert losses(first) + losses(run(asked("b"))) == losses(straight)
    assert same(lora(tmp_path / "a"), lora(tmp_path / "b"))
    assert not [name for name in lora(tmp_path / "a") if "_te" in name]


@pytest.mark.parametrize("rate", [1e-4, None], ids=["a rate", "inherited"])
def test_an_encoder_that_learns_cannot_be_cached(model, images, tmp_path, rate):
    asked = toy_settings(
        model, images, tmp_path, cache_text_encoder_outputs=True, text_encoder_lr=rate
    )
    with pytest.raises(SettingsError, match="text_encoder_lr = 0"):
        planning.plan(asked)


@pytest.fixture
def start(tmp_path):
    """A LoRA of the first text encoder alone, strong enough to be seen."""
    name = "lora_te1_text_model_encoder_layers_0_mlp_fc1"
    draw = torch.Generator().manual_seed(0)
    tensors = {
        f"{name}.alpha": torch.tensor(2.0),
        f"{name}.lora_down.weight": torch.randn(2, 32, generator=draw),
        f"{name}.lora_up.weight": torch.randn(64, 2, generator=draw),
    }
    write_lora(tmp_path / "start.safetensors", tensors, {}, save_as="safetensors")
    return {"network_weights": str(tmp_path / "start.safetensors"), "network_dropout": 0.5}


def test_what_network_weights_adds_to_a_frozen_encoder_is_cached_with_it(
    ready_for, own_images, start
):
    plain = words_of(ready_for(own_images, **DISK))
    ready = ready_for(own_images, **FROZEN, **start)
    with ready.network.eval_mode():  # a cache holds no dropouts
        live = words_of(ready)
    assert not close(plain, live)
    for changes in (MEMORY, DISK):  # the disk holds words without it, too
        assert close(words_of(ready_for(own_images, **changes, **start)), live)
    assert close(words_of(ready_for(own_images, **DISK)), plain)


# ------------------------------------------------------------------------------- its VAE


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, torch.float32),  # its own overflows
        ({"vae": "VAE"}, torch.float16),  # another one is trusted
        ({"vae": "VAE", "no_half_vae": True}, torch.float32),
        ({"mixed_precision": "bf16"}, torch.bfloat16),  # has the range of 32 bits
        ({"mixed_precision": "bf16", "no_half_vae": True}, torch.float32),
    ],
    ids=str,
)
def test_the_vae_is_whole_where_half_precision_overflows(
    model, images, tmp_path, changes, expected
):
    build_vae(0.13025).save_pretrained(tmp_path / "vae")
    changes = {
        "mixed_precision": "fp16",
        **{
            name: str(tmp_path / "vae") if value == "VAE" else value
            for name, value in changes.items()
        },
    }
    settings = toy_settings(model, images, tmp_path, **changes)
    file, _ = find_model(settings)
    family = load_model(settings, file, torch.device("cpu"))
    assert family.vae.dtype == expected
    assert family.unet.dtype != torch.float32
