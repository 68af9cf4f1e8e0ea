"""The project's address is said in three places that cannot read each other; they agree."""

import json
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
ADDRESS = PROJECT["urls"]["Repository"]
NOTEBOOK = json.loads((ROOT / "notebooks" / "train.ipynb").read_text("utf-8"))
TEXT = "\n".join("".join(cell["source"]) for cell in NOTEBOOK["cells"])
BADGE = re.compile(r"colab\.research\.google\.com/github/([\w.-]+/[\w.-]+)/blob/main/([\w./-]+)")


def test_the_notebook_clones_what_the_project_is():
    assert re.search(r'^REPOSITORY = "(.+)"$', TEXT, re.MULTILINE)[1] == ADDRESS


def test_every_badge_opens_the_notebook_of_this_project():
    for text in (TEXT, (ROOT / "README.md").read_text("utf-8")):
        [(repository, path)] = BADGE.findall(text)
        assert f"https://github.com/{repository}" == ADDRESS
        assert (ROOT / path).is_file()


def test_the_readme_clones_it_too():
    assert f"git clone {ADDRESS} " in (ROOT / "README.md").read_text("utf-8")
