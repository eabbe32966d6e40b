"""The report as one HTML file: own style, pictures and figures inside, no script, nothing fetched; opens offline."""

import base64
import html
import math
import os
import re
import time
from pathlib import Path

import pandas as pd

from facenb.runs.comparisons import COMPARISONS, FIGURES, Comparison
from facenb.files import atomic_write
from facenb.runs.papers import CLAIMS, PAPERS, TABLES
from facenb.runs.recorded import short_commit
from facenb.runs.report import UNCORRECTED, WAITING, Report
from facenb.runs.results import repository

WIDEST = 12  # columns
COLOURS = {"holds": "#007A5A", "does not hold": "#B04A00", "not decided": "#666666"}
SAID = {"holds": ("holds", "hold"), "does not hold": ("does not hold", "do not hold"),
        "not decided": ("is not decided", "are not decided")}  # fmt: skip
STYLE = """
:root { --ink: #1d1d1f; --soft: #6a6a70; --line: #dcdce0; --here: #0072B2; --shade: #f3f7fa; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink); font: 17px/1.58 Charter, "Iowan Old Style", Georgia, serif; }
main { max-width: 71rem; margin: 0 auto; padding: 3rem 1.5rem 5rem; }
p, ul, h1, h2, h3 { max-width: 44rem; }
h1 { font-size: 2.3rem; line-height: 1.15; margin: 0 0 .4rem; letter-spacing: -.01em; }
h2 { font-size: 1.5rem; margin: 3.2rem 0 .6rem; border-top: 2px solid var(--ink); padding-top: .7rem; max-width: none; }
h3 { font-size: 1.1rem; margin: 2.2rem 0 .3rem; }
.lead { font-size: 1.15rem; color: #3a3a3e; }
.small, small, figcaption, td, th, .chip, .tile, nav { font-family: system-ui, "Helvetica Neue", Arial, sans-serif; }
.small, figcaption { font-size: .82rem; line-height: 1.5; color: var(--soft); }
nav { font-size: .9rem; margin: 1.2rem 0 0; } nav a { margin-right: 1.1rem; white-space: nowrap; }
a { color: var(--here); text-decoration-thickness: 1px; text-underline-offset: 2px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(15.5rem, 1fr)); gap: .6rem; margin: 1.2rem 0; }
.tile { border: 1px solid var(--line); border-radius: 6px; padding: .7rem .8rem; font-size: .85rem; line-height: 1.4; }
.tile b { font-size: 1rem; margin-right: .3rem; } .tile p { margin: .1rem 0 .5rem; }
.tile div { display: flex; justify-content: space-between; gap: .8rem; align-items: baseline; color: var(--soft); }
.tile span:first-child { white-space: nowrap; }
.chip { font-size: .75rem; font-weight: 600; text-align: right; }
.claim { border-left: 4px solid var(--line); padding: 0 0 .1rem 1rem; margin: 1.8rem 0; }
.claim h3 { margin: 0 0 .4rem; } h3 small { font-weight: 400; color: var(--soft); font-size: .8rem; }
.asked { display: grid; grid-template-columns: minmax(0, 1fr) 13rem 8rem; gap: .2rem 1.2rem; align-items: center;
  border-top: 1px solid var(--line); padding: .55rem 0; font-size: .86rem; line-height: 1.45;
  font-family: system-ui, "Helvetica Neue", Arial, sans-serif; }
.asked svg { width: 100%; height: 34px; display: block; }
.wide { overflow-x: auto; margin: .8rem 0 .3rem; }
table { border-collapse: collapse; font-size: .84rem; line-height: 1.35; font-variant-numeric: tabular-nums; }
th, td { padding: .32rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #ececf0; }
th { font-weight: 600; } th:first-child, td:first-child { text-align: left; white-space: normal; min-width: 8.5rem;
  position: sticky; left: 0; background: #fff; }
thead th { border-bottom: 1px solid var(--ink); vertical-align: bottom; white-space: normal; max-width: 8rem; }
thead tr:first-child th { border-bottom: none; text-align: left; font-weight: 500; max-width: 16rem; }
.here { background: var(--shade); color: #00466f; } th.here { color: var(--here); }
.edge { border-left: 2px solid #fff; } td small, th small { color: var(--soft); display: block; font-size: .74rem; }
figure { margin: 1.6rem 0; } figure img { max-width: 100%; height: auto; display: block; }
.warn { background: #fff6e8; border-left: 4px solid #E69F00; padding: .6rem 1rem; max-width: 48rem; }
@media (max-width: 640px) { body { font-size: 16px; } main { padding: 1.6rem 1rem 3rem; } h1 { font-size: 1.8rem; }
  .asked { grid-template-columns: minmax(0, 1fr); } .asked svg { max-width: 16rem; } }
@media print { main { max-width: none; } .wide { overflow: visible; } h2, figure, .claim { break-inside: avoid; } }
"""


