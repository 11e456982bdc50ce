"""Style sheets of reports and of drawings, and the script of reports."""

from zcpt_jax.io.colours import PALETTE

_LIGHT = """color-scheme: light dark; --back: #fff; --ink: #1d2433; --soft: #5c6675;
  --line: #e4e7ec; --accent: #2a9d8f; --heat: 42 157 143; --best: #e9f7f5;
  --muted: #6b7584; --plain: #717b8b; --on-box: #fff; --link: #0b6e63;"""
_DARK = """--back: #14171d; --ink: #e6e9ef; --soft: #a4adbb;
  --line: #313743; --accent: #35a898; --heat: 24 130 118; --best: #17302f;
  --muted: #8f99a8; --plain: #8f99a8; --on-box: #14171d; --link: #5fd3c4;"""

# Of drawings, on a page or in a file of their own.
_DRAWING = """
svg text { font: 600 13px system-ui, sans-serif; text-anchor: middle; fill: var(--c); }
svg .halo { stroke: var(--back); stroke-width: 8px; paint-order: stroke;
  stroke-linejoin: round; }
svg .edge { fill: none; stroke: var(--c); stroke-width: 3px; }
svg .edge.plain, svg .edge.muted { stroke-width: 1.5px; }
svg .edge.muted { stroke-dasharray: 4 5; }
svg .arrow, svg .box { fill: var(--c); }
.ink { --c: var(--ink); } svg .on-box { --c: var(--on-box); }
.muted { --c: var(--muted); } .plain { --c: var(--plain); }
"""

_RULES = """
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); margin: 2rem auto;
  max-width: 84rem; padding: 0 1.25rem; background: var(--back); }
h1 { font-size: 1.55rem; margin: 0 0 .4rem; }
h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1rem 0 .3rem; } p { max-width: 52rem; }
h3 a { font-weight: 400; font-size: 13px; margin-left: .5rem; }
a { color: var(--link); } p.lead { color: var(--soft); margin: .2rem 0 1rem; }
code { font: 13px/1.4 ui-monospace, monospace; overflow-wrap: anywhere; }
code.whole { display: inline-block; max-width: 100%; }
.cards, .keys { display: flex; flex-wrap: wrap; gap: .8rem; }
.keys { gap: .2rem 1rem; margin: .5rem 0; }
.card { border: 1px solid var(--line); border-radius: .6rem; padding: .6rem 1rem; }
.card b { display: block; font-size: 1.25rem; } .card span { color: var(--soft); }
.tables { display: flex; flex-wrap: wrap; gap: .6rem 2.2rem; align-items: start; }
.tables > div { max-width: 100%; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; }
th { text-align: left; font-weight: 600; color: var(--soft); vertical-align: bottom;
  white-space: nowrap; }
td:first-child { white-space: nowrap; }
th, td { padding: .22rem .45rem; border-bottom: 1px solid var(--line); }
td.number { text-align: right; font-variant-numeric: tabular-nums;
  white-space: nowrap; }
td details[open], td .note { width: max-content; max-width: min(30rem, 52vw); }
tr.dropped { color: var(--soft); } td.what { min-width: 9rem; }
tr.best { background: var(--best); font-weight: 600; }
:target { outline: 2px solid var(--accent); outline-offset: 3px; }
.head { display: inline-block; max-width: 5.2rem; line-height: 1.25;
  white-space: normal; }
.strip { white-space: nowrap; }
.heat th + th { text-align: right; }
.heat th:first-child, .heat td.name { position: sticky; left: 0;
  background: var(--back); white-space: nowrap; }
.heat td.number { background: rgb(var(--heat) / var(--share)); }
.heat td.kept { outline: 2px solid var(--ink); outline-offset: -2px; font-weight: 700; }
.bar { height: .7rem; border-radius: .35rem; background: var(--accent); }
td.bars { min-width: 10rem; }
.time { display: flex; gap: 2px; height: 1.6rem; border-radius: .4rem;
  overflow: hidden; }
.shade { background: var(--ink); }
.chip { display: inline-block; width: .8rem; height: .8rem; border-radius: .2rem;
  margin-right: .3rem; vertical-align: -1px; background: var(--c); }
.chip.muted { background: none; border: 1.5px dashed var(--c); }
.strip .chip { margin: 0 2px 0 0; }
figure { margin: 0; } svg { max-width: 100%; height: auto; display: block; }
.charts { display: flex; flex-wrap: wrap; gap: 1rem 2rem; }
.charts svg { width: 24rem; } .charts text { font-weight: 400; }
svg .end { text-anchor: end; }
.axis { stroke: var(--line); stroke-width: 1px; }
.curve { fill: none; stroke: var(--c); stroke-width: 2px; }
.curve.dots { stroke-width: 6px; stroke-linecap: round; }
.soft { --c: var(--soft); }
.accent { --c: var(--accent); }
.narrow { display: none; }
@media (max-width: 700px) {
  body { margin: 1rem auto; padding: 0 1rem; }
  td.bars { min-width: 4rem; }
  .heat td.name { white-space: normal; min-width: 6.4rem; }
  .wide { display: none; } .narrow { display: block; }
}
details { margin: .8rem 0; } summary { cursor: pointer; color: var(--soft); }
td details { margin: 0; font-weight: 400; }
button { font: 12px system-ui, sans-serif; margin-left: .5rem; cursor: pointer; }
"""

# Where the clipboard is closed to a page, the text is at least selected.
SCRIPT = """
for (const button of document.querySelectorAll("button.copy")) {
  button.hidden = false;
  button.onclick = async () => {
    const code = button.previousElementSibling;
    getSelection().selectAllChildren(code);
    let done = false;
    try { await navigator.clipboard.writeText(code.textContent); done = true; }
    catch { done = document.execCommand("copy"); }
    button.textContent = done ? "copied" : "selected";
    setTimeout(() => { button.textContent = "copy"; }, 2000);
  };
}
"""


def _palette(scheme: int) -> str:
    return " ".join(f"--op{i}: {pair[scheme]};" for i, pair in enumerate(PALETTE))


_COLOURS = (
    f":root {{ {_LIGHT} {_palette(0)} }}\n"
    f"@media (prefers-color-scheme: dark) {{ :root {{ {_DARK} {_palette(1)} }} }}\n"
    + "\n".join(f".op{i} {{ --c: var(--op{i}); }}" for i in range(len(PALETTE)))
)
DRAWING_STYLE = _COLOURS + _DRAWING
STYLE = DRAWING_STYLE + _RULES
