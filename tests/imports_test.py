"""The arrows between rooms: types <- masks <- scoring <- search, and no way back."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "zcpt_jax").rglob("*.py"))

# Room to the rooms it may import. What is not listed may import anything.
ALLOWED = {
    "types": set(),
    "intercept": {"types"},
    "taps": {"types", "intercept", "skipping"},
    "masks": {"types"},
    "orders": {"types"},
    "sharding": {"types"},
    "lowering": {"types"},
    "groups": set(),
    "memory": set(),
    "calls": {"types", "lowering"},
    "scoring": {"types", "calls", "groups", "lowering", "memory", "sharding"},
    "networks": {"types", "taps"},
    "budgets": {"types", "networks"},
    "tables": {"types"},
    "genotypes": {"types"},
    "data": {"types"},
    "proxies": {"types", "lowering", "taps"},
    "nasbench101": {"types"},
    "spaces": {"types", "lowering", "taps", "masks", "nasbench101", "skipping"},
    "files": {"types"},
    "stopwatch": set(),
    "timings": {"scoring"},
    "skipping": {"lowering"},
    "proposal": {"types", "masks", "orders"},
    "validation": {"types"},
    "minibatches": {"types", "data"},
    "initial_weights": set(),
    "evaluator": {
        "types",
        "budgets",
        "calls",
        "data",
        "initial_weights",
        "lowering",
        "minibatches",
        "sharding",
        "scoring",
        "stopwatch",
        "validation",
    },
    "population": {"types", "budgets", "masks"},
    "many": {"types", "evaluator", "validation"},
    "operations": {
        "types",
        "evaluator",
        "masks",
        "population",
        "proposal",
        "tables",
        "taps",
    },
    "search": {
        "types",
        "budgets",
        "data",
        "evaluator",
        "lowering",
        "operations",
        "orders",
        "proposal",
        "stopwatch",
        "validation",
    },
    "correlation": set(),
    "study": {
        "types",
        "correlation",
        "evaluator",
        "masks",
        "operations",
        "orders",
        "proposal",
        "proxies",
    },
    "study_files": {"types", "files", "study"},
    "score_file": {"types", "files"},
    "figures": {"correlation", "study"},
    "checkpoints": {"types", "files"},
    "train_pass": {"types", "taps"},
    "supernet_training": {
        "types",
        "checkpoints",
        "data",
        "files",
        "operations",
        "spaces",
        "train_pass",
    },
    "training": {
        "types",
        "checkpoints",
        "data",
        "files",
        "pictures",
        "report",
        "sharding",
        "spaces",
        "train_pass",
    },
    "pictures": {"types"},
    "report": {"types", "tables", "pictures", "timings"},
    "runs": {"types", "files", "genotypes", "proposal"},
}
SPACES_OF_FILES = {"launch", "tests", "benchmarks"}


def room(path):
    parts = path.relative_to(ROOT / "zcpt_jax").with_suffix("").parts
    return parts[0]


def imported(path):
    """Names of modules a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_rooms_import_only_what_lies_below(path):
    here = room(path)
    names = set(imported(path))
    assert not any(n.split(".")[0] in SPACES_OF_FILES for n in names)
    if here not in ALLOWED:
        assert here in ("__init__", "outcome")
        return
    rooms = {n.split(".")[1] for n in names if n.startswith("zcpt_jax.")} - {here}
    assert rooms <= ALLOWED[here], f"{here} imports {sorted(rooms - ALLOWED[here])}"


@pytest.mark.parametrize("package", ["spaces", "proxies"])
def test_one_space_or_proxy_does_not_import_another(package):
    shared = {
        "_init",
        "_ops",
        "_literals",
        "_windows",
        "_common",
        "_inputs",
        "_reach",
    }
    shared |= {"_spectra"}
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
    from zcpt_jax.spaces import SPACES

    core = ("masks", "scoring", "orders", "proposal", "validation", "search")
    for name in (*core, "evaluator", "population", "many", "study"):
        source = (ROOT / "zcpt_jax" / f"{name}.py").read_text()
        strings = {
            node.value
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        assert not strings & {*PROXIES, *SPACES}, name
