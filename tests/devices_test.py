"""Where commands run: what they say about it, and what they refuse."""

import logging
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from launch import _accelerators, _devices, search
from tests import helpers
from zcpt_jax.scoring.scorer import Scorer
from zcpt_jax.sharding import make_mesh
from zcpt_jax.types import InputError

ROOT = Path(__file__).resolve().parents[1]
SMALL = (
    "--space_options=channels=4,cells_per_stage=1",
    "--num_proposals=1",
    "--num_validation_batches=1",
    "--batch_size=8",
)
JAX_LOGGER = logging.getLogger("jax._src.xla_bridge")


class Device:
    """Stands for a device that this machine lacks."""

    def __init__(self, platform, kind, process=0):
        self.platform, self.device_kind, self.process_index = platform, kind, process


def fake_mesh(*devices):
    class FakeMesh:
        pass

    mesh = FakeMesh()
    mesh.devices, mesh.size = np.array(devices), len(devices)
    return mesh


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        ([Device("cpu", "cpu")], "1 cpu device"),
        ([Device("gpu", "NVIDIA H200")], "1 gpu device (NVIDIA H200)"),
        (
            [Device("tpu", "TPU v4", process) for process in (0, 0, 1, 1)],
            "4 tpu devices (TPU v4), of 2 processes",
        ),
    ],
)
def test_the_first_line_names_the_devices(devices, expected):
    assert _accelerators.runs_on(fake_mesh(*devices)) == expected


def test_a_command_prints_first_where_it_runs(tmp_path, capsys):
    message, out = helpers.run_command(
        capsys, search, *SMALL, "--devices=1", f"--output_dir={tmp_path}"
    )
    assert message is None
    first = out.splitlines()[0]
    assert first.startswith(f"runs on     {_accelerators.runs_on(make_mesh(1))}")


def use_probes(monkeypatch, plugins, asked="", failures=None, log=None):
    """JAX with these plugins, settings, and devices that fail to open."""

    def devices(platform=None):
        if platform is None and log is not None:
            JAX_LOGGER.error("Plugin %s failed", log[0], exc_info=log[1])
        if platform in (failures or {}):
            raise RuntimeError(failures[platform])
        return [Device(platform or "cpu", "cpu")]

    monkeypatch.setattr(jax, "devices", devices)
    monkeypatch.setattr(_accelerators, "installed_plugins", lambda: plugins)
    monkeypatch.setattr(_accelerators, "asked_platforms", lambda: asked)


BUSY = (
    "Backend 'tpu' failed to initialize: ABORTED: The TPU is already in use by process "
    "with pid 7.. Available backends are ['cpu']"
)
UNKNOWN = "Unknown backend cuda. Available backends are ['cpu']"


@pytest.mark.parametrize(
    ("plugins", "failures", "expected"),
    [
        (["tpu"], {"tpu": BUSY}, "of tpu: .* already in use by process with pid 7"),
        (["cuda"], {"cuda": UNKNOWN}, "of cuda: it finds no such device"),
        (["cuda", "tpu"], {"cuda": UNKNOWN, "tpu": BUSY}, "of cuda: .*; of tpu: "),
    ],
)
def test_a_fall_back_to_the_cpu_is_refused(monkeypatch, plugins, failures, expected):
    use_probes(monkeypatch, plugins, failures=failures)
    with pytest.raises(InputError, match=f"{expected}.*Set JAX_PLATFORMS=cpu to"):
        _accelerators.open_devices()


@pytest.mark.parametrize(
    ("plugins", "asked", "failures"),
    [
        ([], "", {}),  # no accelerator was meant
        (["tpu"], "cpu", {"tpu": BUSY}),  # the CPU is meant
        (["tpu"], "", {}),  # the CPU is JAX's default by another setting
    ],
)
def test_the_cpu_is_taken_where_it_is_meant(monkeypatch, plugins, asked, failures):
    use_probes(monkeypatch, plugins, asked, failures)
    assert [device.platform for device in _accelerators.open_devices()] == ["cpu"]


def test_the_reason_is_what_the_plugin_failed_with(monkeypatch, caplog):
    log = ("jax_plugins.xla_cuda12", RuntimeError("cuInit(0) failed: error 303.\nmore"))
    use_probes(monkeypatch, ["cuda"], failures={"cuda": UNKNOWN}, log=log)
    with pytest.raises(InputError, match=r"cuda: cuInit\(0\) failed: error 303\. Set"):
        _accelerators.open_devices()
    assert caplog.text == ""  # JAX's traceback is not printed
    assert not any(
        isinstance(each, _accelerators._PluginErrors) for each in JAX_LOGGER.filters
    )


def test_devices_that_do_not_open_are_told_in_one_message(monkeypatch):
    use_probes(monkeypatch, ["cuda"], failures={None: "Unable: no driver"})
    with pytest.raises(InputError, match="open its devices: Unable: no driver. Set"):
        _accelerators.open_devices()


