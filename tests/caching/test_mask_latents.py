"""Where alpha is the mask, the colours beneath it are seen; everywhere else it becomes white."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kit.caching.disk import DiskCache
from kit.caching.latents import OnTheFlyLatents, cache_latents
from kit.dataset.batches import ImageUse
from kit.training.caches import latent_encoder
from tests.support.parts import outcome, plan_for
from tests.training.test_batches import Eye

BENEATH, SEEN, WHITE = 200 / 127.5 - 1, 100 / 127.5 - 1, 1.0
MASKED = {"masked_loss": True}
LIVE = {"cache_latents": False}
ENLARGES = {"bucket_no_upscale": False, "min_bucket_reso": 64}


def painted(path: Path, *, side: int) -> Path:
    """Grey 100 on the right; on the left grey 200 beneath full transparency."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((side, side, 4), 100, np.uint8)
    pixels[..., 3] = 255
    pixels[:, : side // 2] = 200, 200, 200, 0
    Image.fromarray(pixels).save(path)
    return path


def sides(plan, image=0):
    """What the VAE sees at the left and at the right edge, and the mask there."""
    encoder = latent_encoder(plan, Eye())
    cut = encoder.cut(ImageUse(image, 0), epoch=0)
    pixels_3HW, mask_hw = encoder.pixels(cut), encoder.mask(cut)
    seen = [pytest.approx(pixels_3HW[:, :, x].mean().item(), abs=0.01) for x in (0, -1)]
    return seen, None if mask_hw is None else [mask_hw[:, 0].mean(), mask_hw[:, -1].mean()]


@pytest.mark.parametrize("side", [32, 128, 256])  # enlarged, as it is, shrunk
def test_colours_beneath_an_alpha_mask_are_kept(tmp_path, side):
    painted(tmp_path / "images" / "1_a" / "one.png", side=side)
    seen, mask = sides(plan_for(tmp_path / "images", alpha_mask=True, **ENLARGES))
    assert (seen, mask) == ([BENEATH, SEEN], [0, 1])
    seen, mask = sides(plan_for(tmp_path / "images", **ENLARGES))
    assert (seen, mask) == ([WHITE, SEEN], None)


def test_a_mask_of_the_folder_counts_before_alpha_which_then_is_white(tmp_path):
    painted(tmp_path / "images" / "1_a" / "one.png", side=128)
    (tmp_path / "masks").mkdir()
    Image.new("L", (128, 128), 255).save(tmp_path / "masks" / "one.png")
    folder = {"conditioning_data_dir": str(tmp_path / "masks")}
    both = plan_for(tmp_path / "images", alpha_mask=True, **MASKED, **folder)
    assert sides(both) == ([WHITE, SEEN], [1, 1])
    alone = plan_for(tmp_path / "images", alpha_mask=True, **folder)  # masked_loss off
    assert sides(alone) == ([BENEATH, SEEN], [0, 1])


def test_a_regularisation_image_is_learned_whole_and_on_white(tmp_path):
    painted(tmp_path / "images" / "1_a" / "one.png", side=128)
    painted(tmp_path / "reg" / "1_b" / "two.png", side=128)
    plan = plan_for(tmp_path / "images", alpha_mask=True, reg_data_dir=str(tmp_path / "reg"))
    assert [image.is_reg for image in plan.images] == [False, True]
    assert sides(plan, 1) == ([WHITE, SEEN], None)


class Weighted(Eye):
    """An eye with a VAE to be hashed."""

    def __init__(self):
        self.vae = torch.nn.Linear(1, 1)
        self.vae.dtype = torch.float32


def test_latents_on_disk_are_kept_apart(tmp_path):
    painted(tmp_path / "images" / "1_a" / "one.png", side=128)
    for changes, beneath in (({}, WHITE), ({"alpha_mask": True}, BENEATH), ({}, WHITE)):
        plan = plan_for(tmp_path / "images", cache_latents_to_disk=True, **changes)
        torch.manual_seed(0)
        latents, _ = outcome(
            cache_latents(
                latent_encoder(plan, Weighted()), batch_size=1, disk=DiskCache(tmp_path, "latents")
            )
        )
        live = OnTheFlyLatents(
            latent_encoder(plan_for(tmp_path / "images", **LIVE, **changes), Eye())
        )
        for kept in (latents.of(ImageUse(0, 0), epoch=0), live.of(ImageUse(0, 0), epoch=0)):
            assert kept.mean_Chw[:, :, 0].mean().item() == pytest.approx(beneath, abs=0.01)
