from typing import ClassVar

import numpy as np
import pytest

from zcpt_jax import masks as m
from zcpt_jax.proxies import rank_sum
from zcpt_jax.scoring.minibatches import VALIDATION_BLOCK
from zcpt_jax.search.edge_orders import get_order
from zcpt_jax.search.memory import NoMemory
from zcpt_jax.search.proposal import DecisionRule, keep_best, propose
from zcpt_jax.search.validation import best_genotype, total_scores, validate
from zcpt_jax.types import Decision, InputError, Phase, Proxy, ScoreError

pytestmark = pytest.mark.unit

NAN, INF = np.nan, np.inf
THREE = m.edge_decisions("g", ("e",), (("a", "b", "c"),))[0]


@pytest.mark.parametrize(
    ("scores", "kept"),
    [([3, 1, 2], [1]), ([1, 1, 2], [0]), ([2, -INF, 1], [1]), ([-1, -2, -3], [2])],
)
def test_the_lowest_score_stays_and_ties_go_to_the_first(scores, kept):
    assert keep_best(np.array(scores, float), THREE, "here") == kept


def test_nan_is_ignored_with_a_warning():
    with pytest.warns(UserWarning, match="score without a is NaN for edge e, here"):
        assert keep_best(np.array([NAN, 2.0, 1.0]), THREE, "here") == [2]


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([NAN] * 3, "no usable score for edge e, step 4: {'a': nan"),
        ([-INF] * 3, "no usable score for edge e, step 4"),
        ([1.0, INF, 2.0], "score without b is infinite for edge e, step 4"),
    ],
)
def test_scores_that_decide_nothing_are_errors(scores, message):
    with pytest.raises(ScoreError) as error:
        keep_best(np.array(scores), THREE, "step 4")
    assert message in str(error.value)


def test_several_candidates_can_stay():
    region = np.eye(4, dtype=bool).reshape(4, 1, 4)
    decision = Decision("node", ("w", "x", "y", "z"), {"g": region}, keep=2)
    assert keep_best(np.array([4.0, 1.0, 3.0, 2.0]), decision, "") == [1, 3]


def test_tracks_advance_in_lockstep_on_one_minibatch_and_see_each_other():
    seen = []

    def score(step, masks, owners):
        seen.append((step, masks["first"].copy(), masks["second"].copy()))
        return np.arange(len(owners), dtype=float)

    tracks = tuple(
        m.edge_decisions(g, (f"{g}0", f"{g}1"), (("a", "b"),) * 2) for g in GROUPS
    )
    masks = {g: m.undecided(2, 2) for g in GROUPS}
    phases = (Phase("cells", tracks), Phase("again", (tracks[0][:1],)))
    decided = propose(masks, phases, score, get_order("fixed"), num_proposals=1, seed=0)
    assert [step for step, *_ in seen] == [0, 0, 1, 1, 2]
    _, first, _ = seen[1]  # the second track sees the first one's decision
    np.testing.assert_array_equal(first[0], [[1, 0], [0.5, 0.5]])
    np.testing.assert_array_equal(decided[0]["second"], [[1, 0], [1, 0]])


GROUPS = ("first", "second")


def test_tracks_take_random_orders_of_their_own():
    class Log(NoMemory):
        edges: ClassVar[list] = []

        def keep(self, steps):
            self.edges += [step.edge for step in steps]

    tracks = tuple(
        m.edge_decisions(g, [f"{g} {i}" for i in range(8)], (("a", "b"),) * 8)
        for g in GROUPS
    )
    propose(
        {g: m.undecided(8, 2) for g in GROUPS},
        (Phase("cells", tracks),),
        lambda step, masks, owners: np.arange(len(owners), dtype=float),
        get_order("random"),
        num_proposals=1,
        seed=0,
        memory=Log(),
    )
    orders = [[e[-1] for e in Log.edges if e.startswith(g)] for g in GROUPS]
    assert sorted(orders[0]) == sorted(orders[1]) and orders[0] != orders[1]


def test_validation_scores_distinct_genotypes_on_the_same_blocks():
    asked = []

    def score(genotypes, start, stop):
        asked.append((*genotypes, start, stop))
        return np.array([[len(one)] * (stop - start) for one in genotypes], float)

    for together in (1, 5):
        scores = validate(
            ["bb", "a", "bb"],
            score,
            num_batches=VALIDATION_BLOCK + 3,
            together=together,
        )
        assert list(scores) == ["bb", "a"] and len(scores["bb"]) == VALIDATION_BLOCK + 3
        assert (scores["bb"] == 2).all() and (scores["a"] == 1).all()
    first, last = (0, VALIDATION_BLOCK), (VALIDATION_BLOCK, VALIDATION_BLOCK + 3)
    alone = [("bb", *first), ("a", *first), ("bb", *last), ("a", *last)]
    assert asked == [*alone, ("bb", "a", *first), ("bb", "a", *last)]


PLAIN = Proxy("plain", None, "running")
LOWER = Proxy("lower", None, "running", higher_is_better=False)
BOTH_PLAIN = Proxy("twice", None, "mixed", members=(PLAIN,) * 2, combine=rank_sum)
BOTH = Proxy("both", None, "mixed", members=(PLAIN, LOWER), combine=rank_sum)


