"""The optimizer and its rates, in the plan's words."""

from __future__ import annotations

from kit.settings import Basic, effective


def optimizer_line(basic: Basic) -> str:
    """The optimizer with its arguments as they were understood, its rates and the advised one."""
    row, args = effective.optimizer(basic), effective.optimizer_args(basic)
    given = ", ".join(f"{name} = {value}" for name, value in args.items())
    text = f"optimizer {basic.optimizer_type}" + (f" with {given}" if given else "")
    if effective.controls_lr(basic) == "rate":
        return f"{text}, which chooses its own rate"
    advised = f" (advised: {row.advised_lr:g})" if row.advised_lr else ""
    if own := effective.own_rates(basic):
        return f"{text}, rates: {own}{advised}"
    unet, words = effective.learning_rates(basic)
    return f"{text}, rates: U-Net {unet:g}, text encoder {words:g}{advised}"
