"""A short stay on a GPU or TPU: ``python benchmarks/accelerator.py --data=npz:FILE``.

One command that measures, the most important first: where it runs; a step of a search
beside the PyTorch reference; cold and warm searches; the published code's scores;
training beside PyTorch; the same step in other forms (``zcpt_jax.lowering``); scores
with a derivative. Each measurement has a process and a limit of its own, so that an
abort or a hang ends nothing else, and all of it ends within ``--minutes``. Every number
is printed, and written to the report, as soon as it is known.

Besides JAX and Flax it needs PyTorch for what it compares with; neither
tensorflow-datasets nor tensorboardX. ``--make_data=FILE --data_dir=DIR`` makes the
archive of images beforehand, where there are TFDS datasets.
"""

import sys
import time

START = time.monotonic()

import importlib.util  # noqa: E402  the clock starts before the imports
import json  # noqa: E402
import os  # noqa: E402
import platform  # noqa: E402
import signal  # noqa: E402
import tempfile  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402
from absl import app, flags  # noqa: E402

from benchmarks import jobs  # noqa: E402
from benchmarks.accelerator_children import run_step  # noqa: E402
from benchmarks.accelerator_plan import (  # noqa: E402
    FORMS,
    ITEMS,
    SPACES,
    Choice,
    Step,
    plan,
)
from benchmarks.accelerator_report import Report, describe  # noqa: E402
from launch import _command, _flags  # noqa: E402
from zcpt_jax import lowering  # noqa: E402
from zcpt_jax.io.files import make_folder, write_atomically  # noqa: E402
from zcpt_jax.types import InputError  # noqa: E402

_DATA = flags.DEFINE_string(
    "data", None, "npz:FILE, images to search and train on; default: random ones"
)
_MINUTES = flags.DEFINE_float("minutes", 8.0, "after which all is over")
_GOLDEN_DIR = flags.DEFINE_string(
    "golden_dir", None, "folder of .npz files with scores of the published code"
)
_ONLY = flags.DEFINE_list("only", list(ITEMS), f"some of {', '.join(ITEMS)}")
_SPACES = flags.DEFINE_list("spaces", list(SPACES), f"some of {', '.join(SPACES)}")
_FORMS = flags.DEFINE_list("forms", list(FORMS), f"some of {', '.join(FORMS)}")
_SHALLOW = flags.DEFINE_bool(
    "shallow", False, "try forms on networks of few cells, which compile faster"
)
_SMOKE = flags.DEFINE_bool("smoke", False, "toy sizes: does it run at all?")
_OUTPUT = flags.DEFINE_string(
    "output", None, "the report; default: runs/benchmarks/accelerator-<utc time>.json"
)
_MAKE = flags.DEFINE_string("make_data", None, "write CIFAR-10 images there, and end")
_DATA_DIR = _flags.text("data_dir")
_IMAGES = flags.DEFINE_integer("images", 4096, "how many --make_data writes")

_SMOKE_FORMS = ("skips=none", "chunk=2")
_LEAST = 10.0  # seconds without which a step is not begun
_LEFT = 5.0  # seconds to end a child and to print
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "torch", "numpy")


def main(argv: list[str]) -> None:
    """Flags to a plan to a report."""
    _command.no_arguments(argv)
    if _MAKE.value:
        make_data(_MAKE.value, _DATA_DIR.value, _IMAGES.value)
        return
    _check()
    if _SMOKE.value:  # threads that wait for each other crawl on busy machines
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    signal.signal(signal.SIGTERM, _interrupt)
    output = Path(_OUTPUT.value or _default_output())
    make_folder(output.parent)
    report = Report(_settings())
    report.add("environment", _environment())
    with tempfile.TemporaryDirectory() as folder:
        try:
            measure(plan(_choice(folder)), report, output)
        except KeyboardInterrupt:
            print("interrupted")
    _write(report, output)
    print(f"\n{report}\n\nreport     {output}")


