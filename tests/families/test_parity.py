"""The reference trainer's own intermediate results, on models of its tiny trainings."""

import json
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from kit.families import Prediction, Words
from kit.families.clip import packaged_tokenizer
from kit.families.loading import load_family
from kit.families.sdxl import StableDiffusionXL
from kit.modelfile import detect

PARITY = Path(__file__).parents[1] / "golden" / "parity"
SDXL = json.loads((PARITY / "parity_sdxl.json").read_text())
CAPTIONS = json.loads((PARITY / "parity.json").read_text())["cases"]


def batches(case: str) -> dict[str, torch.Tensor]:
    with np.load(PARITY / f"{case}_batches.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


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
    with tarfile.open(PARITY / "tiny-sd15.tar.xz") as archive:
        archive.extractall(folder, filter="data")
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
    batch = batches(case)
    if case == "tiny1":  # its captions are written down as they came, unshuffled and undropped
        for number, captions in enumerate(CAPTIONS[case]["captions"]):
            (ids_BKN,) = sd1.tokenize(captions, max_token_length=75)
            assert torch.equal(ids_BKN, batch[f"input_ids_{number}"])
    words = sd1.encode_tokens((batch["input_ids_0"],), clip_skip=1)
    if case == "tiny2":  # frozen text encoder; in tiny1 the untrained LoRA adds nothing either
        assert words.pooled_BP is None
    assert close(words.hidden_BND, batch["hidden_0"])
    assert close(sd1.predict(noisy(batch), batch["timesteps_0"], words, None), batch["pred_0"])


def by_recipe(component: str, module: torch.nn.Module) -> torch.nn.Module:
    """Fill a module by the golden's recipe, which names tensors as transformers 4 did."""
    weights = {}
    for ours, tensor in module.state_dict().items():
        flat = component == "text_encoder" and not ours.startswith("text_model.")
        name = f"text_model.{ours}" if flat else ours
        random = np.random.RandomState(zlib.crc32(f"{component}/{name}".encode()))
        drawn = random.standard_normal(tuple(tensor.shape)).astype(np.float32)
        fan = np.prod(tensor.shape[1:])
        if "embedding" in name and "linear" not in name:
            value = 0.3 * drawn
        elif tensor.ndim > 1:
            value = drawn * 0.8 / np.sqrt(fan)
        elif "norm" in name and name.endswith("weight"):
            value = 1 + 0.1 * drawn
        else:
            value = 0.05 * drawn
        weights[ours] = torch.from_numpy(np.asarray(value, np.float32))
    module.load_state_dict(weights)
    total = sum(weight.double().abs().sum().item() for weight in weights.values())
    assert total == pytest.approx(SDXL["check"][component]["abs_sum"], rel=1e-6)
    return module.eval()


@pytest.fixture(scope="module")
def sdxl() -> StableDiffusionXL:
    configs = SDXL["configs"]
    second = CLIPTextModelWithProjection(CLIPTextConfig(**configs["text_encoder_2"]))
    return StableDiffusionXL(
        Prediction.EPSILON,
        False,
        by_recipe("unet", UNet2DConditionModel(**configs["unet"])),
        AutoencoderKL(**configs["vae"]),
        by_recipe("text_encoder", CLIPTextModel(CLIPTextConfig(**configs["text_encoder"]))),
        by_recipe("text_encoder_2", second),
        packaged_tokenizer(),
        packaged_tokenizer("!"),
    )


@torch.no_grad()
def test_sdxl_reads_and_predicts_as_the_reference(sdxl):
    batch = batches("tinyxl")
    words: list[Words] = []
    for number, captions in enumerate(SDXL["captions"]):
        tokens = sdxl.tokenize(captions, max_token_length=150)
        assert torch.equal(tokens[0], batch[f"input_ids_{number}"])
        assert torch.equal(tokens[1], batch[f"input_ids2_{number}"])
        words.append(sdxl.encode_tokens(tokens, clip_skip=1))
    assert words[0].hidden_BND.shape == (2, 152, 80)
    # Only before the first step: from the second on, the reference's text encoders have learned.
    assert close(words[0].pooled_BP, batch["pooled2_0"])
    guess = sdxl.predict(noisy(batch), batch["timesteps_0"], words[0], batch["time_ids_0"])
    assert close(guess, batch["pred_0"])


def test_sdxl_layers_are_those_of_the_references_file(sdxl):
    with np.load(PARITY / "tinyxl_lora.npz") as arrays:
        trained = {name.removeprefix("init/").split(".")[0] for name in arrays if "init/" in name}
    assert {layer.name for layer in sdxl.layers()} == trained
