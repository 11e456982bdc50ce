import json
import os

import numpy as np
import pytest

from zcpt_jax.io.genotype_file import GenotypeFile, dump_genotype, load_genotype
from zcpt_jax.io.run_directory import CONFIG, DECISIONS, VALIDATION, RunDirectory
from zcpt_jax.search.memory import DecisionRecord
from zcpt_jax.types import InputError

pytestmark = pytest.mark.unit

CONF = {"space": "s", "seed": 0, "options": {"channels": 4}}


def step(proposal=0, number=0, edge="e0", scores=(1.5, 2.0)):
    return DecisionRecord(
        proposal, number, "ops", edge, ("a",), ("a", "b"), {"e0": scores}
    )


def filled(path):
    run = RunDirectory(path, CONF, environment={"versions": {"jax": "0"}})
    run.keep([step(0), step(1)])
    run.keep([step(0, 1), step(1, 1)])
    run.keep_validation("g", 0, np.array([1.0, np.nan, -np.inf]))
    return run


def test_scores_come_back_exactly_after_reopening(tmp_path):
    value = float(np.float32(0.1) / np.float32(3))
    run = RunDirectory(tmp_path / "deep" / "run", CONF)
    run.keep([step(scores=(value, np.nan)), step(1, scores=(np.inf, 0.0))])
    run.keep_validation("g", 10, np.array([value, -np.inf], np.float32))
    again = RunDirectory(run.path, CONF)
    np.testing.assert_array_equal(again.recall(0, 0, "e0"), [value, np.nan])
    assert again.recall(1, 0, "e0") == [np.inf, 0.0]
    assert again.recall(0, 1, "e0") is None
    assert again.recall_validation("g", 10) == [value, -np.inf]
    assert again.recall_validation("g", 0) is None


def test_files_are_json_lines_without_repetition(tmp_path):
    run = filled(tmp_path)
    run.keep([step(0), step(0, 2)])  # the first is there already
    lines = (tmp_path / DECISIONS).read_text().splitlines()
    assert [(r["proposal"], r["step"]) for r in map(json.loads, lines)] == [
        (0, 0),
        (1, 0),
        (0, 1),
        (1, 1),
        (0, 2),
    ]
    record = json.loads((tmp_path / VALIDATION).read_text())
    assert record["scores"] == [1.0, "nan", "-inf"]
    stored = json.loads((tmp_path / CONFIG).read_text())
    assert stored["config"] == CONF and stored["versions"] == {"jax": "0"}
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [CONFIG, DECISIONS, VALIDATION]
    )


def test_another_configuration_is_refused_with_the_difference(tmp_path):
    filled(tmp_path)
    before = (tmp_path / DECISIONS).read_text()
    other = {**CONF, "seed": 1, "new": True}
    with pytest.raises(
        InputError, match=r"new: None there, True now; seed: 0 there, 1"
    ):
        RunDirectory(tmp_path, other)
    assert (tmp_path / DECISIONS).read_text() == before
    run = RunDirectory(tmp_path, other, overwrite=True)
    assert run.recall(0, 0, "e0") is None and not (tmp_path / DECISIONS).exists()


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        ('{"proposal": 0, "st\n', "line 5: not a complete JSON object"),
        ("[1]\n", "line 5: expected an object with"),
        ('{"proposal": 0}\n', "line 5: expected an object with"),
        ("\n", "line 5: not a complete JSON object"),
    ],
)
def test_damaged_lines_are_refused_and_repaired_on_demand(tmp_path, tail, message):
    filled(tmp_path)
    file = tmp_path / DECISIONS
    good = file.read_text()
    file.write_text(good + tail)
    with pytest.raises(InputError, match=f"{message}.*--repair"):
        RunDirectory(tmp_path, CONF)
    assert file.read_text() == good + tail  # nothing lost
    run = RunDirectory(tmp_path, CONF, repair=True)
    assert run.recall(1, 1, "e0") == [1.5, 2.0]
    assert file.read_text() == good
    assert file.with_suffix(".damaged").read_text() == good + tail


def test_a_line_that_a_kill_cut_off_is_dropped(tmp_path):
    filled(tmp_path)
    for name in (DECISIONS, VALIDATION):
        file = tmp_path / name
        good = file.read_text()
        file.write_text(good + good[: len(good) // 9])
        run = RunDirectory(tmp_path, CONF)
        assert file.read_text() == good
        assert run.recall(1, 1, "e0") == [1.5, 2.0]


def test_scores_that_are_not_numbers_are_damage(tmp_path):
    filled(tmp_path)
    text = (tmp_path / DECISIONS).read_text()
    (tmp_path / DECISIONS).write_text(text.replace("1.5", '"high"'))
    with pytest.raises(InputError, match="line 1: the scores of e0 are not numbers"):
        RunDirectory(tmp_path, CONF)


GOOD = {
    "proposal": 0,
    "step": 0,
    "phase": "ops",
    "edge": "e0",
    "kept": ["a"],
    "candidates": ["a", "b"],
    "scores": {"e0": [1.5, 2.0]},
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"proposal": "0"}, "proposal has another type: '0'"),
        ({"proposal": -1}, "proposal has another type: '-1'"),
        ({"step": True}, "step has another type: 'True'"),
        ({"phase": None}, "phase has another type: 'None'"),
        ({"edge": 3}, "edge has another type"),
        ({"kept": "a"}, "kept has another type"),
        ({"kept": ["c"]}, r"kept must be some of \['a', 'b'\], got \['c'\]"),
        ({"candidates": [["a"], "b"]}, "candidates must be names"),
        ({"scores": [1.5, 2.0]}, "scores has another type"),
        ({"scores": {"e0": [1.5]}}, "e0 needs a score for each of"),
        ({"scores": {"e1": [1.5, 2.0]}}, "e0 needs a score for each of"),
        ({"scores": {"e0": [1.5, "2.0"]}}, "the scores of e0 are not numbers"),
        ({"scores": {"e0": [1.5, True]}}, "the scores of e0 are not numbers"),
        ({"scores": {"e0": [[1.0, 2.0], [1.0]]}}, "the scores of e0 are not numbers"),
        ({"scores": {"e0": [[1.0], 2.0]}}, "the scores of e0 are not numbers"),
        ({"scores": {"e0": {"a": 1.0}}}, "the scores of e0 are not numbers"),
    ],
)
def test_lines_of_other_types_are_damage(tmp_path, change, message):
    RunDirectory(tmp_path, CONF)
    (tmp_path / DECISIONS).write_text(json.dumps(GOOD) + "\n")
    assert RunDirectory(tmp_path, CONF).recall(0, 0, "e0") == [1.5, 2.0]
    (tmp_path / DECISIONS).write_text(json.dumps({**GOOD, **change}) + "\n")
    with pytest.raises(InputError, match=f"line 1: {message}.*--repair"):
        RunDirectory(tmp_path, CONF)


