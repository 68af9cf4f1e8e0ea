"""What becomes of a caption at each use."""

from tests.effects.observers import batch
from tests.effects.stage import Row

SHUFFLED = {"shuffle_caption": True}
CACHED = {**SHUFFLED, "cache_text_encoder_outputs": True, "text_encoder_lr": 0}

ROWS = {
    "shuffle_caption": Row(batch, True),
    "keep_tokens": Row(batch, 2, given=SHUFFLED),
    "keep_tokens_separator": Row(batch, "zib", given=SHUFFLED),
    "caption_separator": Row(batch, " ", given=SHUFFLED),
    "secondary_separator": Row(batch, " b"),
    "enable_wildcard": Row(batch, True),
    "caption_prefix": Row(batch, "photo of"),
    "caption_suffix": Row(batch, "in the sun"),
    "caption_dropout_rate": Row(batch, 0.5),
    "caption_dropout_every_n_epochs": Row(batch, 1),
    "caption_tag_dropout_rate": Row(batch, 0.5),
    "token_warmup_step": Row(batch, 100.0),
    "token_warmup_min": Row(batch, 2, given={"token_warmup_step": 100}),
    "weighted_captions": Row(batch, True),
    "cached_caption_variants": Row(batch, 1, given=CACHED),
}
