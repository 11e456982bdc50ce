"""Small programs compiled for a GPU and a TPU that are absent.

They run where ``make accelerators`` has installed what they need:
``.venv-accelerators/bin/python -m pytest tests/accelerators_test.py``.
"""

import importlib.util

import jax
import pytest

from benchmarks.compile_list import REDUCED, Check, list_checks
from benchmarks.compile_rows import explain, judge, render, run_check

CHIPS = ("h200", "h100", "v5e", "v4")
MISSING = [
    name
    for name in ("jax_cuda12_plugin", "libtpu")
    if importlib.util.find_spec(name) is None
]
compiles = pytest.mark.skipif(
    bool(MISSING), reason=f"{' and '.join(MISSING)} not installed: make accelerators"
)
STRIDED = Check("strided product", "h200", batch_size=4, limit=300)
FINE = {"transfers": 0, "programs": 1, "needed_bytes": 1, "usable_bytes": 2}


@compiles
def test_a_strided_slice_before_a_product_is_why_gpus_convolve():
    """XLA's Triton tiling aborts on the product; the form of the record compiles."""
    found = run_check(STRIDED)
    assert found["result"] == "ok"
    product = run_check(Check(**{**vars(STRIDED), "options": {"product": True}}))
    if product["result"] == "ok":
        assert jax.__version_info__ >= (0, 12)
        pytest.xfail("this XLA compiles the product: GPUs could multiply again")
    assert product["result"].startswith("aborted by signal 6"), product["result"]


@compiles
@pytest.mark.parametrize("chip", ["h200", "v5e"])
def test_a_small_darts_supernet_compiles(chip):
    check = Check(
        "scores",
        chip,
        "darts_s2",
        "nwot",
        "supernet",
        options=REDUCED["darts_s2"],
        batch_size=4,
        image_size=16,
        programs=2,
        limit=600,
    )
    found = run_check(check)
    assert found["result"] == "ok"
    assert found["chunk"] > 1  # masks are scored side by side
    assert found["programs"] == 2
    assert ("mask_ms" in found) == (chip == "v5e")


@compiles
def test_fewer_masks_are_put_together_where_memory_is_scarce():
    check = Check(
        "scores",
        "h200",
        "nasbench201",
        "nwot",
        "supernet",
        options=REDUCED["nasbench201"],
        batch_size=4,
        image_size=8,
        bytes_limit=1000,
        limit=600,
    )
    found = run_check(check)
    assert found["tried"] == [5, 1]
    assert found["result"] == "needs 0.0 GB, 0.0 GB can be used"


@compiles
def test_a_step_of_training_compiles():
    check = Check(
        "training",
        "h200",
        "nasbench201",
        options=REDUCED["nasbench201"],
        genotype="|nor_conv_1x1~0|+|nor_conv_3x3~0|none~1|+"
        "|skip_connect~0|none~1|avg_pool_3x3~2|",
        batch_size=4,
        image_size=16,
        limit=600,
    )
    assert run_check(check)["result"] == "ok"


def test_every_space_and_proxy_is_compiled_for_a_gpu_and_a_tpu():
    checks = list_checks("reduced", CHIPS)
    assert len({check.name for check in checks}) == len(checks)
    for chip in ("h200", "v5e"):
        scored = {(c.space, c.proxy) for c in checks if c.chip == chip and c.proxy}
        proxies = ("nwot", "log_synflow", "snip", "jacob_cov", "zico")
        assert scored == {(space, proxy) for space in REDUCED for proxy in proxies}
    usual = list_checks("default", CHIPS)
    assert set(REDUCED) == {check.space for check in usual if check.proxy == "nwot"}
    assert {check.name for check in usual} < {check.name for check in checks}
    full = [check for check in list_checks("all", CHIPS) if check.kind == "scores"]
    assert not any(check.options for check in full)
    assert {check.chip for check in list_checks("all", ["v4"])} == {"v4"}


@pytest.mark.parametrize(
    ("found", "result"),
    [
        (FINE, "ok"),
        ({**FINE, "transfers": 2}, "2 transfers between host and device"),
        (
            {**FINE, "needed_bytes": 3e9, "usable_bytes": 2e9},
            "needs 3.0 GB, 2.0 GB can be used",
        ),
        ({**FINE, "programs": 3}, "3 programs, expected 2"),
        ({"error": "aborted by signal 6"}, "aborted by signal 6"),
    ],
)
def test_what_makes_a_check_fail(found, result):
    check = Check("scores", "h200", "darts", "nwot", "supernet", programs=2)
    assert judge(check, found) == result
    assert render({"what": check.what, **found, "result": result}).endswith(result)


def test_why_a_child_failed_fits_into_a_line():
    aborted = "F1 tiling.cc:2] Check failed: a == b (1 vs. 2)\n*** stack\n"
    said = "aborted by signal 6: Check failed: a == b (1 vs. 2)"
    assert explain(-6, aborted) == said
    refused = "Traceback\nMemoryError: too large\n----\nhidden frames\n"
    assert explain(1, refused) == "refused: MemoryError: too large"


def test_transfers_are_counted_in_the_text_of_a_program():
    from benchmarks.compile_child import count_transfers

    text = """
      %a = f32[2]{0} add(%x, %y), metadata={op_name="send(it)"}
      %b = ((f32[2]{0}), token[]) infeed(%token)
      %c = (f32[2]{0}, u32[], token[]) send(%a, %token), channel_id=1
      %d = f32[2]{0} custom-call(%a), custom_call_target="__cudnn$convForward"
      %e = f32[2]{0} custom-call(%a), custom_call_target="xla_ffi_python_gpu_callback"
      %f = f32[2]{0:S(1)} copy(%e)
    """
    assert count_transfers(text) == 3
