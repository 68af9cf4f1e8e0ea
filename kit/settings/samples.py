"""Pictures drawn while training."""

from __future__ import annotations

from kit import catalog
from kit.settings.setting import Section, setting


class Samples(Section, box="Samples"):
    """Pictures drawn while training."""

    sample_prompts: str = setting(
        "",
        "Sample prompts",
        "One prompt per line, or the path of a .txt, .toml or .json file with them. Options at a "
        "line's end: --n negative prompt, --w width, --h height, --d seed, --l guidance scale, --s "
        "steps, --ss sampler. (word:1.2) counts more, [word] less. Lines with # are skipped.",
        kind="text",
        shapes_run=False,
        search="preview images",
    )
    sample_every_n_steps: int | None = setting(
        None,
        "Sample every n steps",
        "Blank or 0: off.",
        between=(0, 10_000_000),
        unit="steps",
        shapes_run=False,
        search="preview images",
    )
    sample_every_n_epochs: int | None = setting(
        None,
        "Sample every n epochs",
        "Blank or 0: off. When set, Sample every n steps is not used.",
        between=(0, 100_000),
        unit="epochs",
        shapes_run=False,
        search="preview images",
    )
    sample_at_first: bool = setting(
        False,
        "Sample at first",
        "Also draw before the first step, to see what the base model makes of the prompts.",
        gui=None,
        shapes_run=False,
        search="preview images",
    )
    sample_sampler: str = setting(
        "euler_a",
        "Sample sampler",
        "The sampler that draws the pictures.",
        choices=tuple(catalog.SAMPLERS),
        shapes_run=False,
        search="preview images",
    )
