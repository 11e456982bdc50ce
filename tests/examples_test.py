"""The notebooks in examples/ run from top to bottom."""

import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "examples"
SAYS = {
    "search": ["found |", "parameters", "edge 1<-0 keeps"],
    "compose": ["without conv3x3", "Spearman", "more weight helps", "edge 3: conv3x3"],
}


def cells(name):
    notebook = json.loads((FOLDER / f"{name}.ipynb").read_text())
    assert notebook["nbformat"] == 4
    return [c for c in notebook["cells"] if c["cell_type"] == "code"]


def test_every_notebook_is_run():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(SAYS)


@pytest.mark.parametrize("name", SAYS)
def test_its_cells_run_in_order(name, capsys):
    scope = {"__name__": "__main__"}
    for number, cell in enumerate(cells(name), 1):
        source = "".join(cell["source"])
        exec(compile(source, f"cell {number} of {name}.ipynb", "exec"), scope)
    printed = capsys.readouterr().out
    assert all(text in printed for text in SAYS[name])
    shown = "".join(line for c in cells(name) for line in stdout(c))
    assert all(text in shown for text in SAYS[name])  # as it is stored


def stdout(cell):
    return [
        line
        for output in cell["outputs"]
        if output.get("name") == "stdout"
        for line in output["text"]
    ]


def test_the_search_shows_a_picture():
    stored = [o for c in cells("search") for o in c["outputs"] if "data" in o]
    assert any("<svg" in "".join(o["data"]["image/svg+xml"]) for o in stored)
