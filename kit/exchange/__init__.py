"""Old settings come in, and ours go out: the kohya_ss GUI's JSON, sd-scripts' files, LoRA files.

    settings, report = load_any("old.json")       what is understood, and a line for each key
    text, notices = export_gui(settings)          for the GUI
    text, notices = export_sd_scripts(settings)   for sd-scripts

One file for each format, with from_... and to_...; what they share is in `translating`.
"""

from __future__ import annotations

from kit.exchange.exporting import export_gui, export_sd_scripts
from kit.exchange.loading import load_any
from kit.exchange.report import Line, Report, Verdict

__all__ = ["Line", "Report", "Verdict", "export_gui", "export_sd_scripts", "load_any"]
