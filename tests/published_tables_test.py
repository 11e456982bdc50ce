"""Benchmarks as they were published, in small: built here byte by byte."""

import base64
import bz2
import collections
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from zcpt_jax.tables import _reading, _unpickle, load_table
from zcpt_jax.types import InputError

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[1]
HASHES = ["00" * 16, "ff" * 16]
ARCHS = ["|none~0|", "|skip_connect~0|", "|nor_conv_3x3~0|"]


def write(folder, name, data):
    path = folder / name
    path.write_bytes(data)
    return str(path)


def column(table, name):
    return {key: table.columns[name][row] for key, row in table.rows.items()}


# NAS-Bench-Macro


def macro(**entries):
    return json.dumps({k: {"mean_acc": v, "params": 1} for k, v in entries.items()})


def test_macro_gives_the_mean_of_its_runs(tmp_path):
    entries = {"02012100": 89.25, "22222222": 93}
    table = load_table(write(tmp_path, "t.json", macro(**entries).encode()))
    assert column(table, "cifar10_test") == entries
    assert list(table.columns) == ["cifar10_test"]


MACRO_DAMAGE = {
    "not valid JSON": macro(**{"02012100": 89.0})[:-5],
    "not that of NAS-Bench-Macro": macro(**{"0201210": 89.0}),
    "it has '02012103'": macro(**{"02012103": 89.0}),
    "a mean_acc each": '{"02012100": {"test_acc": [1, 2]}}',
    "has '02012100': 89": '{"02012100": 89.0}',
    "not an accuracy in percent": macro(**{"02012100": 890.0}),
    "is inf, not an accuracy": macro(**{"02012100": 10**400}),
    "has no rows": "{}",
}


@pytest.mark.parametrize("message", MACRO_DAMAGE)
def test_damaged_macro_is_refused(tmp_path, message):
    path = write(tmp_path, "t.json", MACRO_DAMAGE[message].encode())
    with pytest.raises(InputError, match=message):
        load_table(path)


# NAS-Bench-101 as a NumPy archive


def npz(**changes):
    arrays = {
        "module_hash": np.asarray([[0] * 16, [255] * 16], np.uint8),
        "test_accuracy": np.asarray([0.5, 0.9375], np.float32),
        **changes,
    }
    file = io.BytesIO()
    np.savez(file, **{k: v for k, v in arrays.items() if v is not None})
    return file.getvalue()


def test_npz_gives_percent_by_module_hash(tmp_path):
    table = load_table(write(tmp_path, "t.npz", npz()))
    assert column(table, "cifar10_test") == dict(zip(HASHES, [50, 93.75], strict=True))


