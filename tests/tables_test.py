import gzip
from pathlib import Path

import pytest

from zcpt_jax.tables import load_table
from zcpt_jax.types import InputError

CSV = "arch_str,cifar10_test,other\n|a|,90.0,1\n|b|,95.5,3\n|c|,90.0,2\n"
REAL = Path(__file__).resolve().parents[2] / "shared" / "tables" / "nasbench201.csv.gz"


@pytest.mark.parametrize("packed", [False, True])
def test_standing_gives_accuracy_regret_and_rank(tmp_path, packed):
    path = tmp_path / "table.csv"
    path.write_bytes(gzip.compress(CSV.encode()) if packed else CSV.encode())
    first, second = load_table(str(path)).standing("|c|")
    assert (first.column, first.accuracy, first.regret) == ("cifar10_test", 90.0, 5.5)
    assert (first.rank, first.count) == (2, 3)
    assert (second.column, second.rank) == ("other", 2)


BAD = {
    "needs a column 'arch_str'": "name,acc\nx,1\n",
    "at least one column": "arch_str\nx\n",
    "line 3: could not convert": "arch_str,acc\nx,1\ny,high\n",
    "line 3 has 1 columns": "arch_str,acc\nx,1\ny\n",
    "has a header and no rows": "arch_str,acc\n",
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
        load_table(str(path)).standing("|d|")


@pytest.mark.skipif(not REAL.exists(), reason="the real table is not here")
def test_the_real_table_has_its_known_best():
    table = load_table(str(REAL))
    assert len(table.rows) == 15_625
    best = max(table.rows, key=lambda g: table.columns["cifar10_test"][table.rows[g]])
    standing = table.standing(best)[0]
    assert (standing.rank, standing.regret) == (1, 0)
    assert round(standing.accuracy, 2) == 94.37
