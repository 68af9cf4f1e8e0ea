"""The LoRA itself: kind, size and dropouts."""

from __future__ import annotations

from kit import catalog
from kit.settings.setting import Section, setting


class NetworkSettings(Section, box="Parameters / Basic"):
    """The LoRA itself: kind, size and dropouts."""

    LoRA_type: str = setting(
        "Standard",
        "LoRA type",
        "Standard adapts the attention layers. Kohya LoCon also adapts the 3x3 convolutions, with "
        "their own rank: larger files, better at styles. LyCORIS types are other formulas: LoHa "
        "and LoKr hold more in small files, iA3 is tiny, Diag-OFT and BOFT turn what the model "
        "knows, GLoRA is between them, Native Fine-Tuning learns everything in very large files. "
        "Start with Standard.",
        choices=tuple(catalog.LORA_TYPES),
    )
    network_dim: int = setting(
        8,
        "Network Rank (Dimension)",
        "How much the LoRA can hold. 8 to 32 suits most subjects; the file grows in proportion.",
        between=(1, 1024),
    )
    network_alpha: float = setting(
        1.0,
        "Network Alpha",
        "The LoRA's strength while training is alpha / rank, so a lower alpha also lowers the "
        "effective rate. 0 means alpha = rank.",
        between=(0, 1024),
    )
    conv_dim: int | None = setting(
        None,
        "Convolution Rank (Dimension)",
        "Rank of the 3x3 convolutions, for types that adapt them. Blank: the same as Network Rank.",
        between=(1, 1024),
    )
    conv_alpha: float = setting(
        1.0,
        "Convolution Alpha",
        "Alpha of the 3x3 convolutions. 0 means alpha = rank.",
        between=(0, 1024),
    )
    rs_lora: bool = setting(
        False,
        "Rank-stabilised scaling (rsLoRA)",
        "The strength is alpha / sqrt(rank) instead of alpha / rank, so that a high rank does not "
        "learn more slowly. The file's alpha is adjusted, so every program reads it right. Lower "
        "the rates when you turn it on.",
        gui=None,
        source="https://arxiv.org/abs/2312.03732",
    )
    network_dropout: float = setting(
        0.0,
        "Network dropout",
        "Share of the LoRA's inner values that are dropped while training, 0.1 to 0.5 against "
        "overfitting. 0: off.",
        between=(0, 0.99),
        source="https://jmlr.org/papers/v15/srivastava14a.html",
    )
    rank_dropout: float = setting(
        0.0,
        "Rank dropout",
        "Share of the ranks that are dropped for each image while training, 0.1 to 0.3. 0: off.",
        between=(0, 0.99),
        box="Parameters / Advanced",
    )
    module_dropout: float = setting(
        0.0,
        "Module dropout",
        "Share of whole LoRA modules that are skipped at each use while training, 0.1 to 0.3. 0: "
        "off.",
        between=(0, 0.99),
        box="Parameters / Advanced",
    )
    scale_weight_norms: float = setting(
        0.0,
        "Scale weight norms",
        "After each step, modules whose change is longer than this are scaled back to it. 1 is a "
        "good value against overfitting; higher is weaker. 0: off.",
        between=(0, 100),
    )
    network_weights: str = setting(
        "",
        "LoRA network weights",
        "A LoRA file to start from; its weights are loaded, its settings are not. The result is a "
        "new file.",
        kind="path",
        search="continue existing lora",
    )
    dim_from_weights: bool = setting(
        False,
        "DIM from weights",
        "Take rank and alpha of every module from LoRA network weights, and ignore Network "
        "Rank and Alpha.",
    )
    LyCORIS_preset: str = setting(
        "full",
        "LyCORIS Preset",
        "Which layers a LyCORIS type adapts. full: all in blocks; full-lin: no 3x3 convolutions; "
        "attn-mlp: those of Standard; attn-only: attention alone; unet-only, unet-transformer-only "
        "and unet-convblock-only: parts of the U-Net; ia3: the few that iA3's authors chose. Or a "
        "TOML file in LyCORIS' form.",
        box="Parameters / LyCORIS",
    )
    factor: int = setting(
        -1,
        "LoKr factor",
        "Size of LoKr's small factor. -1 makes both factors about equal, for the smallest file; 4 "
        "to 16 makes the large one larger, which holds more.",
        between=(-1, 64),
        box="Parameters / LyCORIS",
        source="https://arxiv.org/abs/2309.14859",
    )
    decompose_both: bool = setting(
        False,
        "LoKr decompose both",
        "LoKr's small factor is of low rank too, where Network Rank is less than half its side. "
        "Smaller files still.",
        box="Parameters / LyCORIS",
    )
    use_tucker: bool = setting(
        False,
        "Use Tucker decomposition",
        "A 3x3 convolution gets a core of its own between two small matrices: fewer weights.",
        box="Parameters / LyCORIS",
    )
    use_scalar: bool = setting(
        False,
        "Use Scalar",
        "One more number per layer is learned, which starts at 0 and scales the change, and all "
        "other weights start at random.",
        box="Parameters / LyCORIS",
    )
    dora_wd: bool = setting(
        False,
        "DoRA Weight Decompose",
        "Direction and length of each layer's weights are learned apart (DoRA). Often better at "
        "low ranks; slower, and not every program reads it: diffusers takes it for a plain LoRA.",
        box="Parameters / LyCORIS",
        source="https://arxiv.org/abs/2402.09353",
    )
    wd_on_output: bool = setting(
        False,
        "DoRA on outputs",
        "Where DoRA's lengths lie: off, one for each input of a layer, which A1111, Forge and "
        "ComfyUI read exactly; on, one for each output, as LyCORIS and the GUI train, which those "
        "programs read wrongly. A LoRA that is gone on from keeps its own.",
        gui=None,
        box="Parameters / LyCORIS",
        source="https://github.com/KohakuBlueleaf/LyCORIS",
    )
    bypass_mode: bool = setting(
        False,
        "Bypass mode",
        "LoRA Kit never adds a change into the base's weights while training, so all types already "
        "work as this box promises. It only decides where LyCORIS/LoCon's Rank dropout acts: on "
        "ranks (on) or on a layer's outputs (off).",
        box="Parameters / LyCORIS",
    )
    train_norm: bool = setting(
        False,
        "Train Norm",
        "The U-Net's normalisations learn too. A few more weights; not every program reads them.",
        box="Parameters / LyCORIS",
    )
    rank_dropout_scale: bool = setting(
        False,
        "Rank Dropout Scale",
        "What Rank dropout leaves is strengthened, so that the mean stays the same.",
        box="Parameters / LyCORIS",
    )
    constraint: float = setting(
        0.0,
        "Constrain OFT",
        "Diag-OFT and BOFT: limit of how far each layer may be turned, e.g. 0.001. 0: no limit.",
        gui="constrain",
        between=(0, 1),
        box="Parameters / LyCORIS",
        source="https://arxiv.org/abs/2306.07280",
    )
    rescaled: bool = setting(
        False,
        "Rescaled OFT",
        "Diag-OFT and BOFT: also learn a factor for each output, so that lengths may change.",
        box="Parameters / LyCORIS",
    )
    train_on_input: bool = setting(
        True,
        "iA3 train on input",
        "Whether iA3 scales what goes into a layer (on) or what comes out of it (off).",
        box="Parameters / LyCORIS",
        source="https://arxiv.org/abs/2205.05638",
    )
    unit: int = setting(
        1,
        "DyLoRA Unit / Block size",
        "DyLoRA: how many ranks learn together. It must divide Network Rank and Convolution Rank.",
        between=(1, 64),
        box="Parameters / LyCORIS",
        source="https://arxiv.org/abs/2210.07558",
    )
