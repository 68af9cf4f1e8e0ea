"""Parts that rest in their file: what they come to is the same, and memory is taken when needed."""

import copy
import gc

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from kit import planning
from kit.basemodel import detect
from kit.errors import ModelError
from kit.events import Noticed
from kit.families import Prediction, base_model, loading
from kit.families.resting import awake, precision_of, wake
from kit.families.streaming import MATRIX_ALIGNMENT
from kit.training import caches, preparation
from kit.training.preparation import prepare
from tests.families.test_streaming import written
from tests.support.parts import outcome
from tests.support.tiny import write_tiny
from tests.support.toys import draw_images, lora, run, same, toy_settings

CPU = torch.device("cpu")
CACHED = {"cache_text_encoder_outputs": True, "text_encoder_lr": 0.0}


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A folder whose weights do not begin where a CPU wants them."""
    # Effect tests in the same process read base models once, and copy them.
    monkeypatch.setattr(base_model, "load_family", loading.load_family)
    folder = write_tiny(tmp_path / "model", "sd1", thin=True)
    for name in ("vae", "text_encoder", "unet"):
        (file,) = (folder / name).glob("*.safetensors")
        written(file, load_file(file), off=8)
    return folder


def loaded(folder, dtype=torch.float32, **options):
    return loading.load_family(
        detect(folder),
        predicts=Prediction.EPSILON,
        device=CPU,
        dtype=dtype,
        vae_dtype=dtype,
        **options,
    )


def parts(family):
    return (family.unet, family.vae, *family.text_encoders)


def rests(module):
    """Every weight looks into its file, matrices too, which begin where none computes."""
    off = [begins % MATRIX_ALIGNMENT for begins in matrices(module)]
    return "at_rest" in vars(module) and any(off)


def matrices(module):
    """Where the weights of linear layers begin."""
    return [each.weight.data_ptr() for each in module.modules() if isinstance(each, nn.Linear)]


def equal(one, other):
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_who_is_woken_is_as_if_it_had_never_rested(model, dtype):
    placed, resting = loaded(model, dtype), loaded(model, dtype, rests=True)
    for one, other in zip(parts(placed), parts(resting), strict=True):
        assert rests(other)
        assert precision_of(other) == dtype
        with awake(other):
            assert equal(one, other)
            assert not rests(other)
        assert rests(other)
        wake(other)
        wake(other)
        assert equal(one, other)
        assert all(begins % MATRIX_ALIGNMENT == 0 for begins in matrices(other))
        assert not any(weight.requires_grad for weight in other.parameters())


def test_what_cannot_rest_is_placed_at_once(model):
    assert not any(rests(part) for part in parts(loaded(model, rests=True, mapped=False)))
    assert not any(rests(part) for part in parts(loaded(model, torch.float16, rests=True)))
    assert not any(rests(part) for part in parts(loaded(model)))


def test_a_copy_of_what_rests_can_be_woken(model):
    placed, resting = loaded(model), copy.deepcopy(loaded(model, rests=True).unet)
    wake(resting)
    assert equal(placed.unet, resting)


def test_numbers_that_are_none_are_told_before_it_is_woken(model):
    (file,) = (model / "unet").glob("*.safetensors")
    tensors = load_file(file)
    tensors["conv_in.weight"][0, 0, 0, 0] = torch.nan
    save_file(tensors, file)
    with pytest.raises(ModelError, match=r"conv_in\.weight are no numbers"):
        loaded(model, rests=True)


@pytest.mark.parametrize("steps", [2, 200])  # of so many the largest batch is tried out before
def test_the_u_net_takes_memory_after_the_caches_were_made(model, tmp_path, monkeypatch, steps):
    seen = []

    def watching(name):
        real = getattr(preparation, name)

        def watched(plan, given, *args, **kwargs):
            family = getattr(given, "family", given)
            seen.append([rests(part) for part in parts(family)])
            return (yield from real(plan, given, *args, **kwargs))

        monkeypatch.setattr(preparation, name, watched)

    watching("run_latents")
    watching("run_text_embeds")
    images = draw_images(tmp_path / "i")
    settings = toy_settings(model, images, tmp_path / "out", max_train_steps=steps, **CACHED)
    ready, events = outcome(prepare(planning.plan(settings)))
    ready.close()
    tried = [event for event in events if isinstance(event, Noticed) and "tried out" in event.text]
    assert len(tried) == (steps == 200)
    # The VAE was woken by the latents, for good.
    assert seen == [[True, True, True], [True, False, True]]
    assert not rests(ready.family.unet)


@pytest.mark.parametrize(
    ("stored", "changes"),
    [
        (torch.float32, {}),
        (torch.float16, {}),
        (torch.float32, {"mixed_precision": "bf16"}),
        (torch.float32, {"LoRA_type": "LyCORIS/LoCon", "dora_wd": True}),
        (torch.float32, {"LoRA_type": "LyCORIS/LoCon", "dora_wd": True, "mixed_precision": "bf16"}),
        (torch.float32, {"text_encoder_lr": 1e-3, "cache_text_encoder_outputs": False}),
        (torch.float32, {"cache_latents": False}),
    ],
)
def test_a_run_learns_the_same_bits_from_a_model_that_rested(model, tmp_path, stored, changes):
    for name in ("vae", "text_encoder", "unet"):
        (file,) = (model / name).glob("*.safetensors")
        written(file, {n: tensor.to(stored) for n, tensor in load_file(file).items()}, off=8)
    images = draw_images(tmp_path / "i")
    for out, mapped in (("one", True), ("other", False)):
        own = {**CACHED, **changes, "disable_mmap_load_safetensors": not mapped}
        run(toy_settings(model, images, tmp_path / out, max_train_steps=3, **own))
    assert same(lora(tmp_path / "one"), lora(tmp_path / "other"))


def test_what_the_caches_leave_needs_no_look_for_garbage(model, tmp_path, monkeypatch):
    seen = []

    def looked():
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        gc.set_debug(0)
        seen.append(sum(isinstance(each, torch.Tensor) for each in gc.garbage))
        gc.garbage.clear()

    images = draw_images(tmp_path / "i")
    plan = planning.plan(toy_settings(model, images, tmp_path / "out", **CACHED))
    monkeypatch.setattr(caches, "give_back", looked)
    gc.collect()
    gc.disable()
    try:
        ready, _ = outcome(prepare(plan))
    finally:
        gc.enable()
    ready.close()
    assert seen == [0, 0]  # no tensor in a circle, after the latents and after the captions
