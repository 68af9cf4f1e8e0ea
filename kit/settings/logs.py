"""Where a run's curves go, beside its own folder."""

from __future__ import annotations

from kit import catalog
from kit.settings.setting import Section, setting


class Logs(Section, box="Parameters / Advanced"):
    """Where a run's curves go, beside its own folder."""

    logging_dir: str = setting(
        "",
        "Logging folder",
        "Curves for TensorBoard are written below it, each run into a folder named by the time of "
        "its start; a run that goes on uses the same again. Blank: none. Every run keeps "
        "events.jsonl and loss.png in its own folder in any case.",
        kind="path",
        box="Folders",
        shapes_run=False,
        search="logging directory (optional) to enable logging and output tensorboard log",
    )
    log_with: str = setting(
        "",
        "Logging",
        "Who gets the curves. Blank: TensorBoard where Logging folder is set, otherwise nobody. "
        "wandb is Weights & Biases: its key comes from the environment variable WANDB_API_KEY, "
        "from `wandb login` or from a secret of the notebook, and without one the run is logged "
        "offline.",
        choices=("", *catalog.LOGGERS, catalog.ALL_LOGGERS),
        shapes_run=False,
    )
    log_tracker_name: str = setting(
        "",
        "Log tracker name",
        "The project at Weights & Biases, and TensorBoard's folder within the run's. Blank: "
        "network_train.",
        shapes_run=False,
    )
    log_tracker_config: str = setting(
        "",
        "Log tracker config",
        "A TOML or JSON file with more options for the loggers, in tables [wandb] (entity, group, "
        "job_type, mode, name, notes, project, tags) and [tensorboard] (filename_suffix).",
        kind="path",
        shapes_run=False,
    )
    log_config: bool = setting(
        False,
        "Log config",
        "Send the settings along: to Weights & Biases as the run's config, to TensorBoard as a "
        "text. Of paths only the last part is told, and of secrets nothing.",
        shapes_run=False,
    )
    log_prefix: str = setting(
        "",
        "Log prefix",
        "What the name of the run's folder in Logging folder begins with, before the time.",
        gui=None,
        shapes_run=False,
    )
    wandb_run_name: str = setting(
        "",
        "WANDB run name",
        "The run's name at Weights & Biases. Blank: the output name.",
        shapes_run=False,
    )
