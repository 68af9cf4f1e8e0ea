"""The golden trainings of the reference: their models as folders, their inputs, their results."""

import json
import tarfile
import zlib
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from kit.families.clip import packaged_tokenizer

PARITY = Path(__file__).parents[1] / "golden" / "parity"
SD1 = json.loads((PARITY / "parity.json").read_text())["cases"]
SDXL = json.loads((PARITY / "parity_sdxl.json").read_text())


def unpack(name: str, folder: Path) -> Path:
    """One of the golden's archives, e.g. `tiny-sd15` or `tiny_images`, unpacked into a folder."""
    with tarfile.open(PARITY / f"{name}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


def arrays(name: str) -> dict[str, torch.Tensor]:
    """The tensors of an .npz file."""
    with np.load(PARITY / f"{name}.npz") as stored:
        return {key: torch.from_numpy(stored[key]) for key in stored}


def fill_by_recipe(component: str, module: torch.nn.Module) -> torch.nn.Module:
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
    return module.eval()


def sdxl_modules() -> dict[str, torch.nn.Module]:
    """The golden's tiny SDXL."""
    configs = SDXL["configs"]
    first = CLIPTextModel(CLIPTextConfig(**configs["text_encoder"]))
    second = CLIPTextModelWithProjection(CLIPTextConfig(**configs["text_encoder_2"]))
    modules = {
        "unet": fill_by_recipe("unet", UNet2DConditionModel(**configs["unet"])),
        "vae": fill_by_recipe("vae", AutoencoderKL(**configs["vae"])),
        "text_encoder": fill_by_recipe("text_encoder", first),
        "text_encoder_2": fill_by_recipe("text_encoder_2", second),
    }
    with torch.no_grad():
        quant = modules["vae"].quant_conv
        quant.weight[:4] *= 5
        quant.weight[4:] = 0
        quant.bias[4:] = -30
    return modules


def write_tiny_sdxl(folder: Path) -> Path:
    """The golden's tiny SDXL as a diffusers folder."""
    for name, module in sdxl_modules().items():
        module.save_pretrained(folder / name)
    packaged_tokenizer().inner.save_pretrained(folder / "tokenizer")
    packaged_tokenizer("!", splits_pad=True).inner.save_pretrained(folder / "tokenizer_2")
    EulerDiscreteScheduler(prediction_type="epsilon").save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "StableDiffusionXLPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder
