"""The documentation's examples run as they stand, and its lists are complete."""

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
PAGES = {
    path.relative_to(ROOT / "docs").as_posix(): path.read_text()
    for path in sorted((ROOT / "docs").rglob("*.md"))
}
MANUAL = "\n".join(PAGES.values())
NORMS = {
    "running": "stored",
    "batch": "of the batch",
    "identity": "skipped",
    "mixed": "each its own",
}
FOUND = r"without nor_conv_3x3|\|\+\|"
PRINTED = {  # page to what its examples print, one pattern each
    "own.md": [
        FOUND,
        FOUND,
        r"^3 \(16, 16, 3\)$",
        r"^\[(-?\d+\.\d+ *){3}\]$",
        r"(?m)^log_synflow +\d+\.\d+$",
        r"^\[(-?\d+\.\d+ *){4}\]$",
        r"^$",
        r"nwot can spare least: (attention|mlp) [12]",
    ],
    "guide/search.md": [FOUND],
}


def examples(text):
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def lines(code):
    return [line for line in code.splitlines() if line.strip()]


def run(code, scope, capsys):
    capsys.readouterr()
    exec(compile(code, "an example of the documentation", "exec"), scope)
    return capsys.readouterr().out.strip()


@pytest.mark.parametrize("number", range(len(examples(README))))
def test_the_examples_of_readme_run_and_are_short(number, capsys):
    code = examples(README)[number]
    assert len(lines(code)) < 20
    assert re.search(FOUND, run(code, {}, capsys))


@pytest.mark.parametrize("page", PRINTED)
def test_the_examples_of_a_page_run_one_after_another(
    page, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    codes = examples(PAGES[page])
    assert len(codes) == len(PRINTED[page])
    scope = {"__name__": "__main__"}
    for code, pattern in zip(codes, PRINTED[page], strict=True):
        assert len(lines(code)) < 20
        assert re.search(pattern, run(code, scope, capsys)), code


def test_every_page_with_examples_is_run():
    assert {page for page, text in PAGES.items() if examples(text)} == set(PRINTED)


def test_readme_is_short():
    assert len(README.splitlines()) < 150


def test_the_proxy_table_is_what_the_records_say():
    text = PAGES["guide/proxies.md"]
    for proxy in PROXIES.values():
        yes = lambda flag: "yes" if flag else "no"  # noqa: E731
        row = [
            f"`{proxy.name}`",
            NORMS[proxy.norm],
            yes(proxy.needs_labels),
            yes(proxy.data_free),
            proxy.range,
        ]
        assert f"| {' | '.join(row)} |" in text
        lower = f"lower `{proxy.name}`" in text
        assert lower == (not proxy.higher_is_better)


def test_every_flag_order_and_space_is_mentioned():
    from launch import (
        _command,
        _compilation_cache,
        _devices,
        _flags,
        _lowering,
        _recipe,
        convert_table,
        correlate,
        evaluate,
        retrain,
        score,
        search,
        train_supernet,
    )

    shared = (_command, _compilation_cache, _devices, _flags, _lowering, _recipe)
    commands = {
        "convert_table": convert_table,
        "correlate": correlate,
        "evaluate": evaluate,
        "retrain": retrain,
        "score": score,
        "search": search,
        "train_supernet": train_supernet,
    }

    def mentioned(text, name):
        return re.search(f"--{name}[`= ]", text)

    defined = flags.FLAGS.flags_by_module_dict()
    for module in shared:
        for flag in defined.get(module.__name__, ()):
            assert mentioned(MANUAL, flag.name), flag.name
    for command, module in commands.items():
        page = PAGES[f"guide/{command}.md"]
        for flag in defined.get(module.__name__, ()):
            assert mentioned(page, flag.name), (command, flag.name)
    # Its flags cannot be defined beside those of the others.
    source = (ROOT / "launch" / "prepare_data.py").read_text()
    for name in re.findall(r'DEFINE_\w+\(\s*"(\w+)"', source):
        assert mentioned(PAGES["guide/prepare_data.md"], name), name
    for name in (*ORDERS, *SPACES, *OPERATION_SCORES):
        assert f"`{name}`" in MANUAL, name
    for name in SPACES:
        assert f"`{name}`" in PAGES["guide/spaces.md"], name
    for name in OPERATION_SCORES:
        assert f"`{name}`" in PAGES["study.md"], name


FILES = [
    ROOT / name for name in ("README.md", "WORKSPACE.md", "CONTRIBUTING.md")
] + sorted((ROOT / "docs").rglob("*.md"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        file, _, anchor = target.partition("#")
        if "://" in target:
            continue
        found = (path.parent / file).resolve() if file else path
        assert found.exists(), target
        if anchor and not anchor.startswith("zcpt_jax"):  # mkdocs makes those
            assert anchor in anchors(found), target


def anchors(path):
    titles = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", t).lower().replace(" ", "-") for t in titles}


def test_every_flagfile_that_is_named_exists():
    there = {path.stem for path in (ROOT / "launch" / "flagfiles").glob("*.flags")}
    text = README + MANUAL
    named = set(re.findall(r"--flagfile=(?:launch/flagfiles/)?(\w+)", text))
    assert named - {"NAME", "launch"} <= there
