"""Rates and ranks of single U-Net blocks."""

from tests.effects.observers import network, rates
from tests.effects.stage import Row

LOCON = {"LoRA_type": "Kohya LoCon"}
EVEN = ",".join(["2"] * 25)
DEEPER = ",".join(["2"] * 12 + ["4"] + ["2"] * 12)

ROWS = {
    "down_lr_weight": Row(rates, "linear+0.1", model="whole"),
    "mid_lr_weight": Row(rates, "0.5", model="whole"),
    "up_lr_weight": Row(rates, "0.5", model="whole"),
    "block_lr_zero_threshold": Row(
        network, 0.3, given={"down_lr_weight": "linear+0.1"}, model="whole"
    ),
    "block_dims": Row(network, DEEPER, model="whole"),
    "block_alphas": Row(network, DEEPER, model="whole"),
    "conv_block_dims": Row(network, DEEPER, given=LOCON, plain=EVEN, model="whole"),
    "conv_block_alphas": Row(network, DEEPER, given=LOCON, plain=EVEN, model="whole"),
}
