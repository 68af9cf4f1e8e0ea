"""LoRA Kit trains LoRA adapters for Stable Diffusion 1.x, 2.x and XL.

In a notebook:

    kit.show()                                          the form, its plan, Train, and the run
    await kit.wait()                                    stay busy until the run is over
    kit.results()                                       the LoRA file and what it draws
    kit.choose()                                        which of its files to keep, and why

The same by hand, each step a value to look at before going on:

    plan = kit.plan(kit.Settings.load("run.toml"))      what will happen; torch is not loaded yet
    for event in kit.train(plan):                       the work, told as it happens
        print(event)

`kit.watch("cat.run")` shows a run that another process has started or that is over, and
`kit.queue()` a list of runs that are made one after another. `kit.load_any("old.json")` reads
other programs' settings and LoRA files, with a report; `python -m kit --help` lists the same as
commands. The names below load on first use, so that `import kit` takes no more than a blink.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kit.demo import settings as example
    from kit.exchange import load_any as load_any
    from kit.planning import plan as plan
    from kit.settings import Settings as Settings
    from kit.telling import train as train
    from kit.ui import Dashboard as Dashboard
    from kit.ui import Form as Form
    from kit.ui import Session as Session
    from kit.ui import choose as choose
    from kit.ui import listeners as listeners
    from kit.ui import queue as queue
    from kit.ui import results as results
    from kit.ui import show as show
    from kit.ui import wait as wait
    from kit.ui import watch as watch
    from kit.ui.welcome import welcome as welcome

__version__ = "0.1.0"

_HOMES = {
    "Dashboard": "kit.ui:Dashboard",
    "Form": "kit.ui:Form",
    "Session": "kit.ui:Session",
    "Settings": "kit.settings:Settings",
    "choose": "kit.ui:choose",
    "example": "kit.demo:settings",
    "load_any": "kit.exchange:load_any",
    "listeners": "kit.ui:listeners",
    "plan": "kit.planning:plan",
    "queue": "kit.ui:queue",
    "results": "kit.ui:results",
    "show": "kit.ui:show",
    "train": "kit.telling:train",
    "wait": "kit.ui:wait",
    "watch": "kit.ui:watch",
    "welcome": "kit.ui.welcome:welcome",
}
__all__ = [
    "Dashboard",
    "Form",
    "Session",
    "Settings",
    "choose",
    "example",
    "listeners",
    "load_any",
    "plan",
    "queue",
    "results",
    "show",
    "train",
    "wait",
    "watch",
    "welcome",
]


def __getattr__(name: str) -> object:
    """Fetch a public name from its module on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    from kit.catalog import imported

    value: object = getattr(imported(module), attribute)
    globals()[name] = value  # the next use does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
