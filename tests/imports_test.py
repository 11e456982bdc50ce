"""Imports point one way: from packages to those below them, and in no circle."""

import ast
import graphlib
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "zcpt_jax").rglob("*.py"))

# Each package, and each module beside them, to what it may import.
ALLOWED = {
    "_version": set(),
    "json_text": set(),
    "types": set(),
    "stopwatch": set(),
    "masks": {"types"},
    "lowering": {"types"},
    "sharding": {"types"},
    "data": {"types"},
    "tables": {"json_text", "types"},
    "nn": {"types", "lowering"},
    "proxies": {"types", "lowering", "nn"},
    "spaces": {"json_text", "types", "lowering", "masks", "nn"},
    "scoring": {"types", "lowering", "sharding", "stopwatch", "data"},
    "search": {
        "types",
        "lowering",
        "masks",
        "stopwatch",
        "data",
        "tables",
        "nn",
        "scoring",
    },
    "io": {
        "json_text",
        "types",
        "stopwatch",
        "data",
        "tables",
        "nn",
        "spaces",
        "scoring",
        "search",
    },
    "analysis": {"json_text", "types", "masks", "proxies", "scoring", "search", "io"},
    "training": {"types", "sharding", "data", "spaces", "nn", "search", "io"},
}
OUTSIDE = {"launch", "tests", "benchmarks"}


def module(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(path) for path in FILES}


def imported(path):
    """Names of modules a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package", [*ALLOWED, "__init__"])
def test_packages_import_only_what_lies_below(package):
    folder = ROOT / "zcpt_jax"
    files = [*(folder / package).rglob("*.py"), *folder.glob(f"{package}.py")]
    assert files
    names = {name for path in files for name in imported(path)}
    assert not {name.split(".")[0] for name in names} & OUTSIDE
    used = {n.split(".")[1] for n in names if n.startswith("zcpt_jax.")} - {package}
    if package != "__init__":
        assert used <= ALLOWED[package], f"{package}: {sorted(used - ALLOWED[package])}"


def test_every_package_is_listed_and_none_is_in_a_circle():
    there = {path.name.removesuffix(".py") for path in (ROOT / "zcpt_jax").iterdir()}
    assert there - {"__init__", "__pycache__", "py.typed"} == set(ALLOWED)
    graphlib.TopologicalSorter(ALLOWED).prepare()


def test_modules_import_each_other_in_no_circle():
    arrows = {module(path): set(imported(path)) & MODULES for path in FILES}
    packages = {module(path) for path in FILES if path.name == "__init__.py"}
    # A package imports what is in it; the way back is through the file that defines.
    graphlib.TopologicalSorter(
        {name: used - packages for name, used in arrows.items()}
    ).prepare()


def test_every_package_has_a_door():
    for path in (ROOT / "zcpt_jax").rglob("__init__.py"):
        if not any(part.startswith("_") for part in path.parent.parts):
            assert "__all__" in path.read_text(), path


@pytest.mark.parametrize("package", ["spaces", "proxies"])
def test_one_space_or_proxy_does_not_import_another(package):
    shared = {"_literals", "_common", "_inputs", "_reach", "_spectra"}
    shared |= {"_nasbench101_graph"}  # a benchmark of its own, not a space
    for path in (ROOT / "zcpt_jax" / package).glob("_[a-z]*.py"):
        prefix = f"zcpt_jax.{package}."
        used = {n[len(prefix) :].split(".")[0] for n in imported(path) if prefix in n}
        # _name_network.py and _name_genotype.py are parts of _name.py.
        first = path.stem.split("_")[1]
        family = {name for name in used if name.split("_")[1] == first}
        others = used - shared - family
        assert not others, f"{path.name} imports {sorted(others)}"


def test_the_library_reads_no_flags_and_no_environment():
    for path in FILES:
        assert not any(n.startswith("absl") for n in imported(path)), path
        assert not re.search(r"os\.environ|getenv", path.read_text()), path


def test_the_core_names_no_space_and_no_proxy():
    from zcpt_jax.proxies import PROXIES
    from zcpt_jax.search import OPERATION_SCORES
    from zcpt_jax.spaces import SPACES

    names = {*PROXIES, *SPACES} - {*OPERATION_SCORES}  # "darts" is one of these too

    core = [ROOT / "zcpt_jax" / "masks.py"]
    for package in ("scoring", "search", "analysis"):
        core += (ROOT / "zcpt_jax" / package).glob("*.py")
    for path in core:
        source = path.read_text()
        strings = {
            node.value
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        assert not strings & names, path
