"""Every tool whose questions are declared can be started, and reads all its answers."""

import ast
from pathlib import Path

import pytest

import kit
from kit.settings import tools
from kit.settings.setting import Section

KIT = Path(kit.__file__).parent
TOOLS = [
    each
    for each in vars(tools).values()
    if isinstance(each, type) and issubclass(each, Section) and each is not Section
]


def names_in(folder):
    """Names and attributes that are read in a folder's files."""
    for path in (KIT / folder).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Name):
                yield node.id
            elif isinstance(node, ast.Attribute):
                yield node.attr


CALLED, READ = set(names_in("cli")), set(names_in("tools"))


@pytest.mark.parametrize("tool", TOOLS)
def test_a_command_asks_the_questions_of_every_tool(tool):
    assert tool.__name__ in CALLED, "kit/cli has no command for it"


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_reads_every_answer(tool):
    unread = [each.name for each in tool.all_declared() if each.name not in READ]
    assert not unread, f"nobody in kit/tools reads {unread}"
