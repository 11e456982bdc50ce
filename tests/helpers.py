"""What tests share: small networks, batches, tolerances."""

import os
import shutil
import socket
import subprocess
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from launch import _command
from tests import compiling
from zcpt_jax import masks as mask_algebra
from zcpt_jax.lowering import CPU
from zcpt_jax.nn import capture
from zcpt_jax.nn.size import count_flops, count_params
from zcpt_jax.scoring import Execution
from zcpt_jax.search import SearchConfig, zero_cost_pt
from zcpt_jax.search.budgets import flop_costs, param_costs
from zcpt_jax.spaces import get_space
from zcpt_jax.stopwatch import Stopwatch
from zcpt_jax.types import Batch

CHUNK_RTOL = 1e-5
"""Stated in Scorer: what a score may differ by between chunk sizes.

Forward proxies are equal bit for bit on CPU; gradients are summed in another order.
"""


QUICK_TO_COMPILE = CPU.replace(depthwise="grouped", pooling="windows")
"""XLA's own windows: gradients of shifted ones take minutes to compile."""


SLOW_TO_COMPILE = {
    "az_expressivity",
    "az_progressivity",
    "az_trainability",
    "meco",
    "ntk_cond",
    "ntk_trace",
    "zen",
}


def search(space, proxy, dataset, *, form=None, mesh=None, stopwatch=None, **options):
    """A search with settings by their names, beside the other arguments."""
    others = {"evidence", "memory", "progress"} & set(options)
    given = {name: options.pop(name) for name in others}
    execution = Execution(form, mesh, stopwatch or Stopwatch())
    config = SearchConfig(**options)
    return zero_cost_pt(space, proxy, dataset, config, execution=execution, **given)


def proxies(all_by_default=False):
    """Names of the proxies that are no ensembles, the slow ones marked so."""
    from zcpt_jax.proxies import PROXIES

    names = [name for name, proxy in PROXIES.items() if not proxy.members]
    slow = set() if all_by_default else SLOW_TO_COMPILE
    return [
        pytest.param(name, marks=pytest.mark.slow) if name in slow else name
        for name in names
    ]


def tiny_space():
    return get_space("nasbench201", channels=4, cells_per_stage=1)


def batch(size=8, image_size=16, classes=10, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(size, image_size, image_size, 3)).astype(np.float32)
    return Batch(images, rng.integers(classes, size=size).astype(np.int32))


def tiny_supernet(image_size=16):
    space = tiny_space()
    net = space.supernet(10)
    shape = (image_size, image_size, 3)
    variables = space.init_variables(net, jax.random.key(0), shape)
    return space, net, variables


def all_removals(space):
    """Every single-operation perturbation of the undecided masks, [K, E, O]."""
    masks = space.init_masks()
    decisions = [d for p in space.phases() for t in p.tracks for d in t]
    return mask_algebra.stack([mask_algebra.removals(masks, d) for d in decisions])


def agreement(net):
    """Logits, and NWOT's kernel: on how many ReLU inputs two images agree."""

    @jax.jit
    def run(variables, images, masks):
        kernel = []

        def add(z, live, dead):
            c = (z > 0).reshape(len(z), 1, -1)
            same = (c == c.swapaxes(0, 1)).sum(-1)
            kernel.append(live * same + dead * c.shape[-1])

        logits = capture.forward(
            net.apply, variables, images, masks, norm="running", on_relu=add
        )
        return logits, sum(kernel)

    return run


def costs_and_counts(space, genotypes, image_shape):
    """Parameters and multiply-adds of genotypes: as budgets say, as networks have."""
    costs = [count(space, 10, image_shape) for count in (param_costs, flop_costs)]
    by_owner = [[cost.of(space.masks_of(g)) for cost in costs] for g in genotypes]
    networks = [space.network(genotype, 10) for genotype in genotypes]
    by_network = [
        [count(net, image_shape) for count in (count_params, count_flops)]
        for net in networks
    ]
    return by_owner, by_network


class PlainNet(nn.Module):
    """A network written by somebody who never heard of this library."""

    classes: int = 5

    @nn.compact
    def __call__(self, x, mask):
        x = nn.Conv(6, (3, 3), use_bias=False)(x)
        x = nn.BatchNorm(use_running_average=False)(x)
        a = nn.relu(nn.Conv(6, (3, 3), use_bias=False)(x))
        b = nn.relu6(nn.Conv(6, (1, 1), use_bias=False)(x))
        x = mask[0] * a + mask[1] * b
        return nn.Dense(self.classes)(jnp.maximum(x, 0).mean((1, 2)))


def plain_net(data):
    net = PlainNet()
    mask = jnp.full((2,), 0.5)
    return net, net.init(jax.random.key(1), jnp.asarray(data.images), mask), mask


def golden_files(config):
    """The files of --golden_dir; where there is no such folder, those kept here."""
    folder = Path(config.getoption("golden_dir"))
    here = Path(__file__).parent / "golden"
    return sorted((folder if folder.is_dir() else here).glob("*.npz"))


def part(golden, kind):
    """The arrays of a golden file whose names begin with ``kind``, without it."""
    return {k.removeprefix(kind): v for k, v in golden.items() if k.startswith(kind)}


def rng(seed=0):
    return np.random.default_rng(seed)


def write_images(root, per_class, shape=(20, 30)):
    for name, count in per_class.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng(i).integers(0, 256, (*shape, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


def capture_command(capsys, module, *args):
    """Runs a command here; its exit message, None for success, and what it wrote."""
    message = None
    with flagsaver.flagsaver():
        flags.FLAGS(["command", *args])
        try:
            _command.without_traceback(module.main)(["command"])
        except SystemExit as error:
            message = error.code
    return message, capsys.readouterr()


def run_command(capsys, module, *args):
    """The same, of what it wrote only what it printed."""
    message, written = capture_command(capsys, module, *args)
    return message, written.out


def on_cpu(devices, cache=None):
    """The environment of a process with so many simulated devices.

    Commands in processes of their own run with it on any machine: a TPU serves one
    process only, a GPU's memory is taken by the first, and without JAX_PLATFORMS they
    refuse to run where the plugin of an accelerator is installed in vain. They compile
    as this process does, and keep it in ``cache``, or where this process does.
    """
    simulated = f"--xla_force_host_platform_device_count={devices}"
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": " ".join([simulated, *compiling.flags()]),
        "JAX_COMPILATION_CACHE_DIR": str(cache or compilation_cache()),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def compilation_cache():
    return jax.config.values["jax_compilation_cache_dir"]


def killed(folder):
    """The environment of a process that is to be killed, as it may write an entry.

    It finds what others have compiled, and leaves its own in ``folder``.
    """
    return on_cpu(1, shutil.copytree(compilation_cache(), folder / "cache"))


def run_in_two_processes(command, code=0, **options):
    """Runs a command in two processes of four devices; what each of them printed.

    Both must exit with ``code``.
    """
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    together = [*command, f"--coordinator=localhost:{port}", "--num_processes=2"]
    started = [
        subprocess.Popen(
            [*together, f"--process_id={number}"],
            env=on_cpu(4),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        for number in range(2)
    ]
    printed = [process.communicate(timeout=240) for process in started]
    assert [process.returncode for process in started] == [code, code], printed
    return printed
