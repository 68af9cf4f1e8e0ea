"""Where a run's curves go: what TensorBoard's folder holds, and what Weights & Biases is told."""

import sys
from pathlib import Path

import pytest

from kit import planning
from kit.sinks import listening
from tests.effects.stage import Row
from tests.support.loggers import event_files, read_tensorboard, remembering_wandb, story


def logged(stage, settings):
    module, started, told = remembering_wandb()
    run = planning.plan(settings).run
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "wandb", module)
        patch.delenv("WANDB_API_KEY", raising=False)
        patch.delenv("WANDB_MODE", raising=False)
        patch.setenv("HOME", str(run.output_dir))
        with listening(run, settings=settings) as tell:
            for event in story(run):
                tell(event)
    folder = Path(settings.logs.logging_dir or run.output_dir)
    curves = [read_tensorboard(path.parent) for path in folder.rglob("*tfevents*")]
    if curves and "settings" in curves[0]:
        curves[0]["settings"] = ["the settings"]  # they tell which run it was, which differs
    config = [bool(options.pop("config")) for options in started]
    for options in started:
        del options["id"], options["dir"]
    return event_files(folder), curves, started, config, told


CONFIG = "@shared/trackers.toml"
BOTH = {"log_with": "all", "logging_dir": "@fresh/logs"}
ROWS = {
    "logging_dir": Row(logged, "@fresh/logs"),
    "log_with": Row(logged, "wandb"),
    "log_tracker_name": Row(logged, "cats", given=BOTH),
    "log_tracker_config": Row(logged, CONFIG, given=BOTH),
    "log_config": Row(logged, True, given=BOTH),
    "log_prefix": Row(logged, "cats-", given=BOTH),
    "wandb_run_name": Row(logged, "my run", given={"log_with": "wandb"}),
}
