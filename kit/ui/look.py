"""The one style sheet, and how a thing of ours shows itself in a cell.

Only what both ipywidgets 7.7 (Colab) and 8 know is used anywhere in kit/ui. Colours follow the
notebook's theme: lines are shares of the text's own colour, so light and dark need no second sheet.
Everything stays usable where a front end drops the sheet, because grids are widget layouts.
"""

from __future__ import annotations

import html
from typing import ClassVar

import ipywidgets as widgets
from IPython import get_ipython
from IPython.display import display

# ipywidgets 7 and 8 name some parts differently; over their own sheets only !important is heard.
STYLE = """<style>
.kit {
  --kit-line: color-mix(in srgb, currentColor 22%, transparent);
  --kit-dim: color-mix(in srgb, currentColor 65%, transparent);
  --kit-accent: #2f7ae5; --kit-bad: #d9433d; --kit-good: #2e9e5b;
  max-width: 1180px; overflow: visible !important; font-size: 13px;
  color: var(--jp-ui-font-color1, var(--vscode-foreground,
    var(--colab-primary-text-color, inherit)));
}
.kit .kit-grid, .kit .kit-field, .kit .kit-page { overflow: visible !important; }
.kit .kit-grid { align-items: start; margin: 0; }
.kit .kit-field { margin: 0; }
.kit .kit-field > * { margin-left: 0 !important; margin-right: 0 !important; }
.kit .widget-html, .kit .widget-html-content {
  height: auto !important; min-height: 0 !important; line-height: 1.35 !important;
  margin: 0 !important; padding: 0 !important;
}
.kit .kit-label {
  display: flex; gap: 6px; align-items: center; min-height: 18px; font-size: 12px;
}
.kit .kit-label > span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.kit .kit-label em { font-style: normal; color: var(--kit-dim); }
.kit .kit-label i {
  flex: none; width: 13px; height: 13px; border: 1px solid var(--kit-line); border-radius: 50%;
  color: var(--kit-dim); cursor: help; font-size: 9px; font-style: normal; line-height: 13px;
  text-align: center;
}
.kit .kit-label i:hover { border-color: var(--kit-accent); color: var(--kit-accent); }
.kit .kit-problem { color: var(--kit-bad); font-size: 11px; }
.kit .kit-bad input, .kit .kit-bad select, .kit .kit-bad textarea {
  border-color: var(--kit-bad) !important; box-shadow: 0 0 0 1px var(--kit-bad) !important;
}
.kit .kit-idle { opacity: 0.45; }
.kit .kit-check { align-items: center !important; min-height: 26px; flex-wrap: wrap !important; }
.kit .kit-check .widget-checkbox {
  width: auto !important; margin: 0 4px 0 0 !important; font-size: 12px;
}
.kit .kit-check .widget-checkbox input { margin: 0 6px 0 0 !important; }
.kit select {
  background-image: url("ARROW") !important;
  background-position: right 8px center !important; background-repeat: no-repeat !important;
  background-size: 12px !important;
}
.kit .kit-head {
  margin: 10px 0 6px; border-bottom: 1px solid var(--kit-line); font-weight: 600;
  line-height: 20px;
}
.kit .p-TabBar-tab, .kit .lm-TabBar-tab {
  flex: 0 1 auto !important; min-width: max-content !important;
}
.kit .p-TabBar-content, .kit .lm-TabBar-content { flex-wrap: wrap !important; }
.kit .widget-tab-contents, .kit .jupyter-widget-tab-contents {
  padding: 4px 12px 12px !important; overflow: visible !important;
}
.kit .kit-plan { padding: 6px 0; }
.kit .kit-plan b { font-weight: 600; }
.kit .kit-plan ul { margin: 2px 0 0; padding-left: 18px; }
.kit .kit-plan .is-bad { color: var(--kit-bad); }
.kit .kit-quiet { color: var(--kit-dim); font-size: 12px; }
.kit .kit-numbers { display: flex; flex-wrap: wrap; gap: 2px 20px; padding: 2px 0; }
.kit .kit-numbers span { margin-right: 6px; color: var(--kit-dim); font-size: 12px; }
.kit .kit-numbers b { font-variant-numeric: tabular-nums; font-weight: 600; }
.kit .kit-title { display: flex; gap: 10px; align-items: center; }
.kit .kit-title b { font-size: 15px; }
.kit .kit-state {
  padding: 0 9px; border-radius: 9px; background: #777; color: #fff; font-size: 11px;
  line-height: 18px;
}
.kit .kit-state.running { background: #2f7ae5; }
.kit .kit-state.done { background: #2e9e5b; }
.kit .kit-state.stopped { background: #b87d0c; }
.kit .kit-state.failed { background: #d9433d; }
.kit .kit-chart svg { display: block; width: 100%; max-width: 860px; height: auto; }
.kit .kit-key { display: flex; flex-wrap: wrap; gap: 2px 16px; padding: 4px 0; font-size: 12px; }
/* As wide as their box; with ipywidgets' margin of 2 px they would scroll in it. */
.kit .widget-image, .kit .widget-hprogress {
  box-sizing: border-box; margin-left: 0 !important; margin-right: 0 !important;
}
.kit .kit-prompt { margin-top: 8px; font-size: 12px; }
.kit .kit-notes ul { margin: 2px 0 6px; padding-left: 18px; }
.kit code { background: transparent; color: inherit; font-size: 12px; }
.kit .kit-bar { gap: 6px 12px; margin: 2px 0 6px; overflow: visible !important; }
.kit .kit-bar > * { margin: 0 !important; }
.kit .kit-changes { border-collapse: collapse; font-size: 12px; }
.kit .kit-changes td, .kit .kit-changes th {
  padding: 1px 16px 1px 0; text-align: left; font-weight: normal;
}
.kit .kit-changes th { color: var(--kit-dim); }
.kit .kit-link { color: var(--kit-accent); padding: 0 8px; }
.kit .kit-pictures {
  display: grid; gap: 10px 20px; padding: 4px 0 8px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 300px), 1fr));
}
.kit .kit-pictures svg { display: block; width: 100%; max-width: 400px; height: auto; }
.kit .kit-caption { font-size: 12px; font-weight: 600; }
.kit .kit-facts { display: grid; grid-template-columns: auto 1fr; gap: 1px 12px; font-size: 12px; }
.kit .kit-facts span { color: var(--kit-dim); }
.kit .kit-facts b { font-weight: 600; }
.kit .kit-cards {
  display: grid; gap: 12px; padding: 4px 0;
  grid-template-columns: repeat(auto-fill, minmax(200px, 1fr));
}
.kit .kit-card { min-width: 0; overflow-wrap: anywhere; font-size: 12px; }
.kit .kit-card img { display: block; max-width: 100%; height: auto; margin-bottom: 3px; }
.kit .kit-card ol { margin: 2px 0 0; padding-left: 18px; }
@media (min-width: 760px) { .kit .kit-wide { grid-column: span 2; } }
.kit .kit-full { grid-column: 1 / -1; }
</style>"""
# ipywidgets' own arrow is black, also on black.
ARROW = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 12 12'%3E"
    "%3Cpath d='M2 4l4 4 4-4' fill='none' stroke='%23888' stroke-width='1.8'/%3E%3C/svg%3E"
)


