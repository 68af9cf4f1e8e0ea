"""The box that files are dropped on, as HTML, and the script that makes it work."""

from __future__ import annotations

import json
from importlib.resources import files

from kit.catalog import CAPTION_EXTENSIONS
from kit.dataset.data_sets import PICTURES
from kit.dataset.incoming import MOST_FILES, ZIP
from kit.ui.look import Script, escaped

# Until the script has run, and where none may run, only the sentence shows; after two seconds, so
# that it does not flash up.
STYLE = """<style>
@keyframes kit-late { from { visibility: hidden } to { visibility: visible } }
.kit-upload .kit-up-dead { padding: 2px 0 6px; font-size: 12px; animation: kit-late 1ms 2s both; }
.kit-upload .kit-up-live {
  flex-wrap: wrap; gap: 6px 12px; align-items: center; margin: 2px 0 6px; padding: 10px 12px;
  border: 1.5px dashed color-mix(in srgb, currentColor 35%, transparent); border-radius: 4px;
}
.kit-upload.is-over .kit-up-live {
  border-color: var(--kit-accent, #2f7ae5);
  background: color-mix(in srgb, var(--kit-accent, #2f7ae5) 10%, transparent);
}
.kit-upload .kit-up-pick {
  position: relative; display: inline-block; padding: 5px 12px; border-radius: 4px;
  background: var(--kit-fill, #2463bd); color: #fff; cursor: pointer; font-size: 13px;
  line-height: 18px;
}
.kit-upload .kit-up-pick:hover { filter: brightness(1.08); }
.kit-upload .kit-up-pick:focus-within { outline: 2px solid currentColor; outline-offset: 2px; }
.kit-upload .kit-up-pick input {
  position: absolute; inset: 0; width: 100%; height: 100%; opacity: 0; cursor: pointer;
}
.kit-upload.is-busy .kit-up-pick, .kit-upload.is-busy .kit-up-hint { display: none; }
.kit-upload .kit-up-hint, .kit-upload [role=status] {
  color: color-mix(in srgb, currentColor 65%, transparent); font-size: 12px;
}
.kit-upload [role=status] { flex: 1 1 220px; font-variant-numeric: tabular-nums; }
.kit-upload [role=status]:empty { display: none; }
.kit-upload progress {
  display: none; flex: 1 1 160px; height: 8px; border: 0; border-radius: 4px; overflow: hidden;
  background: color-mix(in srgb, currentColor 15%, transparent); appearance: none;
}
.kit-upload progress::-webkit-progress-bar { background: transparent; }
.kit-upload progress::-webkit-progress-value { background: var(--kit-accent, #2f7ae5); }
.kit-upload progress::-moz-progress-bar { background: var(--kit-accent, #2f7ae5); }
.kit-upload .kit-up-cancel {
  display: none; padding: 3px 10px; border: 1px solid currentColor; border-radius: 4px;
  background: transparent; color: inherit; cursor: pointer; font-size: 12px;
}
.kit-pictures-in, .kit-pictures-in > * { overflow: visible !important; }
.kit .kit-pictures-in .kit-arrived { padding-top: 4px !important; overflow-wrap: anywhere; }
.kit-pictures-in .widget-inline-hbox {  /* the name above its field, as everywhere in the form */
  flex-direction: column; align-items: stretch; height: auto; margin: 0;
}
.kit-pictures-in .widget-inline-hbox > .widget-label {
  width: auto; height: 18px; margin: 0; font-size: 12px; line-height: 18px; text-align: left;
}
.kit-pictures-in .widget-inline-hbox > input, .kit-pictures-in .widget-inline-hbox > select {
  flex: none; width: 100%; height: 28px;
}
.kit-upload.is-busy progress, .kit-upload.is-busy .kit-up-cancel { display: block; }
</style>"""
ACCEPTED = ",".join(["image/*", *sorted(PICTURES), ZIP, *CAPTION_EXTENSIONS])
NO_UPLOAD = (
    "This front end lets nothing be uploaded from here (JupyterLab, Notebook 7 and Colab do): put "
    "the pictures into a folder of the kernel's machine and name it below."
)


def drop_box(mark: str) -> str:
    """The box as HTML; mark: by which its script finds it."""
    return (
        f"{STYLE}<div class='kit-upload' data-kit-upload='{escaped(mark)}'>"
        f"<div class='kit-up-dead'>{NO_UPLOAD}</div>"
        "<div class='kit-up-live' style='display: none'>"
        "<label class='kit-up-pick'>Upload pictures or a zip"
        f"<input type='file' multiple accept='{ACCEPTED}' "
        "aria-label='Upload pictures or a zip'></label>"
        "<span class='kit-up-hint'>or drop them here, folders too</span>"
        "<progress max='1' value='0' aria-label='Upload'></progress>"
        "<button type='button' class='kit-up-cancel'>Cancel</button>"
        "<span role='status' aria-live='polite'></span></div></div>"
    )


def upload_script(mark: str, folder: str, callback: str) -> Script:
    """What makes the box work.

    folder: below the server's root, where pieces go; or callback: the kernel's function that Colab
    calls for each.
    """
    options = {"mark": mark, "folder": folder, "callback": callback, "most": MOST_FILES}
    # "</script>" or "<!--" in a folder's name would end the script.
    told = json.dumps(options).replace("<", "\\u003c")
    text = files("kit.ui.pictures").joinpath("upload.js").read_text("utf-8")
    return Script(text.replace("OPTIONS", told))
