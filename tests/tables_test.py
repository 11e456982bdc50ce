import gzip
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


BAD = {
    "needs a column 'arch_str'": "name,acc\nx,1\n",
    "at least one column": "arch_str\nx\n",
    "line 3: could not convert": "arch_str,acc\nx,1\ny,high\n",
    "line 3 has 1 columns": "arch_str,acc\nx,1\ny\n",
    "has a header and no rows": "arch_str,acc\n",
    "acc of y is nan": "arch_str,acc\nx,1\ny,nan\n",
    "more than one row for x": "arch_str,acc\nx,1\ny,2\nx,3\n",
    "is not a CSV file: field larger": "arch_str,acc\n" + "x" * 200_000 + ",1\n",
}


@pytest.mark.parametrize("message", BAD)
def test_tables_of_another_form_are_refused(tmp_path, message):
    path = tmp_path / "table.csv"
    path.write_text(BAD[message])
    with pytest.raises(InputError, match=message):
        load_table(str(path))


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
    path.write_text("other,arch_str,acc\n0.1,a,93.126663208\n1e-9,b,12.5\n")
    table = load_table(str(path))
    files = [tmp_path / "one.csv.gz", tmp_path / "two.csv.gz"]
    for file in files:
        save_table(table, str(file))
    again = load_table(str(files[0]))
    assert again.rows == table.rows and list(again.columns) == ["other", "acc"]
    for name, values in table.columns.items():
        np.testing.assert_array_equal(again.columns[name], values)
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
    with pytest.raises(InputError, match="none of the known forms"):
        load_table(str(path))


def test_the_real_table_has_its_known_best(tables_dir):
    table = load_table(str(tables_dir / "nasbench201.csv.gz"))
    assert len(table.rows) == 15_625
    best = max(table.rows, key=lambda g: table.columns["cifar10_test"][table.rows[g]])
    standing = table.ranks(best)[0]
    assert (standing.rank, standing.regret) == (1, 0)
    assert round(standing.accuracy, 2) == 94.37
