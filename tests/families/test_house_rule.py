"""Everything that differs between the families lies in theirs; nobody else asks which one it is."""

import ast
from pathlib import Path

import pytest

import kit

ROOT = Path(kit.__file__).parent
# Who may ask: the families, what recognises their files, what names them in menus and checks, and
# what reads and writes the languages of other programs, which have a flag for each family.
ALLOWED = ("families/", "basemodel/", "settings/", "exchange/", "catalog/")
KEYS = {"sd1", "sd2", "sdxl"}
FILES = sorted(
    path for path in ROOT.rglob("*.py") if not path.relative_to(ROOT).as_posix().startswith(ALLOWED)
)


def questions(tree: ast.AST):
    """Every expression that decides something."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If | ast.IfExp | ast.While):
            yield node.test
        elif isinstance(node, ast.comprehension):
            yield from node.ifs
        elif isinstance(node, ast.Compare | ast.MatchValue):
            yield node


def asks_for_the_family(question: ast.AST) -> bool:
    for node in ast.walk(question):
        if isinstance(node, ast.Constant) and node.value in KEYS:
            return True
        name = node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")
        if KEYS & set(name.lower().split("_")):
            return True
    return False


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_only_families_know_which_family_it_is(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    lines = sorted({node.lineno for node in questions(tree) if asks_for_the_family(node)})
    assert not lines, f"{path} asks for the family in lines {lines}; let the family answer instead"


@pytest.mark.parametrize(
    ("code", "asks"),
    [
        ("if is_sdxl: pass", True),
        ("x = 1 if family.key == 'sdxl' else 2", True),
        ("y = [a for a in b if settings.sdxl]", True),
        ("match key:\n    case 'sd2':\n        pass", True),
        ("claim = settings.model.sdxl", False),
        ("check_claims(file, sdxl=settings.model.sdxl)", False),
        ("if family.needs_sizes: pass", False),
    ],
)
def test_the_rule_sees_questions_and_lets_mere_mention_pass(code, asks):
    assert any(asks_for_the_family(node) for node in questions(ast.parse(code))) is asks
