"""The LoRA itself: kind, size and dropouts."""

from __future__ import annotations

from kit import catalog
from kit.settings.setting import Section, setting


class Network(Section, box="Parameters / Basic"):
    """The LoRA itself: kind, size and dropouts."""

    LoRA_type: str = setting(
        "Standard",
        "LoRA type",
        "Standard adapts the attention layers. Kohya LoCon also adapts the 3x3 convolutions, with "
        "their own "
        "rank: larger files, better at styles.",
        choices=tuple(catalog.KINDS),
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
        "effective rate. "
        "0 means alpha = rank.",
        between=(0, 1024),
    )
    conv_dim: int | None = setting(
        None,
        "Convolution Rank (Dimension)",
        "Rank of the 3x3 convolutions with Kohya LoCon. Blank: the same as Network Rank.",
        between=(1, 1024),
    )
    conv_alpha: float = setting(
        1.0,
        "Convolution Alpha",
        "Alpha of the 3x3 convolutions. 0 means alpha = rank.",
        between=(0, 1024),
    )
    network_dropout: float = setting(
        0.0,
        "Network dropout",
        "Share of the LoRA's inner values that are dropped while training, 0.1 to 0.5 against "
        "overfitting. "
        "0: off.",
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
        "good value "
        "against overfitting; higher is weaker. 0: off.",
        between=(0, 100),
    )
    network_weights: str = setting(
        "",
        "Network weights",
        "A LoRA file to start from; its weights are loaded, its settings are not. The result is a "
        "new file.",
        kind="path",
    )
    dim_from_weights: bool = setting(
        False,
        "DIM from weights",
        "Take rank and alpha of every module from Network weights, and ignore Network Rank and "
        "Alpha.",
    )
