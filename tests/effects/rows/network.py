"""The LoRA itself."""

from tests.effects.observers import network, weights
from tests.effects.stage import Row

LOCON = {"LoRA_type": "Kohya LoCon"}
START = {"network_weights": "@shared/start.safetensors"}

ROWS = {
    "LoRA_type": Row(network, "Kohya LoCon"),
    "network_dim": Row(network, 4),
    "network_alpha": Row(network, 2),
    "conv_dim": Row(network, 3, given=LOCON),
    "conv_alpha": Row(network, 2, given=LOCON),
    "network_dropout": Row(weights, 0.5),
    "rank_dropout": Row(weights, 0.5),
    "module_dropout": Row(weights, 0.5),
    "scale_weight_norms": Row(weights, 0.001),
    "network_weights": Row(network, "@shared/start.safetensors", given={"network_dim": 3}),
    "dim_from_weights": Row(network, True, given=START),  # the file's rank is another than asked
}
