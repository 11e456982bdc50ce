"""Whole searches in this process; ``launch_test.py`` runs them as users do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import helpers
from tests.own_space import Chain
from zcpt_jax import masks as m
from zcpt_jax.data import load_dataset
from zcpt_jax.nn.size import count_flops, count_params
from zcpt_jax.proxies import PROXIES, get_proxy
from zcpt_jax.search import NoMemory
from zcpt_jax.spaces import get_space
from zcpt_jax.types import Proxy, ScoreError

RANDOM = "random"
DATA = load_dataset("digits", image_size=8)
SHAPE = DATA.image_shape
SMALL = {"num_validation_batches": 2, "batch_size": 8}


class Memory(NoMemory):
    """Keeps the steps; validation is given, unless there is none to give."""

    def __init__(self, validation=None):
        self.steps, self.validation = [], validation

    def keep(self, steps):
        self.steps += steps

    def recall_validation(self, genotype, start):
        return self.validation


def never(*args):
    raise AssertionError("a proxy was called")


NEVER = Proxy("never", never, "running")
DARTS_S2 = get_space("darts_s2", channels=4, cells=1)


def draw(space=DARTS_S2, **options):
    """Random proposals, with all their steps; no network is ever built."""
    memory = Memory([1.0])
    options = {"num_proposals": 4, "seed": 0, **options}
    found = helpers.search(
        space, NEVER, DATA, operation_score=RANDOM, memory=memory, **options
    )
    return found, memory.steps


def test_random_proposals_depend_on_the_seed_and_their_index_only():
    found, steps = draw()
    again, same_steps = draw()
    assert found.proposals == again.proposals and steps == same_steps
    assert len(set(found.proposals)) == 4
    assert not set(draw(seed=1)[0].proposals) & set(found.proposals)
    more, _ = draw(num_proposals=7)
    assert more.proposals[:4] == found.proposals
    assert (
        found.seconds.get("compile", 0) == found.seconds.get("initialisation", 0) == 0
    )


def test_random_proposals_of_the_two_cells_are_independent():
    _, steps = draw(num_proposals=30, edge_order="fixed")
    kept = {(s.proposal, s.edge): s.kept for s in steps if "<-" in s.edge}
    assert len(kept) == 30 * 28
    equal = [
        kept[proposal, edge] == kept[proposal, edge.replace("normal", "reduce")]
        for proposal, edge in kept
        if edge.startswith("normal")
    ]
    assert 0.4 < np.mean(equal) < 0.6  # of 420 coins
    for proposal in range(30):
        mine = [o for (p, _), o in kept.items() if p == proposal]
        assert len(set(mine)) == 2
    drawn = [s.scores[s.edge] for s in steps]
    assert len(set(drawn)) == len(drawn)
    assert all(0 <= value < 1 for values in drawn for value in values)


def test_every_operation_is_drawn_as_often():
    found, _ = draw(Chain(layers=4), num_proposals=100)
    ops = [op for genotype in found.proposals for op in genotype.split()]
    for op in ("conv3x3", "conv1x1", "skip"):
        assert 100 < ops.count(op) < 170  # a third of 400


def test_random_proposals_are_validated_by_the_proxy():
    """Stage 1 asks it nothing, so that it never sees operation weights."""
    seen = []

    def score(apply_fn, variables, batch, masks):
        seen.append(dict(masks))
        return apply_fn(variables, batch.images, masks).std()

    proxy = Proxy("spread", score, "running")
    found = helpers.search(
        Chain(layers=2, channels=4),
        proxy,
        DATA,
        operation_score=RANDOM,
        num_proposals=3,
        **SMALL,
    )
    assert seen and all(masks == {} for masks in seen)
    assert set(found.validation) == set(found.proposals)
    totals = {g: scores.sum() for g, scores in found.validation.items()}
    assert found.genotype == max(totals, key=totals.get)
    seen.clear()
    helpers.search(Chain(layers=2, channels=4), proxy, DATA, num_proposals=1, **SMALL)
    assert any("layers" in masks for masks in seen)


def test_each_minibatch_has_a_key_of_its_own():
    def score(apply_fn, variables, batch, masks):
        return jax.random.normal(batch.key)

    def run(seed=0, num_proposals=3):
        memory = Memory()
        found = helpers.search(
            Chain(layers=3, channels=4),
            Proxy("key", score, "running"),
            DATA,
            num_proposals=num_proposals,
            seed=seed,
            memory=memory,
            **SMALL,
        )
        steps = {(s.proposal, s.step): s.scores[s.edge] for s in memory.steps}
        return steps, next(iter(found.validation.values()))

    steps, validation = run()
    for values in steps.values():  # candidates are compared under the same numbers
        assert len(values) == 3 and len(set(values)) == 1
    numbers = [values[0] for values in steps.values()] + validation.tolist()
    assert len(set(numbers)) == len(numbers) == 3 * 3 + 2
    fewer, same = run(num_proposals=2)
    assert all(steps[key] == values for key, values in fewer.items())
    np.testing.assert_array_equal(same, validation)
    assert not set(run(seed=1)[0].values()) & set(steps.values())


def test_a_proposal_whose_scores_decide_nothing_is_dropped():
    """The others go on, with the scores that they would have had anyway."""

    def run(bad):
        def score(apply_fn, variables, batch, masks):
            value = apply_fn(variables, batch.images, masks).std()
            return jnp.where(jnp.isin(batch.labels[0], jnp.array(bad)), jnp.nan, value)

        proxy = Proxy("sometimes", score, "running", needs_labels=True)
        memory = Memory([1.0])
        options = {"num_proposals": 6, "batch_size": 4, "memory": memory}
        return helpers.search(Chain(layers=1), proxy, DATA, **options), memory.steps

    whole, steps = run([])
    rngs = [np.random.default_rng([0, 1, p, 0]) for p in range(6)]
    first = [int(DATA.batch(rng, 4).labels[0]) for rng in rngs]
    with pytest.warns(UserWarning, match="dropped proposal .: no usable score"):
        found, fewer = run([first[2]])
    lost = [p for p in range(6) if first[p] == first[2]]
    assert 0 < len(lost) < 6
    expected = [None if p in lost else g for p, g in enumerate(whole.proposals)]
    assert list(found.proposals) == expected
    assert [s for s in fewer if s.kept] == [s for s in steps if s.proposal not in lost]
    assert [s.proposal for s in fewer if not s.kept] == lost
    with (
        pytest.warns(UserWarning, match="dropped proposal"),
        pytest.raises(ScoreError, match="proxy sometimes: all proposals were dropped"),
    ):
        run(range(10))


def test_a_search_keeps_within_its_budgets():
    space = Chain(layers=3, channels=4)
    small, large = (
        [count(space.network(op, 10), SHAPE) for count in (count_params, count_flops)]
        for op in ("skip skip skip", "conv3x3 conv3x3 conv3x3")
    )
    limits = [low + 0.4 * (high - low) for low, high in zip(small, large, strict=True)]

    def sizes(count, **options):
        found = helpers.search(
            space, PROXIES["nwot"], DATA, num_proposals=3, **SMALL, **options
        )
        assert found.genotype in found.proposals
        return [count(space.network(g, 10), SHAPE) for g in found.proposals]

    for count, limit, name in (
        (count_params, limits[0], "max_params"),
        (count_flops, limits[1], "max_flops"),
    ):
        assert max(sizes(count)) > limit  # without a budget
        assert max(sizes(count, **{name: limit})) <= limit
        both = {"max_params": limits[0], "max_flops": limits[1]}
        assert max(sizes(count, operation_score=RANDOM, **both)) <= limit


def test_progress_counts_the_rounds_of_candidates_that_go_one_by_one():
    told = []
    helpers.search(
        DARTS_S2,
        NEVER,
        DATA,
        num_proposals=2,
        operation_score=RANDOM,
        memory=Memory([1.0]),
        progress=lambda stage, done, total, note: told.append((stage, done, total)),
    )
    stage1 = [(done, total) for stage, done, total in told if stage == "proposal"]
    assert {total for _, total in stage1} == {2 * (28 + 12)}
    done = [count for count, _ in stage1]
    assert done[0] == 0 and done[-1] == 80 and done == sorted(done)


def test_a_search_of_darts_takes_topology_from_what_is_left():
    """The memory of a search replays it, rounds included."""
    _, steps = draw(num_proposals=1)
    space = DARTS_S2
    masks = space.init_masks()
    decisions = {
        d.name: d for phase in space.phases() for track in phase.tracks for d in track
    }
    for step in steps:
        decision = decisions[step.edge.partition(" (")[0]]
        kept = [decision.candidates.index(name) for name in step.kept]
        masks = m.apply_decision(masks, decision, kept)
    assert space.genotype(masks) == draw(num_proposals=1)[0].genotype


def test_each_step_and_minibatch_can_have_initial_weights_of_its_own():
    seen = {"supernet": [], "network": []}

    class Watched(Chain):
        def init_variables(self, module, key, image_shape):
            kind = "supernet" if len(module.candidates[0]) > 1 else "network"
            variables = super().init_variables(module, key, image_shape)
            seen[kind].append(float(variables["params"]["stem"]["kernel"].sum()))
            return variables

    size = {"num_proposals": 2, "num_validation_batches": 3, "batch_size": 8}
    found = {
        way: helpers.search(
            Watched(layers=2, channels=4),
            PROXIES["nwot"],
            DATA,
            initialisations=way,
            **size,
        )
        for way in ("one", "each")
    }
    networks = [len(result.validation) for result in found.values()]
    assert len(seen["supernet"]) == len(set(seen["supernet"])) == 1 + 2
    expected = networks[0] + 3 * networks[1]
    assert len(seen["network"]) == len(set(seen["network"])) == expected


def test_a_mask_can_be_scored_on_several_minibatches():
    def score(apply_fn, variables, batch, masks):
        return batch.images.sum()

    def run(score_batches):
        memory = Memory([1.0])
        proxy = Proxy("sum", score, "running")
        options = {"num_proposals": 2, "score_batches": score_batches, "batch_size": 4}
        helpers.search(Chain(layers=2), proxy, DATA, memory=memory, **options)
        return {(s.proposal, s.step): s.scores[s.edge][0] for s in memory.steps}

    one, three = run(1), run(3)
    assert len(set(one.values())) == len(one) == 4
    assert all(three[key] != one[key] for key in one)  # and the first is among them:
    names = [(1, 0, 0), (1, 0, 0, 1), (1, 0, 0, 2)]
    rngs = [np.random.default_rng([0, *name]) for name in names]
    sums = [float(DATA.batch(rng, 4).images.sum()) for rng in rngs]
    np.testing.assert_allclose(one[0, 0], sums[0], rtol=1e-4)
    np.testing.assert_allclose(three[0, 0], sum(sums), rtol=1e-4)


def test_an_ensemble_searches_by_ranks_and_keeps_its_members_scores():
    memory = Memory()
    space = Chain(layers=2, channels=4)
    proxy = get_proxy("nwot+synflow")
    found = helpers.search(space, proxy, DATA, num_proposals=3, memory=memory, **SMALL)
    for step in memory.steps:
        scores = np.array(step.scores[step.edge])
        ranks = proxy.comparable(scores)
        assert ranks.sum() == 2 * (1 + 2 + 3)  # two proxies rank three candidates
        assert step.kept == (step.candidates[int(np.argmin(ranks))],)
    assert all(scores.shape == (2, 2) for scores in found.validation.values())
    assert found.totals[found.genotype] == max(found.totals.values())
    alone = helpers.search(space, PROXIES["nwot"], DATA, num_proposals=3, **SMALL)
    for genotype in set(found.validation) & set(alone.validation):
        np.testing.assert_allclose(
            found.validation[genotype][:, 0], alone.validation[genotype], rtol=1e-6
        )
