"""The one style sheet, and how a thing of ours shows itself in a cell.

Only what both ipywidgets 7.7 (Colab) and 8 know is used anywhere in kit/ui. Colours follow the
notebook's theme: lines are shares of the text's own colour, so light and dark need no second sheet.
Everything stays usable where a front end drops the sheet, because grids are widget layouts.
"""

from __future__ import annotations

import html
from typing import Any, ClassVar

import ipywidgets as widgets
from IPython import get_ipython
from IPython.display import display

# ipywidgets 7 and 8 name some parts differently; over their own sheets only !important is heard.
#
# A tone is mixed with the text's own colour: darker on a light page, lighter on a dark one, so that
# it can be read on both (4.5 : 1 and more; tests/browser/test_looks_in_lab.py computes it).
STYLE = """<style>
.kit {
  --kit-line: color-mix(in srgb, currentColor 22%, transparent);
  --kit-faint: color-mix(in srgb, currentColor 5%, transparent);
  --kit-dim: color-mix(in srgb, currentColor 72%, transparent);
  --kit-accent: color-mix(in srgb, #2f7ae5 70%, currentColor);
  --kit-bad: color-mix(in srgb, #d9433d 65%, currentColor);
  --kit-good: color-mix(in srgb, #2e9e5b 60%, currentColor);
  --kit-warm: color-mix(in srgb, #b87d0c 60%, currentColor);
  --kit-fill: #2563c4;
  --kit-radius: 4px; --kit-unit: 8px;
  max-width: 1180px; overflow: visible !important; font-size: 13px; line-height: 1.35;
  font-variant-numeric: tabular-nums;
  color: var(--jp-ui-font-color1, var(--vscode-foreground,
    var(--colab-primary-text-color, inherit)));
}
.kit .kit-grid, .kit .kit-field, .kit .kit-page { overflow: visible !important; }
.kit .kit-grid { align-items: start; margin: 0; }
.kit .widget-html, .kit .widget-html-content {
  height: auto !important; min-height: 0 !important; line-height: 1.35 !important;
  margin: 0 !important; padding: 0 !important; overflow: visible !important;
}
.kit .widget-vbox, .kit .widget-hbox, .kit .widget-box, .kit .widget-gridbox { margin: 0; }
/* A field: its name above it, a ? in the same line, help and problems beneath. */
.kit .kit-field { position: relative; margin: 0; }
.kit .kit-field > * { margin-left: 0 !important; margin-right: 0 !important; }
.kit .kit-field .widget-html, .kit .kit-field .widget-html-content {
  position: static !important; width: auto !important; font-size: 12px;
}
.kit .kit-over > .widget-inline-hbox, .kit .kit-over.widget-inline-hbox {
  flex-direction: column !important; align-items: stretch !important; height: auto !important;
  margin-top: 0; margin-bottom: 0; overflow: visible !important;
}
.kit .kit-over > .widget-inline-hbox > *, .kit .kit-over.widget-inline-hbox > * {
  flex: none !important; box-sizing: border-box;
}
.kit .kit-over > .widget-inline-hbox > label, .kit .kit-over.widget-inline-hbox > label {
  width: auto !important; max-width: none; height: auto; min-height: 18px; margin: 0 0 2px;
  padding: 0 20px 0 0; font-size: 12px; line-height: 18px; text-align: left; color: inherit;
  white-space: normal;
}
.kit .kit-over select, .kit .kit-over input { height: 28px; width: 100%; }
.kit input, .kit select, .kit textarea, .kit button, .kit svg g { font-family: inherit; }
.kit .kit-hush > label {
  position: absolute !important; width: 1px !important; height: 1px !important;
  min-width: 0 !important; overflow: hidden; clip-path: inset(50%);
}
.kit .kit-label { min-height: 18px; margin-bottom: 2px; font-size: 12px; line-height: 18px; }
.kit .kit-help > summary {
  position: absolute; top: 0; right: 0; width: 16px; height: 16px; box-sizing: border-box;
  border: 1px solid var(--kit-line); border-radius: 50%; color: var(--kit-dim);
  cursor: pointer; font-size: 10px; line-height: 14px; list-style: none; text-align: center;
}
.kit .kit-check .kit-help > summary { top: 4px; }
.kit .kit-help > summary::-webkit-details-marker { display: none; }
.kit .kit-help > summary:focus-visible { outline-offset: -1px; }
.kit .kit-help > summary:hover, .kit .kit-help[open] > summary {
  border-color: var(--kit-accent); color: var(--kit-accent);
}
.kit summary:focus-visible, .kit a:focus-visible, .kit button:focus-visible {
  outline: 2px solid var(--kit-accent); outline-offset: 1px;
}
.kit .kit-help > div {
  margin: 4px 0; padding: 6px var(--kit-unit); border-left: 2px solid var(--kit-accent);
  background: var(--kit-faint); overflow-wrap: anywhere;
}
.kit .kit-help p { margin: 0 0 4px; font-size: 12px; line-height: 1.4; }
.kit .kit-help p:last-child { margin: 0; color: var(--kit-dim); }
.kit .kit-problem { color: var(--kit-bad); font-size: 12px; }
.kit .kit-bad input, .kit .kit-bad select, .kit .kit-bad textarea {
  border-color: var(--kit-bad) !important; box-shadow: 0 0 0 1px var(--kit-bad) !important;
}
.kit .kit-idle > .widget-inline-hbox { opacity: 0.5; }
.kit .kit-check { min-height: 26px; }
.kit .kit-check > .widget-checkbox {
  width: auto !important; max-width: 100%; height: auto; min-height: 26px; margin: 0 !important;
  padding: 3px 20px 0 0; box-sizing: border-box;
}
.kit .kit-check > .widget-checkbox, .kit .kit-check > .widget-checkbox * {
  font-size: 12px; line-height: 18px; white-space: normal;
}
.kit .widget-checkbox input { margin: 0 6px 0 0 !important; accent-color: var(--kit-fill); }
.kit input[type=text], .kit textarea, .kit select { border-radius: var(--kit-radius) !important; }
.kit .widget-inline-hbox { overflow: visible; }
.kit select {
  background-image: url("ARROW") !important;
  background-position: right 8px center !important; background-repeat: no-repeat !important;
  background-size: 12px !important;
}
/* Buttons and links: one that leads on, the others quiet. */
.kit .jupyter-button, .kit .kit-button {
  min-height: 28px; box-sizing: border-box; border: 1px solid var(--kit-line);
  border-radius: var(--kit-radius) !important; box-shadow: none !important;
  background: var(--kit-faint); color: inherit; font-size: 13px; line-height: 26px;
}
.kit .widget-hbox > .jupyter-button, .kit .widget-hbox > .widget-text {
  margin-left: 0; margin-right: var(--kit-unit);
}
.kit .jupyter-button:hover, .kit .kit-button:hover { border-color: var(--kit-accent); }
.kit .jupyter-button:disabled { opacity: 0.5; }
.kit .jupyter-button.mod-success, .kit .jupyter-button.mod-primary, .kit .kit-button.is-first {
  border-color: var(--kit-fill); background: var(--kit-fill); color: #fff;
}
.kit .jupyter-button.mod-success:hover, .kit .kit-button.is-first:hover { background: #1d52a5; }
.kit .jupyter-button.mod-danger { border-color: var(--kit-bad); color: var(--kit-bad); }
.kit .jupyter-button.mod-active {
  border-color: var(--kit-accent); background: color-mix(in srgb, #2f7ae5 14%, transparent);
  color: inherit;
}
.kit .kit-button { display: inline-block; padding: 0 12px; cursor: pointer; }
.kit a { color: var(--kit-accent) !important; text-decoration: underline; }
.kit a.kit-button { color: inherit !important; text-decoration: none; }
.kit a.kit-button.is-first { color: #fff !important; }
.kit .kit-head {
  margin: 10px 0 6px; border-bottom: 1px solid var(--kit-line); font-weight: 600;
  line-height: 20px;
}
/* Tabs go on in the next line where they do not fit. */
.kit .widget-tab { margin: 0; }
.kit .widget-tab > .p-TabBar, .kit .widget-tab > .lm-TabBar,
.kit .jupyter-widget-tab > .lm-TabBar {
  height: auto !important; min-height: 28px; max-height: none !important; overflow: visible;
}
.kit .p-TabBar-content, .kit .lm-TabBar-content { flex-wrap: wrap !important; }
.kit .p-TabBar-tab, .kit .lm-TabBar-tab {
  flex: 0 1 auto !important; min-width: max-content !important; max-width: none !important;
  color: inherit !important;
}
.kit .p-TabBar-tabLabel, .kit .lm-TabBar-tabLabel { overflow: visible; }
.kit .widget-tab-contents, .kit .jupyter-widget-tab-contents {
  padding: 4px 12px 12px !important; overflow: visible !important;
}
@media (max-width: 700px) {
  .kit .widget-tab-contents, .kit .jupyter-widget-tab-contents { padding: 4px 6px 8px !important; }
}
.kit .kit-plan { padding: var(--kit-unit) 0 6px; }
.kit .kit-plan b { font-weight: 600; }
.kit .kit-plan ul { margin: 2px 0 0; padding-left: 18px; }
.kit .kit-plan .is-bad { color: var(--kit-bad); }
.kit .kit-quiet { color: var(--kit-dim); font-size: 12px; overflow-wrap: anywhere; }
/* ipywidgets counts files behind the name, "(0)" at first; the words are CSS's therefore. */
.kit .widget-upload { font-size: 0 !important; }
.kit .widget-upload i { font-size: 13px; }
.kit .widget-upload::after { content: "Upload a file"; font-size: 13px; }
/* A run. What changes has its place from the start; nine numbers stand in a row of 1280 px. */
.kit .kit-numbers {
  display: grid; gap: 2px 12px; padding: 4px 0; min-height: 40px;
  grid-template-columns: repeat(auto-fill, minmax(108px, 1fr));
}
.kit .kit-numbers > div { min-width: 0; }
.kit .kit-numbers span { display: block; color: var(--kit-dim); font-size: 12px; }
.kit .kit-numbers b { font-weight: 600; white-space: nowrap; }
.kit .kit-run { margin-top: var(--kit-unit) !important; }
.kit .kit-title { display: flex; flex-wrap: wrap; gap: 2px 10px; align-items: center; }
.kit .kit-title b { font-size: 15px; overflow-wrap: anywhere; }
.kit .kit-state {
  --tone: var(--kit-dim); min-width: 62px; padding: 0 8px; border: 1px solid var(--tone);
  border-radius: var(--kit-radius); color: var(--tone); font-size: 11px; line-height: 18px;
  text-align: center;
}
.kit .kit-state.running { --tone: var(--kit-accent); }
.kit .kit-state.done { --tone: var(--kit-good); }
.kit .kit-state.stopped { --tone: var(--kit-warm); }
.kit .kit-state.failed { --tone: var(--kit-bad); }
.kit .kit-line { min-height: 18px; }
.kit .kit-chart { width: 100%; max-width: 860px; }
.kit .kit-chart:not(:has(svg)) { display: none; }
.kit .kit-chart svg { display: block; width: 100%; height: auto; }
@media (max-width: 500px) {
  .kit .kit-numbers { gap: 2px 8px; }
  .kit .kit-numbers b { font-size: 12px; }
  .kit .kit-chart svg { overflow: visible; }
  .kit .kit-chart svg g { font-size: 22px; }
  .kit .kit-pictures svg { overflow: visible; }
  .kit .kit-pictures svg g { font-size: 14px; }
  .kit .kit-table tr { display: grid; margin-bottom: 4px; }
}
.kit .kit-newest-file { margin-bottom: var(--kit-unit) !important; }
.kit .kit-key {
  display: flex; flex-wrap: wrap; gap: 2px 16px; min-height: 18px; padding: 4px 0;
  font-size: 12px;
}
.kit .kit-swatch {
  display: inline-block; width: 10px; height: 10px; margin-right: 5px;
  border-radius: 2px; background: var(--ink);
}
/* As wide as their box; with ipywidgets' margin of 2 px they would scroll in it. */
.kit .widget-image, .kit .widget-hprogress {
  box-sizing: border-box; margin-left: 0 !important; margin-right: 0 !important;
}
.kit .widget-hprogress { height: 8px !important; margin: 6px 0 !important; }
.kit .widget-hprogress .progress {
  height: 8px !important; border: 0; border-radius: var(--kit-radius); overflow: hidden;
  background: var(--kit-line);
}
.kit .progress-bar { background-color: var(--kit-fill) !important; transition: none; }
.kit .kit-prompt { margin: var(--kit-unit) 0 4px; font-size: 12px; overflow-wrap: anywhere; }
.kit .kit-shots {
  display: grid; gap: var(--kit-unit); align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(var(--cell, 150px), 46%), 1fr));
}
.kit .kit-shots > * {
  width: auto !important; min-width: 0; max-width: 220px; margin: 0; overflow: hidden !important;
}
.kit .kit-open {
  display: block; width: 100%; padding: 0; border: 0; background: none; cursor: zoom-in;
}
.kit .kit-open img {
  display: block; width: 100%; height: auto; margin: 0; border-radius: var(--kit-radius);
}
.kit .kit-large {
  max-width: 96vw; max-height: 96vh; padding: var(--kit-unit); border: 0; overflow: auto;
  border-radius: var(--kit-radius); background: #1c1c1c; color: #f2f2f2; font-size: 13px;
}
.kit .kit-large::backdrop { background: rgb(0 0 0 / 0.7); }
.kit .kit-large img {
  display: block; max-width: 92vw; max-height: 82vh; width: auto; height: auto; margin: 0 auto 8px;
}
.kit .kit-large.is-tiny img { min-width: min(512px, 92vw); image-rendering: pixelated; }
.kit .kit-large .kit-button { border-color: #888; background: #333; color: #fff; }
.kit .kit-notes ul { margin: 2px 0 6px; padding-left: 18px; overflow-wrap: anywhere; }
.kit details > summary { cursor: pointer; }
.kit .kit-files > summary { margin: var(--kit-unit) 0 4px; }
.kit code { padding: 0; background: transparent; color: inherit; font-size: 12px; }
.kit .kit-copy {
  padding: 1px 5px; border: 1px solid var(--kit-line); border-radius: var(--kit-radius);
  background: var(--kit-faint); overflow-wrap: anywhere; user-select: all;
}
.kit .kit-newest {
  display: flex; flex-wrap: wrap; gap: var(--kit-unit) 12px; align-items: center;
  min-height: 28px; margin: 6px 0;
}
.kit .kit-table { border-collapse: collapse; font-size: 12px; }
.kit .kit-table td, .kit .kit-table th {
  padding: 2px 16px 2px 0; background: none; font-weight: normal; text-align: left;
  vertical-align: top; overflow-wrap: anywhere;
}
.kit .kit-table th { color: var(--kit-dim); white-space: nowrap; }
.kit .kit-table tr { background: none !important; }
.kit .kit-bar { gap: 6px 12px; margin: 2px 0 6px; overflow: visible !important; }
.kit .kit-queued { gap: 4px 8px; padding: 4px 0; border-top: 1px solid var(--kit-line); }
.kit .kit-queued > * { margin: 0 !important; }
.kit .kit-queued > .widget-html {
  flex: 1 1 260px; width: auto !important; min-width: 0; overflow-wrap: anywhere;
}
.kit .kit-bar > * { margin: 0 !important; max-width: 100%; }
.kit .widget-toggle-buttons, .kit .widget-toggle-buttons > div {
  width: auto; max-width: 100%; flex-wrap: wrap; gap: 4px;
}
.kit .widget-toggle-buttons { margin-left: 0; margin-right: 0; box-sizing: border-box; }
.kit .widget-toggle-buttons .jupyter-button { margin: 0; }
.kit .kit-offer .widget-html-content { overflow-wrap: anywhere; }
.kit .kit-changes { border-collapse: collapse; font-size: 12px; }
.kit .kit-changes td, .kit .kit-changes th {
  min-width: 48px; padding: 1px 16px 1px 0; text-align: left; font-weight: normal;
  vertical-align: top;
}
@media (max-width: 500px) { .kit .kit-changes td, .kit .kit-changes th { padding-right: 8px; } }
.kit .kit-changes th { color: var(--kit-dim); }
.kit .kit-link { padding: 0 8px; }
.kit .kit-compared { max-width: 1000px; margin: var(--kit-unit) 0; }
.kit .kit-pictures {
  display: grid; gap: 10px 20px; padding: 8px 0;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 300px), 1fr));
}
.kit .kit-pictures svg { display: block; width: 100%; max-width: 400px; height: auto; }
.kit .kit-caption { font-size: 12px; font-weight: 600; }
.kit .kit-facts { display: grid; grid-template-columns: auto 1fr; gap: 1px 12px; font-size: 12px; }
.kit .kit-facts span { color: var(--kit-dim); }
.kit .kit-facts b { font-weight: 600; }
.kit .kit-cards {
  display: grid; gap: 12px; padding: 4px 0;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 200px), 1fr));
}
.kit .kit-card { min-width: 0; overflow-wrap: anywhere; font-size: 12px; }
.kit .kit-card img { display: block; max-width: 100%; height: auto; margin-bottom: 3px; }
.kit .kit-card ol { margin: 2px 0 0; padding-left: 18px; }
@media (min-width: 760px) { .kit .kit-wide { grid-column: span 2; } }
.kit .kit-full { grid-column: 1 / -1; }
</style>"""
COLUMN = 240  # pixels; all fields stand in columns of this width and more
# ipywidgets' own arrow is black, also on black.
ARROW = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 12 12'%3E"
    "%3Cpath d='M2 4l4 4 4-4' fill='none' stroke='%23888' stroke-width='1.8'/%3E%3C/svg%3E"
)


