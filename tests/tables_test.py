import bz2
import gzip
import io
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from zcpt_jax.tables import _reading, load_table, save_table
from zcpt_jax.types import InputError

pytestmark = pytest.mark.unit

CSV = "arch_str,cifar10_test,other\n|a|,90.0,1\n|b|,95.5,3\n|c|,90.0,2\n"


@pytest.mark.parametrize("packed", [False, True])
def test_standing_gives_accuracy_regret_and_rank(tmp_path, packed):
    path = tmp_path / "table.csv"
    path.write_bytes(gzip.compress(CSV.encode()) if packed else CSV.encode())
    first, second = load_table(str(path)).ranks("|c|")
    assert (first.column, first.accuracy, first.regret) == ("cifar10_test", 90.0, 5.5)
    assert (first.rank, first.count) == (2, 3)
    assert (second.column, second.rank) == ("other", 2)


LONG = "arch,dataset,accuracy\na,c10,90\n"
BAD = {
    "needs a column 'arch_str' .or arch, genotype, .*columns are 'name', 'acc'": (
        "name,acc\nx,1\n"
    ),
    "'', 'acc'; if the one without a name holds genotypes, name it": ",acc\n|a|,9\n",
    "line 2: acc of x is '1_0', not a number": "arch,acc\nx,1_0\n",
    "at least one column of accuracies; its columns are 'arch_str'": "arch_str\nx\n",
    "at least one column of accuracies; params are none by their names": (
        "arch,params\nx,1\ny,2\n"
    ),
    "has several columns of genotypes, arch, genotype; keep one": (
        "arch,genotype,acc\nx,x,9\n"
    ),
    "has 2 columns named 'acc'; rename": "arch_str,acc,acc\nx,1,2\n",
    "has 2 columns named 'b'; rename": "arch_str,b,b [%]\nx,1,2\n",
    "line 3: acc of y is 'high', not a number": "arch_str,acc\nx,1\ny,high\n",
    "line 2: acc of x is 'low', not a number": "arch_str,acc,b\nx,low,5\ny,high,6\n",
    "line 3: acc of y is '1,5', not a number": 'arch_str,acc\nx,3\ny,"1,5"\n',
    "line 3 has 1 columns, the header has 2; the file may be cut": "arch,acc\nx,1\ny",
    "line 2 has 3 columns, the header has 2; a field that contains the separator": (
        "arch,acc\nx,y,1\n"
    ),
    "line 3 has no arch; fill it in": "arch,acc\nx,2\n,1\n",
    "has a header and no rows": "arch_str,acc\n",
    "is empty: it has 0 bytes": "",
    "line 4: acc of y is nan, not a number; fill in": "arch,acc\nx,5\n\ny,nan\n",
    "line 3: acc of y is N/A, not a number": "arch,acc\nx,5\ny,N/A\n",
    "line 3: acc of y is missing; fill in": "arch,acc\nx,5\ny,\n",
    "column 'b' has no numbers in lines 2 to 3; delete": "arch,acc,b\nx,5,\ny,6,nan\n",
    "line 3: acc of y is 101.0, not an accuracy in percent": "arch,acc\nx,1\ny,101\n",
    "line 2: cifar10 of x is -1.0, not an": "arch,cifar10,b\nx,-1,5\ny,1,6\n",
    "line 2: b of x is 9930.0, .* no other column holds": "arch,b\nx,9930\ny,1\n",
    "line 3: b of y is inf": "arch,b\nx,5\ny,inf\n",
    "line 2: flops of x is 300.0, not an accuracy": "arch,flops [%]\nx,300\n",
    "more than one row for x, in lines 2 and 4": "arch_str,acc\nx,1\ny,2\nx,3\n",
    "a column without a name that does not number the rows, with 0.5 in line 2": (
        ",arch,acc\n0.5,x,1\n"
    ),
    "line 2: a field has more than 131,072 characters": (
        "arch_str,acc\n" + "x" * 200_000 + ",1\n"
    ),
    "line 3: a quotation mark is opened and not closed": 'arch,acc\nx,1\n"y,2\n',
    "more than one row for a on c10, in lines 2 and 3": LONG + "a,c10,91\n",
    "no row for b on c10, which 1 of 2 genotypes have": LONG + "b,c100,70\n",
    "line 3: b has no dataset": LONG + "b,,70\n",
    "line 3: accuracy of b is 700.0": LONG + "b,c10,700\n",
}


