"""Held-out pictures, and when the LoRA is asked about them."""

from tests.effects.observers import plan, validated, validated_at
from tests.effects.stage import Row

HELD = {"validation_count": 1}

ROWS = {
    "validation_split": Row(plan, 0.5),
    "validation_count": Row(plan, 2),
    "validation_seed": Row(plan, 4, given=HELD),
    "validate_every_n_steps": Row(plan, 1, given=HELD),
    "validate_every_n_epochs": Row(plan, 2, given={**HELD, "epoch": 4}, plain=1),
    "validation_patience": Row(
        validated_at,
        1,
        given={**HELD, "validate_every_n_steps": 1, "epoch": 4, "unet_lr": 0.3},
    ),
    "max_validation_steps": Row(validated, 4, given=HELD),
}
