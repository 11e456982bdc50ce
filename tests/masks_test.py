import numpy as np
import pytest

from zcpt_jax import masks as m
from zcpt_jax.types import Decision, InputError

pytestmark = pytest.mark.unit

OPS = ("a", "b", "c")


def decisions():
    return m.edge_decisions("cell", ("e0", "e1"), (OPS, OPS))


def test_undecided_entries_are_one_over_o():
    np.testing.assert_array_equal(m.undecided(2, 4), np.full((2, 4), 0.25, np.float32))


def test_removals_zero_one_entry_each_and_do_not_renormalise():
    masks = {"cell": m.undecided(2, 3), "other": m.undecided(1, 2)}
    stacked = m.removals(masks, decisions()[1])
    assert stacked["cell"].shape == (3, 2, 3)
    for o in range(3):
        expected = m.undecided(2, 3)
        expected[1, o] = 0
        np.testing.assert_array_equal(stacked["cell"][o], expected)
    np.testing.assert_array_equal(stacked["other"], np.full((3, 1, 2), 0.5))


def test_settle_makes_the_edge_one_hot_and_leaves_the_rest():
    masks = m.apply_decision({"cell": m.undecided(2, 3)}, decisions()[0], [2])
    np.testing.assert_array_equal(masks["cell"][0], [0, 0, 1])
    np.testing.assert_array_equal(masks["cell"][1], m.undecided(1, 3)[0])


def test_settle_keeps_several_rows_and_only_what_is_in_use():
    # A node with three decided input edges keeps two: whole rows go.
    region = np.zeros((3, 3, 2), bool)
    region[np.arange(3), np.arange(3)] = True
    decision = Decision("node", ("i", "j", "k"), {"cell": region}, keep=2)
    weights = m.one_hot(np.array([0, 1, 1]), 2)
    settled = m.apply_decision({"cell": weights}, decision, [0, 2])
    np.testing.assert_array_equal(settled["cell"], [[1, 0], [0, 0], [0, 1]])


@pytest.mark.parametrize("kept", [[], [0, 1], [3], [-1]])
def test_settle_refuses_a_wrong_choice(kept):
    with pytest.raises(InputError, match="keeps 1 of the candidates"):
        m.apply_decision({"cell": m.undecided(2, 3)}, decisions()[0], kept)


def test_chosen_refuses_an_undecided_edge():
    assert m.chosen(m.one_hot(np.array([1, 2]), 3), "cell").tolist() == [1, 2]
    with pytest.raises(InputError, match="edge 0 of mask group 'cell'"):
        m.chosen(m.undecided(2, 3), "cell")


def inputs(keep=2):
    """Which of four edges of two operations stay, one by one."""
    region = np.zeros((4, 4, 2), bool)
    region[np.arange(4), np.arange(4)] = True
    return Decision("node", ("i", "j", "k", "l"), {"cell": region}, keep, True)


def test_rest_is_the_decision_among_those_that_stay():
    first = inputs()
    second = m.remaining_decision(first, [0, 2, 3])
    assert second.name == "node (3 left)" and second.candidates == ("i", "k", "l")
    assert second.keep == 2 and second.one_by_one
    np.testing.assert_array_equal(
        second.regions["cell"], first.regions["cell"][[0, 2, 3]]
    )
    assert m.remaining_decision(second, [0, 2]) is None
    assert (
        m.remaining_decision(
            m.remaining_decision(inputs(keep=1), [1, 2, 3]), [0, 2]
        ).name
        == "node (2 left)"
    )
    other = Decision("node (a)", first.candidates, first.regions, 2, True)
    again = m.remaining_decision(
        m.remaining_decision(Decision(**{**vars(other), "keep": 1}), [0, 1, 2]), [0, 1]
    )
    assert again.name == "node (a) (2 left)"  # its own name stays whole


def test_settle_of_some_leaves_the_others_undecided():
    first, masks = inputs(), {"cell": m.undecided(4, 2)}
    some = m.apply_decision(masks, first, [0, 2, 3])
    np.testing.assert_array_equal(some["cell"][1], [0, 0])
    np.testing.assert_array_equal(some["cell"][[0, 2, 3]], m.undecided(3, 2))
    second = m.remaining_decision(first, [0, 2, 3])
    done = m.apply_decision(some, second, [1, 2])["cell"]
    np.testing.assert_array_equal(done.any(-1), [False, False, True, True])
    np.testing.assert_array_equal(done[2:], np.ones((2, 2)))
    # All at once comes to the same.
    np.testing.assert_array_equal(m.apply_decision(masks, first, [2, 3])["cell"], done)


@pytest.mark.parametrize("kept", [[0], [], [0, 1, 4], [0, 0, 1, -1]])
def test_settle_of_some_refuses_a_wrong_choice(kept):
    with pytest.raises(InputError, match=r"'node' keeps 2 of the candidates 0\.\.3"):
        m.apply_decision({"cell": m.undecided(4, 2)}, inputs(), kept)


def test_more_than_are_to_stay_only_where_candidates_go_one_by_one():
    at_once = Decision("node", inputs().candidates, inputs().regions, 2)
    with pytest.raises(InputError, match="keeps 2 of the candidates"):
        m.apply_decision({"cell": m.undecided(4, 2)}, at_once, [0, 1, 2])


def test_discretisations_leave_one_candidate_each_with_weight_one():
    masks = {"cell": m.undecided(2, 3), "other": m.undecided(1, 2)}
    stacked = m.discretisations(masks, decisions()[1])
    np.testing.assert_array_equal(stacked["cell"][:, 1], np.eye(3))
    np.testing.assert_array_equal(stacked["cell"][:, 0], np.full((3, 3), 1 / 3, "f4"))
    np.testing.assert_array_equal(stacked["other"], np.full((3, 1, 2), 0.5))


def test_discretisations_of_inputs_leave_one_input_each():
    region = np.eye(4, dtype=bool)
    decision = Decision("inputs", tuple("wxyz"), {"g": region}, keep=2)
    alone = m.discretisations({"g": np.full(4, 0.25, np.float32)}, decision)
    np.testing.assert_array_equal(alone["g"], np.eye(4))
