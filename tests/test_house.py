"""The house: which room may know which, what is shipped, and that documents and code agree."""

import ast
import configparser
import types
from collections import Counter
from pathlib import Path

import pytest

import torchkoopman as tk
from tests.quick import QUICK

ROOT = Path(__file__).parents[1]
PACKAGE, INTEGRATIONS = ROOT / "torchkoopman", ROOT / "integrations"
README = (ROOT / "README.md").read_text()
SUBMODULES = {
    name: getattr(tk, name)
    for name in tk.__all__
    if isinstance(getattr(tk, name), types.ModuleType)
}
"""Modules with public names of their own."""
SHORT = 8000
"""Bytes that the README has at most: what does not fit goes to a page."""
LONGEST = 250

ARROWS: dict[str, set[str]] = {
    "storage": {"version"},
    "observe": {"tables"},
    "spectra": {"observe", "pictures", "tables"},
    "topology": {"observe", "pictures", "tables"},
    "koopman": {"spectra", "topology", "observe", "storage", "pictures", "tables"},
    "fitting": {"koopman", "spectra", "observe", "storage", "tables"},
    "running": {"fitting", "koopman", "observe", "storage", "tables"},
    "graphs": {"observe"},
    "surgery": {"graphs", "observe", "version"},
    "scaling": {"koopman", "observe"},
    "shipping": {"surgery", "koopman", "observe", "storage", "version"},
    "unlearning": {"koopman", "observe", "pictures", "tables"},
    "showing": {"tables", "flows", "koopman", "spectra", "topology", "unlearning"},
    "inspecting": {
        "running",
        "fitting",
        "koopman",
        "spectra",
        "topology",
        "observe",
        "reporting",
        "showing",
        "tables",
    },
    "flows": {"fitting", "koopman", "observe", "pictures", "spectra", "tables"},
    "reporting": {"showing", "flows", "koopman", "topology", "unlearning", "storage", "tables"},
    "plots": {"flows", "koopman", "spectra", "topology", "unlearning"},
    "results": {"inspecting", "running", "koopman", "scaling", "spectra", "topology", "unlearning"},
    "undo": {"koopman", "surgery"},
    "datasets": set(),
    "pictures": set(),
    "tables": set(),
    "version": set(),
}
"""Room → rooms it may import from, besides itself."""
DRAWN = {"showing", "reporting", "inspecting"}
"""Rooms that hand series of arrays to the panels, which know nothing of them."""


