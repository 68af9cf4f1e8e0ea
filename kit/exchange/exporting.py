"""Settings for other programs, with a notice for each that they cannot hold.

What is lost is not listed by hand: the result is read back, and what comes back otherwise is told.
"""

from __future__ import annotations

from collections.abc import Iterator

import tomlkit

from kit.errors import SettingsError
from kit.exchange import gui_json, incompatibilities, sd_scripts
from kit.exchange.additional import NAME, with_additional
from kit.exchange.known import trainer_args
from kit.exchange.report import shown
from kit.exchange.sd_scripts_rules import SCRIPT
from kit.settings import Machine, Settings, declarations
from kit.settings.effective import gpu_ids, launch_flags, trains_together, unread_by

OF_THE_LAUNCH = (
    "num_processes", "num_machines", "multi_gpu", "gpu_ids", "main_process_port",
    "extra_accelerate_launch_args",
)  # fmt: skip
SCRIPTS = {True: "sdxl_train_network.py", False: "train_network.py"}


def export_gui(settings: Settings) -> tuple[str, list[str]]:
    """The GUI's JSON, and what it cannot hold.

    What has no field there, but is an argument of sd-scripts, goes to its Additional parameters.

    Raises: SettingsError where additional_parameters are not understood.
    """
    counting = _counting(settings)
    written = gui_json.to_gui(settings)
    written[NAME] = " ".join([settings.extra.additional_parameters, *_arguments(settings)]).strip()
    back = _counting(gui_json.from_gui(written)[0])
    known = {d.name for d in declarations().values() if d.gui_key in written}
    notices = [*_differences(counting, back, known, "the GUI"), *incompatibilities.in_gui(written)]
    notices += incompatibilities.of_dora_in_gui(counting.network)
    notices += incompatibilities.of_processes_in_gui(counting.machine)
    if counting.model.sdxl is None:
        notices.append(
            "sdxl is blank: the GUI does not read it from the model's file; tick SDXL there where "
            "it is one"
        )
    return gui_json.as_json(written), notices


def export_sd_scripts(settings: Settings) -> tuple[str, list[str]]:
    """sd-scripts' TOML, and what it cannot hold.

    Raises: SettingsError where additional_parameters are not understood.
    """
    counting = _counting(settings)
    written = sd_scripts.to_sd_scripts(counting)
    script = SCRIPTS[bool(counting.model.sdxl)]
    back, _, _ = sd_scripts.from_sd_scripts(
        {SCRIPT: script, **sd_scripts.entries_of(written)}, assumes_defaults=True
    )
    document = tomlkit.document()
    words = [*_launch_flags(counting.machine), script]
    document.add(tomlkit.comment(f"accelerate launch {' '.join(words)} --config_file THIS_FILE"))
    for name, value in written.items():
        document.add(name, value)
    known = {name for name in declarations() if name in trainer_args()}
    lost = _differences(counting, back, known, "sd-scripts")
    return tomlkit.dumps(document), [
        *lost,
        *incompatibilities.in_sd_scripts(counting.captions, written),
    ]


def _launch_flags(machine: Machine) -> list[str]:
    """What accelerate is told about processes; the TOML is the trainer's, and knows none."""
    if not trains_together(machine):
        return []
    numbers = gpu_ids(machine.gpu_ids)
    processes = machine.num_processes if machine.num_processes > 1 else len(numbers)
    named = ["--gpu_ids", ",".join(map(str, numbers))] if numbers else []
    return [*launch_flags(machine, processes), *named]


def _counting(settings: Settings) -> Settings:
    """With the additional parameters in their places."""
    counting, problems, _ = with_additional(settings)
    if problems:
        raise SettingsError(problems)
    return counting


def _arguments(settings: Settings) -> Iterator[str]:
    """Settings without a field in the GUI, as arguments; it tears texts at every blank."""
    changed = settings.changed()
    for name, value in sd_scripts.to_sd_scripts(settings).items():
        if name not in changed or declarations()[name].gui_key:
            continue
        if value is True:
            yield f"--{name}"
        elif not isinstance(value, list) and str(value) and len(str(value).split()) == 1:
            yield f"--{name}={value}"


def _differences(settings: Settings, back: Settings, known: set[str], program: str) -> list[str]:
    """What does not come back as it was; a switch that is off or blank is the same there."""
    found = []
    unread = unread_by(settings.network.LoRA_type)
    before, after = settings.flat(), back.flat()
    together = settings.machine.num_processes > 1
    of_the_launch = OF_THE_LAUNCH if trains_together(settings.machine) else ()
    for name, value in before.items():
        same = value == after[name] or (value is False and after[name] is None)
        same = same or (name == "multi_gpu" and together)  # a switch that the count stands for
        if same or name in unread:
            continue
        if program == "sd-scripts" and name in of_the_launch:
            told = "stands in the command above the settings, for accelerate"
            found.append(f"{name} = {shown(value)} {told}")
        elif name in known:
            found.append(f"{name} = {shown(value)} becomes {shown(after[name])} in {program}")
        else:
            found.append(f"{name} = {shown(value)}: {program} has no such setting")
    return found