def text(words) -> str:
    """As HTML shows it, word for word."""
    return html.escape(str(words))


def chip(verdict: str) -> str:
    """A verdict in its colour; what is still to be run in grey."""
    colour = COLOURS.get(verdict.removesuffix(UNCORRECTED), "#9a9aa0")
    return f'<span class="chip" style="color: {colour}">{text(verdict)}</span>'


def link(report: Report, number: str) -> str:
    """The notebook of this number: its executed copy in the run folder, else the checkout's, else its number alone."""
    base, root = report.sources[0].folder.resolve(), repository()
    places = [source.folder.resolve() / "executed" for source in report.sources]
    for place in [*places, root / "notebooks"] if root else places:
        for path in sorted(place.glob(f"{number}_*.ipynb")):
            if "." not in path.stem:  # no .failed, no .partial
                return f'<a href="{text(Path(os.path.relpath(path, base)).as_posix())}">notebook {text(number)}</a>'
    return f"notebook {text(number)}"


def strip(row) -> str:
    """An effect's interval on a line of its own, with what was asked for as a dashed mark."""
    ends = [row["effect"], row["low"], row["high"], row["at_least"]]
    if not all(map(math.isfinite, ends)):
        return ""
    low, high = min(ends), max(ends)
    room = (high - low) or 1.0
    place = [10 + 180 * (value - low) / room for value in ends]
    colour = COLOURS.get(row["verdict"].removesuffix(UNCORRECTED), "#666666")
    said = f"{row['effect']:.3g} {row['unit']}, {row['low']:.3g} to {row['high']:.3g}; asked: over {row['at_least']:g}"
    anchor = "start" if place[3] < 60 else "end" if place[3] > 140 else "middle"
    return (
        f'<svg viewBox="0 0 200 34" role="img" aria-label="{text(said)}">'
        f'<line x1="{place[3]:.1f}" x2="{place[3]:.1f}" y1="1" y2="22" stroke="#1d1d1f" stroke-dasharray="3 2"/>'
        f'<line x1="{place[1]:.1f}" x2="{place[2]:.1f}" y1="11" y2="11" stroke="{colour}" stroke-width="4" '
        f'stroke-linecap="round" opacity=".45"/><circle cx="{place[0]:.1f}" cy="11" r="4.5" fill="{colour}"/>'
        f'<text x="{place[3]:.1f}" y="32" font-size="9.5" fill="#6a6a70" text-anchor="{anchor}">'
        f"{row['at_least']:g} {text(row['unit'])}</text></svg>"
    )


def asked(report: Report, row) -> str:
    """One recorded verdict: the sentence, numbers, the strip, the verdict."""
    unit = f" {row['unit']}" if row["unit"] else ""
    p = [f"{name} {value:.2g}" for name, value in (("p", row["p"]), ("Holm", row["p (Holm)"])) if math.isfinite(value)]
    level, people = 100 * row["level"], "" if pd.isna(row["n"]) else f", {row['n']} {row['drawn'] or 'people'}"
    ends = f"[{row['low']:.3g}, {row['high']:.3g}]" if math.isfinite(row["low"]) else "no interval"
    numbers = f"{row['effect']:.3g}{unit}, {level:g} % {ends}{people}; " + (", ".join(p) or "no p recorded")
    said = f"<b>{text(row['statement'])}</b>" if row["whole"] else text(row["statement"])
    return (
        f'<div class="asked"><div>{said}<br><small>{text(row["data"])} · {text(numbers)} · '
        f"{link(report, row['notebook'][:2])}</small></div>{strip(row) or '<span></span>'}{chip(row['verdict'])}</div>"
    )


def claims(report: Report) -> str:
    """Every claim with all that was asked of it; those that wait, in a list."""
    parts, waiting = [], []
    for claim in CLAIMS.values():
        own = report.claims[report.claims.claim == claim.name]
        words = f"{claim.name} · {text(claim.statement)} <small>({claim.paper})</small>"
        if own.empty:
            waiting.append(f'<li id="{claim.name}">{words}: {link(report, claim.notebook)}</li>')
            continue
        body = "".join(asked(report, row) for row in own.to_dict("records"))
        parts.append(f'<section class="claim" id="{claim.name}"><h3>{words}</h3>{body}</section>')
    if waiting:
        parts.append(f'<h3>Not run yet, and the notebook that decides it</h3><ul class="small">{"".join(waiting)}</ul>')
    return "".join(parts)


