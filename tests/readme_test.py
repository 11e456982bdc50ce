"""README's examples run as they stand, and its table is what the code declares."""

import re
from pathlib import Path

import pytest
from absl import flags

from zcpt_jax.proxies import PROXIES
from zcpt_jax.search.edge_orders import ORDERS
from zcpt_jax.search.operation_scores import OPERATION_SCORES
from zcpt_jax.spaces import SPACES

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
NORMS = {
    "running": "stored",
    "batch": "of the batch",
    "identity": "skipped",
    "mixed": "each its own",
}


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_examples_run_and_are_short(number, capsys):
    code = EXAMPLES[number]
    lines = [line for line in code.splitlines() if line.strip()]
    assert len(lines) < 20
    exec(compile(code, f"README example {number}", "exec"), {})
    assert re.search(r"without nor_conv_3x3|\|\+\|", capsys.readouterr().out)


def test_the_proxy_table_is_what_the_records_say():
    for proxy in PROXIES.values():
        yes = lambda flag: "yes" if flag else "no"  # noqa: E731
        row = [
            f"`{proxy.name}`",
            NORMS[proxy.norm],
            yes(proxy.needs_labels),
            yes(proxy.data_free),
            proxy.range,
        ]
        assert f"| {' | '.join(row)} |" in README
        lower = f"lower `{proxy.name}`" in README
        assert lower == (not proxy.higher_is_better)


def test_every_flag_order_and_space_is_mentioned():
    from launch import (
        _command,
        _devices,
        _flags,
        _recipe,
        correlate,
        evaluate,
        retrain,
        score,
        search,
        train_supernet,
    )

    shared = (_command, _devices, _flags, _recipe)
    commands = (correlate, evaluate, retrain, score, search, train_supernet)
    for module in (*shared, *commands):
        for flag in flags.FLAGS.flags_by_module_dict().get(module.__name__, ()):
            assert re.search(f"--{flag.name}[`= ]", README), flag.name
    for name in (*ORDERS, *SPACES, *OPERATION_SCORES):
        assert f"`{name}`" in README, name
