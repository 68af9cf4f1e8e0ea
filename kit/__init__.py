"""LoRA Kit trains LoRA adapters for Stable Diffusion 1.x, 2.x and XL.

In a notebook two lines are the whole program; the second keeps Colab awake until training ends:

    kit.show()                                          the form, the plan, Train, the dashboard
    await kit.wait()

By hand, the same in four steps, each a value to look at before going on:

    settings = kit.Settings.load("run.toml")            what was asked
    plan = kit.plan(settings)                           what will happen; torch is not loaded yet
    for event in kit.train(plan):                       the work, told as it happens
        print(event)

`kit.watch("cat.run")` shows a run that another process started or that has ended;
`python -m kit --help` lists the same as commands. The names below load on first use, so that
`import kit` takes no more than a blink.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kit.planning import plan as plan
    from kit.settings import Settings as Settings
    from kit.training import train as train
    from kit.ui import show as show
    from kit.ui import wait as wait
    from kit.ui import watch as watch

__version__ = "0.1.0"
__all__ = ["Settings", "plan", "show", "train", "wait", "watch"]

_HOMES = {
    "Settings": "kit.settings",
    "plan": "kit.planning",
    "show": "kit.ui",
    "train": "kit.training",
    "wait": "kit.ui",
    "watch": "kit.ui",
}


def __getattr__(name: str) -> object:
    """Fetch a public name from its module on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value  # the next use does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
