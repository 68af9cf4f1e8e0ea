"""Rules of the house that no other tool watches."""

import ast
import functools
import re
import tomllib
from pathlib import Path

import pytest

from kit.settings import declarations

KIT = Path(__file__).parents[1] / "kit"
EFFECTS = Path(__file__).parent / "effects" / "rows"
FILES = {path.relative_to(KIT).as_posix(): path for path in sorted(KIT.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text("utf-8")) for name, path in FILES.items()}
LONGEST_FILE = 400
LONGEST_FUNCTION = 60
# What a function takes is what it depends on, so few should take everything. Lower a ceiling when
# the count has fallen below it; raise none.
CEILINGS = {"Plan": 25, "Settings": 80}
LOOSE_MODULES = 10  # at the top of kit/, __init__ and __main__ included
QUESTIONS = ("settings/effective.py", "settings/unet_blocks.py")  # what others ask


@functools.cache
def functions(tree):
    return [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


def length_of(function):
    """Lines of code, from the name to the end, without the docstring."""
    lines = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function) is not None:
        text = function.body[0]
        lines -= text.end_lineno - text.lineno + 1
    return lines


def names_read(tree):
    """Attributes that are read, by dot or by getattr with a fixed name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            yield node.attr
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "getattr":
            yield from (a.value for a in node.args[1:2] if isinstance(a, ast.Constant))


def given_by_name(tree):
    """Parameters that a constructor reads: an adapter gets its settings by their names."""
    for function in functions(tree):
        if function.name == "__init__":
            parameters = {each.arg for each in function.args.kwonlyargs}
            names = (node for node in ast.walk(function) if isinstance(node, ast.Name))
            yield from (node.id for node in names if node.id in parameters)


def is_property(function):
    return any(getattr(decorator, "id", "") == "property" for decorator in function.decorator_list)


@functools.cache
def names_used():
    """What is read outside the declarations, or given out by them in another form."""
    return set(_names_used())


def _names_used():
    for name, tree in TREES.items():
        if name.startswith("adapters/"):
            yield from given_by_name(tree)
        if not name.startswith("settings/"):
            yield from names_read(tree)
            continue
        for function in functions(tree):
            # A property such as Images.size, or a question such as part_rates. What only a rule
            # reads has no effect but sentences.
            if name in QUESTIONS or is_property(function):
                yield from names_read(function)


@pytest.mark.parametrize("name", declarations())
def test_every_setting_is_read_somewhere(name):
    assert name in names_used(), f"nobody reads {name}: it would be accepted and have no effect"


def test_every_setting_has_an_effect_test():
    trees = [ast.parse(path.read_text("utf-8")) for path in EFFECTS.glob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    named = {node.value for node in nodes if isinstance(node, ast.Constant)}
    missing = [name for name in declarations() if name not in named]
    assert not missing, f"write a row for {missing}: tests/effects/__init__.py says how"


@pytest.mark.parametrize("name", FILES)
def test_files_are_short(name):
    lines = len(FILES[name].read_text("utf-8").splitlines())
    assert lines <= LONGEST_FILE, f"{name} has {lines} lines; divide it"


@pytest.mark.parametrize("name", FILES)
def test_functions_are_short(name):
    long = [
        f"{function.name} has {length_of(function)} lines"
        for function in functions(TREES[name])
        if length_of(function) > LONGEST_FUNCTION
    ]
    assert not long, f"{name}: {', '.join(long)}"


@pytest.mark.parametrize("name", FILES)
def test_every_file_says_what_it_is_for(name):
    assert ast.get_docstring(TREES[name])


def test_every_folder_of_ours_is_a_package():
    folders = {path.parent for path in FILES.values()}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def takes(function, name):
    """Whether a parameter is annotated with this class, alone or "... | None"."""
    parts = function.args
    parameters = [*parts.posonlyargs, *parts.args, *parts.kwonlyargs]
    return any(name in types_of(parameter.annotation) for parameter in parameters)


def types_of(annotation):
    if isinstance(annotation, ast.BinOp):
        return types_of(annotation.left) | types_of(annotation.right)
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return types_of(ast.parse(annotation.value, mode="eval").body)
    if isinstance(annotation, ast.Attribute):
        return {annotation.attr}
    return {annotation.id} if isinstance(annotation, ast.Name) else set()


@pytest.mark.parametrize("name", CEILINGS)
def test_few_functions_take_everything(name):
    count = sum(takes(each, name) for tree in TREES.values() for each in functions(tree))
    assert count <= CEILINGS[name], f"{count} functions take a whole {name}; give what is read"


def test_a_parameter_of_a_type_is_found_however_it_is_written():
    texts = (
        "p: Plan",
        "p: Plan | None = None",
        "*, p: 'Plan'",
        "p: planning.Plan",
        "p: 'Plan | X'",
    )
    for text in texts:
        assert takes(ast.parse(f"def f({text}): ...").body[0], "Plan"), text
    for text in ("p", "p: Plans", "p: list[Plan]", "plan: int"):
        assert not takes(ast.parse(f"def f({text}): ...").body[0], "Plan"), text


def test_few_modules_lie_loose_at_the_top():
    loose = sorted(name for name in FILES if "/" not in name)
    assert len(loose) <= LOOSE_MODULES, f"put one of {loose} into a room"


def module_of(name):
    return ".".join(("kit", *Path(name).with_suffix("").parts)).removesuffix(".__init__")


MODULES = {module_of(name): tree for name, tree in TREES.items()}


def imported_by(tree):
    """Modules of ours that are imported anywhere in a file, inside functions too, when it runs."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        waiting.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            below = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else node.module for name in below)