class Command:
    """Runs a command where a pickle of it is loaded without care."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


NPZ_DAMAGE = {
    "damaged": npz()[:-30],
    "test_accuracy is not a file": npz(test_accuracy=None),
    "Object arrays cannot be loaded": npz(module_hash=np.asarray([{}, {}], object)),
    r"it has int64 \[2, 16\]": npz(module_hash=np.zeros((2, 16), np.int64)),
    r"it has uint8 \[3, 16\]": npz(module_hash=np.zeros((3, 16), np.uint8)),
    "more than one row for 0000": npz(module_hash=np.zeros((2, 16), np.uint8)),
    "not an accuracy in percent": npz(test_accuracy=np.asarray([0.5, 93.75])),
}


@pytest.mark.parametrize("message", NPZ_DAMAGE)
def test_damaged_npz_is_refused(tmp_path, message):
    path = write(tmp_path, "t.npz", NPZ_DAMAGE[message])
    with pytest.raises(InputError, match=message):
        load_table(path)


def test_npz_of_an_absurd_shape_is_refused(tmp_path):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "|u1", "fortran_order": False, "shape": (1 << 60, 16)}
    )
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as target:
        target.writestr("module_hash.npy", file.getvalue())
    with pytest.raises(InputError, match="not a NumPy archive with arrays"):
        load_table(write(tmp_path, "t.npz", archive.getvalue()))


# NAS-Bench-101's TFRecord files


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 * (crc & 1))
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def frame(data):
    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + masked(data)


def varint(value):
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


def metrics(*evaluations):
    """A ModelMetrics message: (validation, test) at start, half way and end."""
    message = b""
    for validation, test in evaluations:
        doubles = {1: 108.0, 2: 1e3, 3: 1.0, 4: validation, 5: test}
        body = b"".join(
            bytes([i << 3 | 1]) + struct.pack("<d", v) for i, v in doubles.items()
        )
        body += bytes([6 << 3 | 2]) + varint(200) + b"c" * 200
        message += bytes([1 << 3 | 2]) + varint(len(body)) + body
    message += bytes([2 << 3]) + varint(8_555_530)
    return message + bytes([3 << 3 | 1]) + struct.pack("<d", 1e3)


def run(module_hash, validation, test, epochs=108, message=None):
    message = message or metrics((0.1, 0.1), (0.4, 0.3), (validation, test))
    row = [
        module_hash,
        epochs,
        "0100",
        "input,output",
        base64.b64encode(message).decode(),
    ]
    return frame(json.dumps(row).encode())


RECORDS = (
    run(HASHES[0], 0.5, 0.25)
    + run(HASHES[1], 0.9375, 0.875, epochs=36)
    + run(HASHES[1], 0.75, 0.5)
    + run(HASHES[0], 0.75, 0.75)
)


def test_checksums_of_the_tests_are_those_of_the_standard():
    assert crc32c(b"123456789") == 0xE3069283  # RFC 3720's polynomial, its check value


@pytest.mark.parametrize("name", ["nasbench_only108.tfrecord", "renamed"])
def test_tfrecord_gives_means_of_the_final_evaluations(tmp_path, name):
    seen = []
    path = write(tmp_path, name, RECORDS)
    table = load_table(path, lambda done, total: seen.append((done, total)))
    assert list(table.columns) == ["cifar10_test", "cifar10_validation"]
    assert column(table, "cifar10_test") == dict(zip(HASHES, [50, 50], strict=True))
    valid = column(table, "cifar10_validation")
    assert valid == dict(zip(HASHES, [62.5, 75], strict=True))
    assert seen[-1] == (len(RECORDS), len(RECORDS))


LENGTH = struct.pack("<Q", 1 << 50)
RECORD_DAMAGE = {
    "cut off in record 3: it lacks 1 bytes": RECORDS[:-1],
    "cut off in record 0": RECORDS[:5],
    "cut off in record 1: it lacks 1,125,899": run(HASHES[0], 1, 1)
    + LENGTH
    + masked(LENGTH),
    "length of record 0 does not fit its checksum": b"\0" + RECORDS[1:],
    "has no run of 108 epochs": run(HASHES[0], 0.5, 0.5, epochs=36),
    "record 0 is not one of NAS-Bench-101": frame(b"[1, 2]"),
    "is no module hash": run("xyz", 0.5, 0.5),
    "no fraction of 1": run(HASHES[0], 0.5, 1.5),
    "a message is cut off": run(HASHES[0], 0, 0, message=metrics((0, 0))[:-1]),
    "list index out of range": run(HASHES[0], 0, 0, message=metrics((0, 0))),
    "unknown kind 7": run(HASHES[0], 0, 0, message=b"\x0f"),
    "integer of a message has no end": run(HASHES[0], 0, 0, message=b"\xff" * 12),
}


@pytest.mark.parametrize("message", RECORD_DAMAGE)
def test_damaged_tfrecord_is_refused(tmp_path, message):
    path = write(tmp_path, "t.tfrecord", RECORD_DAMAGE[message])
    with pytest.raises(InputError, match=message):
        load_table(path)


# NAS-Bench-201 and NATS-Bench

NAMES = {
    "cifar10_test": ("cifar10", "ori-test"),
    "cifar100_test": ("cifar100", "x-test"),
    "imagenet16_120_test": ("ImageNet16-120", "x-test"),
    "cifar10_validation": ("cifar10-valid", "x-valid"),
}


def result(accuracy, images, epochs=2):
    """One run; every accuracy that is not the one asked for is far off."""
    sets = {"x-valid", "x-test", "ori-test", "train"}
    accs = {f"{name}@{epoch}": 1.0 for name in sets for epoch in range(epochs)}
    accs[f"{images}@{epochs - 1}"] = accuracy
    return {"epochs": epochs, "eval_acc1es": accs, "net_state_dict": None, "flop": 1.0}


def training(base, without=()):
    results, seeds = {}, {}
    for offset, (name, (dataset, images)) in enumerate(NAMES.items()):
        if name not in without:
            seeds[dataset] = [777, 888]
            for seed, more in ((777, 0.0), (888, 1.0)):
                results[dataset, seed] = result(base + offset + more, images)
    return {"arch_index": 0, "all_results": results, "dataset_seed": seeds}


def cell(base, short="12", long="200", **kwargs):
    pairs = [(short, training(1.0)), (long, training(base, **kwargs))]
    return collections.OrderedDict(pairs)


def archive(**names):
    infos = {i: cell(10.0 * i, **names) for i in range(3)}
    return {"meta_archs": ARCHS, "arch2infos": infos, "evaluated_indexes": {0, 1, 2}}


def legacy(value, protocol=1001):
    """What torch.save wrote before PyTorch 1.6."""
    parts = (0x1950A86A20F9469CFC6C, protocol, {"little_endian": True}, value, [])
    return b"".join(pickle.dumps(part, protocol=2) for part in parts)


def zipped(value, **kwargs):
    """What torch.save writes since PyTorch 1.6."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **kwargs) as target:
        target.writestr("archive/data.pkl", pickle.dumps(value, protocol=2))
        target.writestr("archive/version", "3\n")
    return file.getvalue()


