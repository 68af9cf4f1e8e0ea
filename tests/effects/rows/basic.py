"""How long and how fast."""

import pytest
import torch

from kit import planning
from kit.errors import Diverged
from kit.events import Skipped
from kit.training.loop import train
from kit.training.step import TrainingStep
from tests.effects.observers import batch, optimizer, plan, rates, weights
from tests.effects.stage import Row


def skipped(stage, settings):
    """What is left out before the run ends, where no gradient is ever finite."""
    told, clip = [], TrainingStep.clip

    def spoilt(step):
        for group in step.optimization.optimizer.param_groups:
            for weight in group["params"]:
                weight.grad.fill_(torch.nan)
        return clip(step)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Diverged):
        patch.setattr(TrainingStep, "clip", spoilt)
        for event in train(planning.plan(settings)):
            told.append(event)
    return [f"step {event.step}" for event in told if isinstance(event, Skipped)]


ROWS = {
    "train_batch_size": Row(plan, 2),
    "epoch": Row(plan, 3),
    "max_train_epochs": Row(plan, 1),
    "max_train_steps": Row(plan, 5),
    "gradient_accumulation_steps": Row(plan, 2),
    "seed": Row(batch, 6),
    "learning_rate": Row(rates, 2e-2),
    "unet_lr": Row(rates, 2e-2),
    "text_encoder_lr": Row(rates, 2e-2),
    "lr_scheduler": Row(rates, "linear"),
    "lr_scheduler_type": Row(rates, "LinearLR", given={"lr_warmup": 0}),
    "lr_scheduler_args": Row(
        rates, "step_size=3", given={"lr_scheduler_type": "StepLR"}, plain="step_size=2"
    ),
    "lr_warmup": Row(rates, 50),
    "lr_warmup_steps": Row(rates, 7),
    "lr_scheduler_num_cycles": Row(rates, 2, given={"lr_scheduler": "cosine_with_restarts"}),
    "lr_scheduler_power": Row(rates, 2.0, given={"lr_scheduler": "polynomial"}),
    "lr_scheduler_min_lr_ratio": Row(rates, 0.5, given={"lr_scheduler": "cosine_with_min_lr"}),
    "lr_scheduler_timescale": Row(rates, 3, given={"lr_scheduler": "inverse_sqrt"}),
    "lr_decay_steps": Row(rates, 5, given={"lr_scheduler": "warmup_stable_decay"}),
    "optimizer_type": Row(optimizer, "Adafactor"),
    "optimizer_args": Row(optimizer, "weight_decay=0.3 betas=0.8,0.9"),
    "max_grad_norm": Row(weights, 1e-6),
    "guardian": Row(skipped, "off"),
}
