import ast
import doctest
import importlib
import inspect
import re
import tomllib

import pytest

import nbimg
from tests.house.test_layers import CODE, PACKAGE

ROOT = PACKAGE.parent
NAMES = [name for name, _ in CODE if name != "nbimg.__main__"]


def test_public_names_are_sorted_and_can_all_be_had():
    assert nbimg.__all__ == sorted(nbimg.__all__)
    assert sorted(nbimg._HOMES) == nbimg.__all__
    for name in nbimg.__all__:
        assert getattr(nbimg, name).__module__.startswith("nbimg.")


def test_type_checkers_see_the_same_public_names():
    tree = ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))
    guard = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: node.module.removeprefix("nbimg.")
        for node in guard.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == nbimg._HOMES


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="genrate"):
        nbimg.genrate  # noqa: B018


@pytest.mark.parametrize("name", NAMES)
def test_a_module_lists_its_public_names_and_documents_them(name):
    module = importlib.import_module(name)
    assert module.__doc__, name
    for public in getattr(module, "__all__", ()):
        value = getattr(module, public)
        if inspect.isfunction(value) or inspect.isclass(value):
            assert value.__doc__, f"{name}.{public} has no docstring"


@pytest.mark.parametrize("name", NAMES)
def test_examples_in_docstrings_run(name):
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module)
    assert failed == 0


def test_the_repository_has_one_address():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    address = project["urls"]["Repository"]
    for path in (ROOT / "README.md", ROOT / "notebooks" / "quickstart.ipynb"):
        text = path.read_text("utf-8")
        found = set(re.findall(r"https://github\.com/[\w.-]+/nbimg", text))
        assert found == {address}, path


def test_the_table_of_where_to_change_names_files_that_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    table = text[text.index("| want to change") :].split("\n\n")[0]
    named = re.findall(r"`((?:nbimg|tests|benchmarks|recipes|notebooks)/[\w./]+)`", table)
    assert len(named) >= 20
    assert [name for name in named if not (ROOT / name).exists()] == []
