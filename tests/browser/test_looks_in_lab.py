"""How form, run and results look and read: names, contrast, scroll bars, help, downloads."""

import json
import os
import re

import pytest
from playwright.sync_api import expect

from kit.settings import declarations
from tests.browser.conftest import BARS

FORM = "import kit\nform = kit.show(kit.example())"
# A run of four rounds and a typed prompt, whose folder lies outside of the server's root.
RUN = r"""
import math, tempfile
from pathlib import Path
from PIL import Image
from kit.control import RunControl
from kit.events import *
from kit.ui.monitor.dashboard import Dashboard
out = Path(tempfile.mkdtemp()) / "out"
run = out / "zib-ball.run"
run.mkdir(parents=True)
(out / "sample").mkdir()

def drawn(step, index, prompt, side=512, wished=False):
    path = out / "sample" / f"zib-ball_{step:06d}_{index:02d}_20261128.png"
    left = Image.linear_gradient("L").resize((side, side))
    right = Image.radial_gradient("L").resize((side, side))
    blue = Image.new("L", (side, side), 40 + 3 * step)
    Image.merge("RGB", (left, right, blue)).save(path)
    return Sampled(step, index, str(path), prompt, 7, wished)

lora = out / "zib-ball.safetensors"
header = b'{"__metadata__": {"ss_dataset_dirs": "{\\"10_zib ball\\": {}}"}}'
lora.write_bytes(len(header).to_bytes(8, "little") + header)
events = [Began(str(run), "zib-ball", 60), Noticed("12 images have no caption")]
events += [Loaded("Stable Diffusion 1.x", "cuda, NVIDIA T4", "fp16", 264, 1000, 0)]
for step in range(61):
    loss = 0.1 + 0.05 * math.exp(-step / 20) + 0.01 * math.sin(step * 7)
    if step:
        rates = {"unet": 1e-4 * (1 - step / 60), "text_encoder": 5e-5 * (1 - step / 60)}
        events.append(Stepped(step, step / 10, loss, 0.11, rates, 1.0, 0.25,
                              (loss, loss / 2, loss / 3, loss / 4), 9800))
    if step % 10 == 0:
        events += [drawn(step, 0, "a zib ball on a wooden table, photograph"),
                   drawn(step, 1, "a zib ball in the grass, drawing --n blurry, dull", 64)]
    if step == 33:
        events += [drawn(step, 2, "a red <square>, left", wished=True)]
events += [RateChanged(40, {"unet": 0.5}), Saved(30, 3, str(lora))]
(run / "events.jsonl").write_text("".join(to_line(e) + "\n" for e in events))
dashboard = Dashboard(control=RunControl())
dashboard.run_dir = run
for event in events:
    dashboard(event)
dashboard.draw(whole=True)
"""
RESULTS = "kit.results(run)"
OTHERS = """
from kit.errors import DeviceError
failed = Dashboard()
for event in events[:30]:
    failed(event)
failed.fail(DeviceError("The GPU's memory is full.", "Batch 4 needs 15 GB.", "Lower it."))
preparing = Dashboard()
preparing(Cached("latents", 3, 12))
"""
CHOICE = """
from kit.choosing.measures import Losses, Measured
from kit.choosing.picking import pick
from kit.choosing.record import Record, write_record
from kit.comparing.drawing import Drawn, Pictures
from kit.comparing.grid import save_grid
from kit.settings.prompts import Prompt
from kit.training.sampling import seeded
from kit.ui.monitor.choice import ChoicePanel
names = ["zib-ball-000001.safetensors", "zib-ball-000002.safetensors", "zib-ball.safetensors"]
shares = [((0.3, 0.2), (0.95, 0.9)), ((0.8, 0.7), (0.9, 0.8)), ((0.9, 0.8), (0.2, 0.3))]
told = [Losses("held-out", 0.1 * i, 0.3 * i, 1 / (i + 1), word, 0.2 * i)
        for i, word in enumerate(["learning", "enough", "memorising"])]
files = [Measured(name, 20 * i + 20, *shares[i], told[i]) for i, name in enumerate(names)]
def shown(i):
    colours = [(40 * i + 40, 90, 200), (200, 60 * i + 20, 60)]
    return [Image.new("RGB", (512, 512), colour) for colour in colours]
texts = ["a zib ball on a wooden table, photograph", "a zib ball in the grass, drawing"]
size, others = (512, 512), ["a red square", "a <b>ring</b>"]
asked = Drawn(seeded(texts, Prompt(""), size, address=("subject",)),
              seeded(others, Prompt(""), size, address=("others",)))
drawn = {name: Pictures(shown(i), shown(i + 1)) for i, name in enumerate(["", *names])}
grid = save_grid(run, asked, drawn)
write_record(run, Record(pick(files), "the base model's own features", grid.name, ("one picture",)))
panel = ChoicePanel()
panel.show_of(run, is_over=True)
panel
"""
DRAWS = "LORA_KIT_SHOTS" in os.environ
PLACES = ("form", "run", "results", "failed", "preparing", "choice")  # as they stand in the page
CONTROLS = ("textbox", "combobox", "checkbox", "radio", "slider", "spinbutton", "button")
# Names of fields that are longer than their column.
CUT = """() => [...document.querySelectorAll(".kit .kit-field label, .kit .kit-field label *")]
  .filter(label => label.offsetParent && label.scrollWidth > label.clientWidth)
  .map(label => label.textContent)"""