@pytest.mark.parametrize("message", BAD)
def test_tables_of_another_form_are_refused(tmp_path, message):
    path = tmp_path / "table.csv"
    path.write_text(BAD[message])
    with pytest.raises(InputError, match=message) as error:
        load_table(str(path))
    text = str(error.value)
    assert str(path) in text and "\n" not in text and "anew" not in text


def column(table, name):
    return {key: float(table.columns[name][row]) for key, row in table.rows.items()}


EXPECTED = {"x,1": 93.5, "y": 10.25}
ROWS = 'arch,acc\n"x,1",93.5\ny,10.25\n'
SEMICOLONS = "arch;acc\nx,1;93,5\ny;10,25\n"
SAME = {
    "as it should be": ROWS.encode(),
    "byte-order mark": b"\xef\xbb\xbf" + ROWS.encode(),
    "UTF-16": ROWS.encode("utf-16"),
    "Windows line ends": ROWS.replace("\n", "\r\n").encode(),
    "old Macintosh line ends": ROWS.replace("\n", "\r").encode(),
    "no last line end": ROWS.encode()[:-1],
    "blank lines": b"\n  \n" + ROWS.replace("\n", "\n\n").encode() + b"\n \n,\n",
    "semicolons, decimal commas": SEMICOLONS.encode(),
    "semicolons, decimal points": SEMICOLONS.replace("3,5", "3.5").encode(),
    "semicolons, blank fields": SEMICOLONS.encode() + b";\r\n;\r\n",
    "tabs": ROWS.replace('"x,1",', "x,1\t").replace("arch,", "arch\t").encode()[:-8]
    + b"y\t10.25\n",
    "Excel's separator line": b"sep=;\r\n" + SEMICOLONS.encode(),
    "spaces in the header": ROWS.replace("arch,acc", "arch, acc ").encode(),
    "percent said": ROWS.replace("acc", "acc [%]").encode(),
    "percent signs": ROWS.replace("93.5", "93.5%").replace("25", "25 %").encode(),
    "percent in brackets": ROWS.replace("acc", "acc (%)").encode(),
    "quoted": ROWS.replace("arch,acc", '"arch","acc"').encode(),
    "arch_str": ROWS.replace("arch", "arch_str").encode(),
    "genotype": ROWS.replace("arch", "genotype").encode(),
    "Architecture": ROWS.replace("arch", "Architecture").encode(),
    "pandas' index": b',arch,acc\n0,"x,1",93.5\n1,y,10.25\n',
    "two indices": b',Unnamed: 0,arch,acc\n7,3,"x,1",93.5\n5,4,y,10.25\n',
    "R's index": b'"","arch","acc"\n"1","x,1",93.5\n"2","y",10.25\n',
    "separators at the ends": b'arch,acc,\n"x,1",93.5,\ny,10.25,\n',
    "a column of text": b'arch,acc,note\n"x,1",93.5,good\ny,10.25,\n',
    "long form": b'arch,Dataset,accuracy\n"x,1",acc,93.5\ny,acc,10.25\n',
}


@pytest.mark.parametrize("form", SAME)
def test_tables_as_people_have_them_are_read(tmp_path, form):
    path = tmp_path / "table.csv"
    for data in (SAME[form], gzip.compress(SAME[form])):
        path.write_bytes(data)
        table = load_table(str(path))
        assert list(table.columns) == ["acc"] and not table.others
        assert column(table, "acc") == EXPECTED


@pytest.mark.parametrize("values", [(0.25, 0.9375), (0, 1), (0.0625, 0.5)])
def test_fractions_are_taken_as_percent_with_one_warning(tmp_path, values):
    path = tmp_path / "table.csv"
    a, b = values
    path.write_text(f"arch,acc,val,top1\nx,{a},{a},0.5\ny,{b},{b},50\n")
    with pytest.warns(UserWarning) as seen:
        table = load_table(str(path))
    (warning,) = seen
    text = str(warning.message)
    assert f"{path}: acc, val: all values lie in 0 to 1" in text and "\n" not in text
    assert column(table, "acc") == column(table, "val") == {"x": 100 * a, "y": 100 * b}
    assert column(table, "top1") == {"x": 0.5, "y": 50}


