import os
import sys
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
# Commands that run in this process would turn the user's cache on for all tests after
# them, with whatever killed processes have left in it.
jax.config.update("jax_enable_compilation_cache", False)
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_addoption(parser):
    parser.addoption(
        "--golden_dir",
        default=str(ROOT.parent / "shared" / "golden"),
        help="folder of .npz files with scores of the published code",
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


def pytest_generate_tests(metafunc):
    if "golden_file" in metafunc.fixturenames:
        files = sorted(Path(metafunc.config.getoption("golden_dir")).glob("*.npz"))
        missing = pytest.param(
            None, marks=pytest.mark.skip(reason="no .npz file in --golden_dir")
        )
        metafunc.parametrize(
            "golden_file", files or [missing], ids=lambda f: getattr(f, "stem", "none")
        )


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
