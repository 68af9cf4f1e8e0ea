"""When and how LoRA files are written."""

from kit import planning
from kit.errors import SettingsError
from tests.effects.observers import file, files
from tests.effects.stage import Row

ONE = {"train_data_dir": "@shared/reg"}  # one image, so an epoch is a step
STEPS = {**ONE, "max_train_steps": 5, "save_every_n_steps": 1}
STATES = {**ONE, "save_state": True, "epoch": 3, "save_every_n_epochs": 1, "save_last_n_epochs": 2}


def start(stage, settings):
    """The step that the plan begins at, or what is wrong with the state that is named."""
    try:
        return planning.plan(settings).from_step
    except SettingsError as error:
        return str(error)


ROWS = {
    "save_model_as": Row(file, "ckpt"),
    "save_precision": Row(file, "bf16"),
    "save_every_n_epochs": Row(files, 1, given=ONE),
    "save_every_n_steps": Row(files, 2, given={**ONE, "max_train_steps": 5}),
    "save_last_n_epochs": Row(files, 1, given={**ONE, "epoch": 3, "save_every_n_epochs": 1}),
    "save_last_n_steps": Row(files, 2, given=STEPS),
    "save_state": Row(files, True, given={**ONE, "save_every_n_epochs": 1}),
    "save_state_on_train_end": Row(files, True, given=ONE),
    "save_last_n_epochs_state": Row(files, 1, given=STATES),
    "save_last_n_steps_state": Row(files, 1, given={**STEPS, "save_state": True}),
    "resume": Row(start, "@shared/state"),
}
