"""Rates and ranks of single U-Net blocks."""

from __future__ import annotations

from kit.settings.setting import Section, setting


class Blocks(Section, box="Parameters / Blocks"):
    """Rates and ranks of single U-Net blocks."""

    down_lr_weight: str = setting(
        "",
        "Down LR weights",
        "Factors of the U-Net's rate for the blocks on the way down, from shallow to deep: 12 "
        "numbers for SD 1.x and 2.x, 9 for SDXL, separated by commas; one number counts for all. "
        "Or a course: sine, cosine, linear, reverse_linear or zeros, with an offset such as "
        "linear+0.2. 0: the block is not adapted. Blank: 1.",
    )
    mid_lr_weight: str = setting(
        "",
        "Mid LR weights",
        "The same for the middle: 1 number for SD 1.x and 2.x, 3 for SDXL. Blank: 1.",
    )
    up_lr_weight: str = setting(
        "",
        "Up LR weights",
        "The same for the blocks on the way up, from deep to shallow: 12 numbers, 9 for SDXL.",
    )
    block_lr_zero_threshold: float = setting(
        0.0,
        "Blocks LR zero threshold",
        "Blocks whose factor is not above this are not adapted at all.",
        between=(0, 100),
    )
    block_dims: str = setting(
        "",
        "Block dims",
        "The rank of each block, in place of Network Rank: 25 numbers for SD 1.x and 2.x (12 down, "
        "1 middle, 12 up), 23 for SDXL (9, 3 and 9, and one before and after). 0: the block is not "
        "adapted. Blank: Network Rank everywhere.",
    )
    block_alphas: str = setting(
        "",
        "Block alphas",
        "The alpha of each block, as many numbers as Block dims. Blank: Network Alpha.",
    )
    conv_block_dims: str = setting(
        "",
        "Conv dims",
        "The rank of each block's 3x3 convolutions, as many numbers as Block dims. Blank: "
        "Convolution Rank.",
    )
    conv_block_alphas: str = setting(
        "",
        "Conv alphas",
        "The alpha of each block's 3x3 convolutions. Blank: Convolution Alpha.",
    )
