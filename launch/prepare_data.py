"""Download a TFDS dataset and write it in the format that the search reads.

``python launch/prepare_data.py --dataset=cifar10 --data_dir=DIR``
"""

import sys
from pathlib import Path

if not __package__:  # Run as a file of a checkout.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    __package__ = "launch"

from absl import flags  # noqa: E402

from zcpt_jax.data import TFDS, load_dataset  # noqa: E402
from zcpt_jax.types import InputError  # noqa: E402

from . import _command, _packages  # noqa: E402

_DATASET = flags.DEFINE_string(
    "dataset", None, f"dataset to prepare, one of {', '.join(TFDS)}"
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "folder where TFDS keeps its datasets; default: TFDS's own"
)

_NEEDS_TENSORFLOW = (
    "writing a TFDS dataset needs TensorFlow, reading does not ({error}). Install "
    "it, best in an environment of its own, and run this command again: "
    "pip install tensorflow importlib_resources"
)
_MANUAL = (
    "TFDS cannot download {name} by itself ({error}). For imagenet2012, put "
    "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from image-net.org into "
    "{where}/downloads/manual and run this command again"
)


def main(argv: list[str]) -> None:
    """Prepare one dataset, or report what is missing for that."""
    _command.no_arguments(argv)
    name = _DATASET.value
    if name not in TFDS:
        raise InputError(f"--dataset must be one of {', '.join(TFDS)}; got {name}")
    _packages.require("tensorflow_datasets", extra="data")
    if _prepared(name):
        return
    try:
        import tensorflow  # noqa: F401
    except ImportError as error:
        raise InputError(_NEEDS_TENSORFLOW.format(error=error)) from error
    import tensorflow_datasets as tfds

    builder = tfds.builder(
        TFDS[name].builder, data_dir=_DATA_DIR.value, file_format="array_record"
    )
    try:
        builder.download_and_prepare()
    except (AssertionError, OSError, tfds.download.DownloadError) as error:
        where = _DATA_DIR.value or builder.data_dir
        raise InputError(_MANUAL.format(name=name, error=error, where=where)) from error
    if not _prepared(name):
        raise InputError(f"TFDS wrote {builder.data_path}, but it cannot be read back")


def _prepared(name: str) -> bool:
    try:
        dataset = load_dataset(name, _DATA_DIR.value)
    except InputError:
        return False
    print(f"{name} is ready: the search draws from {len(dataset.source):,} images")
    return True


if __name__ == "__main__":
    _command.run(main)
