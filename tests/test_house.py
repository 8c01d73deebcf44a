# SPDX-License-Identifier: MIT
"""The house's own rules, checked: rooms, sizes, first lines, what never enters."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "mesh").rglob("*.py"))
PYTHON = sorted(
    path
    for folder in ("mesh", "tests", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
    if path.name != "__init__.py" or path.stat().st_size
)
MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize(
    "path", sorted((ROOT / "mesh/core").glob("[a-z]*.py")), ids=shown
)
def test_each_core_module_has_its_tests(path: Path) -> None:
    assert (ROOT / "tests/core" / f"test_{path.name}").exists()


@pytest.mark.parametrize("path", SOURCES, ids=shown)
def test_a_module_fits_in_a_head(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= MODULE_LINES_MAX
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < FUNCTION_LINES_MAX, node.name


@pytest.mark.parametrize("path", PYTHON, ids=shown)
def test_each_file_begins_with_its_licence_and_its_purpose(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("# SPDX-License-Identifier: MIT\n")
    if path.is_relative_to(ROOT / "mesh"):
        assert ast.get_docstring(ast.parse(text))


@pytest.mark.parametrize("path", SOURCES, ids=shown)
def test_nothing_logs_and_nothing_is_left_undone(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    imported = {
        alias.name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    } | {
        (node.module or "").partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
    }
    assert not imported & {"logging", "syslog", "traceback", "pickle", "random"}
    assert not any(mark in text for mark in ("TODO", "FIXME", "XXX"))


def test_the_top_level_holds_what_the_design_names() -> None:
    allowed = {
        "pyproject.toml", "mesh", "peers.d", "tests", "benchmarks", "scripts",
        "README.md", "LICENSE", "CHANGELOG.md",
    }  # fmt: skip
    made_by_tools = {"build", "remailer_mesh.egg-info"}
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert found - made_by_tools <= allowed