@pytest.mark.parametrize("text", ["acc [%]\nx,0.5\ny,1", "acc\nx,0.5%\ny,1%"])
def test_low_accuracies_in_percent_can_be_told_from_fractions(tmp_path, text):
    path = tmp_path / "table.csv"
    path.write_text(f"arch,{text}\n")
    assert column(load_table(str(path)), "acc") == {"x": 0.5, "y": 1}


OTHERS = (
    "params n_params paramsM FLOPs flops_m MAdds val_loss test-loss latency_ms "
    "train_time TotalTime seconds epochs epoch seed index arch_id size_mb test_error "
    "acc_std cifar10_epochs rank"
)


@pytest.mark.parametrize("name", OTHERS.split())
def test_columns_that_are_no_accuracies_are_set_aside(tmp_path, name):
    path = tmp_path / "table.csv"
    path.write_text(f"{name},arch,acc\n0.5,x,90\n,y,80\n")
    table = load_table(str(path))
    assert list(table.columns) == ["acc"] and list(table.others) == [name]
    np.testing.assert_array_equal(table.others[name], [0.5, np.nan])
    assert table.accuracies()[0] == "acc"
    assert [rank.column for rank in table.ranks("x")] == ["acc"]
    with pytest.raises(InputError, match="holds no accuracies in percent; .* do: acc"):
        table.accuracies(name)
    with pytest.raises(InputError, match="has no column 'b'; it has acc"):
        table.accuracies("b")


ACCURACIES = (
    "acc accuracy TestAcc cifar10_test imagenet16_120_valid top1 top-5 acc_seed0 "
    "acc_200epochs cifar10_12epochs val svhn b"
)


@pytest.mark.parametrize("name", ACCURACIES.split())
def test_columns_of_accuracies_are_known(tmp_path, name):
    path = tmp_path / "table.csv"
    path.write_text(f"arch,{name}\nx,5\ny,6\n")
    assert column(load_table(str(path)), name) == {"x": 5, "y": 6}


