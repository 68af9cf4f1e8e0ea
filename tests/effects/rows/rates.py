"""Rates of single parts, and when they stop."""

from tests.effects.observers import rates
from tests.effects.stage import Row

ROWS = {
    "learning_rate_te2": Row(rates, 5e-3, model="sdxl"),
    "stop_text_encoder_training": Row(rates, 50),
    "lr_warmup_only_constant": Row(rates, True),
    "loraplus_lr_ratio": Row(rates, 16.0),
    "loraplus_unet_lr_ratio": Row(rates, 16.0),
    "loraplus_text_encoder_lr_ratio": Row(rates, 16.0),
}
