"""Images: buckets, cuts and caption files."""

from tests.effects.observers import batch, plan
from tests.effects.stage import Row

FINE = {"bucket_reso_steps": 32, "min_bucket_reso": 64, "resolution": "192,128"}
ENLARGED = {**FINE, "bucket_no_upscale": False}
LIVE = {"cache_latents": False}
FLAT = {"train_data_dir": "@shared/flat", "dataset_repeats": 2}

ROWS = {
    "resolution": Row(plan, "64,128", given=ENLARGED),
    "enable_bucket": Row(plan, False),
    "min_bucket_reso": Row(plan, 128, given=ENLARGED),
    "max_bucket_reso": Row(plan, 192, given=ENLARGED),
    "bucket_reso_steps": Row(plan, 16),
    "bucket_no_upscale": Row(plan, False, given=FINE),
    "caption_extension": Row(plan, ".caption", given=FLAT),
    "dataset_repeats": Row(plan, 3, given=FLAT, plain=1),
    "flip_aug": Row(batch, True),
    "color_aug": Row(batch, True, given=LIVE),
    "random_crop": Row(batch, True, given=LIVE),
}
