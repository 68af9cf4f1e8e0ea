"""Rules that the GUI and sd-scripts share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kit import catalog
from kit.exchange.coerce import as_number, is_blank
from kit.exchange.dialect import Entries, Outcome, Rule, one_of, refused, take, translated


def optimizer(value: Any, entries: Entries) -> Outcome | None:
    """An optimizer in any case; blank is AdamW."""
    if is_blank(value):
        return translated("blank means AdamW", optimizer_type="AdamW")
    name = one_of(catalog.OPTIMIZERS, value)
    if name and name != value:
        return take("optimizer_type", name, told="our spelling")
    return None


def unquoted(name: str) -> Rule:
    """A list or text of name=value; quotes are for the shell and the GUI."""

    def rule(value: Any, entries: Entries) -> Outcome:
        texts = value if isinstance(value, list) else [value or ""]
        plain = " ".join(" ".join(map(str, texts)).replace('"', "").replace("'", "").split())
        return take(name, plain)

    return rule


def schedule(optimizer_key: str) -> Rule:
    """The schedule named adafactor is for the optimizer Adafactor alone."""

    def rule(value: Any, entries: Entries) -> Outcome | None:
        if str(value).strip().lower() != "adafactor":
            return None
        if str(entries.get(optimizer_key, "")).strip().lower() != "adafactor":
            return refused("only the optimizer Adafactor has this schedule", lr_scheduler=value)
        return None

    return rule


def bucket_step(value: Any, entries: Entries) -> Outcome | None:
    """Old presets have a step of 1, which no latent can follow; sd-scripts stops at it today."""
    number = as_number(value)
    if not number or not 0 < number < 8:
        return None
    is_xl = str(entries.get("sdxl", "")).strip().lower() in ("true", "1")
    usual = 32 if is_xl else 64
    return take("bucket_reso_steps", usual, told=f"sides are multiples of 8; {usual} is usual")


WHOLE = 1024  # a rank at which LoKr's factors are whole in every layer ...
WHOLE_FROM = 5  # ... where its small factor has at least this side, or -1


def whole_rank(name: str, kind: Callable[[Entries], str], factor: str) -> Rule:
    """A rank beyond all sides, such as 100000, is how LoKr is asked for whole factors."""

    def rule(value: Any, entries: Entries) -> Outcome | None:
        side = as_number(entries.get(factor, -1))
        is_beyond = (as_number(value) or 0) > WHOLE and kind(entries).endswith("LoKr")
        if not is_beyond or side is None or 0 < side < WHOLE_FROM:
            return None
        return take(name, WHOLE, told="more than any layer has: whole factors, as with 1024")

    return rule


def dora(prefix: str = "") -> Rule:
    """DoRA that does not say where its magnitudes lie is LyCORIS' here, but for their axis."""

    def rule(value: Any, entries: Entries) -> Outcome | None:
        switched_on = str(value).strip().lower() in ("true", "1")
        if not switched_on or f"{prefix}wd_on_output" in entries:
            return None
        told = (
            "with magnitudes of inputs, which A1111, Forge and ComfyUI read; LyCORIS' own, of "
            "outputs, with wd_on_output = true"
        )
        return take("dora_wd", True, told=told)

    return rule
