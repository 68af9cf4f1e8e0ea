"""When and how LoRA files are written."""

from __future__ import annotations

from kit.settings.setting import Section, setting


class Saving(Section, box="Parameters / Basic"):
    """When and how LoRA files are written."""

    save_model_as: str = setting(
        "safetensors",
        "Save trained model as",
        "safetensors is safe to load and carries the metadata; ckpt and pt are pickles without "
        "metadata.",
        choices=("safetensors", "ckpt", "pt"),
        box="Source Model",
    )
    save_precision: str = setting(
        "fp16",
        "Save precision",
        "fp16 and bf16 halve the file; float keeps the training's 32 bits.",
        choices=("float", "fp16", "bf16"),
    )
    save_every_n_epochs: int | None = setting(
        1,
        "Save every N epochs",
        "A file after every N epochs; the last epoch is the final file. Blank or 0: only the final "
        "file.",
        between=(0, 100_000),
        unit="epochs",
    )
    save_every_n_steps: int | None = setting(
        None,
        "Save every N steps",
        "A file after every N steps. Blank or 0: off.",
        between=(0, 10_000_000),
        unit="steps",
        box="Parameters / Advanced",
    )
    save_last_n_epochs: int | None = setting(
        None,
        "Save last N epochs",
        "Keep only the newest N epoch files. Blank or 0: keep all.",
        between=(0, 100_000),
        box="Parameters / Advanced",
    )
    save_last_n_steps: int | None = setting(
        None,
        "Save last N steps",
        "Keep only step files of the last N steps. Blank or 0: keep all.",
        between=(0, 10_000_000),
        unit="steps",
        box="Parameters / Advanced",
    )
