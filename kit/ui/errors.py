"""What the person can put right is a quiet panel; mistakes of ours keep their traceback."""

from __future__ import annotations

import traceback
from types import TracebackType
from typing import Any

from IPython import get_ipython
from IPython.display import display

from kit.errors import KitError, without_secrets
from kit.ui.look import escaped

PANEL = (
    "max-width: 900px; margin: 4px 0; padding: 8px 12px; border-left: 3px solid #d9433d; "
    "background: color-mix(in srgb, #d9433d 8%, transparent); "
    "border-radius: 4px; font-size: 13px; line-height: 1.45; white-space: pre-wrap"
)


def show_error(error: KitError) -> None:
    """Show the message in the cell: what was found, what is possible, what to do."""
    display({"text/html": panel(error), "text/plain": str(error)}, raw=True)


def panel(error: KitError) -> str:
    """The message as HTML, its first line bold."""
    found, _, rest = str(error).partition("\n")
    text = f"<b>{escaped(found)}</b>" + (f"\n{escaped(rest)}" if rest else "")
    return f'<div class="kit-error" role="alert" style="{PANEL}">{text}</div>'


def failure(error: BaseException, *, resumes: bool) -> str:
    """What ended a run, as HTML: what to do about it, and folded below, where it was raised."""
    if isinstance(error, KitError):
        shown = panel(error)
    else:
        told = KitError(
            f"{type(error).__name__}: {without_secrets(error)}",
            "That is a mistake of LoRA Kit, or of a library it uses.",
            "Nothing that was saved is lost."
            + (" Train again to go on from the last state kept." if resumes else ""),
        )
        shown = panel(told)
    lines = "".join(traceback.format_exception(error))
    return (
        f"{shown}<details class='kit-quiet'><summary>Full traceback</summary>"
        f"<pre style='overflow-x: auto; font-size: 11px'>{escaped(without_secrets(lines))}</pre>"
        "</details>"
    )


def install() -> None:
    """Show KitErrors that leave a cell this way from now on; outside of IPython nothing changes.

    The cell still counts as failed, so that "Run all" stops there.
    """
    shell = get_ipython()
    if shell is not None:
        shell.set_custom_exc((KitError,), _shown)


def _shown(
    shell: Any,
    kind: type[BaseException],
    error: KitError,
    trace: TracebackType | None,
    tb_offset: int | None = None,
) -> list[str]:
    """What IPython calls; the lines it would print as traceback are none."""
    show_error(error)
    return []