def test_columns_with_values_beyond_percent_are_set_aside(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("arch,b,acc\nx,5,90\ny,600,80\n")
    table = load_table(str(path))
    assert list(table.columns) == ["acc"]
    np.testing.assert_array_equal(table.others["b"], [5, 600])
    # Most values could be accuracies, so others may be mistakes.
    path.write_text("arch,b,acc\nx,5,90\ny,600,80\nz,6,70\n")
    with pytest.warns(UserWarning, match=r"outside 0 to 100: b \(600.0 in line 3\)$"):
        table = load_table(str(path))
    assert list(table.columns) == ["acc"]
    np.testing.assert_array_equal(table.others["b"], [5, 600, 6])


def test_long_form_becomes_a_column_for_each_dataset(tmp_path):
    path = tmp_path / "table.csv"
    lines = ["x,c10,90,1,3", "x,c100,70,2,4", "y,c100,60,3,5", "y,c10,80,4,6"]
    path.write_text("\n".join(["arch,dataset,accuracy,seed,val", *lines]))
    table = load_table(str(path))
    assert list(table.columns) == [
        "c10_accuracy",
        "c10_val",
        "c100_accuracy",
        "c100_val",
    ]
    assert column(table, "c10_accuracy") == {"x": 90, "y": 80}
    assert column(table, "c100_val") == {"x": 4, "y": 5}
    np.testing.assert_array_equal(table.others["c100_seed"], [2, 3])
    path.write_text(path.read_text().replace("val", "loss"))
    table = load_table(str(path))
    assert list(table.columns) == ["c10", "c100"]
    assert column(table, "c100") == {"x": 70, "y": 60}


def test_missing_and_truncated_tables_and_rows_are_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_table(str(tmp_path / "none.csv"))
    path = tmp_path / "table.csv.gz"
    path.write_bytes(gzip.compress(CSV.encode() * 50)[:-20])
    with pytest.raises(InputError, match="may be cut off"):
        load_table(str(path))
    path.write_bytes(CSV.encode())
    with pytest.raises(
        InputError, match=r"no row for \|d\|; it has 3 rows, such as \|a\|"
    ):
        load_table(str(path)).ranks("|d|")


def test_a_standing_among_some_counts_each_of_them_once(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(CSV)
    table = load_table(str(path))
    first = table.ranks("|c|", among=["|a|", "|c|", "|a|"])[0]
    assert (first.regret, first.rank, first.count) == (0.0, 1, 2)
    outside = table.ranks("|b|", among={"|a|"})[0]
    assert (outside.accuracy, outside.regret, outside.rank) == (95.5, -5.5, 1)
    with pytest.raises(InputError, match=r"no row for \|d\|"):
        table.ranks("|a|", among=["|d|"])
    with pytest.raises(InputError, match="among is empty"):
        table.ranks("|a|", among=[])


def test_a_saved_table_is_read_back_exactly(tmp_path):
    path = tmp_path / "table.csv"
    header = "other,arch_str,acc,params,low [%],error [%],last,"
    path.write_text(
        f"{header}\n1e-9,a,93.126663208,1e9,0.3,7,5,\n90.1,b,12.5,0.1,1,8,500,\n"
    )
    table = load_table(str(path))
    files = [tmp_path / "one.csv.gz", tmp_path / "two.csv.gz"]
    for file in files:
        save_table(table, str(file))
    again = load_table(str(files[0]))
    assert again.rows == table.rows
    assert list(again.columns) == ["other", "acc", "low", "error"]
    assert list(again.others) == ["params", "last"]
    for name, values in table.columns.items():
        np.testing.assert_array_equal(again.columns[name], values)
    for name, values in table.others.items():
        np.testing.assert_array_equal(again.others[name], values)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].read_bytes()[4:8] == bytes(4)  # no time of writing
    assert len(list(tmp_path.iterdir())) == 3
    with pytest.raises(InputError, match=r"written as \.csv\.gz"):
        save_table(table, str(tmp_path / "three.csv"))


def test_a_table_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    path.write_text(CSV)
    table = load_table(str(path))

    def fail(*_):
        raise OSError("no room")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no room"):
        save_table(table, str(tmp_path / "new.csv.gz"))
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]


def test_texts_that_unpack_to_absurd_lengths_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(_reading, "_MOST_TEXT", 1000)
    path = tmp_path / "table.csv.gz"
    path.write_bytes(gzip.compress(CSV.encode() * 50))
    with pytest.raises(InputError, match="98 bytes and unpacks to more than 1,000"):
        load_table(str(path))
    path.write_bytes(CSV.encode() * 50)
    with pytest.raises(InputError, match="has more than 1,000 bytes of text"):
        load_table(str(path))


def test_a_small_gzip_is_refused_while_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(_reading, "_ALWAYS_ALLOWED", 1 << 20)
    path = tmp_path / "table.csv.gz"
    path.write_bytes(gzip.compress(b"arch,acc\n" + b"|none~0|,10.0\n" * 1_500_000))
    sizes = []
    read = gzip.GzipFile.read

    def counted(file, size=-1):
        data = read(file, size)
        sizes.append(len(data))
        return data

    monkeypatch.setattr(gzip.GzipFile, "read", counted)
    with pytest.raises(InputError, match="unpacks to more than .* was not read"):
        load_table(str(path))
    assert max(sizes) <= 1 << 20 and sum(sizes) < 15 << 20


def test_rows_and_columns_are_bounded(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    path.write_text(CSV)
    monkeypatch.setattr(_reading, "MOST_ROWS", 2)
    with pytest.raises(InputError, match="more than 2 rows; .* was not read"):
        load_table(str(path))
    monkeypatch.setattr(_reading, "MOST_ROWS", 3)
    assert len(load_table(str(path)).rows) == 3
    monkeypatch.setattr(_reading, "MOST_COLUMNS", 2)
    with pytest.raises(InputError, match="has 3 columns, more than the 2"):
        load_table(str(path))


def test_what_is_no_regular_file_is_refused_before_reading(tmp_path):
    pipe = tmp_path / "table.csv"
    os.mkfifo(pipe)
    with pytest.raises(InputError, match="is a pipe, not a regular file, and was not"):
        load_table(str(pipe))
    with pytest.raises(InputError, match="/dev/zero is a device, not a regular file"):
        load_table("/dev/zero")
    link = tmp_path / "link.csv"
    link.symlink_to("/dev/zero")
    with pytest.raises(InputError, match="is a device"):
        load_table(str(link))


def tar(mode):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        info = tarfile.TarInfo("folder/table.csv")
        info.size = len(CSV)
        archive.addfile(info, io.BytesIO(CSV.encode()))
    return file.getvalue()


def zipped(name):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, CSV)
    return file.getvalue()


