"""Rates of single parts of the LoRA, and when they stop."""

from __future__ import annotations

from kit.settings.setting import Section, setting

_PLUS = "https://arxiv.org/abs/2402.12354"


class Rates(Section, box="Parameters / Basic"):
    """Rates of single parts of the LoRA, and when they stop."""

    learning_rate_te2: float | None = setting(
        None,
        "Text Encoder 2 learning rate",
        "SDXL's second text encoder, where it is to learn at another rate than the first. 0: it "
        "does not learn. Blank: the same.",
        between=(0, 100),
        gui=None,
        families=("sdxl",),
    )
    stop_text_encoder_training: int = setting(
        0,
        "Stop text encoder training",
        "After this share of the steps the text encoder's part stays as it is, while the U-Net "
        "goes on; it often learns too much. 0: it learns to the end.",
        between=(0, 100),
        unit="%",
        search="stop te (% of total steps)",
    )
    lr_warmup_only_constant: bool = setting(
        False,
        "Warm up only with constant_with_warmup",
        "Many guides say that LR warmup counts for constant_with_warmup alone. On: so it does. "
        "Off: the others warm up, too; LR warmup names its exceptions.",
        gui=None,
    )
    loraplus_lr_ratio: float | None = setting(
        None,
        "LoRA+ learning rate ratio",
        "LoRA+: the up part of each adapter learns this many times faster than the down part; 16 "
        "is a usual start. Not with optimizers that want one rate for all. Blank or 0: off.",
        between=(0, 1000),
        source=_PLUS,
    )
    loraplus_unet_lr_ratio: float | None = setting(
        None,
        "LoRA+ Unet learning rate ratio",
        "The same for the U-Net alone; it counts more than the ratio for all.",
        between=(0, 1000),
        source=_PLUS,
    )
    loraplus_text_encoder_lr_ratio: float | None = setting(
        None,
        "LoRA+ Text Encoder learning rate ratio",
        "The same for the text encoders alone; it counts more than the ratio for all.",
        between=(0, 1000),
        source=_PLUS,
    )