def measure(steps: list[Step], report: Report, output: Path) -> None:
    """Run all steps for which there is time; the report is on disk after every row."""
    for step in steps:
        left = 60 * _MINUTES.value - _LEFT - _elapsed()
        if left < _LEAST or report.content["environment"].get("stop"):
            report.content["not_begun"].append(step.name)
            continue
        if _as_is(step, report):
            report.add(step.section, {**step.row, "same": True})
            continue
        _tell(f"{step.name}, at most {min(step.limit, left):.0f} s")

        def add(part: dict[str, Any], step: Step = step) -> None:
            _tell(f"  {step.name}: {describe(part)}")
            report.add(step.section, {**step.row, **part})
            _write(report, output)

        run_step(step, min(step.limit, left), add)


def _as_is(step: Step, report: Report) -> bool:
    """Whether a form is the one that the devices have anyway."""
    platform = report.content["environment"].get("platform")
    form = step.options.get("job", {}).get("form")
    if not (platform and form):
        return False
    default = lowering.of_platform(platform)
    return default.replace(**form) == default


def make_data(file: str, data_dir: str | None, count: int) -> None:
    """Write the first training images of CIFAR-10 as ``npz:FILE`` takes them.

    Args:
      file: the archive.
      data_dir: where TFDS keeps its datasets.
      count: images to write.

    Raises:
      InputError: if the dataset is not there.
    """
    from zcpt_jax.data import load_dataset

    source = load_dataset("cifar10", data_dir).source
    rows = range(min(count, len(source)))
    images, labels = zip(*(source.read(row) for row in rows), strict=True)
    np.savez(file, images=np.stack(images), labels=np.array(labels, np.int32))
    print(f"{len(rows):,} images in {file}")


def _random_data(folder: str) -> str:
    """An archive of random images: nothing that is measured depends on them."""
    file = Path(folder, "random.npz")
    rng = np.random.default_rng(0)
    size = jobs.IMAGE_SIZE
    count = 256 if _SMOKE.value else 4096
    images = rng.integers(256, size=(count, size, size, 3), dtype=np.uint8)
    np.savez(file, images=images, labels=np.arange(count) % jobs.CLASSES)
    return f"npz:{file}"


def _choice(folder: str) -> Choice:
    forms: list[str] = _FORMS.value
    if _SMOKE.value and not flags.FLAGS["forms"].present:
        forms = list(_SMOKE_FORMS)
    torch = importlib.util.find_spec("torch") is not None
    if not torch:
        _tell("PyTorch is not installed, so that nothing is compared with it")
    return Choice(
        items=_ONLY.value,
        spaces=_SPACES.value,
        forms=forms,
        data=_DATA.value or _random_data(folder),
        golden_dir=_GOLDEN_DIR.value,
        folder=folder,
        smoke=_SMOKE.value,
        shallow=_SHALLOW.value,
        reference=torch,
    )


def _check() -> None:
    for flag, known in ((_ONLY, ITEMS), (_SPACES, SPACES), (_FORMS, tuple(FORMS))):
        unknown = sorted(set(flag.value) - set(known))
        if unknown:
            raise InputError(
                f"--{flag.name}: unknown {unknown[0]!r}; known: {', '.join(known)}"
            )
    kind, _, file = (_DATA.value or "").partition(":")
    if _DATA.value and (kind != "npz" or not Path(file).is_file()):
        raise InputError(
            f"--data={_DATA.value}: it takes npz:FILE of a file that exists"
        )
    golden = _GOLDEN_DIR.value
    if golden is not None and not list(Path(golden).glob("*.npz")):
        raise InputError(f"--golden_dir={golden}: there are no .npz files")


def _environment() -> dict[str, Any]:
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": jobs.cores_in_use(),
        "python": platform.python_version(),
        **{name: _command.version(name) for name in _PACKAGES},
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
    }


def _settings() -> dict[str, Any]:
    holders = (_DATA, _MINUTES, _ONLY, _SPACES, _FORMS, _SHALLOW, _SMOKE)
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **{holder.name: holder.value for holder in holders},
    }


def _default_output() -> str:
    name = time.strftime("accelerator-%Y%m%dT%H%M%SZ.json", time.gmtime())
    return str(Path("runs", "benchmarks", name))


def _write(report: Report, output: Path) -> None:
    report.content["seconds"] = _elapsed()
    write_atomically(output, json.dumps(report.content, indent=1) + "\n")


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _elapsed() -> float:
    return time.monotonic() - START


def _tell(text: str) -> None:
    print(f"{_elapsed():6.1f} s  {text}", flush=True)


if __name__ == "__main__":
    app.run(_command.without_traceback(main))
