"""What an installed package needs, and what it brings."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from zcpt_jax import __version__

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CORE = {"jax", "flax", "numpy", "optax"}

# Imports of packages that scoring does without fail in the process that runs this.
SCORE_WITHOUT = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in REFUSED:
            raise ModuleNotFoundError(name)

REFUSED = {refused}
sys.meta_path.insert(0, Refuse())
import jax, numpy as np
import zcpt_jax
from zcpt_jax.types import Batch

space = zcpt_jax.get_space("nasbench201", channels=4, cells_per_stage=1)
net = space.supernet(10)
variables = space.init_variables(net, jax.random.key(0), (8, 8, 3))
images = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
masks = {{group: mask[None] for group, mask in space.init_masks().items()}}
nwot = zcpt_jax.get_proxy("nwot").score
print(zcpt_jax.score_masks(nwot, net.apply, variables, Batch(images, None), masks))
"""


def name_of(requirement):
    return re.match(r"[\w-]+", requirement)[0]


def test_scoring_needs_four_packages_alone():
    optional = [name_of(text) for text in PROJECT["dependencies"]]
    for extra in PROJECT["optional-dependencies"].values():
        optional += map(name_of, extra)
    modules = {"absl-py": "absl", "pillow": "PIL", "scikit-learn": "sklearn"}
    # absl comes with optax, scipy with jax, orbax with flax.
    there = CORE | {"absl-py", "scipy", "orbax-checkpoint", "zcpt_jax"}
    refused = {
        modules.get(name, name.replace("-", "_"))
        for name in optional
        if name not in there
    }
    assert {"PIL", "sklearn", "tqdm", "matplotlib", "chex", "tensorboardX"} <= refused
    done = subprocess.run(
        [sys.executable, "-c", SCORE_WITHOUT.format(refused=sorted(refused))],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.strip("[]\n ")) > 0


def test_every_command_is_installed():
    commands = {
        path.stem
        for path in (ROOT / "launch").glob("[a-z]*.py")
        if "def main(" in path.read_text()
    }
    assert {f"zcpt-{name.replace('_', '-')}" for name in commands} == set(
        PROJECT["scripts"]
    )
    for command, target in PROJECT["scripts"].items():
        module, _, function = target.partition(":")
        assert module == "zcpt_jax.launch._entry"
        assert command == f"zcpt-{function.replace('_', '-')}"


def test_every_package_is_installed():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    there = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "zcpt_jax").rglob("__init__.py")
    }
    assert set(listed["packages"]) == there | {"zcpt_jax.launch"}


def test_commands_import_each_other_relatively():
    """They install as ``zcpt_jax.launch``, where no package ``launch`` is to be had."""
    for path in (ROOT / "launch").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                assert node.module.partition(".")[0] != "launch", path


@pytest.mark.slow
def test_an_installed_command_runs_outside_the_checkout(tmp_path):
    target = tmp_path / "site"
    install = ["pip", "install", "--quiet", "--no-deps", "--target", str(target)]
    done = subprocess.run(
        [sys.executable, "-m", *install, str(ROOT)], capture_output=True, text=True
    )
    if "No matching distribution found for setuptools" in done.stderr:
        pytest.skip("pip cannot reach a package index")
    assert done.returncode == 0, done.stderr
    assert (target / f"zcpt_jax-{__version__}.dist-info").is_dir()

    def run(*arguments):
        return subprocess.run(
            [sys.executable, target / "bin" / "zcpt-search", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(target)},
        )

    shown = run("--help").stdout
    assert "--num_proposals" in shown and "--proxy" in shown
    options = ("channels=4,cells_per_stage=1", "--batch_size=8", "--num_proposals=2")
    done = run(
        "--flagfile=quickstart",
        f"--space_options={options[0]}",
        *options[1:],
        "--num_validation_batches=2",
        "--output_dir=found",
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "found" / "report.html").is_file()
    assert (
        '"command": "zcpt-search --flagfile='
        in (tmp_path / "found" / "config.json").read_text()
    )
