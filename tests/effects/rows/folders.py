"""Folders."""

from tests.effects.observers import batch, file, metadata, plan
from tests.effects.stage import Row

ROWS = {
    "train_data_dir": Row(plan, "@shared/reg"),
    "reg_data_dir": Row(plan, "@shared/reg"),
    "dataset_config": Row(batch, "@shared/dataset.toml"),
    "conditioning_data_dir": Row(
        batch, "@shared/masks", given={"masked_loss": True, "alpha_mask": True}
    ),
    "output_dir": Row(file, "@fresh/elsewhere"),
    "output_name": Row(file, "another"),
    "training_comment": Row(metadata, "trigger: zib ball"),
}
