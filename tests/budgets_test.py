import itertools

import numpy as np
import pytest

from tests import helpers
from zcpt_jax import masks as m
from zcpt_jax.nn.size import count_flops, count_params
from zcpt_jax.search.budgets import Budget, Costs, make_budgets
from zcpt_jax.search.edge_orders import get_order
from zcpt_jax.search.memory import NoMemory
from zcpt_jax.search.proposal import DecisionRule, propose
from zcpt_jax.spaces import get_space
from zcpt_jax.spaces._nasbench201 import NasBench201
from zcpt_jax.types import Decision, InputError, Phase, Space

IMAGE = (16, 16, 3)
ALL_NONE = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"


def decisions_of(space):
    return [d for p in space.phases() for track in p.tracks for d in track]


def random_masks(space, count, seed=0, permits=lambda masks: True):
    rng = np.random.default_rng(seed)
    return propose(
        space.init_masks(),
        space.phases(),
        lambda step, masks, owners: rng.random(len(owners)),
        get_order("random"),
        num_proposals=count,
        seed=seed,
        rule=DecisionRule(permits=permits),
    )


# nasbench1shot1, nasbench_macro and mobilenet have this in their own files.
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("nasbench201", {"channels": 4, "cells_per_stage": 1}),
        ("darts", {"channels": 4, "cells": 1, "stem": "imagenet"}),
        ("darts_s1", {"channels": 4, "cells": 3}),
        ("darts_s3", {"channels": 4, "cells": 1}),
        ("darts_s4", {"channels": 4, "cells": 3}),
    ],
)
def test_costs_of_masks_are_those_of_their_networks(name, options):
    space = get_space(name, **options)
    shape = (32, 32, 3) if options.get("stem") == "imagenet" else IMAGE
    genotypes = [space.genotype(masks) for masks in random_masks(space, 3)]
    by_owner, by_network = helpers.costs_and_counts(space, genotypes, shape)
    assert len(set(map(tuple, by_network))) > 1
    assert by_owner == by_network


# A space of nothing but numbers: on each of three edges one of two operations, two of
# the three edges; or else one of three single entries; one entry belongs to all.


def rows(count):
    return np.eye(count, dtype=bool)


def nested(one_by_one=False):
    edges = m.edge_decisions("ops", ("e0", "e1", "e2"), (("a", "b"),) * 3)
    inputs = np.zeros((3, 3, 2), bool)
    inputs[np.arange(3), np.arange(3)] = True
    either = {
        "ops": np.stack([np.ones((3, 2), bool), np.zeros((3, 2), bool)]),
        "single": np.array([[False] * 4 + [True], [True] * 3 + [False] * 2]),
    }
    single = np.concatenate([rows(3), np.zeros((3, 2), bool)], axis=1)
    return (
        *edges,
        Decision("inputs", tuple("012"), {"ops": inputs}, 2, one_by_one),
        Decision("single", tuple("xyz"), {"single": single}),
        Decision("branch", ("pair", "single"), either),
    )


def made_up(seed):
    """Costs of the entries; ``single[3]`` is in all networks, ``[4]`` in one branch."""
    rng = np.random.default_rng(seed)
    entries = {"ops": rng.integers(1, 50, (3, 2)), "single": rng.integers(1, 50, 5)}
    return Costs(7.0, {group: array * 1.0 for group, array in entries.items()})


def start():
    return {"ops": m.undecided(3, 2), "single": np.full(5, 1 / 3, np.float32)}


def outcomes(masks, decisions, costs):
    """Costs of everything that can still become of the masks, by trying all."""
    if not decisions:
        return {costs.of(masks)}
    first, *others = decisions
    there = [
        index
        for index in range(len(first.candidates))
        if any(masks[g][region[index]].any() for g, region in first.regions.items())
    ]
    keeps = itertools.combinations(there, min(first.keep, len(there)))
    return set().union(
        *(outcomes(keep_only(masks, first, kept), others, costs) for kept in keeps)
    )


def keep_only(masks, decision, kept):
    stays = dict.fromkeys(masks)
    for group, weights in masks.items():
        region = decision.regions.get(group, np.zeros((1, *weights.shape), bool))
        goes = region.any(0) & ~region[
            list(kept) if group in decision.regions else []
        ].any(0)
        stays[group] = np.where(goes, 0, weights)
    return stays