def in_circles(arrows):
    """What can be reached from itself; arrows: name -> names."""
    reached = {name: set(others) for name, others in arrows.items()}
    for middle in reached:
        for name, others in reached.items():
            if middle in others:
                reached[name] = others | reached[middle]
    return {name for name, others in reached.items() if name in others}


def test_no_circle_of_rooms():
    arrows = {}
    for name, tree in MODULES.items():
        room = room_of(name)
        arrows.setdefault(room, set()).update({room_of(n) for n in imported_by(tree)} - {room})
    assert arrows["planning"] >= {"settings", "dataset"}  # they are seen
    assert in_circles(arrows) == set()


def room_of(module):
    return module.split(".")[1] if "." in module else module


def test_no_circle_of_modules():
    # Imports inside functions count, too.
    arrows = {name: set(imported_by(tree)) - {name} for name, tree in MODULES.items()}
    assert in_circles(arrows) == set()


def test_a_circle_is_found():
    assert in_circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": set()}) == {*"abc"}


# Who else called it would wait where no sign of life is looked at.
MEETS = {"training/sharding.py", "training/waiting.py"}


def test_processes_meet_in_two_files():
    found = {
        name
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Import) and any(is_meeting(each.name) for each in node.names))
        or (isinstance(node, ast.ImportFrom) and is_meeting(node.module or ""))
        or (isinstance(node, ast.Attribute) and ast.unparse(node).startswith("torch.distributed"))
    }
    assert found == MEETS


def is_meeting(module):
    return module.startswith("torch.distributed")


# What a file of anybody's may make these raise is told in kit.reading alone.
BARE_READERS = frozenset(
    {
        "json.load",
        "json.loads",
        "json.JSONDecoder",
        "tomllib.load",
        "tomllib.loads",
        "tomlkit.parse",
        "tomlkit.load",
        "ast.literal_eval",
        "expanduser",  # of os.path, too
        "resolve",
    }
)
MAY_READ = {
    "reading/texts.py": "the one reader of JSON and TOML",
    "reading/paths.py": "the one reader of paths",
    "settings/optimizer_args.py": "Python literals, as the reference has them; errors are caught",
    "exchange/from_lora.py": "a size in a LoRA's metadata, a Python tuple; all errors are caught",
}


