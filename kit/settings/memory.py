"""Precision, caches and what else trades memory for time."""

from __future__ import annotations

from kit.settings.setting import Section, setting


class Memory(Section, box="Parameters / Advanced"):
    """Precision, caches and what else trades memory for time."""

    mixed_precision: str = setting(
        "fp16",
        "Mixed precision",
        "fp16 on most GPUs, bf16 on RTX 30 and newer (a T4 has none), no on a CPU. The LoRA's own "
        "weights stay in 32 bits.",
        choices=("no", "fp16", "bf16"),
        box="Parameters / Basic",
        resumes="asked",
    )
    gradient_checkpointing: bool = setting(
        False,
        "Gradient checkpointing",
        "Recomputes instead of remembering: about a third less speed for much less memory.",
        source="https://arxiv.org/abs/1604.06174",
        resumes="asked",
    )
    cache_latents: bool = setting(
        True,
        "Cache latents",
        "Encode every image once and keep the result. Not together with Random crop.",
        box="Parameters / Basic",
        resumes="freely",
    )
    cache_latents_to_disk: bool = setting(
        False,
        "Cache latents to disk",
        "Keep encoded images in the folder '.kit_cache' beside the image folder, for the next run "
        "too. A changed image, size or VAE is encoded anew.",
        box="Parameters / Basic",
        resumes="freely",
    )
    vae_batch_size: int = setting(
        1,
        "VAE batch size",
        "Images that the VAE encodes at once while caching.",
        between=(1, 256),
        unit="images",
        resumes="asked",
    )
    no_half_vae: bool = setting(
        False,
        "No half VAE",
        "Run the VAE in 32 bits. SDXL's own VAE overflows in fp16; there it is on by itself.",
        gui="sdxl_no_half_vae",
        resumes="asked",
    )
    cache_text_encoder_outputs: bool = setting(
        False,
        "Cache text encoder outputs",
        "Encode every caption once and move the text encoders off the GPU. Needs a text encoder "
        "learning rate of 0.",
        gui="sdxl_cache_text_encoder_outputs",
        resumes="freely",
    )
    cache_text_encoder_outputs_to_disk: bool = setting(
        False,
        "Cache text encoder outputs to disk",
        "Keep encoded captions in '.kit_cache' beside the image folder. A changed caption or model "
        "is encoded anew.",
        gui=None,
        resumes="freely",
    )
    clip_skip: int = setting(
        1,
        "Clip skip",
        "Which of the text encoder's last layers is read: 1 the last, 2 the one before (many anime "
        "models). SDXL ignores it.",
        between=(1, 12),
        families=("sd1", "sd2"),
    )
    max_token_length: int = setting(
        75,
        "Max Token Length",
        "Longer captions are cut: 75, 150 or 225 tokens.",
        choices=(75, 150, 225),
        unit="tokens",
    )
    full_fp16: bool = setting(
        False,
        "Full fp16 training (experimental)",
        "The LoRA's weights, gradients and optimizer state in fp16, too. Saves about four times "
        "the size of the LoRA's fp16 file on the GPU, and small updates are rounded away: better "
        "left off. Only with Mixed precision fp16.",
    )
    full_bf16: bool = setting(
        False,
        "Full bf16 training (experimental)",
        "The same in bf16, which rounds updates smaller than about 1/256 of a weight away: "
        "the lower the rate, the more is lost. Only with Mixed precision bf16.",
    )
    base_precision: str = setting(
        "as_mixed_precision",
        "Base precision",
        "How the frozen base's layers are kept in memory. For small cards: int8 halves them with "
        "next to no loss, nf4 (bitsandbytes) quarters the linear ones and loses some. Steps become "
        "slower, the LoRA itself stays exact.",
        choices=("as_mixed_precision", "int8", "nf4"),
        gui=None,
        source="https://arxiv.org/abs/2305.14314",
        resumes="asked",
    )
    fp8_base: bool = setting(
        False,
        "fp8 base",
        "Keep the frozen base's layers in fp8, with a scale for each output, which the reference "
        "lacks. int8 in Base precision takes as much memory and is more exact.",
        source="https://arxiv.org/abs/2209.05433",
        resumes="asked",
    )
    compress_text_encoders: bool = setting(
        False,
        "Compress text encoders too",
        "Base precision and fp8 base also for the text encoders, not only for the U-Net. Where "
        "their outputs are cached they leave the GPU anyway.",
        gui=None,
        resumes="asked",
    )
    highvram: bool = setting(
        False,
        "highvram",
        "Leave VAE and text encoders on the GPU after their outputs are cached. Samples begin a "
        "little sooner; about 0.4 GB for SD 1.x and 1.8 GB for SDXL stay taken in half precision.",
        shapes_run=False,
    )
    skip_cache_check: bool = setting(
        False,
        "Skip cache check",
        "Trust what lies in the caches on disk without reading images and model again to see that "
        "they are the same. Saves minutes where the images lie on a slow drive; a changed image is "
        "then not noticed.",
        resumes="freely",
    )
    disable_mmap_load_safetensors: bool = setting(
        False,
        "Disable mmap load safetensors",
        "Read the base model's files into memory as a whole instead of mapping them. Faster on "
        "network drives, and takes the file's size in RAM for a moment.",
        gui=None,
        shapes_run=False,
    )
    cross_attention: str = setting(
        "sdpa",
        "CrossAttention",
        "How the U-Net's attention is computed. sdpa is PyTorch's own and memory efficient; "
        "xformers is the same here, its package is not needed. none keeps whole attention "
        "matrices: slow and large, for comparisons.",
        choices=("none", "sdpa", "xformers"),
        gui="xformers",
        source="https://arxiv.org/abs/2205.14135",
        resumes="asked",
    )
    mem_eff_attn: bool = setting(
        False,
        "Memory efficient attention",
        "Overrules CrossAttention none with PyTorch's memory-efficient attention. sdpa and "
        "xformers have it anyway.",
        resumes="asked",
    )
