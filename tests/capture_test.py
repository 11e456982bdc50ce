"""Looking inside networks that run in loops and other transforms, and what counts."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests import helpers
from zcpt_jax.nn import capture
from zcpt_jax.nn.size import count_flops
from zcpt_jax.proxies import PROXIES
from zcpt_jax.types import Batch, InputError

DEPTH = 3
DATA = helpers.batch(size=6, image_size=8, classes=4)
MASK = jnp.array([0.7, 0.4])


class Block(nn.Module):
    """One layer, whose ReLU, and itself, are marked or not."""

    marked: bool

    @nn.compact
    def __call__(self, x, mask):
        if self.marked:
            (x,) = capture.CutPoint()(x)
        y = nn.BatchNorm(use_running_average=True)(nn.Conv(5, (3, 3))(x))
        y = capture.ReLU()(y, count=2.0, zero_count=1.0) if self.marked else nn.relu(y)
        return mask[0] * x + mask[1] * y, None


class Net(nn.Module):
    """Blocks one after the other, in a Python loop or in a transform."""

    how: str = "loop"
    marked: bool = False

    @nn.compact
    def __call__(self, images, mask):
        x = nn.relu(nn.Conv(5, (3, 3), use_bias=False)(images))
        if self.how in TRANSFORMS:
            x, _ = TRANSFORMS[self.how](Block)(self.marked, name="blocks")(x, mask)
        else:
            block = {"remat": nn.remat, "jit": nn.jit}.get(self.how, lambda cls: cls)
            for i in range(DEPTH):
                x, _ = block(Block)(self.marked, name=f"block_{i}")(x, mask)
        x = capture.GlobalAverage()(x) if self.marked else x.mean((1, 2))
        return nn.Dense(4, name="classifier")(x)


def scan(cls, **options):
    axes = {"params": 0, "batch_stats": 0}
    return nn.scan(
        cls,
        variable_axes=options.pop("variable_axes", axes),
        split_rngs={"params": True},
        in_axes=nn.broadcast,
        length=DEPTH,
        **options,
    )


TRANSFORMS = {
    "scan": scan,
    "scan along the last axis": lambda cls: scan(
        cls, variable_axes={"params": -1, "batch_stats": 0}
    ),
    "scan of remat": lambda cls: scan(nn.remat(cls), unroll=2, reverse=True),
}


def variables_of(how, marked):
    """The same weights for every way of running the blocks."""
    net = Net("loop", marked)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(net.init, jax.random.key(0), DATA.images, MASK)
    drawn = jax.tree.map(
        lambda leaf: (
            np.abs(rng.normal(size=leaf.shape)) + 0.2
            if leaf.ndim == 1
            else 0.5 * rng.normal(size=leaf.shape)
        ),
        shapes,
    )
    drawn = jax.tree.map(np.float32, drawn)
    if how not in TRANSFORMS:
        return drawn
    order = range(DEPTH)[:: -1 if how == "scan of remat" else 1]
    stacked = {}
    for name, tree in drawn.items():
        last = name == "params" and how == "scan along the last axis"
        blocks = [tree.pop(f"block_{i}") for i in order]
        stack = jax.tree.map(
            lambda *parts, axis=-1 if last else 0: np.stack(parts, axis), *blocks
        )
        stacked[name] = {**tree, "blocks": stack}
    return stacked


def run(name, apply, variables, data=DATA, mask=MASK):
    fn = PROXIES[name].score
    return jax.jit(lambda v, b, m: fn(apply, v, b, m))(variables, Batch(*data), mask)


def initial(net, mask=MASK):
    return jax.jit(net.init)(jax.random.key(0), DATA.images, mask)


def score(name, how="loop", marked=False):
    return run(name, Net(how, marked).apply, variables_of(how, marked))


def plain_score(name, cache={}, **options):  # noqa: B006
    key = (name, *options.items())
    if key not in cache:
        cache[key] = score(name, **options)
    return cache[key]


TOLERANCES = {"az_trainability": 1e-3, "grasp": 1e-3, "ntk_cond": 1e-2}


WAYS = [("scan", False), ("scan", True), ("remat", True)]


@pytest.mark.parametrize("name", helpers.proxies())
@pytest.mark.parametrize(("how", "marked"), WAYS)
def test_every_proxy_scores_a_transform_as_it_does_a_python_loop(name, how, marked):
    expected = plain_score(name, marked=marked)
    assert np.isfinite(expected)
    np.testing.assert_allclose(
        score(name, how, marked), expected, rtol=TOLERANCES.get(name, 1e-4)
    )


@pytest.mark.parametrize("name", ["nwot", "snip", "l2_norm", "flops"])
@pytest.mark.parametrize("how", ["scan along the last axis", "scan of remat"])
def test_other_scans(name, how):
    expected = plain_score(name, marked=False)
    np.testing.assert_allclose(score(name, how), expected, rtol=1e-4)


@pytest.mark.parametrize("name", ["nwot", "swap"])
def test_activation_patterns_leave_a_scan_a_scan(name):
    fn, net = PROXIES[name].score, Net("scan", True)
    jaxpr = jax.make_jaxpr(lambda v: fn(net.apply, v, DATA, MASK))(
        variables_of("scan", True)
    )
    convolutions = str(jaxpr).count("conv_general_dilated[")
    assert convolutions == 3  # the stem's, twice traced, and that of the body


@pytest.mark.parametrize("name", ["nwot", "synflow"])
def test_masks_are_vmapped_over_a_scan(name):
    masks = jnp.stack([MASK, MASK[::-1]])
    fn, net, variables = PROXIES[name].score, Net("scan", True), variables_of("scan", 1)
    one = jax.jit(lambda mask: fn(net.apply, variables, DATA, mask))
    together = jax.jit(jax.vmap(one))(masks)
    np.testing.assert_allclose(together, [one(m) for m in masks], rtol=1e-5)


def test_masks_are_differentiated_through_a_scan():
    def layers(how):
        found = []
        variables = variables_of(how, False)

        def total(mask):
            sizes = []
            capture.forward(
                Net(how).apply,
                variables,
                DATA.images,
                mask,
                norm="batch",
                on_layer=lambda path, out: (sizes.append(jnp.sum(out**2)), out)[1],
            )
            found.append(len(sizes))
            return jnp.stack(sizes).sum()

        return jax.jit(jax.grad(total))(MASK), found

    (scanned, seen), (looped, expected) = layers("scan"), layers("loop")
    assert seen == expected == [DEPTH + 2]
    np.testing.assert_allclose(scanned, looped, rtol=1e-4)


def test_layers_of_a_scan_have_the_number_of_their_iteration():
    variables = variables_of("scan", False)

    @jax.jit
    def find(variables):
        found = {}
        capture.forward(
            Net("scan").apply,
            variables,
            DATA.images,
            MASK,
            norm="running",
            on_kernel=lambda path, kernel: found.update({"/".join(path): kernel}),
        )
        return found

    kernels = find(variables)
    stack = variables["params"]["blocks"]["Conv_0"]["kernel"]
    for i in range(DEPTH):
        np.testing.assert_array_equal(kernels[f"blocks/Conv_0/{i}"], stack[i])
    assert len(kernels) == DEPTH + 2
    flops = {how: count_flops(Net(how), (8, 8, 3), MASK) for how in ("scan", "loop")}
    assert flops["scan"] == flops["loop"]


def test_jit_keeps_no_trace_of_another_proxy():
    jitted = nn.jit(Block)

    class Twice(nn.Module):
        marked: bool

        @nn.compact
        def __call__(self, x, mask):
            for _ in range(2):
                x, _ = jitted(self.marked)(x, mask)
            return x.mean((1, 2))

    class Unjitted(Twice):
        @nn.compact
        def __call__(self, x, mask):
            for i in range(2):
                x, _ = Block(self.marked, name=f"JitBlock_{i}")(x, mask)
            return x.mean((1, 2))

    images = jnp.tile(jnp.asarray(DATA.images), (1, 1, 1, 2))[..., :5]
    variables = jax.jit(Unjitted(True).init)(jax.random.key(0), images, MASK)
    variables["batch_stats"] = jax.tree.map(lambda x: x + 1, variables["batch_stats"])
    data = DATA._replace(images=images)
    whole = jax.jit(Unjitted(True).apply)
    for name in ("nwot", "snip", "synflow", "nwot"):
        expected = run(name, Unjitted(True).apply, variables, data)
        for apply in (Twice(True).apply, whole):
            found = run(name, apply, variables, data)
            np.testing.assert_allclose(found, expected, rtol=1e-5)
    with pytest.raises(InputError, match="calls share a trace and cannot be told"):
        run("l2_norm", Twice(True).apply, variables, data)


class Conditional(nn.Module):
    """What cannot be looked at, or only in part."""

    how: str

    def heavy(self, x):
        return nn.relu(nn.Conv(5, (3, 3), name="heavy")(nn.relu(x)))

    def light(self, x):
        if self.is_initializing():
            self.heavy(x)
        return nn.relu(2 * x)

    @nn.compact
    def __call__(self, images, mask):
        x = nn.Conv(5, (3, 3), name="stem")(images)
        if self.how == "cond":
            x = nn.cond(mask[0] > 0, Conditional.heavy, Conditional.light, self, x)
        if self.how == "vmap":
            many = nn.vmap(
                nn.Dense, variable_axes={"params": 0}, split_rngs={"params": True}
            )
            x = many(5)(x)
        if self.how == "while":
            x = jax.lax.while_loop(lambda x: (x > 1).any(), lambda x: nn.relu(x) / 2, x)
        return nn.Dense(4, name="classifier")(x.mean((1, 2)))


def conditional(how, name, mask=MASK):
    net = Conditional(how)
    return run(name, net.apply, initial(net), mask=mask)


def test_a_cond_counts_the_relus_of_the_branch_that_runs():
    masks = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    found = [conditional("cond", "nwot", mask) for mask in masks]
    params = initial(Conditional("cond"))["params"]
    x = nn.Conv(5, (3, 3)).apply({"params": params["stem"]}, DATA.images)
    y = nn.Conv(5, (3, 3)).apply({"params": params["heavy"]}, nn.relu(x))
    for value, inputs in zip(found, [(x, y), (x,)], strict=True):
        c = [np.asarray(z > 0, np.float64).reshape(6, -1) for z in inputs]
        kernel = sum(one @ one.T + (1 - one) @ (1 - one).T for one in c)
        np.testing.assert_allclose(value, np.linalg.slogdet(kernel)[1], rtol=1e-5)


def test_swap_counts_no_patterns_of_the_branch_that_does_not_run():
    params = initial(Conditional("cond"))["params"]
    data = DATA._replace(images=DATA.images[:, :2, :2])
    found = run("swap", Conditional("cond").apply, {"params": params}, data, -MASK)
    x = nn.Conv(5, (3, 3)).apply({"params": params["stem"]}, data.images)
    patterns = np.asarray(x > 0).reshape(6, -1)
    assert found == np.unique(patterns, axis=1).shape[1]


@pytest.mark.parametrize(
    ("how", "name", "message"),
    [
        ("cond", "fisher", "looks at the layer heavy, which the network .* 'cond'"),
        ("vmap", "fisher", "looks at the layer VmapDense_0, which .* inside 'vmap'"),
        ("vmap", "grad_norm", "looks at the kernel VmapDense_0, .* inside 'vmap'"),
        ("while", "nwot", r"looks at a max\(z, 0\), which .* inside 'while'"),
    ],
)
def test_what_cannot_be_looked_at_is_refused(how, name, message):
    with pytest.raises(InputError, match=message):
        conditional(how, name)


@pytest.mark.parametrize("how", ["cond", "vmap"])
def test_weights_need_no_looking(how):
    assert np.isfinite(conditional(how, "snip"))


class Normalised(nn.Module):
    """A small network with a normalisation that keeps variances from being negative."""

    norm: type[nn.Module]

    @nn.compact
    def __call__(self, images, mask=None):
        x = nn.relu(self.norm()(nn.Conv(32, (3, 3))(images)))
        return nn.Dense(4)(nn.relu6(self.norm()(nn.Conv(32, (1, 1))(x))).mean((1, 2)))


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm])
@pytest.mark.parametrize("lift", [lambda cls: cls, nn.remat])
def test_maxima_of_variances_do_not_count(norm, lift):
    net = Normalised(lift(norm))

    @jax.jit
    def find(variables):
        return capture.read_relus(
            net.apply, variables, DATA.images, None, norm="batch", read=lambda z, *_: z
        )

    found = jax.eval_shape(find, initial(net))
    assert [z.shape for z in found] == [(6, 8, 8, 32)] * 2


class ViT(nn.Module):
    @nn.compact
    def __call__(self, images, mask=None):
        x = nn.Conv(8, (4, 4), strides=4)(images).reshape(images.shape[0], -1, 8)
        for _ in range(2):
            x += nn.MultiHeadDotProductAttention(2)(nn.LayerNorm()(x))
            x += nn.Dense(8)(nn.gelu(nn.Dense(16)(nn.LayerNorm()(x))))
        return nn.Dense(4)(nn.LayerNorm()(x).mean(1))


@pytest.mark.parametrize("name", ["nwot", "swap"])
def test_a_vit_without_relus_is_refused(name):
    net = ViT()
    with pytest.raises(InputError, match=f"{name} found no ReLU"):
        run(name, net.apply, initial(net))
    assert np.isfinite(run("snip", net.apply, initial(net)))


def test_maxima_over_another_axis_than_the_images_are_refused():
    def apply(variables, images, masks):
        return nn.relu(images.reshape(-1, 3))

    with pytest.raises(InputError, match="first axis is not that of the 6 images"):
        run("nwot", apply, {})


class NNX(nnx.Module):
    def __init__(self, norm, *, rngs):
        self.conv = nnx.Conv(3, 32, (3, 3), rngs=rngs)
        self.norm = norm(32, rngs=rngs)
        self.out = nnx.Linear(32, 4, rngs=rngs)

    def __call__(self, images, mask=None):
        return self.out(nnx.relu(self.norm(self.conv(images))).mean((1, 2)))


class Linen(nn.Module):
    @nn.compact
    def __call__(self, images, mask=None):
        x = nn.LayerNorm(name="norm")(nn.Conv(32, (3, 3), name="conv")(images))
        return nn.Dense(4, name="out")(nn.relu(x).mean((1, 2)))


@pytest.mark.parametrize("name", ["nwot", "snip", "grad_norm"])
def test_an_nnx_module_scores_as_the_linen_module_does(name):
    net = nnx.bridge.ToLinen(NNX, args=(nnx.LayerNorm,))
    variables = initial(net)
    found, expected = (
        run(name, apply, variables) for apply in (net.apply, Linen().apply)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_nnx_modules_whose_layers_or_batch_norm_are_needed_are_refused():
    net = nnx.bridge.ToLinen(NNX, args=(nnx.BatchNorm,))
    with pytest.raises(InputError, match="an NNX module with BatchNorm, which only"):
        run("snip", net.apply, initial(net))
    with pytest.raises(InputError, match="an NNX module, whose layers cannot be look"):
        run("l2_norm", net.apply, initial(net))


def test_kernels_shared_by_some_loops_and_not_by_others_are_refused():
    class Inner(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return nn.Dense(3)(x), None

    class Nested(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            shared = nn.scan(
                Inner,
                variable_broadcast="params",
                split_rngs={"params": False},
                length=2,
            )
            return shared()(x, None)[0], None

    class Outer(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            lift = nn.scan(
                Nested,
                variable_axes={"params": 0},
                split_rngs={"params": True},
                length=2,
            )
            return lift()(x, None)[0].mean((1, 2))

    with pytest.raises(InputError, match="some share its kernel and others do not"):
        run("l2_norm", Outer().apply, initial(Outer()))