def test_a_platform_that_is_not_there(tmp_path):
    script = str(ROOT / "launch" / "search.py")
    done = subprocess.run(
        [sys.executable, script, f"--output_dir={tmp_path / 'run'}"],
        env={**helpers.on_cpu(1), "JAX_PLATFORMS": "nonesuch"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "JAX cannot open its devices with JAX_PLATFORMS=nonesuch: " in done.stderr
    assert not (tmp_path / "run").exists()


def test_installed_plugins_are_found(tmp_path, monkeypatch):
    found = set(_accelerators.installed_plugins())
    for name in ("jax_plugins/xla_cuda99", "libtpu"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "libtpu" / "__init__.py").touch()
    (tmp_path / "jax_plugins" / "xla_cuda99" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert set(_accelerators.installed_plugins()) == found | {"cuda", "tpu"}


def test_devices_of_two_kinds_are_refused(monkeypatch):
    mesh = fake_mesh(Device("gpu", "NVIDIA H100"), Device("gpu", "NVIDIA A100"))
    monkeypatch.setattr(_devices, "make_mesh", lambda *args: mesh)
    with pytest.raises(
        InputError, match="sees 1 x gpu NVIDIA A100, 1 x gpu NVIDIA H100; use"
    ):
        _devices.open_mesh()


TWO_PROCESSES = """
import sys
sys.path.insert(0, {root!r})
import jax
from absl import app
from launch import _accelerators, _command, _devices
from zcpt_jax.types import InputError
first = "--process_id=0" in sys.argv

def refuse():
    jax.devices()
    raise InputError("JAX fell back to the CPU")

def kinds(devices):
    return {{"gpu NVIDIA H100" if first else "gpu NVIDIA A100": 4}}

def main(argv):
    if {case!r} == "platforms":
        _devices.asked_platforms = lambda: "cpu" if first else "cuda"
    elif {case!r} == "kinds":
        _devices.count_kinds = kinds
    elif not first:
        _devices.open_devices = refuse
    _devices.open_mesh()
    raise AssertionError("not refused")

app.run(_command.without_traceback(main))
"""


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("platforms", ["process 0: cpu; process 1: cuda"] * 2),
        (
            "kinds",
            ["process 0: 4 x gpu NVIDIA H100; process 1: 4 x gpu NVIDIA A100"] * 2,
        ),
        (
            "fallback",
            ["process 1: none (JAX fell back to the CPU)", "error: JAX fell back to"],
        ),
    ],
)
def test_processes_that_see_different_devices_all_end(tmp_path, case, expected):
    script = tmp_path / "command.py"
    script.write_text(TWO_PROCESSES.format(root=str(ROOT), case=case))
    printed = helpers.run_in_two_processes([sys.executable, str(script)], code=1)
    for (_, stderr), message in zip(printed, expected, strict=True):
        assert message in stderr and "Traceback" not in stderr, stderr
        assert stderr.count("error: ") == 1


@pytest.mark.parametrize(
    "said",
    [
        "INTERNAL: CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access",
        "UNAVAILABLE: Socket closed",
    ],
)
def test_a_search_goes_on_after_its_device_was_lost(
    tmp_path, capsys, monkeypatch, said
):
    dispatch, calls = Scorer.dispatch, []

    def lose(self, *args):
        calls.append(args)
        if len(calls) > 3:
            raise jax.errors.JaxRuntimeError(f"{said}\nand more")
        return dispatch(self, *args)

    arguments = (*SMALL, "--devices=1", f"--output_dir={tmp_path}")
    with monkeypatch.context() as patch:
        patch.setattr(Scorer, "dispatch", lose)
        message, _ = helpers.run_command(capsys, search, *arguments)
    assert message.startswith("error: the device failed") and f": {said}. " in message
    assert "is kept; run the same command again" in message and "\n" not in message
    kept = (tmp_path / "decisions.jsonl").read_text()
    assert kept
    message, out = helpers.run_command(capsys, search, *arguments)
    assert message is None and "found" in out
    assert (tmp_path / "decisions.jsonl").read_text().startswith(kept)


def test_a_full_memory_is_told_apart_from_a_lost_device(capsys):
    class Command:
        @staticmethod
        def main(argv):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 9 GB asked for")

    message, _ = helpers.run_command(capsys, Command)
    assert message.startswith("error: the memory of the device is full: RESOURCE_EX")
    assert "a smaller --batch_size" in message


COMPILE = """
import sys
sys.path.insert(0, {root!r})
import jax, jax.numpy as jnp
from absl import app
from launch import _command

def main(argv):
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    for number in range(2):
        print(jax.jit(lambda x: jnp.sin(x) + number)(jnp.ones(3)))

app.run(_command.without_traceback(main))
"""


@pytest.fixture
def compiling(tmp_path):
    """Runs a command that compiles two functions of one name; its standard error."""
    script = tmp_path / "command.py"
    script.write_text(COMPILE.format(root=str(ROOT)))
    environment = helpers.on_cpu(1)
    del environment["JAX_COMPILATION_CACHE_DIR"]  # which would take precedence

    def run(cache):
        done = subprocess.run(
            [sys.executable, str(script), f"--compilation_cache={cache}"],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    return run


def test_damaged_entries_of_the_cache_are_told_once_and_replaced(tmp_path, compiling):
    assert compiling(tmp_path / "cache") == ""
    entries = sorted((tmp_path / "cache").glob("*-cache"))
    sizes = [entry.stat().st_size for entry in entries]
    assert sum("lambda" in entry.name for entry in entries) == 2
    for entry in entries:
        entry.write_bytes(entry.read_bytes()[:100])
    said = compiling(tmp_path / "cache")
    assert said.count("\n") == 1
    assert said.startswith("compilation cache: an entry is damaged and ignored")
    for entry, size in zip(entries, sizes, strict=True):
        assert entry.stat().st_size == pytest.approx(size, rel=0.2)
    assert compiling(tmp_path / "cache") == ""


def test_a_cache_that_cannot_be_written_is_told_once(tmp_path, compiling):
    (tmp_path / "file").touch()
    said = compiling(tmp_path / "file" / "cache")
    assert said.count("\n") == 1
    assert f"--compilation_cache={tmp_path / 'file' / 'cache'} fails: " in said


def test_autotuning_is_kept_beside_what_is_compiled():
    """JAX does so by itself; should it stop, ``_compilation_cache`` must ask for it."""
    kept = jax.config.values["jax_persistent_cache_enable_xla_caches"]
    assert "xla_gpu_per_fusion_autotune_cache_dir" in kept or kept == "all"
