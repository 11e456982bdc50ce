"""README's examples run as they stand, and its table is what the code declares."""

import re
from pathlib import Path

import pytest
from absl import flags

from zcpt_jax.orders import ORDERS
from zcpt_jax.proxies import PROXIES
from zcpt_jax.spaces import SPACES

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
NORMS = {"running": "stored", "batch": "of the batch", "identity": "skipped"}


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
        assert proxy.higher_is_better


def test_every_flag_order_and_space_is_mentioned():
    from launch import search

    module = flags.FLAGS.flags_by_module_dict()[search.__name__]
    for name in [flag.name for flag in module]:
        assert f"`--{name}`" in README, name
    for name in (*ORDERS, *SPACES):
        assert f"`{name}`" in README, name