def table(frame: pd.DataFrame) -> str:
    """A comparison with two header rows; our columns are shaded."""
    groups: list[list] = []
    for where, _ in frame.columns:
        if not groups or groups[-1][0] != where:
            groups.append([where, 0])
        groups[-1][1] += 1
    marks, first = [], []
    for where, count in groups:
        kind = "here" if where.startswith("here") else ""
        marks += [f"{kind} edge".strip()] + [kind] * (count - 1)
        name, _, rest = where.partition(" · ")
        more = f"<small>{text(rest)}</small>" if rest else ""
        first.append(f'<th class="{kind} edge" colspan="{count}">{text(name)}{more}</th>')
    named = [text(column).replace("-", "\u2011") for _, column in frame.columns]  # hyphens that do not break a line
    second = "".join(f'<th class="{m}">{name}</th>' for m, name in zip(marks, named, strict=True))
    lines = []
    for label, cells in zip(frame.index, frame.to_numpy(), strict=True):
        shown = "".join(f'<td class="{m}">{number(value)}</td>' for m, value in zip(marks, cells, strict=True))
        name, _, ours = str(label).partition(" · ")
        lines.append(f"<tr><td>{text(name)}{f'<small>{text(ours)}</small>' if ours else ''}</td>{shown}</tr>")
    head = f"<thead><tr><th></th>{''.join(first)}</tr><tr><th></th>{second}</tr></thead>"
    return f'<div class="wide"><table>{head}<tbody>{"".join(lines)}</tbody></table></div>'


def number(value: str) -> str:
    """A cell: the value, its spread or interval small below it."""
    found = re.fullmatch(r"(\S+) (±.+|\[.+\])", str(value))
    return f"{text(found[1])}<small>{text(found[2])}</small>" if found else text(value)


def compared(report: Report, comparison: Comparison) -> str:
    """A table of a paper with ours beside it, and what must be said of it."""
    paper = TABLES[comparison.table]
    ours = f"Here: {comparison.closed or f'{WAITING}, {link(report, comparison.notebook)} measures it'}."
    ours = ours if report.here(comparison).empty else comparison.said
    notes = [paper.note, TABLES[comparison.also].note if comparison.also else "", ours]
    shown = "".join(map(table, split(report.table(comparison))))
    return (
        f"<h3>{text(paper.title)} <small>({text(paper.unit)})</small></h3>{shown}"
        f'<p class="small">{" ".join(filter(None, notes))}</p>'
    )


def split(frame: pd.DataFrame) -> list[pd.DataFrame]:
    """One table, or where it is too wide to be read several with some of ours each, and the paper's columns in all.

    Columns of the paper's in which nothing is known are left out beside ours.
    """
    groups = list(dict.fromkeys(frame.columns.get_level_values(0)))
    ours = [where for where in groups if where.startswith("here")]
    theirs = [where for where in groups if where not in ours and (not ours or (frame[where] != "").any(axis=None))]
    blocks: list[list[str]] = [[]]
    for where in ours:
        if blocks[-1] and frame[[*theirs, *blocks[-1], where]].shape[1] > WIDEST:
            blocks.append([])
        blocks[-1].append(where)
    parts = [frame[theirs + block] for block in blocks]
    return [part[(part != "").any(axis=1)] for part in parts] if ours else parts


def picture(path: Path, caption: str) -> str:
    """A PNG, inside the page."""
    data = base64.b64encode(path.read_bytes()).decode()
    image = f'<img alt="{text(caption)}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{text(caption)}</figcaption></figure>"


