"""JSON that is damaged or hostile, in every file that is read."""

import json

import pytest

from zcpt_jax.analysis.study_files import TRIALS, read_trials
from zcpt_jax.io.checkpoints import Kind, read_metrics, read_record
from zcpt_jax.io.files import read_json
from zcpt_jax.io.genotype_file import load_genotype
from zcpt_jax.io.run_directory import DECISIONS, VALIDATION, RunDirectory
from zcpt_jax.json_text import parse_json
from zcpt_jax.spaces import get_space
from zcpt_jax.tables import load_table
from zcpt_jax.training import load_network
from zcpt_jax.types import InputError

pytestmark = pytest.mark.unit

HOSTILE = {
    "nested lists": "[" * 100_000,
    "nested objects": '{"a":' * 100_000,
    "closed lists": "[" * 100_000 + "]" * 100_000,
    "many digits": "1" * 5_000,
    "a number within": '{"space": ' + "9" * 5_000 + "}",
    "cut off": '{"space": "x',
    "no text": "\udcff".encode("utf-8", "surrogatepass").decode("latin-1"),
}


def test_good_json_is_read():
    assert parse_json('{"a": [1, 2.5, null, "x"]}') == {"a": [1, 2.5, None, "x"]}
    assert parse_json(b"[" * 500 + b"]" * 500)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_every_fault_has_one_type(text):
    with pytest.raises(json.JSONDecodeError):
        parse_json(text)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_every_reader_refuses_it(tmp_path, text):
    file = tmp_path / "file.json"

    def refuse(read, *args, name="file.json", match=""):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=match):
            read(*args)
        (tmp_path / name).unlink()

    refuse(load_genotype, file, match="genotype file .* is not JSON")
    refuse(read_json, file, match="is damaged")
    refuse(load_network, tmp_path, name="network.json", match="is damaged")
    kind = Kind("a network", "train.py")
    refuse(read_record, tmp_path, kind, name="config.json", match="is damaged")
    (tmp_path / "config.json").write_text('{"config": {"seed": 0}}')
    for name in (DECISIONS, VALIDATION):
        (tmp_path / name).write_text(text + "\n")
        with pytest.raises(InputError, match="line 1: .*expected|line 1: not a compl"):
            RunDirectory(tmp_path, {"seed": 0})
        (tmp_path / name).unlink()
    (tmp_path / TRIALS).write_text(text + "\n")
    with pytest.raises(InputError, match="line 1 is damaged"):
        read_trials(tmp_path)
    (tmp_path / "metrics.jsonl").write_text(f'{text}\n{{"step": 1}}\n')
    assert read_metrics(tmp_path) == [{"step": 1}]


@pytest.mark.parametrize("name", ["darts", "nasbench1shot1_1"])
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_genotypes_of_hostile_json_are_refused(name, text):
    with pytest.raises(InputError):
        get_space(name).parse(text)


def test_tables_of_hostile_json_are_refused(tmp_path):
    file = tmp_path / "table.json"
    for text in ('{"0": ' + "[" * 100_000, '{"00000000": {"mean_acc": ' + "9" * 5000):
        file.write_text(text)
        with pytest.raises(InputError):
            load_table(str(file))
