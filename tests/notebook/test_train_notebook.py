"""The notebook as text, and run top to bottom with the embedded base."""

import ast
import json
import os
import re
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

import kit

ROOT = Path(kit.__file__).parents[1]
NOTEBOOK = ROOT / "notebooks" / "train.ipynb"
STEPS = 4


@pytest.fixture
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def lines_of(cell):
    """Its lines of code: Colab's title and blank lines are none."""
    lines = (line.strip() for line in cell.source.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def tree_of(cell):
    return ast.parse(TransformerManager().transform_cell(cell.source))


def test_it_is_a_valid_notebook_with_named_cells(notebook):
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    ids = [cell.id for cell in notebook.cells]
    assert ids == [
        "title", "set-up", "form", "wait", "about-results", "results",
    ]  # fmt: skip


def test_it_holds_no_outputs_and_no_widget_state(notebook):
    assert "widgets" not in notebook.metadata
    for cell in code_cells(notebook):
        assert cell.outputs == []
        assert cell.execution_count is None


def test_a_cell_is_a_line_or_the_set_up(notebook):
    lengths = {cell.id: len(lines_of(cell)) for cell in code_cells(notebook)}
    assert lengths.pop("set-up") <= 13
    assert set(lengths.values()) == {1}


def test_cells_have_no_logic(notebook):
    """Two questions in the set-up: is this Colab, and did it work?"""
    logic = (
        ast.If,
        ast.For,
        ast.While,
        ast.Try,
        ast.With,
        ast.FunctionDef,
        ast.ClassDef,
        ast.Lambda,
    )
    found = {
        cell.id: [
            type(node).__name__ for node in ast.walk(tree_of(cell)) if isinstance(node, logic)
        ]
        for cell in code_cells(notebook)
    }
    assert {name: nodes for name, nodes in found.items() if nodes} == {
        "set-up": ["If", "If", "Lambda"]
    }


def test_every_cell_uses_only_public_names_of_the_kit(notebook):
    for cell in code_cells(notebook):
        for node in ast.walk(tree_of(cell)):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "kit":
                assert node.attr in kit.__all__, f"{cell.id}: kit.{node.attr}"


def test_every_cell_is_a_form_on_colab(notebook):
    for cell in code_cells(notebook):
        # JupyterLab shows the first line of hidden code: a sentence there, Colab's title below it.
        pattern = r'# [A-Z][\w, ]+\n# @title \d\. [\w ]+ \{ display-mode: "form" \}\n'
        assert re.match(pattern, cell.source), cell.id
        assert cell.metadata["cellView"] == "form"
        assert cell.metadata["jupyter"] == {"source_hidden": True}


def test_the_repository_is_named_in_one_place_and_the_badge_agrees(notebook):
    source = "\n".join(cell.source for cell in code_cells(notebook))
    (address,) = re.findall(r"https://[^\s\"]+(?=\")", source)
    assert f'REPOSITORY = "{address}"' in source
    name = address.removeprefix("https://github.com/")
    badge = f"https://colab.research.google.com/github/{name}/blob/main/notebooks/train.ipynb"
    assert badge in notebook.cells[0].source


def run(notebook, folder, monkeypatch, *, trains=False):
    """Run all cells in a fresh kernel whose current folder is `folder`."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("LORA_KIT_EXAMPLE_STEPS", str(STEPS))
    monkeypatch.setenv("LORA_KIT_AUTOTRAIN", "1" if trains else "")
    if trains:  # what stood in the form last; a form of which nothing is known opens blank
        (folder / "output").mkdir()
        stood = kit.example().replace(
            output_dir="output",
            output_name="alone",
            sample_prompts="a zib ball --w 64 --h 64 --s 2",
            sample_every_n_steps=STEPS,
        )
        (folder / "output" / "form.toml").write_text(stood.to_toml(with_help=False), "utf-8")
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        store_widget_state=False,
    )
    return client.execute()


def outputs_of(notebook, name):
    (cell,) = (cell for cell in notebook.cells if cell.id == name)
    return cell.outputs


def text_of(notebook, name):
    return "".join(output.get("text", "") for output in outputs_of(notebook, name))


def add(notebook, code):
    """A cell of the test's own at the end."""
    notebook.cells.append(nbformat.v4.new_code_cell(code, id="added"))


def test_run_all_opens_the_form_and_trains_nothing(notebook, tmp_path, monkeypatch):
    twice = code_cells(nbformat.read(NOTEBOOK, as_version=4))
    for cell in twice:
        cell.id += "-again"
    notebook.cells += twice
    add(notebook, "import sys; print('torch' in sys.modules, kit.Session.current)")
    done = run(notebook, tmp_path, monkeypatch)
    assert "widget-view" in json.dumps(outputs_of(done, "form"))
    assert text_of(done, "wait") == "Nothing is running yet.\n"
    assert "Results go to" in text_of(done, "set-up")
    assert "no LoRA file yet" in json.dumps(outputs_of(done, "results-again"))
    assert text_of(done, "added") == "False None\n"
    assert not list(tmp_path.rglob("*.run"))


def test_without_a_person_it_trains_from_top_to_bottom(notebook, tmp_path, monkeypatch):
    done = run(notebook, tmp_path, monkeypatch, trains=True)
    assert len(list((tmp_path / "output").glob("*.safetensors"))) == 1
    (result,) = outputs_of(done, "results")
    assert ".safetensors" in result.data["text/html"]
    assert "data:image/jpeg;base64," in result.data["text/html"]
    (events,) = (tmp_path / "output").glob("*.run/events.jsonl")
    assert events.read_text(encoding="utf-8").count('"Stepped"') == STEPS


COLAB = """
import sys, types
from IPython import get_ipython as shell
names = {"__module__": "google.colab._shell"}
shell().__class__ = type("Shell", (type(shell()),), names)
drive = types.ModuleType("google.colab.drive")
drive.mount = lambda place: print("ASKED FOR DRIVE", place)
userdata = types.ModuleType("google.colab.userdata")
userdata.get = lambda name: print("ASKED FOR", name)
google, colab = types.ModuleType("google"), types.ModuleType("google.colab")
colab.drive, colab.userdata, google.colab = drive, userdata, colab
sys.modules |= {"google": google, "google.colab": colab, "google.colab.drive": drive,
                "google.colab.userdata": userdata}
"""
SCRIPT = "echo Setting up ...\necho noise of pip >&2\n"


def on_colab(notebook, folder, monkeypatch, *, git="", script=SCRIPT, drive=False):
    """The set-up cell alone, with stand-ins for Colab, its /content and git."""
    content, programs = folder / "content", folder / "programs"
    content.mkdir()
    programs.mkdir()
    (programs / "git").write_text(f"#!/bin/sh\n{git}\n")
    (programs / "git").chmod(0o755)
    (folder / "colab_setup.sh").write_text(script)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab")
    (cell,) = (cell for cell in notebook.cells if cell.id == "set-up")
    cell.source = cell.source.replace("/tmp/", f"{folder}/").replace("/content", str(content))
    assert "KEEP_RESULTS_ON_DRIVE = False" in cell.source
    cell.source = cell.source.replace("DRIVE = False", f"DRIVE = {drive}")
    notebook.cells = [nbformat.v4.new_code_cell(COLAB, id="colab"), cell]
    add(notebook, "print('the next cell ran')")
    return content


def test_on_colab_it_is_fetched_once_set_up_and_drive_is_not_asked_for(
    notebook, tmp_path, monkeypatch
):
    content = on_colab(notebook, tmp_path, monkeypatch, git="mkdir lora-kit && cp ../*.sh lora-kit")
    again = nbformat.from_dict(notebook.cells[1])
    again.id = "again"
    notebook.cells.insert(2, again)
    done = run(notebook, tmp_path, monkeypatch)
    told = text_of(done, "set-up")
    assert "Setting up" in told
    assert "Runs on Google Colab." in told
    assert "tick KEEP_RESULTS_ON_DRIVE" in told
    assert "noise" not in told
    assert "ASKED FOR DRIVE" not in told
    assert "ASKED FOR CIVITAI_TOKEN" in told
    assert "the next cell ran" in text_of(done, "added")
    assert (content / "lora-kit" / "colab_setup.sh").is_file()


def test_on_colab_drive_is_asked_for_where_it_was_chosen(notebook, tmp_path, monkeypatch):
    git = "mkdir lora-kit && cp ../*.sh lora-kit"
    on_colab(notebook, tmp_path, monkeypatch, git=git, drive=True)
    done = run(notebook, tmp_path, monkeypatch)
    assert "ASKED FOR DRIVE /content/drive" in text_of(done, "set-up")


@pytest.mark.parametrize(
    ("git", "script", "told"),
    [
        (
            "echo 'fatal: unable to access github.com: Could not resolve host' >&2; exit 128",
            SCRIPT,
            ["Could not resolve host", "could not be fetched. Check the network"],
        ),
        (
            "mkdir lora-kit && cp ../*.sh lora-kit",
            "echo Setting up ...\necho 'LoRA Kit could not be set up: no disk.' >&2\nexit 1",
            ["LoRA Kit could not be set up: no disk."],
        ),
    ],
)
def test_a_set_up_that_fails_is_one_message_and_nothing_runs_after_it(
    notebook, tmp_path, monkeypatch, git, script, told
):
    on_colab(notebook, tmp_path, monkeypatch, git=git, script=script)
    with pytest.raises(CellExecutionError):
        run(notebook, tmp_path, monkeypatch)
    *streams, error = outputs_of(notebook, "set-up")
    assert error.output_type == "error"
    (shown,) = error.traceback
    assert all(part in shown for part in told)
    assert "Traceback" not in shown
    assert len(shown.splitlines()) <= 2
    assert "".join(each.text for each in streams).strip() in ("", "Setting up ...")
    assert outputs_of(notebook, "added") == []


def test_a_mistake_of_the_person_is_a_quiet_panel_and_stops_there(notebook, tmp_path, monkeypatch):
    (form,) = (cell for cell in notebook.cells if cell.id == "form")
    form.source = 'kit.show(kit.example().replace(train_data_dir="/nowhere"))'
    with pytest.raises(CellExecutionError):
        run(notebook, tmp_path, monkeypatch, trains=True)
    (panel,) = outputs_of(notebook, "wait")
    assert panel.output_type == "display_data"
    assert "does not exist" in panel.data["text/html"]
    assert outputs_of(notebook, "results") == []