def modules(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def imports(path: Path) -> list[tuple[str, str, int]]:
    """Module, name and line of every import anywhere in a file; name is empty for ``import m``."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, "", node.lineno) for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            found += [(node.module or "", alias.name, node.lineno) for alias in node.names]
    return found


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


INNER = [path for path in modules(PACKAGE) if path != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", INNER, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows_between_rooms_run_one_way(path: Path) -> None:
    room = room_of(path)
    allowed = ARROWS[room] | {room}
    for module, name, line in imports(path):
        top, *rest = module.split(".")
        if top.startswith("torchkoopman_"):
            drawn = top == "torchkoopman_panels" and room in DRAWN
            assert drawn, f"{path.name}:{line} imports an integration"
        if top == "torchkoopman":
            target = rest[0] if rest else name
            assert target in allowed, f"{path.name}:{line}: {room} → {target}"


OUTSIDE: dict[str, set[str]] = {
    "torchkoopman": {"benchmarks", "examples", "tests"},
    "integrations": {"benchmarks", "examples", "tests"},
    "benchmarks": {"examples", "tests"},
}
"""Folder → those beside it of which it knows nothing."""


@pytest.mark.parametrize("folder", OUTSIDE)
def test_folders_know_nothing_of_those_that_use_them(folder: str) -> None:
    for path in modules(ROOT / folder):
        for module, _, line in imports(path):
            assert module.partition(".")[0] not in OUTSIDE[folder], f"{path}:{line}: {module}"


def test_every_room_has_its_arrows_and_none_that_no_import_takes() -> None:
    rooms = {room_of(path) for path in INNER}
    taken: dict[str, set[str]] = {room: {room} for room in rooms}
    for path in INNER:
        for module, name, _ in imports(path):
            top, *rest = module.split(".")
            if top == "torchkoopman":
                taken[room_of(path)].add(rest[0] if rest else name)
    idle = [(room, other) for room in rooms for other in ARROWS[room] - taken[room]]
    assert idle == []
    assert rooms <= set(ARROWS)
    assert all(targets <= set(ARROWS) for targets in ARROWS.values())


@pytest.mark.parametrize(
    "module",
    [tk, *(each for name, each in SUBMODULES.items() if name != "datasets")],
    ids=lambda each: each.__name__,
)
def test_what_has_public_names_only_gathers_them(module: types.ModuleType) -> None:
    path = Path(module.__file__ or "")
    tree = ast.parse(path.read_text())
    gathered = {name for _, name, _ in imports(path)}
    assert gathered == set(module.__all__)
    assert all(isinstance(node, ast.Expr | ast.ImportFrom | ast.Assign) for node in tree.body)


def test_about_thirty_names_are_at_the_top() -> None:
    assert len(set(tk.__all__) - set(SUBMODULES) - {"__version__"}) <= 35


@pytest.mark.parametrize(
    "path", modules(INTEGRATIONS), ids=lambda path: str(path.relative_to(INTEGRATIONS))
)
def test_integrations_know_public_names_and_of_one_another_only_the_tab(
    path: Path,
) -> None:
    own = path.relative_to(INTEGRATIONS).parts[0]
    for module, name, line in imports(path):
        where = f"{path.name}:{line}"
        if module.startswith("torchkoopman_") and module.split(".")[0] != own:
            top = module.split(".")[0]
            known_to = {"torchkoopman_panels"} if own == "torchkoopman_tensorboard" else set()
            assert top in known_to | {"torchkoopman_tensorboard"}, f"{where} imports {module}"
            assert "." not in module, f"{where} reaches into {module}"
        if module.split(".")[0] == "torchkoopman":
            known = {"torchkoopman": tk, **{f"torchkoopman.{n}": m for n, m in SUBMODULES.items()}}
            assert module in known, f"{where} reaches into {module}"
            assert not name or name in known[module].__all__, f"{where}: {name} is not public"


WRITING = "summary.py"
"""The file that imports torchkoopman where a training logs, which has loaded it already."""


def at_run_time(tree: ast.Module, calls: bool = True) -> list[ast.AST]:
    """All nodes but those under ``if TYPE_CHECKING``, and without ``calls`` those of functions."""
    found: list[ast.AST] = []
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef) and not calls:
            continue
        found.append(node)
        hidden = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        children = node.orelse if isinstance(node, ast.If) and hidden else None
        pending += ast.iter_child_nodes(node) if children is None else children
    return found


@pytest.mark.parametrize(
    "path",
    [
        *modules(INTEGRATIONS / "torchkoopman_tensorboard"),
        *modules(INTEGRATIONS / "torchkoopman_panels"),
    ],
    ids=lambda path: f"{path.parent.name}/{path.name}",
)
def test_tensorboards_process_needs_neither_torch_nor_torchkoopman(path: Path) -> None:
    for node in at_run_time(ast.parse(path.read_text()), calls=path.name != WRITING):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        tops = {name.split(".")[0] for name in names}
        assert not tops & {"torch", "torchkoopman"}, f"{path.name}: {names}"


def shipped() -> configparser.SectionProxy:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config["options"]


def test_every_package_folder_is_shipped_and_every_shipped_package_is_there() -> None:
    listed = set(shipped()["packages"].split())
    there = {
        ".".join(folder.relative_to(base).parts)
        for base, top in ((ROOT, PACKAGE), (INTEGRATIONS, INTEGRATIONS))
        for folder in (path.parent for path in top.rglob("__init__.py"))
    }
    assert listed == there
    for folder in {path.parent for path in [*modules(PACKAGE), *modules(INTEGRATIONS)]}:
        assert (folder / "__init__.py").exists(), f"{folder} is no package"


def test_every_integration_is_mapped_to_its_folder() -> None:
    lines = [line.split("=") for line in shipped()["package_dir"].strip().splitlines()]
    mapped = {name.strip(): folder.strip() for name, folder in lines}
    folders = {path.parent for path in INTEGRATIONS.glob("*/__init__.py")}
    assert mapped == {folder.name: str(folder.relative_to(ROOT)) for folder in folders}


def test_every_shipped_package_says_that_it_is_typed() -> None:
    for folder in (PACKAGE, *(path.parent for path in INTEGRATIONS.glob("*/__init__.py"))):
        assert (folder / "py.typed").exists(), folder


@pytest.mark.parametrize(
    ("module", "name"), [(m, name) for m in (tk, *SUBMODULES.values()) for name in m.__all__]
)
def test_every_public_name_exists_and_says_what_it_is(module: types.ModuleType, name: str) -> None:
    thing = getattr(module, name)
    text = thing.__doc__
    assert text, name
    # A dataclass without a docstring gets its signature as one.
    assert not text.startswith(f"{name}("), name
    if isinstance(thing, type):
        public = [m for m in vars(thing).items() if not m[0].startswith("_")]
        for member, value in public:
            if isinstance(value, types.FunctionType | property | classmethod | staticmethod):
                overrides = any(hasattr(base, member) for base in thing.__mro__[1:])
                assert value.__doc__ or overrides, f"{name}.{member}"


def test_public_names_are_listed_once() -> None:
    names = [name for module in (tk, *SUBMODULES.values()) for name in module.__all__]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "path",
    [*modules(PACKAGE), *modules(INTEGRATIONS), *modules(ROOT / "benchmarks")],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_a_file_fits_in_ones_head_and_says_what_it_is_for(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= LONGEST
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring, "the first line says what the file is for"


def test_a_quick_look_has_tests_of_every_room_and_names_files_that_exist() -> None:
    assert {room for room in ARROWS if (PACKAGE / room).is_dir()} <= set(QUICK)
    for folder, names in QUICK.items():
        for name in names:
            assert (ROOT / "tests" / folder / f"test_{name}.py").exists(), (folder, name)


def test_no_room_is_a_fifth_of_the_package() -> None:
    lines = Counter(dict.fromkeys(ARROWS, 0))
    for path in INNER:
        lines[room_of(path)] += len(path.read_text().splitlines())
    room, longest = lines.most_common(1)[0]
    assert longest < lines.total() / 5, f"{room}: {longest} of {lines.total()} lines"


def test_the_readme_is_one_page() -> None:
    assert len(README.encode()) <= SHORT


def test_no_file_imports_in_a_circle_type_hints_included() -> None:
    inner = [*INNER, *modules(ROOT / "benchmarks")]
    files = dict.fromkeys(inner, ROOT) | dict.fromkeys(modules(INTEGRATIONS), INTEGRATIONS)
    names = {
        ".".join(path.relative_to(base).with_suffix("").parts): path for path, base in files.items()
    }
    targets = {
        name: {
            found
            for module, imported, _ in imports(path)
            for found in (module, f"{module}.{imported}")
            if found in names
        }
        for name, path in names.items()
    }
    while True:
        leaves = [name for name, known in targets.items() if not known & targets.keys()]
        if not leaves:
            break
        for name in leaves:
            del targets[name]
    circles = sorted(targets)
    assert circles == []
