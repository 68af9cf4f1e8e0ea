"""Who hears the form tells its inputs apart: each has a name, and no other has it."""

import ipywidgets as widgets
from PIL import Image

from kit import demo
from kit.control import RunControl
from kit.settings import Settings
from kit.ui.form.form import Form
from kit.ui.monitor.dashboard import Dashboard
from kit.ui.sheet.pictures import told_apart
from kit.ui.train_bar import TrainBar

NAMED = (
    widgets.Text,
    widgets.Textarea,
    widgets.Dropdown,
    widgets.Checkbox,
    widgets.SelectMultiple,
    widgets.RadioButtons,
    widgets.FileUpload,
)


def inputs(root):
    """Every input at or below a widget, each once, however often it is shown."""
    found, waiting = {}, [root]
    while waiting:
        widget = waiting.pop()
        if widget.model_id not in found:
            found[widget.model_id] = widget
            waiting += getattr(widget, "children", ())
    return [widget for widget in found.values() if isinstance(widget, NAMED)]


def test_every_input_of_form_sheet_and_run_has_a_name_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("10_cat", "5_dog"):
        (tmp_path / "images" / folder).mkdir(parents=True)
        Image.new("RGB", (64, 64)).save(tmp_path / "images" / folder / "1.png")
    form = Form(
        Settings().replace(
            train_data_dir="images",
            pretrained_model_name_or_path=str(demo.BASE),
            resolution="64",
            mixed_precision="no",
        )
    )
    bar = TrainBar(form)
    form.views.show_all()
    form.images.open()
    form.images.all_button.click()
    form.images.prepare_button.click()
    form.head.load_button.click()
    bar.upper.slot.children = (Dashboard(form.plan, control=RunControl()).root,)
    names = sorted(each.description for each in inputs(form.root))
    assert len(names) > 200
    assert "Caption of 10_cat/1.png" in names
    assert names == sorted(set(names))
    assert "" not in names


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path):
    paths = [tmp_path / path for path in ("a/x/1.png", "b/x/1.png", "b/y/1.png", "b/y/2.png")]
    assert told_apart(paths) == ("a/x/1.png", "b/x/1.png", "y/1.png", "2.png")
    assert told_apart([*paths[2:], paths[3]])[1:] == (str(paths[3]), f"{paths[3]} (2)")
    assert told_apart([]) == ()