# Text whose colour is too near to what lies behind it: 4.5 : 1 at least, of what is not disabled.
PALE = """() => {
  const paint = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const known = new Map();
  const rgba = colour => {
    if (!known.has(colour)) known.set(colour, painted(colour));
    return known.get(colour);
  };
  const painted = colour => {
    paint.clearRect(0, 0, 1, 1);
    paint.fillStyle = colour;
    paint.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = paint.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3]));
  const behind = el => {
    const layers = [];
    for (let e = el; e; e = e.parentElement) {
      const c = rgba(getComputedStyle(e).backgroundColor);
      if (c[3] > 0) layers.push(c);
      if (c[3] > 0.999) break;
    }
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
  };
  const light = c => {
    const [r, g, b] = c.map(v => v / 255).map(
      v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const pale = [];
  let seen = 0;
  for (const el of document.querySelectorAll(".kit, .kit *")) {
    const own = [...el.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    const typed = el.matches("input[type=text], textarea, select");
    if (!(own || typed) || !el.offsetParent || el.matches("style, option, title")) continue;
    if (el.closest(".kit-idle") || el.disabled || el.closest("[popover]")) continue;
    const style = getComputedStyle(el);
    let a = 1;
    for (let e = el; e; e = e.parentElement) a *= +getComputedStyle(e).opacity;
    const back = behind(el), ink = rgba(el.closest("svg") ? style.fill : style.color);
    const front = over([...ink.slice(0, 3), ink[3] * a], back);
    const [x, y] = [light(front), light(back)].sort((p, q) => q - p);
    const ratio = (x + 0.05) / (y + 0.05);
    seen += 1;
    if (ratio < 4.5) pale.push(`${ratio.toFixed(2)} <${el.tagName} ${el.className}> ` +
      `${el.textContent.slice(0, 40)}`);
  }
  return [seen, [...new Set(pale)]];
}"""
# What hangs out of the product's box to the right, such as a tab that does not wrap.
OUTSIDE = """() => {
  const out = [];
  for (const root of document.querySelectorAll(".kit")) {
    const edge = root.getBoundingClientRect().right + 1;
    for (const el of root.querySelectorAll("*")) {
      if (!el.offsetParent || el.closest("[popover]") || el.closest("svg")) continue;
      const box = el.getBoundingClientRect();
      if (box.width && box.right > edge)
        out.push(`${Math.round(box.right - edge)} px: <${el.className}> ` +
          el.textContent.slice(0, 40));
    }
  }
  return out.slice(0, 10);
}"""


