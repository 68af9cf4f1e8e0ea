"""The embedded base model, the pictures it was taught with, and the ruler that grades it.

settings()   the example that the notebook opens with and `kit demo` runs
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kit.settings import Settings

BASE = Path(__file__).with_name("base")
DATA = Path(__file__).with_name("data")
REGULARISATION = Path(__file__).with_name("regularisation")
STEPS = 500
SUBJECT_PROMPT = "a zib ball on a gray background, center"
STEPS_VARIABLE = "LORA_KIT_EXAMPLE_STEPS"  # a shorter example, for tests and slow machines


def settings(output_dir: str = "output", *, steps: int | None = None, seed: int = 1) -> Settings:
    """The example: the embedded base and twelve drawn pictures of a "zib ball"."""
    from kit.settings import Settings

    steps = steps or int(os.environ.get(STEPS_VARIABLE, STEPS))
    options = "--w 64 --h 64 --l 3 --s 20"
    prompts = (
        f"{SUBJECT_PROMPT} {options} --d 1",
        f"a zib ball on a brown background, left {options} --d 2",
        f"a green triangle on a white background, center {options} --d 3",
    )
    return Settings().replace(
        pretrained_model_name_or_path=str(BASE),
        train_data_dir=str(DATA),
        reg_data_dir=str(REGULARISATION),
        output_dir=output_dir,
        output_name="zib-ball",
        training_comment="LoRA Kit's example: a blue ball with a red core",
        resolution="64,64",
        train_batch_size=12,
        max_train_steps=steps,
        seed=seed,
        mixed_precision="no",
        LoRA_type="Kohya LoCon",
        network_dim=16,
        network_alpha=16,
        conv_dim=16,
        conv_alpha=16,
        unet_lr=4e-4,
        text_encoder_lr=4e-4,
        optimizer_type="AdamW",
        lr_scheduler="cosine",
        lr_warmup=5,
        save_every_n_epochs=0,
        sample_prompts="\n".join(prompts),
        sample_every_n_steps=max(1, steps // 3),
        sample_at_first=True,
        sample_sampler="ddim",
    )
