"""The LoRA itself."""

from tests.effects.observers import network, weights
from tests.effects.stage import Row

LOCON = {"LoRA_type": "Kohya LoCon"}
LYCORIS = {"LoRA_type": "LyCORIS/LoCon"}
LOKR = {"LoRA_type": "LyCORIS/LoKr"}
OFT = {"LoRA_type": "LyCORIS/Diag-OFT", "network_dim": 4}
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
    "rs_lora": Row(network, True),
    "LyCORIS_preset": Row(network, "attn-only", given=LYCORIS),
    "train_norm": Row(network, True, given=LYCORIS),
    "factor": Row(network, 4, given=LOKR),
    "decompose_both": Row(network, True, given={**LOKR, "network_dim": 1, "factor": 4}),
    "use_tucker": Row(network, True, given={"LoRA_type": "LyCORIS/LoHa"}),
    "use_scalar": Row(network, True, given=LYCORIS),
    "dora_wd": Row(network, True, given=LYCORIS),
    "wd_on_output": Row(network, True, given={**LYCORIS, "dora_wd": True}),
    "bypass_mode": Row(weights, True, given={**LYCORIS, "rank_dropout": 0.5}),
    "rank_dropout_scale": Row(weights, True, given={**LYCORIS, "rank_dropout": 0.5}),
    "constraint": Row(weights, 1e-6, given=OFT),
    "rescaled": Row(network, True, given=OFT),
    "train_on_input": Row(network, False, given={"LoRA_type": "LyCORIS/iA3"}),
    "unit": Row(weights, 2, given={"LoRA_type": "Kohya DyLoRA"}),
}