NASLIB = {"('none', 'none')": {"cifar10": {"eval_acc1es": [90.0]}}}
PICKLE = "a pickle, as NASLib writes them, .* is not read; load it where you trust it"
FOREIGN = {
    "nb201_cifar10.pickle": (pickle.dumps(NASLIB), f"is {PICKLE}"),
    "nb201.pkl": (pickle.dumps(NASLIB, protocol=2), f"is {PICKLE}"),
    "old.pkl": (pickle.dumps(NASLIB, protocol=0), f"is {PICKLE}"),
    "renamed.csv": (pickle.dumps(NASLIB), f"is {PICKLE}"),
    "nb201.pkl.gz": (gzip.compress(pickle.dumps(NASLIB)), f"is gzipped, {PICKLE}"),
    "a.tar": (tar("w"), "is a .tar archive; unpack it, and name the table in it"),
    "a.tar.gz": (tar("w:gz"), "is gzipped, a .tar archive; unpack it"),
    "a.tar.bz2": (tar("w:bz2"), "is a .tar.bz2 archive; unpack it"),
    "a.tar.xz": (tar("w:xz"), "is an .xz archive; unpack it"),
    "a.zip": (
        zipped("table.csv"),
        "a .zip archive of 1 files, such as table.csv; unpa",
    ),
    "a.xlsx": (zipped("[Content_Types].xml"), "is an Excel workbook; save it as CSV"),
    "a.csv.bz2": (bz2.compress(CSV.encode()), "CSV file packed by bzip2; unpack it"),
    "a.csv.gz": (
        gzip.compress(gzip.compress(b"arch")),
        "within a gzip file; unpack it",
    ),
    "a.h5": (b"\x89HDF\r\n\x1a\n", "is an HDF5 file; save it as CSV"),
    "page.csv": (b"\n<!DOCTYPE html><html>", "is a web page; fetch the file itself"),
    "lfs.csv": (
        b"version https://git-lfs.github.com/spec/v1\n",
        "pointer of a file in",
    ),
    "latin.csv": ("arch,acc\nà,1\n".encode("latin1"), "not text in UTF-8 .* line 2"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_files_of_other_formats_are_named(tmp_path, name):
    path = tmp_path / name
    data, message = FOREIGN[name]
    path.write_bytes(data)
    with pytest.raises(InputError, match=message) as error:
        load_table(str(path))
    assert str(path) in str(error.value) and "anew" not in str(error.value)


def test_a_pickle_of_any_protocol_is_not_loaded(tmp_path):
    target = tmp_path / "was_run"

    class Command:
        def __reduce__(self):
            return os.system, (f"touch {target}",)

    for protocol in range(6):
        for name in ("table.pickle", "table.csv"):
            path = tmp_path / name
            path.write_bytes(pickle.dumps(Command(), protocol=protocol))
            with pytest.raises(InputError):
                load_table(str(path))
    assert not target.exists()


def test_a_folder_around_a_table_says_what_to_name(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "table.csv").write_text(CSV)
    with pytest.raises(InputError, match="such as .*inner/table.csv"):
        load_table(str(tmp_path / "inner"))
    (tmp_path / "inner" / "meta.pickle.pbz2").write_bytes(b"")
    with pytest.raises(InputError, match=f"; name {tmp_path}/inner$"):
        load_table(str(tmp_path))


def test_the_real_table_has_its_known_best(tables_dir):
    table = load_table(str(tables_dir / "nasbench201.csv.gz"))
    assert len(table.rows) == 15_625
    best = max(table.rows, key=lambda g: table.columns["cifar10_test"][table.rows[g]])
    standing = table.ranks(best)[0]
    assert (standing.rank, standing.regret) == (1, 0)
    assert round(standing.accuracy, 2) == 94.37
