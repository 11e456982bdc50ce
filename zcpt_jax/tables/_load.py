"""Loading of tables, whose format is detected from the content."""

import zipfile
from pathlib import Path

from zcpt_jax.tables import _nats, _torch
from zcpt_jax.tables._csv import parse_csv
from zcpt_jax.tables._foreign import advice_on_folder, check_known, check_zip
from zcpt_jax.tables._macro import parse_macro
from zcpt_jax.tables._nasbench101 import load_npz
from zcpt_jax.tables._nasbench101_records import load_records
from zcpt_jax.tables._reading import Progress, check_regular, read_head, read_text
from zcpt_jax.tables._table import Table
from zcpt_jax.tables._tfrecord import starts_like_tfrecord
from zcpt_jax.types import InputError


def load_table(path: str, progress: Progress | None = None) -> Table:
    """Load a table of accuracies, from CSV or a benchmark's published file.

    The format is detected from the content:

    * CSV, gzipped or not, separated by commas, semicolons or tabs: a column
      ``arch_str`` (or ``arch``, ``genotype``, ``architecture``) of genotypes, and
      columns of accuracies in percent. A column of values from 0 to 1 is taken as
      fractions, with a warning. Columns whose name (``params``, ``val_loss``) or values
      say that they are no accuracies are in ``others``. With a column ``dataset``,
      each dataset becomes a column.
    * NAS-Bench-Macro's JSON: ``cifar10_test``, the mean of three runs.
    * NAS-Bench-101's ``nasbench_only108.tfrecord`` and ``nasbench_full.tfrecord``:
      ``cifar10_test`` and ``cifar10_validation`` after 108 epochs, means of the runs;
      or an ``.npz`` with ``module_hash`` and ``test_accuracy``. Keys are module hashes.
    * NATS-Bench's topology space, the folder ``NATS-tss-v1_0-3ffb9-simple`` or the file
      ``NATS-tss-v1_0-3ffb9.pickle.pbz2``, and ``NAS-Bench-201-v1_*.pth``: after 200
      epochs, means over the seeds, ``cifar10_test``, ``cifar100_test``,
      ``imagenet16_120_test``, and ``cifar10_validation``, trained without the
      validation images. A column that is missing for any cell is left out.

    Pickles are read without executing anything in them; PyTorch, TensorFlow and
    protobuf are not needed. The last two formats need much time and memory:
    ``launch/convert_table.py`` converts them to CSV once.

    Args:
      path: path of the file or folder.
      progress: callback with the amount read and the total, in bytes of a file or in
        files of a folder. Texts and NumPy archives are read in one step.

    Raises:
      InputError: if the file is missing, truncated, damaged, or of another format.
    """
    if Path(path).is_dir():
        return _load_folder(path, progress)
    check_regular(path)
    head, unpacked = read_head(path)
    if not head:
        raise InputError(f"table {path} is empty: it has 0 bytes")
    if head.startswith(b"PK\x03\x04"):
        return _load_zip(path, progress)
    if head.startswith(_torch.LEGACY_HEAD):
        return _nats.archive_table(path, _torch.load_legacy(path, progress))
    if starts_like_tfrecord(head) or path.endswith(".tfrecord"):
        return load_records(path, progress)
    check_known(path, head, unpacked)
    if head.startswith(b"BZh"):
        return _nats.load_archive(path, progress)
    text = read_text(path)
    parse = parse_macro if text.lstrip()[:1] == "{" else parse_csv
    return parse(path, text)


def _load_folder(path: str, progress: Progress | None) -> Table:
    if not (Path(path) / _nats.META).is_file():
        raise InputError(
            f"table {path} is a folder without {_nats.META}; the only folder that is a "
            "table is NATS-tss-v1_0-3ffb9-simple of NATS-Bench"
            + advice_on_folder(path, _nats.META)
        )
    return _nats.load_folder(path, progress)


def _load_zip(path: str, progress: Progress | None) -> Table:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(
            f"table {path} starts like an .npz or .pth file and is damaged ({error}); "
            "it may be cut off, fetch it anew"
        ) from error
    if _torch.pickle_member(names):
        return _nats.archive_table(path, _torch.load_zipped(path, progress))
    check_zip(path, names)
    return load_npz(path)
