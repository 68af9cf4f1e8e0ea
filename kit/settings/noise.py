"""How noise is drawn, and how much each noise level and image counts."""

from __future__ import annotations

from kit.settings.setting import Section, setting


class Noise(Section, box="Parameters / Advanced"):
    """How noise is drawn, and how much each noise level and image counts."""

    min_snr_gamma: float = setting(
        0.0,
        "Min SNR gamma",
        "Caps the weight of nearly clean images, so that no noise level dominates; 5 is the "
        "paper's value. "
        "0: off.",
        between=(0, 20),
        source="https://arxiv.org/abs/2303.09556",
    )
    noise_offset: float = setting(
        0.0,
        "Noise offset",
        "Shifts the noise of each channel a little, so that very dark and very bright pictures can "
        "be "
        "learned; 0.05 to 0.1. 0: off.",
        between=(0, 1),
        source="https://www.crosslabs.org/blog/diffusion-with-offset-noise",
    )
    prior_loss_weight: float = setting(
        1.0,
        "Prior loss weight",
        "How much a regularisation image counts beside a training image.",
        between=(0, 10),
        source="https://arxiv.org/abs/2208.12242",
    )
