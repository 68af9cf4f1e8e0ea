"""Pictures drawn while training."""

from tests.effects.observers import plan, samples
from tests.effects.stage import Row

PROMPT = {"sample_prompts": "a zib ball --s 2 --d 3", "sample_every_n_epochs": 1}

ROWS = {
    "sample_prompts": Row(samples, "@shared/prompts.txt", given=PROMPT),
    "sample_every_n_steps": Row(plan, 2, given={**PROMPT, "sample_every_n_epochs": None}),
    "sample_every_n_epochs": Row(plan, 2, given=PROMPT),
    "sample_at_first": Row(plan, True, given=PROMPT),
    "sample_sampler": Row(samples, "ddim", given=PROMPT),
}