@pytest.mark.unit
@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_the_reach_is_exact_at_every_decision(seed, one_by_one):
    costs, decisions = made_up(seed), nested(one_by_one)
    budget = Budget("parameters", 1e9, costs, decisions)
    rng = np.random.default_rng(seed)
    masks, widths = start(), []
    for number, decision in enumerate(decisions):
        left = decision
        while left is not None:
            possible = outcomes(masks, [left, *decisions[number + 1 :]], costs)
            assert budget.reach(masks) == (min(possible), max(possible))
            widths.append(len(possible))
            count = len(left.candidates)
            keep = count - 1 if left.one_by_one else left.keep
            kept = sorted(rng.choice(count, keep, replace=False).tolist())
            masks = m.apply_decision(masks, left, kept)
            left = m.remaining_decision(left, kept)
    assert budget.reach(masks) == (costs.of(masks),) * 2
    assert widths[0] > 10 and widths == sorted(widths, reverse=True)


@pytest.mark.unit
def test_a_budget_permits_up_to_and_with_its_limit():
    costs, decisions = made_up(0), nested()
    least, most = Budget("parameters", 0, costs, decisions).reach(start())
    assert least < most
    for limit, permitted in ((least - 1, False), (least, True), (most, True)):
        assert Budget("x", limit, costs, decisions).permits(start()) == permitted
    with pytest.raises(InputError) as error:
        Budget("parameters", least - 1, costs, decisions).check(start(), "numbers")
    assert str(error.value) == (
        f"no network of numbers has at most {least - 1:,.0f} parameters; "
        f"they have from {least:,.0f} to {most:,.0f}"
    )


class Log(NoMemory):
    def __init__(self):
        self.steps = []

    def keep(self, steps):
        self.steps += steps


def search(decisions, permits, seed=0, masks=None):
    rng, log = np.random.default_rng(seed), Log()
    found = propose(
        masks or start(),
        [Phase(d.name, ((d,),)) for d in decisions],
        lambda step, masks, owners: rng.random(len(owners)),
        get_order("fixed"),
        num_proposals=1,
        seed=0,
        memory=log,
        rule=DecisionRule(permits=permits),
    )
    return found[0], log.steps


@pytest.mark.unit
@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_a_search_takes_the_best_that_the_budget_allows(seed, one_by_one):
    costs, decisions = made_up(seed), nested(one_by_one)
    limit = sorted(outcomes(start(), decisions, costs))[1]
    budget = Budget("parameters", limit, costs, decisions)
    found, steps = search(decisions, budget.permits, seed)
    assert costs.of(found) <= limit
    masks, forced = start(), 0
    later = {d.name: decisions[i + 1 :] for i, d in enumerate(decisions)}
    named = {d.name: d for d in decisions}
    for step in steps:
        name = step.edge.partition(" (")[0]
        decision = named[name]
        chosen = [decision.candidates.index(c) for c in step.candidates]
        scores = step.scores[step.edge]
        best = np.argsort(scores, kind="stable").tolist()
        for choice in itertools.combinations(best, len(step.kept)):
            kept = [chosen[index] for index in sorted(choice)]
            left = keep_only(masks, decision, kept)
            open_now = [decision] if len(kept) > decision.keep else []
            if min(outcomes(left, [*open_now, *later[name]], costs)) <= limit:
                break
            forced += 1
        assert step.kept == tuple(decision.candidates[k] for k in kept)
        masks = left
    assert forced  # without the budget it would have gone elsewhere
    free, _ = search(decisions, lambda masks: True, seed)
    assert costs.of(free) > limit


