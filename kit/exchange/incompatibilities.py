"""What other programs refuse or do otherwise, although they have the settings for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kit.exchange.known import gui_fields, trainer_args
from kit.settings import Captions, Machine, NetworkSettings
from kit.settings.effective import reads

NOT_OFFERED_BUT_TAKEN = ("save_model_as",)  # the trainer knows more endings than the GUI
CHANGE_CAPTIONS = (
    "shuffle_caption",
    "caption_dropout_rate",
    "caption_tag_dropout_rate",
    "token_warmup_step",
)


def in_gui(written: Mapping[str, Any]) -> Iterator[str]:
    """Values that are not among the GUI's choices."""
    for key, field in gui_fields().items():
        if field.choices and written[key] not in field.choices:
            yield f"{key} = {written[key]}: the GUI has no such choice"


def of_dora_in_gui(network: NetworkSettings) -> Iterator[str]:
    """Magnitudes of inputs, which the GUI's LyCORIS learns only where network_args say so."""
    if reads(network, "wd_on_output") and network.dora_wd and not network.wd_on_output:
        yield (
            "wd_on_output = false: the GUI has no field for it and trains DoRA on outputs, which "
            "A1111, Forge and ComfyUI read wrongly"
        )


def of_processes_in_gui(machine: Machine) -> Iterator[str]:
    """Its launcher wants a number, and refuses 1."""
    if machine.multi_gpu and machine.num_processes == 1:
        yield (
            "the GUI does not count the GPUs, and its launcher refuses multi_gpu with 1 process; "
            "enter their number there as Number of processes"
        )


def in_sd_scripts(captions: Captions, written: Mapping[str, Any]) -> Iterator[str]:
    """What the trainer would stop at, or do in another way."""
    for name, value in written.items():
        field = None if name in NOT_OFFERED_BUT_TAKEN else gui_fields().get(name)
        if field and field.choices and value not in field.choices:
            yield f"{name} = {value}: sd-scripts has no such choice"
    changing = [name for name in CHANGE_CAPTIONS if getattr(captions, name)]
    if "cache_text_encoder_outputs" in written and changing:
        yield (
            f"{' and '.join(changing)}: sd-scripts refuses this together with "
            "cache_text_encoder_outputs"
        )
    workers = written.get("max_data_loader_n_workers")
    if written.get("persistent_data_loader_workers") and not workers:
        yield "persistent_data_loader_workers: sd-scripts wants max_data_loader_n_workers, too"
    if written["lr_scheduler"] == "polynomial" and written.get("lr_scheduler_num_cycles", 1) > 1:
        yield "lr_scheduler_num_cycles: polynomial does not start again in sd-scripts"


def is_for_sdxl_only(name: str) -> bool:
    """The argument exists in SDXL's trainer alone."""
    return trainer_args()[name].families == ("sdxl",)
