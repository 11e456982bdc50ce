import numpy as np
import pytest

from tests.own_space import Chain
from zcpt_jax.search.enumeration import Enumeration, flatten, flatten_stack
from zcpt_jax.spaces import get_space
from zcpt_jax.types import InputError

pytestmark = pytest.mark.unit

SIZES = {
    "nasbench201": 5**6,
    "nasbench_macro": 3**8,
    "nasbench1shot1_1": 3**4 * 1 * 3 * 6 * 10 // 1,
    "mobilenet": 6**6 * 7**15,
    "darts_s2": 2**28 * (3 * 6 * 10) ** 2,
}


@pytest.mark.parametrize("name", [*SIZES, "darts"])
def test_every_number_is_a_network(name):
    enumeration = Enumeration(get_space(name))
    if name in SIZES:
        assert enumeration.size == SIZES[name]
    ends = [enumeration.masks(n) for n in (0, enumeration.size - 1)]
    first, last = (enumeration.space.genotype(masks) for masks in ends)
    assert first != last
    if hasattr(enumeration.space, "masks_of"):
        again = enumeration.space.masks_of(last)
        np.testing.assert_array_equal(flatten(again), flatten(ends[1]))


def test_numbers_are_all_networks_once_and_in_order():
    enumeration = Enumeration(Chain(layers=3))
    names = [enumeration.space.genotype(enumeration.masks(n)) for n in range(27)]
    assert len(set(names)) == 27 == enumeration.size
    assert names[:4] == [
        "conv3x3 conv3x3 conv3x3",
        "conv3x3 conv3x3 conv1x1",
        "conv3x3 conv3x3 skip",
        "conv3x3 conv1x1 conv3x3",
    ]
    for number in (-1, 27):
        with pytest.raises(InputError, match=f"has the networks 0 to 26, got {number}"):
            enumeration.masks(number)


def test_all_of_nasbench201_are_distinct():
    enumeration = Enumeration(get_space("nasbench201"))
    names = {enumeration.space.genotype(enumeration.masks(n)) for n in range(15625)}
    assert len(names) == 15625


def test_samples_are_distinct_and_follow_the_seed():
    enumeration = Enumeration(get_space("darts"))
    drawn = list(enumeration.sample(50, 0))
    assert len(set(drawn)) == 50 and all(0 <= n < enumeration.size for n in drawn)
    assert (
        drawn[:20] == list(enumeration.sample(20, 0)) != list(enumeration.sample(20, 1))
    )
    small = Enumeration(Chain(layers=2))
    assert sorted(small.sample(9, 0)) == list(range(9))
    with pytest.raises(InputError, match="has 9 networks; cannot draw 10 of them"):
        next(small.sample(10, 0))


def test_flattening_takes_groups_in_the_order_of_their_names():
    masks = {"b": np.array([3.0, 4.0]), "a": np.array([[1.0], [2.0]])}
    np.testing.assert_array_equal(flatten(masks), [1, 2, 3, 4])
    stack = {group: np.stack([one, 10 * one]) for group, one in masks.items()}
    np.testing.assert_array_equal(
        flatten_stack(stack), [[1, 2, 3, 4], [10, 20, 30, 40]]
    )
