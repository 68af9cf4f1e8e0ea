"""Loggers: where a run's curves go, and the sink of the Hub."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Logger:
    """Where a run's curves go: its label, its settings, and how they are looked at."""

    label: str
    code: str
    needs: str
    uses: tuple[str, ...]
    options: tuple[str, ...]  # what its table in log_tracker_config may hold
    shown: str  # how to look at what it has written
    in_folder: bool = False  # it writes below logging_dir, and is the choice where that is set


_LOG_SETTINGS = ("log_tracker_name", "log_tracker_config", "log_config")

LOGGERS: dict[str, Logger] = {
    "tensorboard": Logger(
        "TensorBoard", "kit.sinks.tensorboard_log:TensorBoard", "tensorboard",
        uses=("logging_dir", "log_prefix", *_LOG_SETTINGS),
        options=("filename_suffix",),
        shown="tensorboard --logdir {logging_dir}, or in a notebook %load_ext tensorboard and "
        "%tensorboard --logdir {logging_dir}",
        in_folder=True,
    ),
    "wandb": Logger(
        "Weights & Biases", "kit.sinks.wandb_log:WeightsAndBiases", "wandb",
        uses=("wandb_run_name", *_LOG_SETTINGS),
        options=("entity", "group", "job_type", "mode", "name", "notes", "project", "tags"),
        shown="https://wandb.ai",
    ),
}  # fmt: skip
ALL_LOGGERS = "all"
HUB = "kit.sinks.hub_upload:Uploader"
