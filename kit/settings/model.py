"""The base model that the LoRA is trained on."""

from __future__ import annotations

from kit.settings.setting import Section, setting


class Model(Section, box="Source Model"):
    """Which base model is trained on, and what it is."""

    pretrained_model_name_or_path: str = setting(
        "",
        "Pretrained model name or path",
        "The base model: a .safetensors or .ckpt file, a diffusers folder, or a Hugging Face id "
        "such as "
        "owner/name. A LoRA works best with the base it was trained on and its relatives.",
        kind="path",
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
        "file, where "
        "it says so; a single SD 2.x file does not, and epsilon is assumed then.",
        source="https://arxiv.org/abs/2202.00512",
    )
    sdxl: bool | None = setting(
        None,
        "SDXL",
        "The model is a Stable Diffusion XL. Blank: read from the file.",
        families=("sdxl",),
    )
    vae: str = setting(
        "",
        "VAE",
        "Another VAE instead of the model's own: a file, a diffusers folder or a Hugging Face id. "
        "Blank: the model's own.",
        kind="path",
    )
