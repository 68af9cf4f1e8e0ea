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
        resumes="freely",
    )
    save_precision: str = setting(
        "fp16",
        "Save precision",
        "fp16 and bf16 halve the file; float keeps the training's 32 bits.",
        choices=("float", "fp16", "bf16"),
        resumes="freely",
    )
    save_every_n_epochs: int | None = setting(
        1,
        "Save every N epochs",
        "A file after every N epochs; the last epoch is the final file. Blank or 0: only the final "
        "file.",
        between=(0, 100_000),
        unit="epochs",
        resumes="freely",
    )
    save_every_n_steps: int | None = setting(
        None,
        "Save every N steps",
        "A file after every N steps. Blank or 0: off.",
        between=(0, 10_000_000),
        unit="steps",
        box="Parameters / Advanced",
        resumes="freely",
    )
    save_last_n_epochs: int | None = setting(
        None,
        "Save last N epochs",
        "Keep only the newest N epoch files. Blank or 0: keep all.",
        between=(0, 100_000),
        box="Parameters / Advanced",
        resumes="freely",
    )
    save_last_n_steps: int | None = setting(
        None,
        "Save last N steps",
        "Keep only step files of the last N steps. Blank or 0: keep all.",
        between=(0, 10_000_000),
        unit="steps",
        box="Parameters / Advanced",
        resumes="freely",
    )
    save_state: bool = setting(
        False,
        "Save training state",
        "Keep a folder <name>-...-state beside every LoRA file, from which Resume goes on: "
        "weights, optimizer, schedule and step, about three times the size of the weights in 32 "
        "bits. To go on after a disconnect it is not needed: that state is always kept.",
        box="Parameters / Advanced",
        shapes_run=False,
    )
    save_state_on_train_end: bool = setting(
        False,
        "Save training state at end of training",
        "Keep a folder <name>-state beside the final file, so that more epochs can be trained "
        "later.",
        box="Parameters / Advanced",
        shapes_run=False,
    )
    save_last_n_epochs_state: int | None = setting(
        None,
        "Save last N epochs state",
        "Keep only the newest N state folders of epochs. Blank or 0: as Save last N epochs.",
        between=(0, 100_000),
        box="Parameters / Advanced",
        shapes_run=False,
    )
    save_last_n_steps_state: int | None = setting(
        None,
        "Save last N steps state",
        "Keep only state folders of the last N steps. Blank or 0: as Save last N steps.",
        between=(0, 10_000_000),
        unit="steps",
        box="Parameters / Advanced",
        shapes_run=False,
    )
    resume: str = setting(
        "",
        "Resume from saved training state",
        "A folder <name>-...-state or <name>.run. The new run goes on at its step, with its rates "
        "and, where Seed is blank, with its seed; epochs and steps count from the beginning. A "
        "run that was only broken off goes on by itself.",
        kind="path",
        box="Parameters / Advanced",
        search="path to last-state state folder",
    )