def style_sheet() -> widgets.HTML:
    """The style as a widget that takes no room; it must be in the same output as what it styles."""
    return widgets.HTML(
        STYLE.replace("ARROW", ARROW), layout=widgets.Layout(height="0", margin="0")
    )


def root(*children: widgets.Widget) -> widgets.VBox:
    """A styled column: the outermost box of a form or dashboard."""
    box = widgets.VBox([style_sheet(), *children], layout=widgets.Layout(width="100%"))
    box.add_class("kit")
    return box


def block(content: str = "", *, css: str = "") -> widgets.HTML:
    """A piece of HTML over the whole width."""
    piece = widgets.HTML(content, layout=widgets.Layout(width="100%"))
    if css:
        piece.add_class(css)
    return piece


def grid(children: list[widgets.Widget], *, column: int) -> widgets.GridBox:
    """As many equal columns of at least `column` pixels as fit: four on a desk, one on a phone."""
    layout = widgets.Layout(
        grid_template_columns=f"repeat(auto-fill, minmax(min(100%, {column}px), 1fr))",
        grid_gap="6px 16px",
        width="100%",
    )
    box = widgets.GridBox(children, layout=layout)
    box.add_class("kit-grid")
    return box


def escaped(text: object) -> str:
    """Text that is safe inside HTML and inside a quoted attribute."""
    return html.escape(str(text), quote=True)


class Shown:
    """Something with a `root` widget, shown once; naming it in a later cell shows it there, too."""

    NEVER: ClassVar[object] = object()
    root: widgets.Widget

    def __init__(self) -> None:
        self._shown_by: object = self.NEVER

    @property
    def is_shown(self) -> bool:
        """Some cell has shown it already."""
        return self._shown_by is not self.NEVER

    def show(self) -> None:
        """Show it here; what an earlier cell shows stays alive, for it is the same widgets."""
        self._shown_by = _cell()
        display(self.root)

    def _ipython_display_(self) -> None:
        """As the last line of the cell that has just shown it, it is not shown twice."""
        if self._shown_by is self.NEVER or self._shown_by != _cell():
            self.show()


def _cell() -> int | None:
    """The number of the cell that runs, or None outside of IPython."""
    shell = get_ipython()
    return None if shell is None else shell.execution_count
