"""How long and how fast the LoRA learns."""

from __future__ import annotations

from typing import Any

from pydantic import field_validator

from kit import catalog
from kit.settings.setting import Section, setting


class Basic(Section, box="Parameters / Basic"):
    """How long and how fast the LoRA learns."""

    train_batch_size: int = setting(
        1,
        "Train batch size",
        "Images per batch. Larger batches use the GPU better and need more memory, and mean "
        "fewer updates per epoch.",
        between=(1, 1024),
        unit="images",
    )
    epoch: int = setting(
        1,
        "Epoch",
        "How often all images (times their repeats) are seen. This drives the length of the "
        "training, unless Max train steps or Max train epoch is set.",
        between=(1, 100_000),
    )
    max_train_epochs: int | None = setting(
        None,
        "Max train epoch",
        "Overrides Epoch and Max train steps when set. Blank: not used.",
        between=(1, 100_000),
    )
    max_train_steps: int | None = setting(
        None,
        "Max train steps",
        "Ends the training at exactly this many steps, whatever Epoch says. Blank or 0: Epoch "
        "decides.",
        between=(0, 10_000_000),
        unit="steps",
    )
    gradient_accumulation_steps: int = setting(
        1,
        "Gradient accumulate steps",
        "Batches gathered before one update: acts like a batch that many times larger, in the "
        "memory of one. An epoch's last, shorter group still makes a step, of the mean of its own "
        "batches.",
        between=(1, 1024),
        box="Parameters / Advanced",
    )
    seed: int | None = setting(
        None,
        "Seed",
        "Same seed and same settings, same LoRA. Blank or 0: drawn at the start, and told.",
        between=(0, 2**32 - 1),
        shapes_run=False,  # the run's record knows the one that was drawn for a blank
    )
    learning_rate: float = setting(
        1e-4,
        "Learning rate",
        "The rate of every part whose own rate is blank.",
        between=(0, 100),
    )
    unet_lr: float | None = setting(
        1e-4,
        "Unet learning rate",
        "The U-Net's rate. Blank: Learning rate. 0: the U-Net does not learn.",
        between=(0, 100),
    )
    text_encoder_lr: float | None = setting(
        5e-5,
        "Text Encoder learning rate",
        "The text encoder's rate, usually half of the U-Net's or less. Blank: Learning rate. 0: it "
        "does not learn.",
        between=(0, 100),
    )
    lr_scheduler: str = setting(
        "cosine",
        "LR Scheduler",
        "How the rate changes over the run.",
        choices=tuple(catalog.SCHEDULES),
    )
    lr_scheduler_type: str = setting(
        "",
        "LR Scheduler type",
        "A class that takes LR Scheduler's place: one of torch.optim.lr_scheduler, such as StepLR, "
        "or package.module.Class. Without warm-up. Blank: LR Scheduler counts.",
    )
    lr_scheduler_args: str = setting(
        "",
        "LR scheduler extra arguments",
        "Written as name=value, separated by spaces: those of LR Scheduler type, or for "
        "piecewise_constant step_rules=1:100,0.1:200,0.01 (the full rate until step 100, and so "
        "on).",
    )
    lr_warmup: float = setting(
        10.0,
        "LR warmup (% of steps)",
        "The rate climbs during this share of the steps, from 0 (warmup_stable_decay: from LR min "
        "ratio). Not with constant, piecewise_constant, adafactor, an LR Scheduler type, "
        "schedule-free optimizers, and Adafactor at its own rate.",
        between=(0, 100),
        unit="%",
        search="total",
    )
    lr_warmup_steps: int | None = setting(
        None,
        "LR warmup steps",
        "A number of steps instead of the percentage. Blank: the percentage counts.",
        search="override",
        between=(0, 10_000_000),
        unit="steps",
    )
    lr_scheduler_num_cycles: int | None = setting(
        None,
        "LR number of cycles",
        "How often cosine_with_restarts and polynomial start again, or how many half waves "
        "cosine_with_min_lr makes. Blank: 1.",
        search="restarts #",
        between=(1, 1000),
    )
    lr_scheduler_power: float | None = setting(
        None,
        "LR power",
        "The exponent of polynomial: 1 falls in a straight line, higher falls faster at first. "
        "Blank: 1.",
        between=(0.01, 100),
    )
    lr_scheduler_min_lr_ratio: float | None = setting(
        None,
        "LR min ratio",
        "The share of the rate that cosine_with_min_lr, warmup_stable_decay and rex end at; the "
        "second also starts its warm-up there. Blank: 0.1 with the first, 0 with the others.",
        between=(0, 1),
        gui=None,
    )
    lr_scheduler_timescale: int | None = setting(
        None,
        "LR timescale",
        "How slowly inverse_sqrt falls: after three times as many steps the rate is halved. Blank: "
        "the warm-up's steps, or 10000.",
        between=(1, 10_000_000),
        unit="steps",
        gui=None,
    )
    lr_decay_steps: float | None = setting(
        None,
        "LR decay steps",
        "The last steps, in which warmup_stable_decay falls; below 1 a share of all steps. Blank: "
        "none, the rate stays.",
        between=(0, 10_000_000),
        unit="steps",
        gui=None,
    )
    optimizer_type: str = setting(
        "AdamW8bit",
        "Optimizer",
        "The 8bit ones keep their state in 8 bits (weights of fewer than 4096 values in 32). Where "
        "they or paged ones cannot run, a plain one takes over and the run says so. Adafactor "
        "chooses its own rate unless relative_step=False is given. DAdapt* and Prodigy find their "
        "step size: set all rates to 1. *ScheduleFree need no scheduler. Lion wants a rate some "
        "five times lower than AdamW.",
        choices=tuple(catalog.OPTIMIZERS),
        gui="optimizer",
    )
    optimizer_args: str = setting(
        "",
        "Optimizer extra arguments",
        "Written as name=value, separated by spaces. Example: weight_decay=0.1 betas=0.9,0.99 for "
        "AdamW.",
    )
    max_grad_norm: float = setting(
        1.0,
        "Max grad norm",
        "Gradients longer than this are shortened to it. 0: off.",
        between=(0, 1e6),
        box="Parameters / Advanced",
    )

    guardian: str = setting(
        "mild",
        "Guardian",
        "Where loss, gradient or weights are not finite, or explode. mild: skip the step, up to 3 "
        "in a row and 10 of 100, then stop and say why. rollback: then go back to the last state "
        "and on at half the rate (fp16: first at half the loss scale), up to 3 times. off: stop "
        "at once, and only where something is not finite.",
        choices=("off", "mild", "rollback"),
        box="Parameters / Advanced",
        gui=None,
        shapes_run=False,  # a run that it has ended may go on with another
    )

    @field_validator("optimizer_args", "lr_scheduler_args", mode="before")
    @classmethod
    def _as_one_text(cls, value: Any) -> Any:
        """sd-scripts' files hold a list of name=value."""
        if isinstance(value, list) and all(isinstance(part, str) for part in value):
            return " ".join(value)
        return value

    @field_validator("text_encoder_lr", mode="before")
    @classmethod
    def _as_one_rate(cls, value: Any) -> Any:
        """sd-scripts' files may hold a list, one rate for each text encoder."""
        if isinstance(value, list) and value and value.count(value[0]) == len(value):
            return value[0]
        return value
