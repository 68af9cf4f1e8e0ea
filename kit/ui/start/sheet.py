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
.jupyter-widgets:has(.kit-sticky), .lm-Widget:has(> .kit:has(.kit-sticky)) {
  overflow: visible !important;
}
.kit .kit-sticky {
  position: sticky; top: 0; bottom: 0; z-index: 10;
  margin: 8px 0 !important; padding: 6px 10px !important; gap: 4px 12px;
  overflow: visible !important;
  background: var(--jp-layout-color1, var(--vscode-editor-background, var(--colab-primary-surface-color, #fff)));
  border: 1px solid var(--kit-line); border-left: 3px solid var(--kit-accent); border-radius: 4px;
}
.jp-Notebook:not(.jp-WindowedPanel) .kit .kit-sticky { top: -10px; }
.kit .kit-end-bar {
  margin: 8px 0 !important; padding: 6px 10px !important; gap: 4px 12px;
  overflow: visible !important; border: 1px solid var(--kit-line); border-radius: 4px;
}
.kit .kit-sticky > .kit-sum, .kit .kit-end-bar > .kit-sum { flex: 1 1 320px; width: auto !important; }
.kit .kit-sum { font-variant-numeric: tabular-nums; }
.kit .kit-sum b { font-weight: 600; }
.kit .kit-head-line { gap: 4px 16px; overflow: visible !important; }
.kit .kit-machine { flex: 1 1 220px; width: auto !important; }
.kit .kit-machine b { font-size: 16px; margin-right: 10px; }
.kit .kit-question { font-weight: 600; padding: 8px 0 2px; }
.kit .kit-question b {
  display: inline-block; width: 20px; margin-right: 6px; border-radius: 10px; line-height: 20px;
  background: var(--kit-accent); color: #fff; text-align: center; font-size: 12px;
}
.kit .kit-answers { gap: 4px 16px; padding-left: 28px; align-items: flex-end; overflow: visible !important; }
.kit .kit-answers > * { min-width: 0; margin-left: 0 !important; }
.kit .kit-answers > .kit-field { flex: 1 1 320px; width: auto !important; }
.kit .kit-across .widget-radio-box { flex-direction: row !important; flex-wrap: wrap; gap: 2px 16px; }
.kit .kit-across .widget-radio-box label { width: auto !important; margin: 0 !important; }
.kit .kit-across, .kit .kit-across .widget-radio-box { height: auto !important; overflow: visible !important; }
.kit .kit-offer {
  margin: 6px 0 !important; padding: 8px 12px !important; overflow: visible !important;
  border: 1px solid var(--kit-line); border-radius: 4px;
}
.kit .kit-remedy { gap: 4px 12px; color: var(--kit-bad); }
.kit .kit-remedy > .widget-html { width: auto !important; }
.kit .kit-summary { width: auto !important; font-weight: 600; }
@media (max-width: 520px) { .kit .kit-answers { padding-left: 0; } }
</style>"""


def sticky_sheet() -> widgets.HTML:
    """The style as a widget that takes no room; in the same output as what it styles."""
    return widgets.HTML(STYLE, layout=widgets.Layout(height="0", margin="0"))