@pytest.mark.unit
def test_two_budgets_hold_together_and_clash_with_a_message():
    decisions = m.edge_decisions("ops", ("e0", "e1"), (("a", "b"),) * 2)
    masks = {"ops": m.undecided(2, 2)}
    size = Costs(0.0, {"ops": np.array([[1.0, 5.0], [1.0, 5.0]])})
    time = Costs(0.0, {"ops": np.array([[5.0, 1.0], [5.0, 1.0]])})

    def permits(limit):
        budgets = [Budget("x", limit, costs, decisions) for costs in (size, time)]
        return lambda masks: all(budget.permits(masks) for budget in budgets)

    for seed in range(5):
        found, _ = search(decisions, permits(6), seed, masks)
        assert size.of(found) == time.of(found) == 6  # one a and one b
    assert permits(5)(masks)  # each alone, not both
    with pytest.raises(InputError, match="no choice on edge e0, .* all budgets"):
        search(decisions, permits(5), 0, masks)


@pytest.mark.parametrize("limits", [(0.2, None), (None, 0.2), (0.25, 0.3)])
def test_searches_of_a_space_keep_their_budgets(limits):
    space, counts = helpers.tiny_space(), (count_params, count_flops)
    largest = ALL_NONE.replace("none", "nor_conv_3x3")
    ends = [
        [count(space.network(g, 10), IMAGE) for g in (ALL_NONE, largest)]
        for count in counts
    ]
    absolute = [
        None if share is None else low + share * (high - low)
        for share, (low, high) in zip(limits, ends, strict=True)
    ]
    budgets = make_budgets(
        space, 10, IMAGE, max_params=absolute[0], max_flops=absolute[1]
    )
    asked = [i for i, limit in enumerate(absolute) if limit is not None]
    for budget, index in zip(budgets, asked, strict=True):
        assert budget.reach(space.init_masks()) == tuple(ends[index])
        assert budget.name == ("parameters", "multiply-adds")[index]

    def permits(masks):
        return all(budget.permits(masks) for budget in budgets)

    def sizes(masks, index):
        return counts[index](space.network(space.genotype(masks), 10), IMAGE)

    for index in asked:
        found = random_masks(space, 6, permits=permits)
        assert max(sizes(masks, index) for masks in found) <= absolute[index]
        free = random_masks(space, 6)
        assert max(sizes(masks, index) for masks in free) > absolute[index]


@pytest.mark.parametrize("what", ["parameters", "multiply-adds"])
def test_impossible_budgets_are_refused_with_what_there_is(what):
    space = helpers.tiny_space()
    count = count_params if what == "parameters" else count_flops
    least, most = (
        count(space.network(ALL_NONE.replace("none", op), 10), IMAGE)
        for op in ("none", "nor_conv_3x3")
    )
    name = "max_params" if what == "parameters" else "max_flops"
    for limit, refused in ((least - 1, True), (least, False)):
        limits = {"max_params": None, "max_flops": None, name: limit}
        if not refused:
            assert len(make_budgets(space, 10, IMAGE, **limits)) == 1
            continue
        with pytest.raises(InputError) as error:
            make_budgets(space, 10, IMAGE, **limits)
        assert str(error.value) == (
            f"no network of nasbench201 has at most {limit:,} {what}; "
            f"they have from {least:,} to {most:,}"
        )


@pytest.mark.unit
def test_no_budget_asks_nothing_of_a_space():
    assert make_budgets(Silent(), 10, IMAGE, max_params=None, max_flops=None) == ()


class Silent(NasBench201):
    """Does not say which layers belong to which operation."""

    def owner(self, path):
        return Space.owner(self, path)


@pytest.mark.parametrize("name", ["max_params", "max_flops"])
def test_a_space_that_does_not_say_has_no_budgets(name):
    limits = {"max_params": None, "max_flops": None, name: 1e9}
    with pytest.raises(InputError, match="nasbench201 does not say which layers .*own"):
        make_budgets(Silent(channels=4), 10, IMAGE, **limits)


@pytest.mark.unit
def test_decisions_that_overlap_in_part_are_refused():
    edges = m.edge_decisions("ops", ("e0", "e1"), (("a", "b"),) * 2)
    across = np.zeros((2, 2, 2), bool)
    across[0, :, 0] = across[1, :, 1] = True  # one operation on both edges
    costs = Costs(0.0, {"ops": np.ones((2, 2))})
    overlapping = Decision("column", ("a", "b"), {"ops": across})
    with pytest.raises(InputError, match="'column' holds a part of an earlier"):
        Budget("x", 1, costs, [*edges, overlapping])
    Budget("x", 1, costs, [overlapping])  # alone it is fine
