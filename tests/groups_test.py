import numpy as np
import pytest

from zcpt_jax.scoring._groups import choose_width, group_rows, split_groups

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("width", [1, 2, 3, 5, 7, 64])
def test_every_row_is_in_one_group_and_weights_are_not_mixed(width):
    rng = np.random.default_rng(width)
    weights = np.sort(rng.integers(0, 3, 40))
    owners = np.sort(rng.integers(0, 8, 40))
    groups = group_rows(weights, owners, width)
    assert groups.shape[1] == width
    first = [sorted(set(group.tolist())) for group in groups]
    assert sorted(sum(first, [])) == list(range(40))
    assert all(len(set(weights[group])) == 1 for group in groups)


def test_owners_that_do_not_fit_are_divided_evenly_and_small_ones_share():
    one = np.zeros(10, int)
    owners = np.array([0] * 7 + [1] * 3)
    assert group_rows(one, owners, 4).tolist() == [
        [0, 1, 2, 3],
        [4, 5, 6, 6],
        [7, 8, 9, 9],
    ]
    owners = np.array([0] * 3 + [1] * 3 + [2] * 4)
    assert group_rows(one, owners, 7).tolist() == [
        [0, 1, 2, 3, 4, 5, 5],
        [6, 7, 8, 9, 9, 9, 9],
    ]


@pytest.mark.parametrize(
    ("sizes", "devices", "most", "width"),
    [
        ([7] * 10, 1, 32, 7),  # DARTS on one device
        ([7] * 10, 8, 32, 2),  # five groups each, rather than two of seven
        ([7] * 10, 1, 4, 4),
        ([5] * 10, 1, 32, 5),
        ([100], 1, 32, 25),
        ([1], 4, 32, 1),
    ],
)
def test_the_width_divides_the_work_evenly(sizes, devices, most, width):
    assert choose_width(sizes, devices, most) == width


def test_devices_share_groups_as_evenly_as_can_be():
    parts = split_groups(10, 4)
    assert [len(part) for part in parts] == [3, 3, 2, 2]
    assert np.concatenate(parts).tolist() == list(range(10))
