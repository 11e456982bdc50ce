import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from tests import helpers
from zcpt_jax import sharding
from zcpt_jax.data import load_dataset
from zcpt_jax.lowering import CPU, GPU
from zcpt_jax.proxies import PROXIES
from zcpt_jax.scoring import Evaluator, Execution, ScoringConfig, _pending
from zcpt_jax.scoring.scorer import Scorer
from zcpt_jax.types import InputError

ROOT = Path(__file__).resolve().parents[1]
DATA = helpers.batch()
SEARCH = [
    sys.executable,
    "launch/search.py",
    "--space_options=channels=4,cells_per_stage=1",
    "--num_proposals=3",
    "--num_validation_batches=3",
    "--batch_size=8",
    "--initialisations=each",
]


def lines(folder, name):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


@pytest.mark.optimised
@pytest.mark.cpu_only
@pytest.mark.parametrize(
    ("name", "chunk"),
    [
        ("nwot", 1),
        ("nwot", 2),
        ("snip", 1),
        pytest.param("snip", 2, marks=pytest.mark.slow),
    ],
)
def test_scores_are_the_same_on_any_number_of_devices(name, chunk):
    space, net, variables = helpers.tiny_supernet()
    masks = {"cell": helpers.all_removals(space)["cell"][:11]}
    fn = PROXIES[name].score
    one = Scorer(fn, net.apply, form=CPU.replace(chunk=chunk))(variables, DATA, masks)
    for count in (3, 8):
        mesh = sharding.make_mesh(count)
        scorer = Scorer(fn, net.apply, form=CPU.replace(chunk=chunk), mesh=mesh)
        scores = scorer(variables, DATA, masks)
        assert scores.shape == (11,)
        if chunk == 1:
            np.testing.assert_array_equal(scores, one)
        np.testing.assert_allclose(scores, one, rtol=helpers.CHUNK_RTOL)


@pytest.mark.cpu_only
@pytest.mark.parametrize("form", [CPU, GPU.replace(chunk=4)], ids=["cpu", "gpu"])
def test_the_work_of_a_step_is_split_evenly(monkeypatch, form):
    work = {device: 0 for device in jax.devices()}
    compile_once = Scorer._compile

    def counting(self, args):
        compiled, size = compile_once(self, args)

        def run(resident, masks, batches, weights, counts):
            for shard, count in zip(
                masks["cell"].addressable_shards,
                counts.addressable_shards,
                strict=True,
            ):
                groups = min(int(count.data[0]), len(shard.data))
                work[shard.device] += groups * shard.data.shape[1]
            assert all(
                len(leaf.sharding.device_set) == 8 and leaf.is_fully_replicated
                for leaf in jax.tree.leaves(resident)
            )
            return compiled(resident, masks, batches, weights, counts)

        return run, size

    monkeypatch.setattr(Scorer, "_compile", counting)
    space, net, variables = helpers.tiny_supernet()
    masks = {"cell": np.tile(helpers.all_removals(space)["cell"], (2, 1, 1))}
    scorer = Scorer(
        lambda apply_fn, v, b, m: m["cell"].sum(),
        net.apply,
        form=form,
        mesh=sharding.make_mesh(),
        forward_only=True,
    )
    scores = scorer(variables, DATA, masks)
    np.testing.assert_allclose(scores, masks["cell"].sum(axis=(1, 2)), rtol=1e-6)
    # 60 masks over 8 devices: 7 or 8 each, or one or two groups of four.
    assert set(work.values()) == ({7, 8} if form is CPU else {4, 8})
    assert sum(work.values()) == 60


@pytest.mark.optimised
@pytest.mark.cpu_only
@pytest.mark.parametrize("form", [CPU, GPU], ids=["cpu", "gpu"])
@pytest.mark.parametrize(
    "initialisations", [pytest.param("one", marks=pytest.mark.slow), "each"]
)
def test_validation_is_shared_out_too(form, initialisations):
    space, data = helpers.tiny_space(), load_dataset("digits")
    config = ScoringConfig(batch_size=8, seed=3, initialisations=initialisations)
    genotype = "|skip_connect~0|+|nor_conv_3x3~0|none~1|+|none~0|nor_conv_1x1~1|none~2|"
    masks = [space.masks_of(genotype)]
    found = [
        Evaluator(
            space, PROXIES["nwot"], data, config, execution=Execution(form, mesh)
        ).score_networks([genotype], masks, 0, 5)
        for mesh in (None, sharding.make_mesh())
    ]
    assert found[0].shape == (1, 5) and len(set(found[0][0])) == 5
    np.testing.assert_allclose(*found, rtol=0 if form is CPU else 1e-6)


