"""When and how LoRA files are written."""

from tests.effects.observers import file, files
from tests.effects.stage import Row

STEPS = {"max_train_steps": 5, "save_every_n_steps": 1}

ROWS = {
    "save_model_as": Row(file, "ckpt"),
    "save_precision": Row(file, "bf16"),
    "save_every_n_epochs": Row(files, 1),
    "save_every_n_steps": Row(files, 2, given={"max_train_steps": 5}),
    "save_last_n_epochs": Row(files, 1, given={"epoch": 3, "save_every_n_epochs": 1}),
    "save_last_n_steps": Row(files, 2, given=STEPS),
}
