"""The style of the start and of the bar that stays in view, beside kit/ui/look.py's.

A sticky bar needs every box between it and what scrolls to let it show: in JupyterLab 3.6 and 4.6
`:has()` reaches them. Where a front end scrolls a frame instead (Colab), it is an ordinary bar.
"""

from __future__ import annotations

import ipywidgets as widgets

STYLE = """<style>
.jp-OutputArea:has(.kit-sticky), .jp-OutputArea-child:has(.kit-sticky),
.jp-OutputArea-output:has(.kit-sticky), .jp-Cell:has(.kit-sticky),
.jp-Cell-outputWrapper:has(.kit-sticky), .jp-Cell-outputArea:has(.kit-sticky),
.jupyter-widgets:has(.kit-sticky), .jp-OutputArea .lm-Widget:has(.kit-sticky) {
  /* What overflows visibly would make a flex item as wide as its widest drawing. */
  overflow: visible !important; min-width: 0 !important;
}
/* A bar sticks within the box that holds it: the whole form's, not its place's. */
.kit .kit-place { display: contents !important; }
.kit .kit-sticky, .kit .kit-end-bar {
  margin: var(--kit-unit) 0 !important; padding: 6px 10px !important; gap: 4px var(--kit-unit);
  overflow: visible !important; border: 1px solid var(--kit-line);
  border-radius: var(--kit-radius);
}
.kit .kit-sticky {
  position: sticky; top: 0; bottom: 0; z-index: 10; border-left: 3px solid var(--kit-fill);
  background: var(--jp-layout-color1, var(--vscode-editor-background,
    var(--colab-primary-surface-color, #fff)));
}
.jp-Notebook:not(.jp-WindowedPanel) .kit .kit-sticky { top: -10px; bottom: -10px; }
.kit .kit-sticky > *, .kit .kit-end-bar > * { margin: 0 !important; }
.kit .kit-sticky > .kit-sum, .kit .kit-end-bar > .kit-sum {
  flex: 1 1 300px; width: auto !important; min-width: 0;
}
.kit .kit-sum b { font-weight: 600; }
.kit .kit-head-line { gap: 4px 16px; overflow: visible !important; }
.kit .kit-head-line > .widget-hbox { gap: 4px 0; overflow: visible !important; }
.kit .kit-machine { flex: 1 1 220px; width: auto !important; }
.kit .kit-machine b { font-size: 16px; margin-right: 10px; }
.kit .kit-question { font-weight: 600; padding: var(--kit-unit) 0 4px; }
.kit .kit-question b {
  display: inline-block; width: 20px; margin-right: var(--kit-unit); border-radius: 10px;
  line-height: 20px; background: var(--kit-fill); color: #fff; text-align: center; font-size: 12px;
}
.kit .kit-answers {
  gap: 4px 16px; padding-left: 28px !important; align-items: flex-start;
  overflow: visible !important;
}
.kit .kit-answers > * { min-width: 0; margin-left: 0 !important; margin-right: 0 !important; }
.kit .kit-answers > .kit-field { flex: 1 1 320px; width: auto !important; }
.kit .kit-across, .kit .kit-across .widget-radio-box {
  height: auto !important; overflow: visible !important;
}
.kit .kit-across .widget-radio-box {
  flex-direction: row !important; flex-wrap: wrap; gap: 2px 16px; align-items: center;
  margin: 0 !important;  /* ipywidgets leaves 15 px below */
}
.kit .kit-across .widget-radio-box label {
  display: inline-flex !important; align-items: center; width: auto !important; height: 28px;
  margin: 0 !important; line-height: 28px;
}
.kit .kit-across { margin-top: 20px !important; }
.kit .kit-across input { order: -1; accent-color: var(--kit-fill); margin: 0 6px 0 0 !important; }
.kit .kit-start > * { overflow: visible !important; }
.kit .kit-answers select:not([multiple]) { height: 28px !important; }
/* The run brings look.py's sheet once more, beneath this one: what differs must weigh more. */
.kit .kit-start .kit-filled { padding: 4px 0 0 28px !important; }
.kit .kit-offer {
  margin: 6px 0 !important; padding: var(--kit-unit) 12px !important;
  overflow: visible !important; border: 1px solid var(--kit-line);
  border-radius: var(--kit-radius);
}
.kit .kit-gpus { gap: 4px var(--kit-unit); margin: var(--kit-unit) 0 0 !important; }
.kit .kit-gpus > * { margin: 0 !important; }
.kit .kit-gpus > .widget-html { width: auto !important; }
.kit .kit-gpus > .kit-quiet { flex: 1 1 240px; }
.kit .kit-remedy { gap: 4px 12px; color: var(--kit-bad); }
.kit .kit-remedy > .widget-html { width: auto !important; }
.kit .kit-start .kit-summary {
  width: auto !important; margin-right: 12px !important; font-weight: 600;
  min-width: 0; max-width: 100%; overflow-wrap: anywhere;
}
@media (max-width: 520px) {
  .kit .kit-answers, .kit .kit-start .kit-filled { padding-left: 0 !important; }
  .kit .kit-across { margin-top: 0 !important; }
}
</style>"""


def sticky_sheet() -> widgets.HTML:
    """The style as a widget that takes no room; in the same output as what it styles."""
    return widgets.HTML(STYLE, layout=widgets.Layout(height="0", margin="0"))
