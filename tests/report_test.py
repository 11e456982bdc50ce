import math
import re
from html.parser import HTMLParser

import pytest

from zcpt_jax.io.genotype_svg import draw
from zcpt_jax.io.html import ProposalRow, Report, render
from zcpt_jax.io.timings import Timings
from zcpt_jax.scoring.scorer import Program
from zcpt_jax.spaces import get_space
from zcpt_jax.tables import Standing

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


def page(**changes):
    fields = {
        "title": "A <cell>",
        "lead": "lead",
        "genotype": GENOTYPE,
        "forms": {"another form": "G<1>"},
        "drawings": get_space("nasbench201").drawings(GENOTYPE),
        "facts": (("parameters", "1,234"),),
        "standings": (Standing("cifar10_test", 94.25, 0.12, 7, 15625, 87.0),),
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
        "dark_is_low": True,
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


class Balance(HTMLParser):
    """Checks that elements close in order; collects what a browser would load."""

    VOID = {"meta", "link", "img", "br"}

    def __init__(self):
        super().__init__()
        self.open, self.loads = [], []

    def handle_starttag(self, tag, attrs):
        self.loads += [v for k, v in attrs if k in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.loads += [v for k, v in attrs if k in ("src", "href")]

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
        r"<td( class=kept)? style=\"background:[^\"]*\">([^<]*)</td>", text
    )
    assert cells == [
        (" class=kept", "1.25"),
        ("", "nan"),
        ("", "2"),
        (" class=kept", "-inf"),
    ]
    assert text.count("Proposal ") >= 2


def test_the_darkest_is_the_best_whichever_way_scores_go():
    decisions = [decision(0, 1, "a", [1.0, 3.0])]
    for low, dark in ((True, ("0.75", "0.00")), (False, ("0.00", "0.75"))):
        text = page(decisions=decisions, dark_is_low=low)
        assert tuple(re.findall(r"rgba\(42,157,143,([\d.]+)\)", text)) == dark
    assert "What &lt;it&gt; is; the one that stays is framed" in page()


def test_a_page_without_table_has_no_accuracies():
    rows = [ProposalRow(GENOTYPE, 3.5, None)]
    text = page(standings=(), proposals=rows)
    assert " %</td>" not in text and "regret" not in text


def test_the_drawing_shows_every_edge_and_mutes_none():
    svg = draw(get_space("nasbench201").drawings(GENOTYPE)[0])
    assert svg.count("marker-end") == 6 and svg.count("stroke-dasharray") == 3
    assert svg.count("<rect") == 4
    for op in ("nor_conv_3x3", "skip_connect", "avg_pool_3x3"):
        assert svg.count(f">{op}</text>") == 1


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
