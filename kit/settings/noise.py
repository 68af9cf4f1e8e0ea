"""How noise is drawn, and how much each noise level and image counts."""

from __future__ import annotations

from kit.settings.setting import Section, setting


class Noise(Section, box="Parameters / Advanced"):
    """How noise is drawn, and how much each noise level and image counts."""

    loss_type: str = setting(
        "l2",
        "Loss type",
        "How far a guess is from the truth. l2, the squared error, is what the base models were "
        "trained with. huber and smooth_l1 let single bad images or captions count less; l1 counts "
        "every error alike.",
        choices=("l2", "l1", "huber", "smooth_l1"),
        source="https://arxiv.org/abs/2403.16728",
    )
    huber_schedule: str = setting(
        "snr",
        "Huber schedule",
        "How huber's and smooth_l1's threshold changes with the noise: snr and exponential are "
        "forgiving where there is much noise, constant is the same everywhere.",
        choices=("snr", "exponential", "constant"),
    )
    huber_c: float = setting(
        0.1,
        "Huber C",
        "The threshold at full noise, with constant at any: smaller forgives outliers more.",
        between=(1e-6, 10),
    )
    huber_scale: float = setting(
        1.0,
        "Huber scale",
        "Multiplies the threshold of every Huber schedule.",
        between=(1e-6, 100),
    )
    min_snr_gamma: float = setting(
        0.0,
        "Min SNR gamma",
        "Caps the weight of nearly clean images, so that no noise level dominates; 5 is the "
        "paper's value. 0: off.",
        between=(0, 20),
        source="https://arxiv.org/abs/2303.09556",
    )
    debiased_estimation_loss: bool = setting(
        False,
        "Debiased Estimation loss",
        "Weights every noise level by how much it says about the finished picture: very noisy "
        "steps count far more. Not together with Min SNR gamma, which does the opposite.",
        source="https://arxiv.org/abs/2310.08442",
    )
    scale_v_pred_loss_like_noise_pred: bool = setting(
        False,
        "Scale v prediction loss",
        "Only for v-prediction models: weights each noise level as a noise-prediction model would.",
    )
    v_pred_like_loss: float = setting(
        0.0,
        "V Pred like loss",
        "Only for noise-prediction models: adds this share of a loss that counts as v-prediction "
        "does. 0: off.",
        between=(0, 1),
    )
    masked_loss: bool = setting(
        False,
        "Masked loss",
        "Learns only where the mask is white, less where it is gray. The masks are pictures of the "
        "same names in Mask folder, or the images' own transparency with Alpha mask.",
    )
    alpha_mask: bool = setting(
        False,
        "Alpha mask",
        "Takes each image's transparency as its mask: what is transparent is not learned, and the "
        "colours beneath it are seen as they are (without Alpha mask they become white). An image "
        "without transparency is learned whole.",
        gui=None,
    )
    prior_loss_weight: float = setting(
        1.0,
        "Prior loss weight",
        "How much a regularisation image counts beside a training image.",
        between=(0, 10),
        source="https://arxiv.org/abs/2208.12242",
    )
    noise_offset_type: str = setting(
        "Original",
        "Noise offset type",
        "Original shifts the noise of each channel (Noise offset and what belongs to it). Multires "
        "adds coarser noise on top (Multires noise iterations and discount). Only the chosen one's "
        "fields count.",
        choices=("Original", "Multires"),
    )
    noise_offset: float = setting(
        0.0,
        "Noise offset",
        "Shifts the noise of each channel a little, so that very dark and very bright pictures can "
        "be learned; 0.05 to 0.1. 0: off.",
        between=(0, 1),
        source="https://www.crosslabs.org/blog/diffusion-with-offset-noise",
    )
    noise_offset_random_strength: bool = setting(
        False,
        "Noise offset random strength",
        "Draws the offset anew for each batch, from 0 to Noise offset.",
    )
    adaptive_noise_scale: float = setting(
        0.0,
        "Adaptive noise scale",
        "Adds this many times the mean brightness of each latent channel to Noise offset, which "
        "must be set. 0: off.",
        between=(-1, 1),
    )
    multires_noise_iterations: int = setting(
        0,
        "Multires noise iterations",
        "Levels of coarser noise; 6 to 10 helps with large areas of one colour. 0: off.",
        between=(0, 64),
        source="https://wandb.ai/johnowhitaker/multires_noise",
    )
    multires_noise_discount: float = setting(
        0.3,
        "Multires noise discount",
        "How strong each coarser level is beside the one before it; 0.1 to 0.3 with a LoRA, 0.8 "
        "only with very many images.",
        between=(0, 1),
    )
    ip_noise_gamma: float = setting(
        0.0,
        "IP noise gamma",
        "Disturbs what the U-Net sees by this much more noise than it is asked for, against the "
        "drift that builds up while drawing; 0.1 is the paper's value. 0: off.",
        between=(0, 1),
        source="https://arxiv.org/abs/2301.11706",
    )
    ip_noise_gamma_random_strength: bool = setting(
        False,
        "IP noise gamma random strength",
        "Draws its strength anew for each batch, from 0 to IP noise gamma.",
    )
    min_timestep: int = setting(
        0,
        "Min Timestep",
        "The least noise level that is trained. 0: all. Higher: only composition is learned.",
        between=(0, 999),
    )
    max_timestep: int = setting(
        1000,
        "Max Timestep",
        "The end of the trained noise levels, itself left out. 1000: all. Lower: only details are "
        "learned.",
        between=(1, 1000),
    )
    zero_terminal_snr: bool | None = setting(
        None,
        "Zero terminal SNR",
        "Trains the noisiest step as pure noise, for v-prediction models that were made so. Blank: "
        "read from the model's file.",
        gui=None,
        source="https://arxiv.org/abs/2305.08891",
    )