def packed(value):
    return bz2.compress(pickle.dumps(value, protocol=4))


def folder(tmp_path, cells=None):
    tmp_path.mkdir(exist_ok=True)
    write(
        tmp_path, "meta.pickle.pbz2", packed({"meta_archs": ARCHS, "arch2infos": None})
    )
    for i, value in enumerate(cells or [cell(10.0 * i) for i in range(3)]):
        write(tmp_path, f"{i:06d}.pickle.pbz2", packed(value))
    return str(tmp_path)


def check(table):
    assert list(table.columns) == list(NAMES)
    for offset, name in enumerate(NAMES):
        expected = {arch: 10.0 * i + offset + 0.5 for i, arch in enumerate(ARCHS)}
        assert column(table, name) == expected


FULL = {"short": "less", "long": "full"}
FILES = {
    "NAS-Bench-201-v1_0.pth": legacy(archive(**FULL)),
    "NAS-Bench-201-v1_1.pth": zipped(archive(**FULL)),
    "NATS-tss.pickle.pbz2": packed(archive()),
}


@pytest.mark.parametrize("name", FILES)
def test_files_of_the_topology_space_give_means_over_seeds(tmp_path, name):
    seen = []
    path = write(tmp_path, name, FILES[name])
    check(load_table(path, lambda done, total: seen.append((done, total))))
    assert seen[-1] == (len(FILES[name]),) * 2


def test_the_folder_of_nats_bench_gives_means_over_seeds(tmp_path):
    seen = []
    check(load_table(folder(tmp_path), lambda *numbers: seen.append(numbers)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_columns_that_some_cells_lack_are_left_out(tmp_path):
    without = ["cifar100_test", "cifar10_validation"]
    cells = [cell(1.0), cell(2.0, without=without), cell(3.0)]
    table = load_table(folder(tmp_path, cells))
    assert list(table.columns) == ["cifar10_test", "imagenet16_120_test"]
    cells[0] = cell(1.0, without=["cifar10_test"])
    with pytest.raises(InputError, match=r"cifar10_test of \|none~0\| is nan"):
        load_table(folder(tmp_path, cells))


def test_folders_with_missing_or_other_files_are_refused(tmp_path):
    path = folder(tmp_path / "table")
    (tmp_path / "table" / "000001.pickle.pbz2").unlink()
    with pytest.raises(InputError, match=r"lacks 1 of 3 files, such as 000001\.pickle"):
        load_table(path)
    with pytest.raises(InputError, match=r"folder without meta\.pickle\.pbz2"):
        load_table(str(tmp_path))
    write(tmp_path / "table", "meta.pickle.pbz2", packed([]))
    with pytest.raises(InputError, match="has no list meta_archs"):
        load_table(path)


OTHER = {
    "meta_archs and arch2infos are not there": {"state_dict": {}},
    "not of the topology space: '64:64": {
        "meta_archs": ["64:64:64:64:64"],
        "arch2infos": {0: cell(1.0)},
    },
    r"results of \|none~0\| are not laid out": {
        "meta_archs": ARCHS,
        "arch2infos": {0: {"90": training(1.0)}},
    },
    "are damaged": {"meta_archs": ARCHS, "arch2infos": {3: cell(1.0)}},
    "has no rows": {"meta_archs": ARCHS, "arch2infos": {}},
}


@pytest.mark.parametrize("message", OTHER)
def test_other_objects_are_refused(tmp_path, message):
    for name, form in (("t.pth", legacy), ("z.pth", zipped), ("t.pbz2", packed)):
        with pytest.raises(InputError, match=message):
            load_table(write(tmp_path, name, form(OTHER[message])))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.99])