def test_the_best_sum_wins_and_nan_is_passed_over():
    scores = {
        "nan": np.array([NAN, 100.0]),
        "good": np.array([2.0, 2.0]),
        "tie": np.array([1.0, 3.0]),
        "dead": np.array([-INF, 9.0]),
    }
    assert best_genotype(total_scores(scores, PLAIN)) == "good"
    none = {"nan": scores["nan"], "dead": scores["dead"]}
    with pytest.raises(ScoreError, match="no proposal has a finite validation score"):
        best_genotype(total_scores(none, PLAIN))
    with pytest.warns(UserWarning, match="dropped x: .* minibatch 1 is inf"):
        found = total_scores({"x": np.array([1.0, INF]), "y": np.ones(2)}, PLAIN)
    assert best_genotype(found) == "y" and np.isnan(found["x"])


def test_a_proxy_whose_lower_scores_are_better_is_turned():
    scores = {"a": np.array([1.0, 2.0]), "b": np.array([5.0, 5.0])}
    assert best_genotype(total_scores(scores, LOWER)) == "a"
    with pytest.warns(UserWarning, match="dropped x: .* minibatch 0 is inf"):
        assert np.isnan(total_scores({"x": np.array([-INF, 0.0])}, LOWER)["x"])


def test_an_ensemble_sums_each_member_and_then_ranks():
    scores = {  # sums 3 and 30; 5 and 5; 9 and 9, of which the second is turned
        "a": np.array([[1.0, 10.0], [2.0, 20.0]]),
        "b": np.array([[5.0, 2.0], [0.0, 3.0]]),
        "c": np.array([[4.0, 4.0], [5.0, 5.0]]),
    }
    assert total_scores(scores, BOTH) == {"a": 1 + 1, "b": 2 + 3, "c": 3 + 2}


# Candidates that go one by one


class Notes(NoMemory):
    """Remembers what it is given, or what it was given before."""

    def __init__(self, steps=()):
        self.steps, self.asked = [], []
        self.old = {}
        for step in steps:
            for edge, scores in step.scores.items():
                self.old[step.proposal, step.step, edge] = scores

    def recall(self, proposal, step, edge):
        self.asked.append((proposal, step, edge))
        return self.old.get((proposal, step, edge))

    def keep(self, steps):
        self.steps += steps


def inputs_of(node, start, count):
    """Keep two of ``count`` entries of a group of 9, from ``start`` on."""
    region = np.zeros((count, 9), bool)
    region[np.arange(count), start + np.arange(count)] = True
    names = tuple(str(index) for index in range(count))
    return Decision(f"inputs of {node}", names, {"g": region}, 2, True)


NODES = (inputs_of("a", 0, 4), inputs_of("b", 4, 5))
WEIGHTS = np.array([3.0, 1.0, 4.0, 1.5, 9.0, 2.0, 6.0, 5.0, 3.5])


def one_by_one(memory, order="random", proposals=3, noise=0.0):
    """A search whose scores are the weights of what is left; its calls too."""
    calls = []

    def score(step, masks, owners):
        calls.append((step, len(owners)))
        left = (masks["g"] > 0) @ WEIGHTS
        return left + noise * np.sin(37 * left + 11 * owners + step)

    found = propose(
        {"g": np.full(9, 0.5, np.float32)},
        (Phase("topology", (NODES,)),),
        score,
        get_order(order),
        num_proposals=proposals,
        seed=0,
        memory=memory,
    )
    return [masks["g"] for masks in found], calls


def test_rounds_have_names_and_share_the_minibatch():
    notes = Notes()
    found, calls = one_by_one(notes, "fixed", proposals=1)
    # Out goes what leaves the highest score: the lowest weight first.
    np.testing.assert_array_equal(found, [[1, 0, 1, 0, 1, 0, 1, 0, 0]])
    assert [(s.step, s.edge, s.candidates, s.kept) for s in notes.steps] == [
        (0, "inputs of a", tuple("0123"), tuple("023")),
        (0, "inputs of a (3 left)", tuple("023"), tuple("02")),
        (1, "inputs of b", tuple("01234"), tuple("0234")),
        (1, "inputs of b (4 left)", tuple("0234"), tuple("023")),
        (1, "inputs of b (3 left)", tuple("023"), tuple("02")),
    ]
    assert calls == [(0, 4), (0, 3), (1, 5), (1, 4), (1, 3)]
    total = WEIGHTS.sum()
    first, second, *_ = (s.scores[s.edge] for s in notes.steps)
    assert first == tuple(total - WEIGHTS[:4])
    assert second == tuple(total - WEIGHTS[1] - WEIGHTS[[0, 2, 3]])


