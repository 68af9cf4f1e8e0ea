"""What a LoRA file to go on from decides of the settings, told by its header."""

from __future__ import annotations

from kit.basemodel.headers import PICKLES, read_header
from kit.catalog.lora_shapes import magnitudes_on_output
from kit.errors import ModelError, Unreadable
from kit.reading.paths import is_file, path_of
from kit.settings import Settings


def follow_file(settings: Settings) -> tuple[Settings, list[str]]:
    """The settings with the axis that the DoRA of network_weights has, and a notice of it.

    A file that cannot be read is told elsewhere; a pickle's axis shows when it is loaded.
    """
    network = settings.network
    if not (network.network_weights.strip() and network.dora_wd):
        return settings, []
    try:
        path = path_of(network.network_weights.strip())
        if path.suffix.lower() in PICKLES or not is_file(path):
            return settings, []
        axis = magnitudes_on_output(read_header(path).shapes)
    except (ModelError, Unreadable, OSError):
        return settings, []
    if axis is None or axis == network.wd_on_output:
        return settings, []
    side = "outputs" if axis else "inputs"
    notice = f"DoRA goes on with magnitudes of {side}, as network_weights has them"
    return settings.replace(wd_on_output=axis), [notice]
