"""Precisions that the frozen base's layers are kept in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BasePrecision:
    """How the frozen base's layers are kept."""

    code: str  # blank: as they are computed with
    setting: str  # what asks for it, for messages
    costs: str = ""  # what a person should know before
    needs: str = ""
    convolutions: str = ""  # other code for them


# The errors are those of the loss of the embedded base, which is small; see kit/DECISIONS.md.
BASE_PRECISIONS: dict[str, BasePrecision] = {
    "as_mixed_precision": BasePrecision("", "base_precision = as_mixed_precision"),
    "int8": BasePrecision(
        "kit.families.quantized:Int8", "base_precision = int8",
        "the base's layers take half of 16 bits; an error of about 0.3 %, as bf16's own, and "
        "slower steps",
    ),
    "fp8": BasePrecision(
        "kit.families.quantized:Fp8", "fp8_base",
        "the base's layers take half of 16 bits; an error of about 0.9 %, three times that of "
        "base_precision = int8, and slower steps",
    ),
    "nf4": BasePrecision(
        "kit.families.quantized:Nf4", "base_precision = nf4",
        "the base's linear layers take 4.5 of 16 bits, its convolutions 8; an error of about 4 %, "
        "which the LoRA learns to make up for, so that it fits the exact base less well; slower "
        "steps",
        needs="bitsandbytes",
        convolutions="kit.families.quantized:Int8",  # in 4 bits they alone cost 11 %
    ),
}  # fmt: skip
