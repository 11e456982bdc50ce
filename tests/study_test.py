"""The study on a space of nine networks, where all can be worked out by hand."""

import json

import numpy as np
import pytest
from scipy import stats

from tests.operation_scores_test import ACCURACIES, DATA, NAMES, PERCENT, SPACE
from zcpt_jax.analysis import correlation, figures, study_files
from zcpt_jax.analysis.study import (
    Line,
    Trial,
    agreements,
    between,
    get_method,
    run_trial,
)
from zcpt_jax.scoring import Evaluator, ScoringConfig
from zcpt_jax.search.edge_orders import get_order
from zcpt_jax.types import InputError


def evaluator(seed, proxy, variables):
    config = ScoringConfig(batch_size=8, seed=seed)
    return Evaluator(SPACE, proxy, DATA, config, variables=variables)


def trial(name, seed=0):
    order = get_order("random")
    return run_trial(SPACE, get_method(name), seed, evaluator, ACCURACIES, order)


def test_the_truth_agrees_with_itself():
    found = trial("best-acc")
    assert found.genotype == NAMES[int(PERCENT.argmax())]
    assert (found.accuracy, found.rank) == (90.0, 1)
    for agreement in agreements([found]):
        if agreement.reference == "best-acc":
            assert agreement.spearman.mean == agreement.kendall.mean == 1


def test_removal_scores_are_turned_into_strengths():
    found = trial("zc-pt(nwot)")
    assert [line.mode for line in found.lines] == ["initial"] * 2 + ["progressive"] * 2
    lines = [line for line in found.lines if line.mode == "progressive"]
    chosen = dict(zip(("layer 0", "layer 1"), found.genotype.split(), strict=True))
    for line in lines:
        best = line.candidates[int(np.argmax(line.strengths))]
        assert best == chosen[line.edge]
    first, second = lines
    column = 0 if second.edge == "layer 1" else 1  # of what was decided first
    left = [
        p
        for n, p in zip(NAMES, PERCENT, strict=True)
        if n.split()[column] == chosen[first.edge]
    ]
    assert sorted(second.truth["best-acc"]) == sorted(second.truth["avg-acc"])
    assert sorted(second.truth["best-acc"]) == sorted(left)


def test_seeds_decide_and_ensembles_take_part():
    assert trial("zc-pt(nwot+synflow)", 1) == trial("zc-pt(nwot+synflow)", 1)
    assert trial("zc-pt(nwot)", 1).lines != trial("zc-pt(nwot)", 0).lines


def line(edge, strengths, truth):
    truth = {"best-acc": tuple(truth), "avg-acc": tuple(truth[::-1])}
    return Line("initial", edge, ("a", "b", "c"), tuple(strengths), truth)


def made(seed, *strengths):
    lines = [line(f"e{i}", s, (1.0, 2.0, 3.0)) for i, s in enumerate(strengths)]
    lines += [one._replace(mode="progressive") for one in lines]
    return Trial("some", seed, tuple(lines), "g", 50.0, 3)


def test_agreement_is_the_mean_over_edges_then_over_seeds():
    trials = [made(0, (1, 2, 3), (3, 2, 1)), made(1, (1, 2, 3), (1, 3, 2))]
    best, avg, *_ = agreements(trials)
    assert (best.mode, best.reference) == ("initial", "best-acc")
    assert best.spearman.mean == pytest.approx(np.mean([0, (1 + 0.5) / 2]))
    assert best.kendall.mean == pytest.approx(np.mean([0, (1 + 1 / 3) / 2]))
    assert avg.spearman.mean == pytest.approx(-best.spearman.mean)
    names, matrix = between(trials)
    assert names == ["best-acc", "avg-acc", "some"]
    np.testing.assert_allclose(np.diag(matrix), 1)
    assert matrix[0, 1] == pytest.approx(-1)
    assert matrix[0, 2] == matrix[2, 0] == pytest.approx(best.spearman.mean)