@pytest.mark.optimised
@pytest.mark.cpu_only
def test_a_search_finds_the_same_on_one_device_and_on_eight():
    found = [
        helpers.search(
            helpers.tiny_space(),
            PROXIES["snip"],
            load_dataset("digits"),
            num_proposals=2,
            num_validation_batches=3,
            batch_size=8,
            mesh=mesh,
        )
        for mesh in (None, sharding.make_mesh())
    ]
    assert found[0].proposals == found[1].proposals
    assert found[0].genotype == found[1].genotype


@pytest.mark.parametrize(
    ("own", "others", "expected"),
    [
        (None, 0, None),
        (None, 1, "RESOURCE_EXHAUSTED: in another process"),
        ("RESOURCE_EXHAUSTED: 9 GB", 0, "RESOURCE_EXHAUSTED: 9 GB"),
    ],
)
def test_processes_agree_on_scoring_again(monkeypatch, own, others, expected):
    """All take part in the same exchange, so that none waits for ever."""
    exchanged = []

    def gather(status):
        exchanged.append(int(status))
        return np.array([status, others])

    monkeypatch.setattr(_pending.multihost_utils, "process_allgather", gather)
    error = None if own is None else jax.errors.JaxRuntimeError(own)
    found = _pending._agreed(error, processes=2)
    assert len(exchanged) == 1
    assert (found is None) if expected is None else str(found) == expected


def test_what_fails_in_one_process_ends_all(monkeypatch):
    failed = _pending._FAILED
    monkeypatch.setattr(
        _pending.multihost_utils, "process_allgather", lambda s: np.array([s, failed])
    )
    with pytest.raises(jax.errors.JaxRuntimeError, match="another process failed"):
        _pending._agreed(None, processes=2)
    lost = jax.errors.JaxRuntimeError("INTERNAL: lost")
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL: lost"):
        _pending._agreed(lost, processes=2)


@pytest.mark.cpu_only
@pytest.mark.parametrize("count", [0, 9])
def test_a_number_of_devices_that_is_not_there(count):
    with pytest.raises(InputError, match=f"from 1 to 8, .*cpu; got {count}"):
        sharding.make_mesh(count)


@pytest.mark.optimised
def test_two_processes_of_four_devices_find_what_one_finds(tmp_path):
    alone = [*SEARCH, f"--output_dir={tmp_path / 'alone'}"]
    subprocess.run(
        alone, cwd=ROOT, env=helpers.on_cpu(1), check=True, capture_output=True
    )
    # Begun by one process, so that the other must be told of its progress.
    both = tmp_path / "both"
    both.mkdir()
    for name in ("config.json", "decisions.jsonl"):
        text = (tmp_path / "alone" / name).read_text()
        text = "".join(text.splitlines(True)[:7]) if name.endswith("l") else text
        (both / name).write_text(text)
    command = [*SEARCH, f"--output_dir={both}"]
    outputs = helpers.run_in_two_processes(command, cwd=ROOT)
    assert "found" in outputs[0][0] and "found" not in outputs[1][0]
    for name in ("decisions.jsonl", "validation.jsonl"):
        assert lines(both, name) == lines(tmp_path / "alone", name)
    assert json.loads((both / "genotype.json").read_text()) == json.loads(
        (tmp_path / "alone" / "genotype.json").read_text()
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--devices=3"], "devices must be from 1 to 1"),
        (["--process_id=0"], "need --coordinator"),
        (["--coordinator=localhost:1"], "needs --num_processes and --process_id"),
    ],
)
def test_flags_that_do_not_fit(tmp_path, flags, message):
    done = subprocess.run(
        [*SEARCH, f"--output_dir={tmp_path / 'run'}", *flags],
        cwd=ROOT,
        env=helpers.on_cpu(1),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
