"""The base model that the LoRA is trained on."""

from __future__ import annotations

from pydantic import field_validator

from kit.settings.links import tidied
from kit.settings.setting import Section, setting


class Model(Section, box="Source Model"):
    """Which base model is trained on, and what it is."""

    pretrained_model_name_or_path: str = setting(
        "",
        "Pretrained model name or path",
        "The base model: a .safetensors or .ckpt file, a diffusers folder, a Hugging Face id such "
        "as owner/name, or a link to a .safetensors, such as a page of Civitai. A LoRA works best "
        "with the base it was trained on and its relatives.",
        kind="path",
        search="base model checkpoint quick pick",
    )
    v2: bool | None = setting(
        None,
        "v2",
        "The model is a Stable Diffusion 2.x. Blank: read from the file. A claim that the file "
        "contradicts is refused.",
        families=("sd2",),
    )
    v_parameterization: bool | None = setting(
        None,
        "v_parameterization",
        "The model predicts v instead of noise (SD 2.x 768-v, some SDXL). Blank: read from the "
        "file, where it says so; a single SD 2.x file does not, and epsilon is assumed then.",
        source="https://arxiv.org/abs/2202.00512",
        search="v_param v prediction",
    )
    sdxl: bool | None = setting(
        None,
        "SDXL Model",
        "The model is a Stable Diffusion XL. Blank: read from the file.",
        families=("sdxl",),
    )
    vae: str = setting(
        "",
        "VAE",
        "Another VAE instead of the model's own: a file, a diffusers folder, a Hugging Face id "
        "or a link. Blank: the model's own.",
        kind="path",
        search="optional path to checkpoint of vae for training",
    )
    train_inpainting: bool = setting(
        False,
        "Train inpainting model",
        "For a base that was made to paint into holes (its U-Net reads 9 channels), and only for "
        "such a base. Each use of an image gets a random hole: a rectangle, an ellipse or, in a "
        "quarter of the uses, all of it. Not together with Cache latents; captions can be cached. "
        "Sample pictures are painted with all of the picture as the hole.",
        box="Parameters / Basic",
        source="https://github.com/kohya-ss/sd-scripts/pull/2318",
    )

    @field_validator("pretrained_model_name_or_path", "vae", mode="after")
    @classmethod
    def _tidied(cls, value: str) -> str:
        """Quotes and blanks are forgiven; a token in a link is a secret and goes no further."""
        return tidied(value)
