import os
import shutil
import sys
import tempfile
from pathlib import Path

import jax
import pytest
from absl import flags

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

# On the CPU, unless JAX_PLATFORMS names a device to run the tests on.
ON_CPU = os.environ.get("JAX_PLATFORMS", "").split(",")[0] in ("", "cpu")
if ON_CPU:
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 8)  # to share work over, as on real ones
jax.config.update("jax_numpy_rank_promotion", "raise")

CACHE = pytest.StashKey[str]()


def pytest_addoption(parser):
    parser.addoption(
        "--golden_dir",
        default=str(ROOT.parent / "shared" / "golden"),
        help="folder of .npz files with scores of the published code; tests/golden "
        "where there is none",
    )
    parser.addoption(
        "--tfds_dir",
        default=str(ROOT.parent / "shared" / "tfds"),
        help="folder of TFDS datasets in array_record form",
    )
    parser.addoption(
        "--tables_dir",
        default=str(ROOT.parent / "shared" / "tables"),
        help="folder of tabular benchmarks",
    )


def pytest_configure(config):
    # Flags are defined when launch/ is imported; pytest's own are not ours to parse.
    flags.FLAGS(sys.argv[:1])
    # What tests and the commands that they start compile is kept for one another, in
    # a folder that ends with this process: the user's may hold what killed processes
    # have left, and another process could read what this one has written in part.
    config.stash[CACHE] = folder = tempfile.mkdtemp(prefix="zcpt_jax_tests_")
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
    if ON_CPU:
        from tests import compiling

        compiling.install()
        compiling.quickly(True)


def pytest_unconfigure(config):
    shutil.rmtree(config.stash[CACHE], ignore_errors=True)


def pytest_collection_modifyitems(config, items):
    """Skip tests that do not suit the device, and slow ones.

    Slow tests run where the golden files are, as in CI, or when asked for by -m.
    """
    if not ON_CPU:
        skip = pytest.mark.skip(reason="cpu_only: JAX_PLATFORMS names another device")
        for item in items:
            if "cpu_only" in item.keywords:
                item.add_marker(skip)
    if config.getoption("-m") or Path(config.getoption("golden_dir")).is_dir():
        return
    skip = pytest.mark.skip(reason="slow: run with -m slow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Before fixtures compile anything, those of a module included."""
    if ON_CPU:
        from tests import compiling

        compiling.quickly("optimised" not in item.keywords)


@pytest.fixture
def tfds_dir(request):
    folder = Path(request.config.getoption("tfds_dir"))
    if not folder.is_dir():
        pytest.skip(f"no datasets in {folder} (--tfds_dir)")
    return str(folder)


@pytest.fixture
def tables_dir(request):
    folder = Path(request.config.getoption("tables_dir"))
    if not folder.is_dir():
        pytest.skip(f"no tables in {folder} (--tables_dir)")
    return folder
