"""Source Model."""

from tests.effects.observers import batch, error, loss
from tests.effects.stage import Row

ROWS = {
    "pretrained_model_name_or_path": Row(loss, "@shared/models/other"),
    "v2": Row(error, True),  # a claim that the file contradicts is refused
    "v_parameterization": Row(loss, True),
    "sdxl": Row(error, True),
    "vae": Row(batch, "@shared/vae"),
}
