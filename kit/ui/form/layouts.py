"""Layouts and styles that the widgets of one form have in common.

Each widget brings a layout and most bring a style: models of their own, each sent to the page in a
message of its own. A kernel's socket holds 1,000 messages for a server that does not keep up, as
does the server's, and what is beyond both is dropped without a word (ZMQ_SNDHWM, ZMQ_RCVHWM: see
https://libzmq.readthedocs.io/en/latest/zmq_setsockopt.html). A form with pieces missing is the
result, on slow machines. So what many widgets have alike is made once.
"""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets


class Shared:
    """Makes widgets that share their layout and style; who changes one changes it for all.

    One for each form: closing a form's widgets leaves the others as they are.
    """

    def __init__(self) -> None:
        self._layouts: dict[tuple[tuple[str, str], ...], widgets.Layout] = {}
        self._styles: dict[type[widgets.Widget], widgets.Widget] = {}

    def make(
        self,
        kind: type[widgets.DOMWidget],
        *args: Any,
        layout: dict[str, str],
        css: tuple[str, ...] = (),
        **traits: Any,
    ) -> Any:
        """A widget of this kind; css: its classes, which then need no message of their own."""
        key = tuple(sorted(layout.items()))
        if key not in self._layouts:
            self._layouts[key] = widgets.Layout(**layout)
        if kind in self._styles:
            traits["style"] = self._styles[kind]
        made = kind(*args, layout=self._layouts[key], _dom_classes=css, **traits)
        if made.has_trait("style"):
            self._styles.setdefault(kind, made.style)
        return made
