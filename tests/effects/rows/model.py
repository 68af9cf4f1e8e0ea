"""Source Model."""

from typing import Any

from kit.errors import KitError
from kit.settings import Settings
from tests.effects.observers import batch, error, loss
from tests.effects.stage import Row, Stage


def holes(stage: Stage, settings: Settings) -> Any:
    """What is read beside the noisy latents of the first batches; or why it is refused."""
    try:
        return [made["inpaint_cond_B5hw"] for made in batch(stage, settings)]
    except KitError as refused:
        return str(refused)


ROWS = {
    "pretrained_model_name_or_path": Row(loss, "@shared/models/other"),
    "v2": Row(error, True),  # a claim that the file contradicts is refused
    "v_parameterization": Row(loss, True),
    "sdxl": Row(error, True),
    "vae": Row(batch, "@shared/vae"),
    "train_inpainting": Row(holes, True, given={"cache_latents": False}, model="inpainting"),
}