def nameless(notebook):
    """The product's controls without an accessible name, as HTML, and the names of the others."""
    session = notebook.page.context.new_cdp_session(notebook.page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    root = session.send("DOM.getDocument", {"depth": -1})["root"]
    ours = {
        node["backendNodeId"]
        for box in _boxes(root)
        for node in _below(box)
        if "backendNodeId" in node
    }
    found = [
        node
        for node in nodes
        if not node.get("ignored")
        and node.get("backendDOMNodeId") in ours
        and node["role"]["value"] in CONTROLS
    ]
    without = [n for n in found if not n.get("name", {}).get("value", "").strip()]
    html = [
        session.send("DOM.getOuterHTML", {"backendNodeId": node["backendDOMNodeId"]})["outerHTML"]
        for node in without
    ]
    return [text[:300] for text in html], [node["name"]["value"] for node in found]


def _boxes(node):
    classes = dict(zip(*[iter(node.get("attributes", []))] * 2, strict=True)).get("class", "")
    if "kit" in classes.split():
        yield node
        return
    for child in node.get("children", []):
        yield from _boxes(child)


def _below(node):
    yield node
    for child in node.get("children", []):
        yield from _below(child)


def look_at(notebook, number):
    """Bring form, run or results to the top."""
    place = notebook.output.locator(".kit").nth(number)
    place.evaluate("e => e.scrollIntoView()")
    notebook.page.wait_for_timeout(120)


def every_page(notebook):
    """Open each tab of the form in turn, and the tabs within."""
    look_at(notebook, 0)
    form, bar = notebook.output.locator(".kit").first, ".lm-TabBar-tab, .p-TabBar-tab"
    outer = form.locator(".widget-tab").first
    for title in outer.locator(bar).locator("visible=true").all_inner_texts():
        tab = outer.locator(bar).filter(has_text=title).locator("visible=true").first
        tab.click()
        inner = outer.locator(".widget-tab").locator("visible=true")
        titles = inner.first.locator(bar).all_inner_texts() if inner.count() else [""]
        for within in titles:
            if within:
                inner.first.locator(bar).filter(has_text=within).first.click()
            notebook.page.wait_for_timeout(60)
            yield f"{title} / {within}"


def is_sound(notebook, name):
    """No scroll bar, nothing outside, nothing too pale."""
    assert notebook.page.evaluate(OUTSIDE) == [], name
    seen, pale = notebook.page.evaluate(PALE)
    assert seen > 50
    assert pale == [], name
    assert notebook.page.evaluate(BARS) == [], name
    if DRAWS:  # to look at; 24 of them take ten seconds
        notebook.shot(name)


@pytest.fixture
def opened(notebook):
    notebook.open([FORM, RUN, RESULTS, OTHERS, CHOICE])
    notebook.run_all()
    expect(notebook.output.locator(".kit-sum").first).to_contain_text("steps", timeout=60_000)
    expect(notebook.output.locator(".kit-state.failed")).to_be_visible(timeout=30_000)
    expect(notebook.output.locator(".kit-compared")).to_be_visible(timeout=30_000)
    return notebook


def test_everything_can_be_read_reached_and_taken_away(opened):
    notebook, page = opened, opened.page
    help_opens_by_click_and_keyboard(notebook)
    pictures_are_enlarged_by_click_and_keyboard(notebook)
    the_newest_lora_can_be_downloaded(notebook)
    the_choice_says_all_that_was_measured(notebook)
    look_at(notebook, 0)
    notebook.button("Basic").click()
    notebook.field("network_dim").fill("9999")
    expect(notebook.output.locator(".kit-plan")).to_contain_text("Not ready to train")
    expect(notebook.output.locator(".kit")).to_have_count(len(PLACES))
    for theme in ("Light", "Dark"):
        notebook.theme(theme)
        for width in (1280, 800, 400):
            page.set_viewport_size({"width": width, "height": 1400})
            # Each look is at all of the page; a place is brought to the top for its picture.
            for number, place in enumerate(PLACES if DRAWS else PLACES[:1]):
                look_at(notebook, number)
                is_sound(notebook, f"{place}-{theme.lower()}-{width}")
    page.set_viewport_size({"width": 800, "height": 1400})
    look_at(notebook, 0)
    notebook.button("All settings").click()
    every_setting_has_a_name(notebook)
    notebook.theme("Light")
    page.set_viewport_size({"width": 1280, "height": 1400})
    for number in (1, 2, 5):
        look_at(notebook, number)
        assert nameless(notebook)[0] == []
    notebook.is_quiet()


def every_setting_has_a_name(notebook):
    """For those who hear it; and those who see it see all of it."""
    names = []
    for page_of_form in every_page(notebook):
        assert notebook.page.evaluate(CUT) == [], page_of_form
        assert notebook.page.evaluate(OUTSIDE) == [], page_of_form
        assert notebook.page.evaluate(PALE)[1] == [], page_of_form
        without, found = nameless(notebook)
        assert without == [], page_of_form
        names += found
    assert {declared.title for declared in declarations().values()} <= set(names)


def help_opens_by_click_and_keyboard(notebook):
    notebook.button("Basic").click()
    row = notebook.output.locator(".kit-f-network_dim").locator("visible=true").first
    summary, text = row.locator("summary"), row.get_by_text("How much the LoRA can hold")
    expect(text).to_be_hidden()
    summary.click()
    expect(text).to_be_visible()
    notebook.shot("form-help-1280")
    summary.press("Enter")
    expect(text).to_be_hidden()
    row.locator("input").focus()
    notebook.page.keyboard.press("Tab")
    notebook.page.keyboard.press("Space")
    expect(text).to_be_visible()
    summary.click()
    notebook.button("All settings").click()


def pictures_are_enlarged_by_click_and_keyboard(notebook):
    dashboard = notebook.output.locator(".kit").nth(1)
    shot = dashboard.locator(".kit-shot").first
    large = shot.locator("[popover]")
    expect(large).to_be_hidden()
    shot.locator(".kit-open").click()
    expect(large).to_be_visible()
    if DRAWS:
        notebook.page.wait_for_timeout(200)
        notebook.page.screenshot(path=notebook.shots / "enlarged-1280.png")
    notebook.page.keyboard.press("Escape")
    expect(large).to_be_hidden()
    shot.locator(".kit-open").press("Enter")
    expect(large).to_be_visible()
    large.get_by_role("button", name="Close").click()
    expect(large).to_be_hidden()
    before = dashboard.locator(".kit-shot").count()
    dashboard.get_by_role("button", name="Older").click()
    expect(dashboard.get_by_text("page 1 of 2")).to_be_visible()
    assert dashboard.locator(".kit-shot").count() < before
    dashboard.get_by_role("button", name="Newer").click()
    dashboard.get_by_role("button", name="All in one picture").click()
    expect(dashboard.get_by_role("link", name=re.compile("samples.jpg"))).to_be_visible()


def the_choice_says_all_that_was_measured(notebook):
    panel = notebook.output.locator(".kit").nth(PLACES.index("choice"))
    expect(panel).to_contain_text("Keep zib-ball-000002.safetensors (step 40).")
    expect(panel.get_by_role("button", name="Which file to keep?")).to_be_visible()
    large = panel.locator("[popover]")
    panel.locator(".kit-open").click()
    expect(large).to_be_visible()
    large.get_by_role("button", name="Close").click()
    expect(large).to_be_hidden()
    panel.get_by_text("What was measured of 3 files").click()
    expect(panel.get_by_text("memorising").first).to_be_visible()


def the_newest_lora_can_be_downloaded(notebook):
    for number in (1, 2):  # dashboard and results
        link = notebook.output.locator(".kit").nth(number).locator("a.is-first")
        with notebook.page.expect_download() as waiting:
            link.click()
        assert waiting.value.suggested_filename == "zib-ball.safetensors"
        assert json.loads(waiting.value.path().read_bytes()[8:])["__metadata__"]
    expect(notebook.output.locator(".kit").nth(2)).to_contain_text("<lora:zib-ball:1> zib ball")