def opening(report: Report) -> str:
    """Title and what the page has to say, counted from the claims."""
    main = report.sources[0]
    head = report.headline()
    counts = head[main.name].str.removesuffix(UNCORRECTED).value_counts()
    said = [
        f"{counts[verdict]} {words[int(counts[verdict] > 1)]}" for verdict, words in SAID.items() if verdict in counts
    ]
    tested = int(sum(counts[verdict] for verdict in SAID if verdict in counts))
    sentence = f"Of the {len(head)} claims of three papers, {tested} were put to the test in {main.name}"
    sentence += f": {', '.join(said)}." if said else "."
    wait = (
        f" {len(head) - tested} wait for notebooks that were not run, or for other data." if tested < len(head) else ""
    )
    cited = "".join(f"<li><b>{text(name)}</b> {text(words)}</li>" for name, words in PAPERS.items())
    return (
        f"<h1>Paper against here</h1><p class='lead'>{text(sentence + wait)}</p>"
        "<p>Every number below was read from a record that a notebook wrote when it measured it. What the papers "
        "printed and what was measured here never share a column: other faces, other networks, other errors. Compare "
        "<em>down</em> a column; across, compare the order of methods, not the figures.</p>"
        f'<ul class="small">{cited}</ul>'
    )


def tiles(report: Report) -> str:
    """All claims at a glance."""
    shown = []
    for name, row in report.headline().iterrows():
        lines = "".join(f"<div><span>{text(s.name)}</span>{chip(row[s.name])}</div>" for s in report.sources)
        shown.append(
            f'<div class="tile"><a href="#{name}"><b>{name}</b></a>{row.paper}<p>{text(row.statement)}</p>{lines}</div>'
        )
    return f'<div class="tiles">{"".join(shown)}</div>'


def _known(records: pd.DataFrame, name: str) -> list[str]:
    """What the records say under a name, each once and in order, or that they do not say."""
    found = set(records[name].dropna()) - {""} if name in records else set()
    return sorted(found) or [f"no {name} known"]


def provenance(report: Report) -> str:
    """Where the numbers come from, and what is odd about them."""
    parts = []
    for source in report.sources:
        records = source.records
        times, devices, commits = (_known(records, name) for name in ("time", "device", "commit"))
        parts.append(
            f"<p class='small'><b>{text(source.name)}</b> (profile {text(source.profile)}, seed {source.seed}): "
            f"{len(records)} records of {records.notebook.nunique()} notebooks, "
            f"{text(' to '.join(dict.fromkeys((times[0], times[-1]))))}; {text(', '.join(devices))}; "
            f"code {text(', '.join(map(short_commit, commits)))} (+: files differed from it).</p>"
        )
        parts += [f'<p class="small warn">{text(source.name)}: {text(note)}.</p>' for note in source.notes]
    return "".join(parts)


STATISTICS = """
<p>An effect is a difference on the same pictures. Its interval comes from drawing <em>people</em>, never pictures but
where nobody knows whose they are (bias-corrected and accelerated bootstrap, widened for few); where a method was
trained several times, trainings are drawn too. A claim asks for more than some amount, the dashed mark. It
<em>holds</em> where all of the interval lies above that, <em>does not hold</em> where none of it does, and is <em>not
decided</em> otherwise; the p-value says the same at every level. As many claims are judged at once, each p is
corrected for their number (Holm); a verdict below is what is left at 5 %. In each run folder the claims of the papers
are one family, with one verdict each, in bold; further questions (part of a claim, or put otherwise) are another. A
claim of several parts is decided by the weakest.</p>
"""


def page(report: Report) -> str:
    """The whole report as HTML."""
    sections = []
    for title, comparisons in COMPARISONS.items():
        figures = [
            picture(there[0], f"{caption} ({source.name}).")
            for names, caption in FIGURES[title].items()
            for source in report.sources
            if (there := [path for name in names if (path := source.folder / f"figures/{name}.png").is_file()])
        ]
        body = "".join(compared(report, comparison) for comparison in comparisons) + "".join(figures)
        sections.append(f'<h2 id="{title.lower()}">{title}</h2>{body}')
    names = ["claims", *(title.lower() for title in COMPARISONS), "numbers"]
    links = " ".join(f'<a href="#{name}">{name.capitalize()}</a>' for name in names)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>Paper against here</title>'
        f"<style>{STYLE}</style></head><body><main>{opening(report)}<nav>{links}</nav>{tiles(report)}"
        f'<h2 id="claims">Claims</h2>{STATISTICS}{claims(report)}{"".join(sections)}'
        f'<h2 id="numbers">Where the numbers come from</h2>{provenance(report)}'
        f'<p class="small">Written {time.strftime("%Y-%m-%d %H:%M")}.</p></main></body></html>\n'
    )


def write(report: Report, path: str | Path | None = None) -> Path:
    """Write the page, by default as report.html into the first run folder; beside first, then renamed."""
    path = Path(path) if path else report.sources[0].folder / "report.html"
    with atomic_write(path) as partial:
        partial.write_text(page(report), encoding="utf-8")
    return path