def test_files_that_are_cut_off_are_refused(tmp_path, name, part):
    data = FILES[name]
    # What follows the object of an old PyTorch file is not read.
    path = write(tmp_path, name, data[: int(part * (len(data) - 10))])
    with pytest.raises(InputError, match=r"cut off|damaged"):
        load_table(path)


def test_pytorch_files_of_an_unknown_version_are_refused(tmp_path):
    with pytest.raises(InputError, match="version 1002; only 1001 is known"):
        load_table(write(tmp_path, "t.pth", legacy(archive(), protocol=1002)))


@pytest.mark.parametrize("form", [legacy, zipped, packed])
def test_nothing_in_a_pickle_is_run(tmp_path, form):
    target = tmp_path / "was_run"
    data = form({"meta_archs": ARCHS, "arch2infos": Command(target)})
    with pytest.raises(InputError, match=r"asks for (posix|nt)\.system, which a table"):
        load_table(write(tmp_path, "table", data))
    assert not target.exists()
    command = pickle.loads(pickle.dumps(Command(target)))  # it would have been run
    assert command == 0 and target.exists()


def test_cells_of_a_folder_are_not_run_either(tmp_path):
    target = tmp_path / "was_run"
    path = folder(tmp_path / "table", [cell(1.0), Command(target), cell(1.0)])
    with pytest.raises(InputError, match=r"000001.*was refused.*\.system"):
        load_table(path)
    assert not target.exists()


# Opcodes by hand: a global, arguments, a call, a state.
REFUSED = {
    "builtins.eval": b"cbuiltins\neval\n(S'1'\ntR.",
    "builtins.getattr": b"cbuiltins\ngetattr\n(S'1'\nS'x'\ntR.",
    "collections.defaultdict": b"ccollections\ndefaultdict\n)R.",
    "numpy.load": b"cnumpy\nload\n(S'x'\ntR.",
    "torch.hub.load": b"ctorch.hub\nload\n(S'x'\ntR.",
    "os.system": b"(S'true'\nios\nsystem\n.",
    # Names with dots would reach attributes of what is allowed.
    "builtins.set.__init__": b"\x80\x04\x8c\x08builtins\x8c\x0cset.__init__\x93.",
}


@pytest.mark.parametrize("name", REFUSED)
def test_everything_but_plain_data_is_refused(tmp_path, name):
    with pytest.raises(InputError, match=f"asks for {name}, which"):
        load_table(write(tmp_path, "t", bz2.compress(REFUSED[name])))


@pytest.mark.parametrize("name", sorted(_unpickle._ALLOWED))
def test_a_pickle_cannot_change_what_later_ones_see(tmp_path, name):
    take = "c{}\n{}\n".format(*name).encode()
    states = b"(S'mark'\nI1\nd", b"(N(S'mark'\nI1\ndt"  # as __dict__, as __slots__
    for state in states:
        with pytest.raises(InputError):
            load_table(write(tmp_path, "t", bz2.compress(take + state + b"b.")))
    assert not hasattr(_unpickle._ALLOWED[name], "mark")


class Global:
    """Pickled as a global of another module, called and given a state."""

    def __init__(self, name, args=(), state=None):
        self.name, self.args, self.state = name, args, state


class Pickler(pickle._Pickler):
    """Writes globals of modules that are not installed, and persistent ids."""

    def persistent_id(self, value):
        return value[1:] if isinstance(value, tuple) and value[:1] == ("id",) else None

    def save(self, value, *args, **kwargs):
        if not isinstance(value, Global):
            return super().save(value, *args, **kwargs)
        module, _, name = value.name.rpartition(".")
        self.write(b"c" + f"{module}\n{name}\n".encode())
        if value.args:
            self.save(value.args)
            self.write(pickle.REDUCE)
        if value.state:
            self.save(value.state)
            self.write(pickle.BUILD)
        return None


