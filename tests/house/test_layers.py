import ast
import importlib.util
from pathlib import Path

import pytest

from tests.house.layers import LEVELS, ROOMS

PACKAGE = Path(__file__).parents[2] / "nbimg"
OUTSIDE = ("nbimg.testing",)  # a package of its own, which nothing of nbimg imports


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(("nbimg", *path.relative_to(PACKAGE).with_suffix("").parts))
        yield name.removesuffix(".__init__"), path


def imported(path, *, typing=True):
    """Every module that a file imports, wherever in the file; `typing`: for type checkers too."""
    tree = ast.parse(path.read_text("utf-8"))
    guarded = {
        node
        for guard in ast.walk(tree)
        if isinstance(guard, ast.If) and ast.unparse(guard.test) == "TYPE_CHECKING"
        for node in ast.walk(guard)
    }
    for node in ast.walk(tree):
        if not typing and node in guarded:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if is_module(full) else node.module


def is_module(name):
    if not name.startswith("nbimg"):
        return False
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


CODE = [
    (name, path)
    for name, path in modules()
    if not name.startswith(OUTSIDE) and ast.parse(path.read_text("utf-8")).body[1:]
]


@pytest.mark.parametrize(("name", "path"), CODE, ids=[name for name, _ in CODE])
def test_a_module_imports_only_from_lower_levels(name, path):
    assert name in LEVELS, f"give {name} a level in tests/house/layers.py"
    for other in imported(path):
        if other.split(".")[0] != "nbimg" or other == "nbimg":
            continue
        assert other in LEVELS, f"{name} imports {other}, which has no level"
        assert LEVELS[other] < LEVELS[name], f"{name} imports upwards: {other}"


@pytest.mark.parametrize(("name", "path"), CODE, ids=[name for name, _ in CODE])
def test_heavy_packages_stay_in_their_rooms(name, path):
    for other in imported(path, typing=False):
        top = other.split(".")[0]
        assert name in ROOMS.get(top, {name}), f"{name} imports {top}"


def test_every_level_belongs_to_a_module():
    assert set(LEVELS) == {name for name, _ in CODE}


def test_nothing_of_the_package_imports_its_test_servers():
    for name, path in CODE:
        assert not any(other.startswith(OUTSIDE) for other in imported(path)), name
