"""The reference trainer's own intermediate results, on models of its tiny trainings."""

import numpy as np
import pytest
import torch

from kit.basemodel import detect
from kit.families import Prediction, TextEmbeds
from kit.families.clip import packaged_tokenizer
from kit.families.loading import load_family
from kit.families.sdxl import StableDiffusionXL
from tests.support.parity import PARITY, SD1, SDXL, arrays, sdxl_modules, unpack


def noisy(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """What the U-Net saw in the first batch."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    kept_B = torch.cumprod(1 - betas, 0)[batch["timesteps_0"]].view(-1, 1, 1, 1)
    return kept_B.sqrt() * batch["latents_0"] + (1 - kept_B).sqrt() * batch["noise_0"]


def close(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return ours.shape == theirs.shape and torch.allclose(ours, theirs, atol=2e-5, rtol=1e-4)


@pytest.fixture(scope="module")
def sd1(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny-sd15")
    unpack("tiny-sd15", folder)
    return load_family(
        detect(folder / "tiny-sd15"),
        predicts=Prediction.EPSILON,
        device=torch.device("cpu"),
        dtype=torch.float32,
        vae_dtype=torch.float32,
    )


@pytest.mark.parametrize("case", ["tiny1", "tiny2"])
@torch.no_grad()
def test_sd_reads_and_predicts_as_the_reference(sd1, case):
    batch = arrays(f"{case}_batches")
    if case == "tiny1":  # its captions are written down as they came, unshuffled and undropped
        for number, captions in enumerate(SD1[case]["captions"]):
            (ids_BKN,) = sd1.tokenize(captions, max_token_length=75)
            assert torch.equal(ids_BKN, batch[f"input_ids_{number}"])
    text_embeds = sd1.encode_tokens((batch["input_ids_0"],), clip_skip=1)
    if case == "tiny2":  # frozen text encoder; in tiny1 the untrained LoRA adds nothing either
        assert text_embeds.pooled_BP is None
    assert close(text_embeds.hidden_BND, batch["hidden_0"])
    conditioning = sd1.condition(text_embeds, None)
    assert close(sd1.predict(noisy(batch), batch["timesteps_0"], conditioning), batch["pred_0"])


@pytest.fixture(scope="module")
def sdxl() -> StableDiffusionXL:
    parts = sdxl_modules()
    for name, module in parts.items():
        if name != "vae":  # its last convolution is scaled after the recipe
            total = sum(w.double().abs().sum().item() for w in module.state_dict().values())
            assert total == pytest.approx(SDXL["check"][name]["abs_sum"], rel=1e-6)
    return StableDiffusionXL(
        Prediction.EPSILON,
        False,
        parts["unet"],
        parts["vae"],
        parts["text_encoder"],
        parts["text_encoder_2"],
        packaged_tokenizer(),
        packaged_tokenizer("!"),
    )


@torch.no_grad()
def test_sdxl_reads_and_predicts_as_the_reference(sdxl):
    batch = arrays("tinyxl_batches")
    text_embeds: list[TextEmbeds] = []
    for number, captions in enumerate(SDXL["captions"]):
        tokens = sdxl.tokenize(captions, max_token_length=150)
        assert torch.equal(tokens[0], batch[f"input_ids_{number}"])
        assert torch.equal(tokens[1], batch[f"input_ids2_{number}"])
        text_embeds.append(sdxl.encode_tokens(tokens, clip_skip=1))
    assert text_embeds[0].hidden_BND.shape == (2, 152, 80)
    # Only before the first step: from the second on, the reference's text encoders have learned.
    assert close(text_embeds[0].pooled_BP, batch["pooled2_0"])
    conditioning = sdxl.condition(text_embeds[0], batch["time_ids_0"])
    prediction = sdxl.predict(noisy(batch), batch["timesteps_0"], conditioning)
    assert close(prediction, batch["pred_0"])


def test_sdxl_layers_are_those_of_the_references_file(sdxl):
    with np.load(PARITY / "tinyxl_lora.npz") as file:
        trained = {name.removeprefix("init/").split(".")[0] for name in file if "init/" in name}
    assert {layer.name for layer in sdxl.layers()} == trained