def test_intervals_are_students_t():
    values = [0.5, 0.7, 0.6, 0.9]
    found = correlation.mean_interval(values)
    low, high = stats.t.interval(
        0.95, 3, loc=np.mean(values), scale=np.std(values, ddof=1) / 2
    )
    np.testing.assert_allclose(found, (np.mean(values), low, high, 4))
    one = correlation.mean_interval([0.5])
    assert one.mean == 0.5 and np.isnan(one.low) and np.isnan(one.high)


def test_rank_correlations_take_what_numbers_there_are():
    nan, inf = np.nan, np.inf
    assert correlation.spearman([1, 2, 3], [1, 8, 27]) == pytest.approx(1)
    assert correlation.spearman([-inf, 2, 3], [5, 6, 4]) == pytest.approx(-0.5)
    assert correlation.spearman([nan, 2, 3], [9, 1, 2]) == pytest.approx(1)
    assert correlation.spearman([1, 1, 1], [1, 2, 3]) == 0
    assert correlation.kendall([1, 2, 3], [1, 3, 2]) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("zc-pt", r"zc-pt scores by a proxy, as in zc-pt\(nwot\)"),
        ("darts(nwot)", "darts uses no proxy"),
        ("zc-pt(x)", "unknown proxy 'x'"),
        ("none", "unknown operation score 'none'"),
        ("zc pt", "'zc pt' is no scorer; expected the form"),
    ],
)
def test_scorers_that_are_none(name, message):
    with pytest.raises(InputError, match=message):
        get_method(name)


def test_trials_survive_on_disk_and_a_cut_line_is_dropped(tmp_path):
    lost = line("e", (np.nan, -np.inf, 1.0), (1.0, 2.0, 3.0))
    trials = [
        made(0, (1.0, 2.0, 3.0)),
        made(1, (3.0, 1.0, 2.0))._replace(lines=(lost,)),
    ]
    for one in trials:
        study_files.append_trial(tmp_path, one)
    file = tmp_path / study_files.TRIALS
    file.write_text(file.read_text() + '{"scorer": "cut o')
    first, second = study_files.read_trials(tmp_path)
    assert first == trials[0] and repr(second) == repr(trials[1])
    assert file.read_text().endswith("\n") and "cut" not in file.read_text()
    file.write_text('{"scorer": 1}\n')
    with pytest.raises(
        InputError, match=r"line 1 is damaged .* its trial is made anew"
    ):
        study_files.read_trials(tmp_path)


def test_tables_and_figures_are_written(tmp_path):
    trials = [made(0, (1, 2, 3)), made(1, (1, 3, 2))]
    found = agreements(trials)
    study_files.write_tables(tmp_path, trials, found)
    rows = (tmp_path / study_files.TABLE).read_text().splitlines()
    assert rows[0].startswith("scorer,mode,reference,seeds,spearman,spearman_low")
    assert rows[1].startswith("some,initial,best-acc,2,0.75,")
    record = json.loads((tmp_path / study_files.RESULTS).read_text())
    assert record["agreements"][0]["spearman"] == 0.75
    assert record["picks"][1] == {
        "scorer": "some",
        "seed": 1,
        "genotype": "g",
        "accuracy": 50.0,
        "rank": 3,
    }
    one = agreements(trials[:1])
    study_files.write_tables(tmp_path, trials[:1], one)
    record = json.loads((tmp_path / study_files.RESULTS).read_text())
    assert record["agreements"][0]["spearman_low"] is None
    text = study_files.summary(trials, found)
    assert "some" in text and "0.750 +-" in text and "50.00 %" in text
    figures.draw_study(tmp_path / "study.png", trials, found, "a study")
    scores = {"nwot": np.array([1.0, -np.inf, 3.0])}
    figures.draw_scores(
        tmp_path / "scores.png", scores, np.array([50.0, 60, 70]), "test", "scores"
    )
    for name in ("study.png", "scores.png"):
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG"
