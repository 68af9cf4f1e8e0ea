"""Caches on disk are read as they are used: bounded memory, the same bits, threads that end."""

import contextlib
import gc
import shutil
import threading

import pytest
import torch

from kit import planning
from kit.caching import shelf as module
from kit.caching.shelf import BATCHES_AHEAD, Shelf
from kit.dataset.batches import ImageUse
from kit.errors import DatasetError
from kit.events import Stepped
from kit.settings import Settings
from kit.settings.effective import CACHE_FOLDER
from kit.training.caches import run_latents, run_text_embeds, text_conditioner
from kit.training.loop import train
from tests.support.parts import load_tiny, outcome, paint_all, plan_for
from tests.support.tiny import write_tiny
from tests.support.toys import draw_images, lora, losses, run, same, toy_settings

MANY = 300
ON_DISK = {
    "cache_latents_to_disk": True,
    "cache_text_encoder_outputs": True,
    "cache_text_encoder_outputs_to_disk": True,
    "text_encoder_lr": 0.0,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("model"), "sd1", thin=True)


def live_bytes() -> int:
    """Bytes of all tensors that anybody holds, each storage once."""
    gc.collect()
    held = {}
    for each in gc.get_objects():
        if type(each) is torch.Tensor:
            storage = each.untyped_storage()
            held[storage.data_ptr()] = storage.nbytes()
    return sum(held.values())


def readers() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith("reading")]


def test_what_does_not_fit_is_read_at_its_use_and_the_rest_is_not():
    read = []
    shelf = Shelf(lambda key: read.append(key) or key * 10, lambda value: 1, most=2)
    for key in range(4):
        shelf.put(key, key * 10, on_disk=True)
    assert [shelf[key] for key in (0, 1, 3, 2, 3)] == [0, 10, 30, 20, 30]
    assert read == [3, 2, 3]
    assert (len(shelf), list(shelf), shelf.held) == (4, [0, 1, 2, 3], 2)


def test_what_the_disk_does_not_hold_stays_in_memory():
    shelf = Shelf(lambda key: pytest.fail("nothing to read"), lambda value: 1, most=2)
    for key in range(4):
        shelf.put(key, key, on_disk=False)
    assert [shelf[key] for key in range(4)] == [0, 1, 2, 3]
    assert shelf.batches_ahead == 0  # no threads for what is there already


def test_many_pictures_and_captions_take_the_memory_of_the_bound(tmp_path, model, monkeypatch):
    captions = {f"{number:04}": f"a zib ball, picture {number}" for number in range(MANY)}
    images = paint_all(tmp_path / "images", captions)
    family = load_tiny(model)
    plan = plan_for(images, vae_batch_size=16, **ON_DISK)
    text = text_conditioner(family, plan.settings.memory, plan.settings.captions)
    monkeypatch.setattr(module, "MOST", bound := 50_000)
    before = live_bytes()
    latents, _ = outcome(run_latents(plan, family))
    words, _ = outcome(run_text_embeds(plan, text, contextlib.nullcontext))
    of_latents = 2 * latents.of(ImageUse(0, 0), epoch=0).mean_Chw.nbytes
    of_words = words.of([captions["0000"]]).hidden_BND.nbytes
    assert MANY * min(of_latents, of_words) > 10 * bound  # they would not have fitted
    assert latents.kept.held <= bound
    assert words.kept.held <= bound
    assert live_bytes() - before <= 2 * bound + of_latents + of_words

    again, _ = outcome(run_latents(plan, family))  # nothing is encoded, all is looked at
    assert again.kept.held <= bound
    assert live_bytes() - before <= 3 * bound + of_latents + of_words
    for image in (0, 1, MANY // 2, MANY - 1):
        one, other = (each.of(ImageUse(image, 0), epoch=0) for each in (latents, again))
        assert torch.equal(one.mean_Chw, other.mean_Chw)
    latents.close()
    words.close()


@pytest.mark.parametrize("extra", [{}, {"flip_aug": True, "masked_loss": True, "alpha_mask": True}])
def test_a_run_that_reads_ahead_ends_in_the_same_bits(tmp_path, model, monkeypatch, extra):
    settings = toy_settings(model, draw_images(tmp_path / "i"), tmp_path / "whole")
    settings = settings.replace(**ON_DISK, shuffle_caption=False, **extra)
    whole = run(settings)
    monkeypatch.setattr(module, "MOST", 0)
    read = run(settings.replace(output_dir=str(tmp_path / "read")))
    assert losses(read) == losses(whole)
    assert same(lora(tmp_path / "read"), lora(tmp_path / "whole"))
    assert not readers()


def test_the_next_batches_are_read_while_one_is_trained(tmp_path, model, monkeypatch):
    monkeypatch.setattr(module, "MOST", 0)
    asked = []
    real = module.reread

    def reread(disk, key, *names):
        asked.append(threading.current_thread())
        return real(disk, key, *names)

    for user in ("kit.caching.latents.reread", "kit.caching.text.reread"):
        monkeypatch.setattr(user, reread)
    settings = toy_settings(model, draw_images(tmp_path / "i"), tmp_path / "o").replace(**ON_DISK)
    for event in train(planning.plan(settings)):
        if isinstance(event, Stepped) and event.step == 1:
            for reader in readers():
                assert reader.is_alive()
            break
    assert BATCHES_AHEAD > 1
    assert len(asked) >= 4
    assert all(reader.name.startswith("reading") for reader in asked)
    assert not readers()


def test_a_cache_that_is_taken_away_in_mid_run_is_named_and_the_run_goes_on(
    tmp_path, model, monkeypatch
):
    monkeypatch.setattr(module, "MOST", 0)
    images = draw_images(tmp_path / "i")
    settings: Settings = toy_settings(model, images, tmp_path / "a").replace(**ON_DISK)
    whole = run(settings)
    broken, told = settings.replace(output_dir=str(tmp_path / "b")), []
    with pytest.raises(DatasetError, match=r"cache file .*safetensors is gone or damaged"):
        for event in train(planning.plan(broken)):
            told.append(event)
            if isinstance(event, Stepped) and event.step == 2:
                shutil.rmtree(images / CACHE_FOLDER)
    rest = run(broken)
    assert losses(told) + losses(rest) == losses(whole)
    assert same(lora(tmp_path / "a"), lora(tmp_path / "b"))