def style() -> str:
    """The sheet as HTML; it must be in the same output as what it styles."""
    return STYLE.replace("ARROW", ARROW)


def style_sheet() -> widgets.HTML:
    """The style as a widget that takes no room."""
    return widgets.HTML(style(), layout=widgets.Layout(height="0", margin="0"))


def root(*children: widgets.Widget) -> widgets.VBox:
    """A styled column: the outermost box of a form or dashboard."""
    box = widgets.VBox([style_sheet(), *children], layout=widgets.Layout(width="100%"))
    box.add_class("kit")
    return box


def block(content: str = "", *, css: str = "") -> widgets.HTML:
    """A piece of HTML over the whole width; css: its classes, separated by spaces."""
    piece = widgets.HTML(content, layout=widgets.Layout(width="100%"))
    for name in css.split():
        piece.add_class(name)
    return piece


def grid(children: list[widgets.Widget], *, column: int = COLUMN) -> widgets.GridBox:
    """As many equal columns of at least `column` pixels as fit: four on a desk, one on a phone."""
    layout = widgets.Layout(
        grid_template_columns=f"repeat(auto-fill, minmax(min(100%, {column}px), 1fr))",
        grid_gap="6px 16px",
        width="100%",
    )
    box = widgets.GridBox(children, layout=layout)
    box.add_class("kit-grid")
    return box


def named(control: widgets.DOMWidget, name: str, *, hidden: bool = False) -> widgets.DOMWidget:
    """The control with a name above it, which a screen reader tells, too.

    hidden: told only, where what is seen beside it says enough.
    """
    control.description = name
    control.style.description_width = "initial"
    control.add_class("kit-hush" if hidden else "kit-over")
    return control


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


class Script:
    """A script that shows nothing itself: `display` it in the cell that shows what it serves."""

    def __init__(self, text: str) -> None:
        self._text = text

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": f"<script>{self._text}</script>", "text/plain": ""}


def _cell() -> int | None:
    """The number of the cell that runs, or None outside of IPython."""
    shell = get_ipython()
    return None if shell is None else shell.execution_count