def bare_readers_in(tree):
    """Calls of what raises more than a KitError at what somebody wrote."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        last = name.rpartition(".")[2]
        if name in BARE_READERS or last in BARE_READERS:
            yield last if last in BARE_READERS else name


def test_files_and_paths_are_read_in_one_place():
    for name, tree in TREES.items():
        found = set() if name in MAY_READ else set(bare_readers_in(tree))
        assert not found, f"{name}: {sorted(found)}; kit.reading does it without a traceback"


def test_a_bare_reader_is_seen_however_it_is_called():
    for text in (
        "json.loads(x)",
        "a = tomllib.loads(b)",
        "Path(x).expanduser()",
        "file.resolve()",
    ):
        assert list(bare_readers_in(ast.parse(text))), text
    for text in ("json.dumps(x)", "from_json(x)", "resolved(x)"):
        assert not list(bare_readers_in(ast.parse(text))), text


def test_what_may_read_by_itself_still_does():
    for name in MAY_READ:
        assert set(bare_readers_in(TREES[name])), f"{name} needs no exception any more"


def silent_rules_in(tree):
    """Functions that yield sentences, without a decorator, and that no other one calls."""
    called = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    for function in functions(tree):
        yields = any(isinstance(node, ast.Yield | ast.YieldFrom) for node in ast.walk(function))
        if yields and not function.decorator_list and function.name not in called:
            yield function.name


def test_no_rule_is_forgotten():
    for name, tree in TREES.items():
        if name.startswith("settings/rules/") and name not in RULES_THEMSELVES:
            forgotten = sorted(silent_rules_in(tree))
            assert not forgotten, f"{name}: mark {forgotten} with @problem, @notice or @idle"


RULES_THEMSELVES = ("settings/rules/__init__.py", "settings/rules/rule.py")


def test_a_rule_without_a_decorator_is_seen():
    text = 'def wrong(noise: Noise) -> Iterator[str]: yield ""'
    for returned in ("Iterator[str]", "Iterable[str]", "Generator[str, None, None]"):
        written = text.replace("Iterator[str]", returned)
        assert list(silent_rules_in(ast.parse(written))) == ["wrong"]
    assert list(silent_rules_in(ast.parse(f"@problem\n{text}"))) == []
    assert list(silent_rules_in(ast.parse(f"{text}\nfor each in wrong(1): pass"))) == []


def test_nobody_imports_a_rule_but_their_door():
    for name, tree in MODULES.items():
        if not name.startswith("kit.settings.rules"):
            behind = [each for each in imported_by(tree) if each.startswith("kit.settings.rules.")]
            assert not behind, f"{name}: ask kit.settings.effective, not {behind}"


ROOT = KIT.parent
GUIDES = {name: (KIT / name).read_text("utf-8") for name in ("README.md", "CONTRIBUTING.md")}
LINK = re.compile(r"\]\(([^):#]+)\)")  # not to the web
PATH = re.compile(r"`((?:kit|tests|findings|notebooks|\.ci)/[\w./-]+)(?:::(\w+))?`")
WHERE = re.compile(r"^\|[^|]*\| (\[[^|]*\)) \| ([^|]*) \|$", re.MULTILINE)  # links, names
CODE = re.compile(r"`([^`]+)`")


def defined_in(tree):
    """Functions, classes, methods ("Class.method") and names that a module assigns."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        if isinstance(node, ast.ClassDef):
            yield from (f"{node.name}.{each}" for each in defined_in(node))
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (each.id for each in targets if isinstance(each, ast.Name))


@pytest.mark.parametrize("guide", GUIDES)
def test_every_path_and_test_in_a_guide_exists(guide):
    links = LINK.findall(GUIDES[guide])
    assert [link for link in links if not (KIT / link).exists()] == []
    paths = PATH.findall(GUIDES[guide])
    assert paths or links
    for path, test in paths:
        assert (ROOT / path).exists(), path
        tree = ast.parse((ROOT / path).read_text("utf-8")) if test else None
        assert tree is None or test in set(defined_in(tree)), f"{path} has no {test}"


def defined_in_files(paths):
    return {name for path in paths for name in defined_in(TREES[path])}


def test_every_name_in_the_tables_of_places_is_there():
    text = GUIDES["README.md"].split("## Where is")[1]
    rows = WHERE.findall(text)
    assert len(rows) == text.count("\n| ") - text.count("\n| what |")  # none is passed over
    for links, names in rows:
        paths = LINK.findall(links)
        for name in CODE.findall(names):
            assert name in defined_in_files(paths), f"none of {paths} has {name}"
        unused = [path for path in paths if not {*CODE.findall(names)} & defined_in_files([path])]
        assert not unused, f"nothing is named of {unused}"


def test_every_name_in_the_account_of_a_step_is_there():
    text = GUIDES["README.md"].split("## A training step")[1].split("## ")[0]
    paths = set(LINK.findall(text))
    assert len(paths) >= 4
    known = {part for name in defined_in_files(FILES) for part in (name, name.split(".")[-1])}
    for name in set(CODE.findall(text)) - paths:
        assert name in known | set(declarations()), f"nothing is called {name}"


def test_every_menu_in_the_table_of_additions_is_there():
    rows = [line for line in GUIDES["CONTRIBUTING.md"].splitlines() if line.startswith("| a")]
    assert len(rows) > 10
    for row in rows:
        paths = [path for path, _ in PATH.findall(row) if path.endswith(".py")]
        trees = [ast.parse((ROOT / path).read_text("utf-8")) for path in paths]
        defined = {name for tree in trees for name in defined_in(tree)}
        for name in re.findall(r"`_?([A-Z][A-Z_]+)`", row):
            assert defined & {name, f"_{name}"}, f"none of {paths} has {name}"


def test_the_tree_names_every_room_in_the_order_of_the_floors():
    text = GUIDES["README.md"].split("```")[1]
    told = [line.split()[0].rstrip("/") for line in text.splitlines() if line.strip()]
    rooms = {Path(name).parts[0].removesuffix(".py") for name in FILES}
    assert {name for name in told if "/" not in name} == rooms - {"__init__", "__main__"}
    assert all((KIT / name).is_dir() for name in told if "/" in name)
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    (floors,) = [c for c in pyproject["tool"]["importlinter"]["contracts"] if c["id"] == "floors"]
    height = {
        room.strip(): -number
        for number, layer in enumerate(floors["layers"])
        for room in re.split(r"[|:]", layer)
    }
    heights = [height[name] for name in told if "/" not in name]
    assert heights == sorted(heights)
