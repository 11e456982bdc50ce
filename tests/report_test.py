import json
import math
import re
from html.parser import HTMLParser

import pytest

from zcpt_jax.io.colours import PALETTE, assign_colours, space_operations
from zcpt_jax.io.genotype_svg import draw
from zcpt_jax.io.search_page import ProposalRow, Report, render
from zcpt_jax.io.timings import Timings
from zcpt_jax.scoring.scorer import Program
from zcpt_jax.spaces import get_space
from zcpt_jax.tables import TableRank
from zcpt_jax.training._curves import draw_curves
from zcpt_jax.training._export import NetworkFile
from zcpt_jax.training._report import write_report
from zcpt_jax.types import Drawing

pytestmark = pytest.mark.unit

GENOTYPE = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|avg_pool_3x3~2|"


def decision(proposal, step, kept, scores):
    return {
        "proposal": proposal,
        "step": step,
        "phase": "operations",
        "edge": "1<-0",
        "kept": [kept],
        "candidates": ["a", "b<"],
        "scores": {"1<-0": scores},
    }


DARTS = get_space("darts")
# Skip connections come first in the normal cell and last in the reduction cell.
CELLS = json.dumps(
    {
        "normal": [["skip_connect", 0], ["sep_conv_3x3", 1]]
        + [["skip_connect", 0], ["skip_connect", 1]] * 3,
        "normal_concat": [2, 3, 4, 5],
        "reduce": [["avg_pool_3x3", 0], ["dil_conv_5x5", 1]]
        + [["max_pool_3x3", 0], ["skip_connect", 1]] * 3,
        "reduce_concat": [2, 3, 4, 5],
    }
)
SEVEN = (
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
# By the places of the sorted names in the palette.
CLASSES = {
    "avg_pool_3x3": "op0",
    "dil_conv_3x3": "op1",
    "dil_conv_5x5": "op2",
    "max_pool_3x3": "op3",
    "sep_conv_3x3": "op4",
    "sep_conv_5x5": "op5",
    "skip_connect": "op6",
}


def page(**changes):
    fields = {
        "title": "A <cell>",
        "lead": "lead",
        "genotype": GENOTYPE,
        "forms": {"another form": "G<1>"},
        "operations": space_operations(get_space("nasbench201")),
        "drawings": get_space("nasbench201").drawings(GENOTYPE),
        "facts": (("parameters", "1,234"),),
        "table_ranks": (TableRank("cifar10_test", 94.25, 0.12, 7, 15625, 87.0),),
        "training": "python train.py <cell>",
        "proposals": [
            ProposalRow(GENOTYPE, 3.5, 94.25),
            ProposalRow("other", -math.inf, 90.0),
        ],
        "decisions": [
            decision(0, 1, "a", [1.25, math.nan]),
            decision(1, 1, "b<", [2.0, -math.inf]),
            {**decision(0, 0, "", []), "edge": None},
        ],
        "explanation": "What <it> is",
        "low_is_strong": True,
        "timings": Timings(
            {"data": 1.0, "compile": 3.0},
            2.0,
            "1 gpu device (<H200>)",
            (Program("nwot, supernet", 5, 1.5, 0.5, 3 * 10**9),),
        ),
        "config": {"seed": 0},
        "environment": {"command": "python <x>"},
    }
    return render(Report(**{**fields, **changes}))


def darts_page():
    seven = {
        **decision(0, 1, "skip_connect", [float(k) for k in range(7)]),
        "candidates": list(SEVEN),
    }
    return page(
        genotype=CELLS,
        operations=space_operations(DARTS),
        drawings=DARTS.drawings(CELLS),
        proposals=[ProposalRow(CELLS, 3.5, None, ("skip_connect", "dil_conv_5x5"))],
        decisions=[seven],
    )


def training_page(folder, space, genotype, epochs=1):
    (folder / "config.json").write_text('{"config": {"seed": "<0>"}, "steps": 9}')
    lines = [
        {"step": 9 * n, "epoch": n, "loss": 2.0 / n, "top1": 10.0 * n}
        | {"learning_rate": 0.1, "test_loss": 2.5, "test_top1": 12.5}
        for n in range(1, epochs + 1)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text)
    record = NetworkFile(space.name, {}, genotype, "a<b", 10, 32, (), ())
    write_report(folder, record, space, {"test": "top-1 <12.50> %"})
    return (folder / "report.html").read_text()


def colours_in(text):
    """Pairs of operation and class: in drawings, beside squares, in their hints."""
    drawn = re.findall(r'<text class="(?:halo )?(op\d+)"[^>]*>([^<]+)</text>', text)
    beside = re.findall(r'<span class="chip (op\d+)"></span>([^/]+)</span>', text)
    hints = re.findall(r'<span class="chip (op\d+)" title="([^"]+)"', text)
    clean = [(name.replace("<wbr>", ""), c) for c, name in beside]
    return (
        {(name, c) for c, name in drawn},
        set(clean),
        {(name, c) for c, name in hints},
    )


class Balance(HTMLParser):
    """Checks that elements close in order; collects what a browser would load."""

    VOID = {"meta", "link", "img", "br", "wbr"}

    def __init__(self):
        super().__init__()
        self.open, self.loads, self.links, self.ids = [], [], [], []

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in ("src", "href"):
                (self.links if value.startswith("#") else self.loads).append(value)
            if name == "id":
                self.ids.append(value)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_self_contained_and_escaped():
    text = page()
    parser = Balance()
    parser.feed(text)
    assert parser.open == [] and parser.loads == []
    assert "http" not in text.replace("http-equiv", "")
    assert "A &lt;cell&gt;" in text and "python &lt;x&gt;" in text and "b&lt;" in text
    for part in (
        "94.25 %",
        "rank 7 of 15,625",
        "regret 0.12",
        "1,234",
        "together 4.0 s",
    ):
        assert part in text


def test_heat_maps_mark_what_stays_and_survive_what_is_not_finite():
    text = page()
    cells = re.findall(
        r'<td class="number( kept)?" style="--share:([^"]*)">([^<]*)</td>', text
    )
    assert cells == [
        (" kept", "0.75", "1.25"),
        ("", "0.00", "nan"),
        ("", "0.75", "2"),
        (" kept", "0.00", "-inf"),
    ]
    assert text.count("<h3>Proposal ") == 2


def test_the_strongest_colour_is_the_best_whichever_way_scores_go():
    decisions = [decision(0, 1, "a", [1.0, 3.0])]
    for low, strong in ((True, ["0.75", "0.00"]), (False, ["0.00", "0.75"])):
        text = page(decisions=decisions, low_is_strong=low)
        assert re.findall(r'style="--share:([\d.]+)"', text) == strong
    assert "What &lt;it&gt; is; the one that stays is framed" in page()


def test_a_page_without_table_has_no_accuracies():
    rows = [ProposalRow(GENOTYPE, 3.5, None)]
    text = page(table_ranks=(), proposals=rows)
    assert " %</td>" not in text and "regret" not in text


def test_the_drawing_shows_every_edge_and_mutes_none():
    svg = draw(get_space("nasbench201").drawings(GENOTYPE)[0])
    assert svg.count('class="arrow ') == 6 and svg.count('class="edge muted"') == 3
    assert svg.count("<rect") == 4
    for op in ("nor_conv_3x3", "skip_connect", "avg_pool_3x3"):
        assert svg.count(f">{op}</text>") == 1


def test_an_operation_has_one_colour_in_drawings_tables_and_both_reports(tmp_path):
    drawn, beside, hints = colours_in(darts_page())
    used = {"skip_connect", "sep_conv_3x3", "avg_pool_3x3", "dil_conv_5x5"}
    used |= {"max_pool_3x3"}
    assert drawn == {(name, CLASSES[name]) for name in used}
    assert beside == set(CLASSES.items())
    assert hints == {("skip_connect", "op6"), ("dil_conv_5x5", "op2")}
    trained, _, _ = colours_in(training_page(tmp_path, DARTS, CELLS))
    assert trained == drawn
    for number, (light, dark) in enumerate(PALETTE):
        assert f"--op{number}: {light};" in darts_page()
        assert f"--op{number}: {dark};" in darts_page()


def test_an_operation_that_drawings_mute_is_muted_in_tables():
    text = page(
        decisions=[
            {**decision(0, 1, "a", [1.0, 2.0]), "candidates": ["none", "avg_pool_3x3"]}
        ]
    )
    assert '<span class="chip muted"></span>none</span></th>' in text
    assert '<span class="chip op0"></span>avg_<wbr>pool_<wbr>3x3</span></th>' in text
    assert (
        '<span class="chip'
        not in page(operations=frozenset(), drawings=())[
            text.index("<h2>Decisions") : text.index("<h2>Wall")
        ]
    )


def test_more_operations_than_colours_all_have_one():
    names = [f"op_{number:02}" for number in range(len(PALETTE) + 2)]
    colours = assign_colours(names, ())
    assert [colours[name] for name in names] == [
        *(f"op{number}" for number in range(len(PALETTE))),
        "op0",
        "op1",
    ]


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [
        p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts
    ]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_colours_are_legible_in_a_light_and_in_a_dark_scheme():
    text = darts_page()
    assert "@media (prefers-color-scheme: dark)" in text
    for scheme in (0, 1):
        back = re.findall(r"--back: (#\w+);", text)[scheme]
        back = "#ffffff" if back == "#fff" else back
        assert len({pair[scheme] for pair in PALETTE}) == len(PALETTE)
        assert min(contrast(pair[scheme], back) for pair in PALETTE) >= 4.5
        for name in ("ink", "soft", "link", "muted"):
            colour = re.findall(rf"--{name}: (#\w+);", text)[scheme]
            assert contrast(colour, back) >= 4.5, name
    assert "#" not in "".join(draw(drawing) for drawing in DARTS.drawings(CELLS))


def test_a_decision_shows_all_its_candidates():
    text = darts_page()
    table = text[text.index("<table class=heat>") :]
    table = table[: table.index("</table>")]
    heads = re.findall(r'<span class="chip op\d"></span>(.*?)</span></th>', table)
    assert [head.replace("<wbr>", "") for head in heads] == list(SEVEN)
    key = text[text.index("<div class=keys>") : text.index("<table")]
    assert re.findall(r"</span>([^<]+)</span>", key) == sorted(SEVEN)
    assert re.findall(r">([\d.]+)</td>", table) == [str(k) for k in range(7)]


def test_proposals_and_their_decisions_link_to_each_other():
    parser = Balance()
    parser.feed(page())
    assert parser.links == [
        "#decisions-0",
        "#decisions-1",
        "#proposal-0",
        "#proposal-1",
    ]
    assert {link[1:] for link in parser.links} == set(parser.ids)
    assert len(parser.ids) == len(set(parser.ids))
    undecided = Balance()
    undecided.feed(page(decisions=[]))
    assert undecided.links == []


def test_a_dropped_proposal_says_so():
    rows = [ProposalRow(GENOTYPE, 3.5, 94.25), ProposalRow(None, math.nan, None)]
    text = page(proposals=rows)
    row = re.search(r'<tr id=proposal-1 class="dropped">(.*?)</tr>', text)[1]
    assert "dropped: at one of its decisions no score was a usable number" in row
    assert 'href="#decisions-1"' in row and "nan" not in row and "None" not in row
    assert "Proposal 1, dropped at the last of these decisions" in text
    assert "Proposal 0<" in text


def test_genotypes_are_folded_below_the_picture_and_can_be_copied():
    text = page()
    picture, fold = text.index("</figure>"), text.index("<details>")
    assert picture < fold < text.index("nor_conv_3x3~0")
    folded = text[fold : text.index("</details>", fold)]
    copy = "<button class=copy hidden>copy</button>"
    assert f"<code>{GENOTYPE}</code>{copy}" in folded
    assert f"another form: <code>G&lt;1&gt;</code>{copy}" in folded
    assert text.count("<script>") == 1 and "figcaption" not in text


def test_several_drawings_have_titles_and_one_has_none():
    assert "<h3>normal cell</h3><figure>" in darts_page()
    assert "<h3>cell</h3>" not in page()
    drawings = [Drawing(f"<{n}>", {"a": (0, 0)}, ()) for n in range(2)]
    text = page(drawings=drawings)
    assert "<h3>&lt;0&gt;</h3>" in text and 'aria-label="&lt;1&gt;"' in text


@pytest.mark.parametrize(
    ("space", "genotype"),
    [
        ("darts", CELLS),
        ("nasbench201", GENOTYPE),
        ("nasbench_macro", "01201201"),
        ("mobilenet", " ".join("0" * 21)),
    ],
)
def test_every_drawing_has_a_narrow_form_that_fits_a_telephone(space, genotype):
    for drawing in get_space(space).drawings(genotype):
        svg = draw(drawing, narrow=True)
        assert float(re.search(r'width="(\d+)"', svg)[1]) <= 400
        for label in drawing.labels.values():
            assert f">{label}</text>" in svg


def test_a_hostile_name_of_an_operation_is_escaped_everywhere():
    bad = '<b>"x"'
    drawing = Drawing("t", {"a": (0, 0), "b": (1, 0)}, (("a", "b", bad),), labels={})
    text = page(
        operations=frozenset({bad}),
        drawings=(drawing,),
        proposals=[ProposalRow(GENOTYPE, 1.0, None, (bad,))],
        decisions=[{**decision(0, 1, bad, [1.0]), "candidates": [bad]}],
    )
    assert "<b>&quot;" not in text and bad not in text
    assert text.count("&lt;b&gt;&quot;x&quot;") == 6


def test_a_training_of_one_epoch_is_a_table(tmp_path):
    text = training_page(tmp_path, get_space("nasbench201"), GENOTYPE)
    curves = text[text.index("<h2>Curves") : text.index("<h2>The network")]
    assert "<svg" not in curves
    names = ("epoch", "training loss", "test loss", "training top-1, %")
    assert "".join(f"<th>{name}</th>" for name in names) in curves
    cells = re.findall(r"<td>([^<]*)</td>", curves)
    assert cells == ["1", "2", "2.5", "10", "12.5", "0.1"]
    parser = Balance()
    parser.feed(text)
    assert parser.open == [] and parser.loads == [] and "http" not in text
    assert "a&lt;b" in text and "&lt;12.50&gt;" in text and "&lt;0&gt;" in text


def test_a_training_of_several_epochs_is_three_curves(tmp_path):
    text = training_page(tmp_path, get_space("nasbench201"), GENOTYPE, epochs=3)
    curves = text[text.index("<h2>Curves") : text.index("<h2>The network")]
    assert curves.count("<svg") == 3
    assert len(re.findall('class="curve (?:soft|accent)"', curves)) == 5
    parser = Balance()
    parser.feed(text)
    assert parser.open == [] and parser.loads == []


def test_curves_leave_out_what_is_missing_or_not_finite():
    lines = [
        {"epoch": 1, "loss": 2.0, "top1": 1.0, "learning_rate": 0.1},
        {"epoch": 2, "loss": math.nan, "top1": 1.0, "learning_rate": 0.1},
        {"epoch": 3, "loss": 1.0, "top1": 1.0, "learning_rate": 0.1, "test_loss": 1.5},
    ]
    text = draw_curves(lines)
    assert "nan" not in text and text.count("<svg") == 3
    loss = re.search(r'class="curve soft" d="M([^"]*)"', text)[1]
    assert loss == "56.0 12.0L372.0 200.0"  # from the top left to the bottom right
    assert draw_curves([]).count("<td>") == 0


def test_the_page_says_where_the_time_went():
    html = page()
    assert "1 gpu device (&lt;H200&gt;), busy for 2.0 s, 50 % of the time" in html
    assert "1 program compiled in 2.0 s" in html
    row = ("nwot, supernet", "5", "1.5 s", "0.5 s", "3.00 GB")
    assert "".join(f"<td>{cell}</td>" for cell in row) in html


def test_timings_of_several_runs_add_up_and_keep_the_chunk():
    first = Timings({"data": 1.0}, 0.5, "1 gpu", (Program("a", 7, 1, 1, 0),))
    later = Timings({"data": 2.0}, 0.25, "1 gpu", (Program("a", 4, 1, 1, 0),))
    both = Timings.of_json(later.after(first).as_json())
    assert both.seconds == {"data": 3.0} and both.busy_seconds == 0.75
    assert both.chunk_on("1 gpu") == 4 and both.chunk_on("2 gpus") is None
    assert Timings.of_json(None) == Timings.of_json({"seconds": 3}) == Timings()
