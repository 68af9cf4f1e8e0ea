"""A page that is opened anew asks for the state of all widgets at once: it gets one that is whole.

ipywidgets 7 and 8 go through their widgets while they answer, and fail ("dictionary changed size
during iteration") where a thread makes one meanwhile, as a training does with each picture.
JupyterLab then waits four seconds, asks each widget by itself, and shows "Loading widget..." in
place of a whole form of which one child came or went in between.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from ipywidgets import Widget
from ipywidgets.widgets import widget as ipywidgets_widget

TRIES, PAUSE = 50, 0.01  # looks at what threads have changed, and seconds between two of them
MODEL = "IPY_MODEL_"  # how a state names another widget

States = dict[str, dict[str, Any]]  # by the widgets' model ids


def install() -> None:
    """Answer in the place of ipywidgets from now on, where it is made as versions 7 and 8 are."""
    parts = (Widget, "_handle_control_comm_msg"), (ipywidgets_widget, "_remove_buffers")
    if all(hasattr(*part) for part in parts):
        Widget._handle_control_comm_msg = classmethod(_answer)


def _answer(kind: type[Widget], message: Mapping[str, Any]) -> None:
    """Send the state of every widget over the channel on which a page has asked for it."""
    if (method := message["content"]["data"]["method"]) != "request_states":
        raise RuntimeError(f"ipywidgets' control channel knows no {method!r}")
    alive = getattr(ipywidgets_widget, "_instances", None)  # of version 8
    states = whole(Widget.widgets if alive is None else alive)
    states, paths, buffers = ipywidgets_widget._remove_buffers(states)
    answer = {"method": "update_states", "states": states, "buffer_paths": paths}
    kind._control_comm.send(answer, buffers=buffers)


def whole(alive: Mapping[str, Widget]) -> States:
    """The states of these widgets and of all that they name, while threads change them.

    What still names a widget that is closed is left without it.
    """
    found = dict(_states(alive, list(alive)))
    for _ in range(TRIES):
        missing = {key: _named(state["state"]) - found.keys() for key, state in found.items()}
        if not any(missing.values()):
            return found
        time.sleep(PAUSE)
        holders = [key for key, names in missing.items() if names]
        found = {key: state for key, state in found.items() if key not in holders}
        found |= _states(alive, {*holders, *set().union(*missing.values())})
    left = {key: _without(state["state"], found) for key, state in found.items()}
    return {key: {**state, "state": left[key]} for key, state in found.items()}


def _states(
    alive: Mapping[str, Widget], keys: Iterable[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    for key in keys:
        if (widget := alive.get(key)) is None:  # closed meanwhile
            continue
        with suppress(TypeError):  # it holds a child that has just lost its id: looked at once more
            yield (
                key,
                {
                    "model_name": widget._model_name,
                    "model_module": widget._model_module,
                    "model_module_version": widget._model_module_version,
                    "state": widget.get_state(drop_defaults=False),
                },
            )


def _named(value: Any) -> set[str]:
    """The widgets that stand in a state."""
    if isinstance(value, str):
        return {value.removeprefix(MODEL)} if value.startswith(MODEL) else set()
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return set()
    return set().union(*map(_named, value))


def _without(value: Any, found: States) -> Any:
    """A state whose lists name no widget but those that are found."""
    if isinstance(value, dict):
        return {key: _without(each, found) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without(each, found) for each in value if _named(each) <= found.keys()]
    return value
