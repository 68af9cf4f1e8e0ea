"""The contact sheet's part of the style: it comes with the sheet, beneath `.kit`."""

STYLE = """<style>
.kit .kit-sheet, .kit .kit-fold { overflow: visible !important; }
.kit .kit-sheet > *, .kit .kit-fold > * { margin-left: 0 !important; margin-right: 0 !important; }
.kit .kit-card { min-width: 0; overflow: visible !important; font-size: 12px; }
.kit .kit-card > * { margin: 0 0 3px !important; overflow-wrap: anywhere; }
.kit .kit-thumb {
  display: flex; align-items: center; justify-content: center; height: 172px;
  background: color-mix(in srgb, currentColor 6%, transparent); border-radius: 4px;
}
.kit .kit-sheet > .kit-grid { margin-top: 4px !important; }
.kit .kit-card .kit-thumb img {
  display: block; max-width: 100%; max-height: 172px; margin: 0; object-fit: contain;
}
.kit .kit-name {
  font-weight: 600; overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
}
.kit .kit-finding { color: var(--kit-warn, #a8650a); font-size: 12px; }
.kit .kit-finding::before { content: "! "; font-weight: 700; }
[data-jp-theme-light="false"] .kit .kit-finding { color: var(--kit-warn, #e0a34a); }
.kit .kit-card ol { margin: 0; padding-left: 18px; }
/* The name of a control is read aloud; it need not be seen where the place says it already. */
.kit .kit-named { position: relative; }
.kit .kit-named > label {
  position: absolute !important; width: 1px !important; height: 1px !important;
  overflow: hidden; clip-path: inset(50%); white-space: nowrap;
}
.kit .kit-card textarea {
  width: 100%; min-height: 58px; font: inherit; font-size: 12px;
  resize: vertical;
}
.kit .kit-fold {
  padding: 8px 10px !important; margin: 4px 0 8px !important;
  border: 1px solid var(--kit-line); border-radius: 6px; box-sizing: border-box;
}
.kit .kit-change { padding: 2px 0; border-top: 1px solid var(--kit-line); font-size: 12px; }
.kit .kit-change b { font-weight: 600; }
.kit .kit-change del { background: color-mix(in srgb, var(--kit-bad) 22%, transparent); }
.kit .kit-change ins {
  background: color-mix(in srgb, var(--kit-good) 24%, transparent); text-decoration: underline;
}
.kit .kit-fold .widget-label { text-align: left; }
.kit .kit-tags select { background-image: none !important; }
.kit .kit-sheet .widget-text, .kit .kit-sheet .widget-dropdown { max-width: 100%; min-width: 0; }
</style>"""