@pytest.mark.parametrize("order", ["random", "global-op-iter", "global-edge-once"])
def test_rounds_are_recalled_and_go_on_where_they_ended(order):
    notes = Notes()
    whole, calls = one_by_one(notes, order, noise=5.0)
    assert len({tuple(masks) for masks in whole}) > 1  # proposals differ
    again = Notes(notes.steps)
    found, none = one_by_one(again, order, noise=5.0)
    np.testing.assert_array_equal(found, whole)
    assert none == [] and again.steps == notes.steps
    rounds = {edge for *_, edge in again.asked if " left)" in edge}
    assert rounds == {
        "inputs of a (3 left)",
        "inputs of b (3 left)",
        "inputs of b (4 left)",
    }
    for cut in range(len(notes.steps)):
        resumed = Notes(notes.steps[:cut])
        found, some = one_by_one(resumed, order, noise=5.0)
        np.testing.assert_array_equal(found, whole)
        assert resumed.steps == notes.steps
        assert 0 < sum(n for _, n in some) <= sum(n for _, n in calls)


def test_one_candidate_of_nan_goes_first_and_plus_infinity_is_an_error():
    decision = inputs_of("a", 0, 4)
    with pytest.warns(UserWarning, match="score without 1 is NaN"):
        assert keep_best(np.array([1, NAN, 3, 2.0]), decision, "") == [0, 2, 3]
    with pytest.raises(ScoreError, match="score without 3 is infinite"):
        keep_best(np.array([1, 2, 3, INF]), decision, "")
    assert keep_best(np.array([5, 5, 1, 5.0]), decision, "") == [0, 1, 2]  # last tie


def test_a_choice_that_is_not_permitted_gives_way_to_the_next_best():
    four = m.edge_decisions("g", ("e",), (("a", "b", "c", "d"),))[0]
    scores = np.array([4.0, 1.0, 3.0, 2.0])
    assert keep_best(scores, four, "", lambda kept: kept != [1]) == [3]
    asked = []

    def never(kept):
        asked.append(kept)
        return False

    with pytest.raises(InputError, match="no choice on edge e, here keeps within all"):
        keep_best(scores, four, "here", never)
    assert asked == [[1], [3], [2], [0]]


# Other ways to compare candidates


def test_candidates_tried_alone_keep_the_highest():
    alone = m.DISCRETISE
    assert keep_best(np.array([3.0, -INF, 4.0]), THREE, "", perturbation=alone) == [2]
    assert keep_best(np.array([4.0, 1.0, 4.0]), THREE, "", perturbation=alone) == [0]
    with pytest.warns(UserWarning, match="score with only a is NaN"):
        scores = np.array([NAN, 1.0, 2.0])
        assert keep_best(scores, THREE, "", perturbation=alone) == [2]
    with pytest.raises(ScoreError, match="score with only b is infinite"):
        keep_best(np.array([0.0, INF, 1.0]), THREE, "", perturbation=alone)
    three = inputs_of("a", 0, 3)  # one by one: the worst goes
    assert keep_best(np.array([2.0, 1.0, 3.0]), three, "", perturbation=alone) == [0, 2]


def test_a_search_can_try_candidates_alone():
    values = np.array([[1.0, 5.0, 2.0], [7.0, 0.0, 3.0]])
    (found,) = propose(
        {"g": m.undecided(2, 3)},
        (Phase("operations", (m.edge_decisions("g", "ef", (("a", "b", "c"),) * 2),)),),
        lambda step, masks, owners: (masks["g"] * values).sum((1, 2)),
        get_order("fixed"),
        num_proposals=1,
        seed=0,
        rule=DecisionRule(m.DISCRETISE),
    )
    np.testing.assert_array_equal(found["g"], [[0, 1, 0], [1, 0, 0]])


@pytest.mark.parametrize("order", ["fixed", "global-op-iter"])
def test_an_ensemble_ranks_what_a_step_compares(order):
    """Candidates of one decision, or all open ones where an order surveys them."""
    first = np.array([[1.0, 2.0, 3.0], [10.0, 30.0, 20.0]])
    second = np.array([[6.0, 5.0, 4.0], [1.0, 2.0, 3.0]])
    notes = Notes()
    propose(
        {"g": np.ones((2, 3), np.float32)},
        (Phase("operations", (m.edge_decisions("g", "ef", (("a", "b", "c"),) * 2),)),),
        lambda step, masks, owners: np.stack(
            [-(masks["g"] * v).sum((1, 2)) for v in (first, second)], axis=1
        ),
        get_order(order),
        num_proposals=1,
        seed=0,
        rule=DecisionRule(comparable=BOTH_PLAIN.comparable),
        memory=notes,
    )
    step = notes.steps[0]
    if order == "fixed":
        # Without a, b, c: the first ranks 1, 2, 3, the second 3, 2, 1.
        assert list(step.scores) == ["e"] and step.kept == ("a",)
    else:
        assert list(step.scores) == ["e", "f"]
        assert step.edge == "f" and step.kept == ("a",)
    raw = np.concatenate(list(step.scores.values()))
    ranks = {3: [4, 4, 4], 6: [7, 7, 7, 5, 8, 8]}[len(raw)]
    np.testing.assert_array_equal(BOTH_PLAIN.comparable(raw), ranks)
    assert step.scores["e"][0] == (-35.0 - 30.0, -9.0 - 6.0)
