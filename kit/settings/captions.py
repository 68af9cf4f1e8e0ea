"""What becomes of a caption at each use."""

from __future__ import annotations

from kit.settings.setting import Section, setting


class Captions(Section, box="Parameters / Advanced"):
    """What becomes of a caption at each use."""

    shuffle_caption: bool = setting(
        False,
        "Shuffle caption",
        "Puts the tags of a caption in another order at each use, except the first ones that Keep "
        "n tokens holds. For captions of tags, not of sentences.",
    )
    keep_tokens: int = setting(
        0,
        "Keep n tokens",
        "The first tags that are neither shuffled nor dropped: 1 keeps a trigger word in front.",
        between=(0, 255),
        unit="tags",
    )
    keep_tokens_separator: str = setting(
        "",
        "Keep tokens separator",
        "A mark in the captions, such as |||: what stands before it is kept in place, whatever "
        "Keep n tokens says; what stands after a second one is kept at the end.",
        gui=None,
    )
    caption_separator: str = setting(
        ",",
        "Caption separator",
        "What stands between the tags of a caption.",
        gui=None,
    )
    secondary_separator: str = setting(
        "",
        "Secondary separator",
        "A mark such as ;;; that holds tags together while they are shuffled or dropped; it "
        "becomes the caption separator afterwards.",
        gui=None,
    )
    enable_wildcard: bool = setting(
        False,
        "Enable wildcard",
        "Of {red|blue|green} one is drawn at each use, and of a caption file's lines one. Doubled "
        "braces stand for braces. Off: the first line counts, braces mean nothing.",
        gui=None,
    )
    caption_prefix: str = setting(
        "", "Caption prefix", "Stands in front of every caption, with a space between.", gui=None
    )
    caption_suffix: str = setting(
        "", "Caption suffix", "Stands behind every caption, with a space between.", gui=None
    )
    caption_dropout_rate: float = setting(
        0.0,
        "Rate of caption dropout",
        "The share of uses in which an image is shown without any words, 0.05 to 0.1; helps the "
        "LoRA to act without its trigger word. 0: off.",
        between=(0, 1),
    )
    caption_dropout_every_n_epochs: int = setting(
        0,
        "Dropout caption every n epochs",
        "In every n-th epoch all images are shown without words. 0: off.",
        between=(0, 1000),
        unit="epochs",
    )
    caption_tag_dropout_rate: float = setting(
        0.0,
        "Rate of tag dropout",
        "The share of tags that are left out at each use; kept tags never are. 0: off.",
        between=(0, 1),
        gui=None,
    )
    token_warmup_min: int = setting(
        1,
        "Token warmup min",
        "How many of the tags that are not kept the training begins with, when Token warmup step "
        "is set.",
        between=(0, 255),
        unit="tags",
        gui=None,
    )
    token_warmup_step: float = setting(
        0.0,
        "Token warmup step",
        "Over these first steps the captions grow from few tags to all; below 1 a share of all "
        "steps. 0: off.",
        between=(0, 10_000_000),
        unit="steps",
        gui=None,
    )
    weighted_captions: bool = setting(
        False,
        "Weighted captions",
        "Reads (word:1.3), (word) and [word] in captions as weights, as the WebUI does in prompts. "
        "Commas inside brackets are torn apart by Shuffle caption.",
    )
    cached_caption_variants: int = setting(
        8,
        "Cached caption variants",
        "With Cache text encoder outputs and captions that change at each use: how many variants "
        "of each caption are encoded; each use draws one of them.",
        between=(1, 1000),
        gui=None,
    )