@pytest.mark.parametrize(
    ("start", "count", "message"),
    [
        (0, 9, "it has 9 scores of 10 minibatches"),
        (0, 11, "it has 11 scores of 10 minibatches"),
        (10, 10, "it has 10 scores of 3 minibatches"),
        (5, 8, "no minibatches begin at 5"),
        (20, 1, "no minibatches begin at 20"),
        (0, 0, "the scores are not numbers"),
    ],
)
def test_a_line_of_validation_has_all_its_scores(tmp_path, start, count, message):
    config = {**CONF, "num_validation_batches": 13}
    RunDirectory(tmp_path, config)
    good = {"genotype": "g", "start": 10, "scores": [1.0, "nan", 2.0]}
    (tmp_path / VALIDATION).write_text(json.dumps(good) + "\n")
    assert len(RunDirectory(tmp_path, config).recall_validation("g", 10)) == 3
    bad = {"genotype": "h", "start": start, "scores": [1.0] * count}
    with (tmp_path / VALIDATION).open("a") as file:
        file.write(json.dumps(bad) + "\n")
    with pytest.raises(InputError, match=f"line 2: {message}.*--repair"):
        RunDirectory(tmp_path, config)
    run = RunDirectory(tmp_path, config, repair=True)
    assert run.recall_validation("h", start) is None
    assert len(run.recall_validation("g", 10)) == 3


def test_a_decision_that_its_scores_do_not_say_is_found(tmp_path):
    """When the search replays it: the file was changed."""
    filled(tmp_path)
    text = (tmp_path / DECISIONS).read_text()
    (tmp_path / DECISIONS).write_text(text.replace('"kept": ["a"]', '"kept": ["b"]', 1))
    run = RunDirectory(tmp_path, CONF)
    with pytest.raises(InputError, match="e0, proposal 0, it keeps b, but .* say a"):
        run.keep([step(0), step(1)])


def test_damaged_or_missing_configuration_is_refused(tmp_path):
    filled(tmp_path)
    (tmp_path / CONFIG).write_text("")
    with pytest.raises(InputError, match=r"config\.json is damaged"):
        RunDirectory(tmp_path, CONF)
    (tmp_path / CONFIG).write_text("[]")
    with pytest.raises(InputError, match="has no entry 'config'"):
        RunDirectory(tmp_path, CONF)
    (tmp_path / CONFIG).unlink()
    with pytest.raises(InputError, match=r"holds decisions.jsonl and no config\.json"):
        RunDirectory(tmp_path, CONF)
    (tmp_path / CONFIG).write_text("{")
    run = RunDirectory(tmp_path, CONF, repair=True)
    assert run.recall(0, 0, "e0") == [1.5, 2.0]
    assert json.loads((tmp_path / CONFIG).read_text())["config"] == CONF
    assert (tmp_path / "config.damaged").read_text() == "{"


def test_surveys_of_two_tracks_are_both_kept(tmp_path):
    run = RunDirectory(tmp_path, CONF)
    for edge in ("n0", "r0"):
        run.keep([DecisionRecord(0, 0, "ops", None, (), (), {edge: (1.0, 2.0)})])
    again = RunDirectory(tmp_path, CONF)
    assert again.recall(0, 0, "n0") == again.recall(0, 0, "r0") == [1.0, 2.0]


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot create the output directory"):
        RunDirectory(tmp_path / "file" / "run", CONF)


def test_a_full_disk_keeps_what_was_there(tmp_path, monkeypatch):
    run = filled(tmp_path)
    before = (tmp_path / DECISIONS).read_text()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left on device; what was written"):
        run.keep([step(0, 2)])
    assert (tmp_path / DECISIONS).read_text() == before
    assert not list(tmp_path.glob(".*"))  # no leftovers


def test_genotype_files_go_round(tmp_path):
    record = GenotypeFile("nasbench201", {"channels": 16}, "|x|", "digits", 10)
    path = tmp_path / "genotype.json"
    path.write_text(dump_genotype(record))
    assert load_genotype(path) == record
    for text, message in [
        ("", "is empty"),
        ("{", "is not JSON"),
        ("{}", "must hold exactly"),
        (dump_genotype(record).replace("10", '"ten"'), "num_classes must be a int"),
    ]:
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            load_genotype(path)
    with pytest.raises(InputError, match="cannot read the genotype file"):
        load_genotype(tmp_path / "none.json")