def pickled(value):
    file = io.BytesIO()
    Pickler(file, protocol=2).dump(value)
    return file.getvalue()


def number(value, code="f8", order="<", core="numpy.core.multiarray"):
    state = (3, order, None, None, None, -1, -1, 0)
    dtype = Global("numpy.dtype", (code, False, True), state)
    raw = np.asarray(value, order + code).tobytes().decode("latin1")
    return Global(f"{core}.scalar", (dtype, Global("_codecs.encode", (raw, "latin1"))))


def test_tensors_are_stubs_and_numpy_numbers_are_numbers(tmp_path):
    tensor = Global(
        "torch._utils._rebuild_tensor_v2",
        (("id", "storage", Global("torch.FloatStorage"), "0", "cpu", 2), 0, (2,), (1,)),
    )
    content = archive()
    kinds = [("f8", "<"), ("f4", ">"), ("f8", ">")]
    for (code, order), info in zip(kinds, content["arch2infos"].values(), strict=True):
        for run in info["200"]["all_results"].values():
            run["net_state_dict"] = collections.OrderedDict(weight=tensor)
            accs = run["eval_acc1es"]
            for name, value in accs.items():
                accs[name] = number(
                    value, code, order, f"numpy.{'_' * (order == '<')}core.multiarray"
                )
    check(load_table(write(tmp_path, "t", bz2.compress(pickled(content)))))


def test_an_accuracy_that_is_a_tensor_is_refused(tmp_path):
    content = archive()
    accs = content["arch2infos"][1]["200"]["all_results"]["cifar10", 777]["eval_acc1es"]
    accs["ori-test@1"] = Global("torch.tensor", (1.0,))
    path = write(tmp_path, "t", bz2.compress(pickled(content)))
    with pytest.raises(InputError, match=r"results of \|skip_connect~0\| are not laid"):
        load_table(path)


def test_what_unpacks_to_absurd_lengths_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(_reading, "_ALWAYS_ALLOWED", 1000)
    bomb = {"meta_archs": "x" * 1_000_000}
    for data in (packed(bomb), zipped(bomb, compression=zipfile.ZIP_DEFLATED)):
        with pytest.raises(InputError, match="unpacks to more than 200 times"):
            load_table(write(tmp_path, "t", data))


# The command that turns them to CSV


def convert(*args):
    script = str(ROOT / "launch" / "convert_table.py")
    return subprocess.run(
        [sys.executable, script, *args], capture_output=True, text=True
    )


def test_converting_writes_a_table_of_the_same_values(tmp_path):
    source = write(tmp_path, "t.pth", FILES["NAS-Bench-201-v1_0.pth"])
    target = tmp_path / "table.csv.gz"
    process = convert(f"--input={source}", f"--output={target}")
    assert process.returncode == 0 and process.stderr == "", process.stderr
    assert process.stdout.startswith(f"{target}: 3 rows, columns cifar10_test, ")
    check(load_table(str(target)))


def test_converting_what_cannot_be_read_writes_nothing(tmp_path):
    source = write(tmp_path, "t.pth", FILES["NAS-Bench-201-v1_0.pth"][:-500])
    process = convert(f"--input={source}", f"--output={tmp_path / 'table.csv.gz'}")
    assert process.returncode == 1 and "Traceback" not in process.stderr
    assert "error: table" in process.stderr and "cut off" in process.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["t.pth"]


# The real ones


def test_the_real_macro_table_has_its_known_best(tables_dir):
    table = load_table(str(tables_dir / "nasbench_macro_cifar10.json"))
    standing = table.ranks("22212220")[0]
    assert (standing.rank, standing.count) == (1, 6_561)
    assert round(standing.accuracy, 3) == 93.127


def test_the_real_npz_has_all_graphs(tables_dir):
    table = load_table(str(tables_dir / "nasbench101_108epochs.npz"))
    assert len(table.rows) == len(table.columns["cifar10_test"]) == 423_624
    assert all(len(key) == 32 for key in list(table.rows)[:10])
    assert 94.3 < table.columns["cifar10_test"].max() < 94.4
