"""The report of an audit as one self-contained page of HTML with figures."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphmeta.evaluation.audit.findings import Audit, Finding
from graphmeta.plots.figures import BLUE, GREEN, GREY, INK, ORANGE, VERMILION, figure
from graphmeta.storage import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {"train": BLUE, "valid": ORANGE, "test": GREEN}
_STYLE = """
:root { color-scheme: light; font-family: system-ui, sans-serif; line-height: 1.45; color: #22262e }
body { margin: 0 auto; max-width: 72rem; padding: 1rem }
h1 { font-size: 1.5rem; margin: .4rem 0 } h2 { font-size: 1.1rem; margin: 1.6rem 0 .4rem }
.head { font-size: 1.05rem; padding: .6rem .8rem; border-radius: .5rem; background: #eef3f8 }
.head.fault { background: #fbe9e1 }
ul { list-style: none; margin: 0; padding: 0 }
li { display: grid; grid-template-columns: 5.6rem 14rem 1fr; gap: .2rem .8rem; padding: .45rem 0;
     border-top: 1px solid #e3e6ea; overflow-wrap: anywhere }
li b { font-weight: 600 }
.tag { justify-self: start; align-self: start; border-radius: .3rem; padding: .05rem .5rem; font-size: .85rem;
       font-weight: 600 }
.ok { background: #dff1ea; color: #00513a } .note { background: #e4eef7; color: #00446e }
.warning { background: #fdf0d3; color: #6b4600 } .tag.fault { background: #d55e00; color: #fff }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1rem }
figure { margin: 0 } figure svg { width: 100%; height: auto; display: block } figcaption { font-size: .9rem }
footer { margin-top: 2rem; font-size: .85rem; color: #555b66 }
@media (max-width: 44rem) { li { grid-template-columns: 1fr } body { padding: .7rem } }
"""


def audit_page(report: Audit, path: Path, *, title: str = "Audit") -> None:
    """Write the report as one HTML file without links to other files, atomically.

    Raises:
        InputError: matplotlib is not installed, or the file cannot be written.
    """
    write_bytes(Path(path), audit_html(report, title=title).encode())


def audit_html(report: Audit, *, title: str = "Audit") -> str:
    """The page as text."""
    state = "ok" if report.ok else "fault"
    sections = []
    for about in dict.fromkeys(one.about for one in report.findings):
        rows = "".join(_row(one) for one in report.findings if one.about == about)
        sections.append(f"<h2>{escape(about.capitalize())}</h2><ul>{rows}</ul>")
    figures = "".join(
        _figure(draw, caption, report.series) for needs, draw, caption in _FIGURES if needs(report.series)
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title><style>{_STYLE}</style></head><body>
<h1>{escape(title)}</h1>
<p class="head {state}">{escape(report.headline())}</p>
{"".join(sections)}
<h2>Figures</h2><div class="figures">{figures}</div>
<footer>fault: labels or test data leak, or labels are wrong. warning: figures may be optimistic, or a check was not
possible. note: a property of the data that results depend on.</footer>
</body></html>
"""


def _row(finding: Finding) -> str:
    tag = f'<span class="tag {finding.verdict}">{finding.verdict}</span>'
    return f"<li>{tag}<b>{escape(finding.check)}</b><span>{escape(finding.text)}</span></li>"


def _figure(draw: Callable[[Axes, Mapping[str, Any]], None], caption: str, series: Mapping[str, Any]) -> str:
    """One figure as inline SVG; its texts stay texts."""
    import matplotlib

    picture = figure(4.6, 3.1)
    axes = picture.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=9, colors=INK)
    draw(axes, series)
    content = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": caption}):
        picture.savefig(content, format="svg", metadata={"Date": None})
    drawing = re.sub(r"^.*?(?=<svg)|<metadata>.*?</metadata>", "", content.getvalue().decode(), flags=re.DOTALL)
    # Ids of clip paths and markers are unique within one drawing only.
    prefix = re.sub(r"\W+", "-", caption)[:24]
    drawing = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{prefix}-", drawing)
    shown = escape(caption)
    return f'<figure role="img" aria-label="{shown}">{drawing}<figcaption>{shown}</figcaption></figure>'


def _legend(axes: Axes) -> None:
    """A legend above the figure, which covers no data."""
    axes.legend(frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)


def _times(axes: Axes, series: Mapping[str, Any]) -> None:
    edges = np.array(series["edges"])
    days = (edges - edges[0]) / 86_400
    for name, counts in series["times"].items():
        axes.stairs(counts, days, label=name, color=_COLOURS[name], fill=True, alpha=0.7)
    axes.set_xlabel("days since the first click", fontsize=9)
    axes.set_ylabel("clicks", fontsize=9)
    _legend(axes)


def _lengths(axes: Axes, series: Mapping[str, Any]) -> None:
    for name, counts in series["lengths"].items():
        share = np.array(counts) / max(sum(counts), 1)
        axes.plot(np.arange(1, len(share) + 1), share, marker="o", markersize=3, label=name, color=_COLOURS[name])
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel("clicks (the last: 21 and more)", fontsize=9)
    axes.set_ylabel("share of sessions", fontsize=9)
    axes.set_ylim(bottom=0)
    _legend(axes)


def _popularity(axes: Axes, series: Mapping[str, Any]) -> None:
    train, test = (np.array(series["popularity"][name]) for name in ("train", "test"))
    axes.scatter(np.maximum(train, 0.5), test, s=8, alpha=0.4, color=BLUE, linewidths=0)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("training events of an item (0 at the left edge)", fontsize=9)
    axes.set_ylabel("test clicks", fontsize=9)


def _order(axes: Axes, series: Mapping[str, Any]) -> None:
    kinds = {"order": "STAN", "model order": "model"}
    shown = {title: series[name] for name, title in kinds.items() if name in series}
    width = 0.8 / len(shown)
    for number, (title, one) in enumerate(shown.items()):
        at = np.arange(len(one["means"])) + (number - (len(shown) - 1) / 2) * width
        values, errors = (100 * np.array(list(one[key].values())) for key in ("means", "errors"))
        colour = (GREY, BLUE)[number] if len(shown) > 1 else BLUE
        axes.bar(at, values, width, yerr=errors, label=title, color=colour, error_kw={"elinewidth": 1})
    first = next(iter(shown.values()))
    axes.set_xticks(np.arange(len(first["means"])), list(first["means"]), fontsize=9)
    axes.set_ylabel(f"{first['metric']} in %, ± standard error", fontsize=9)
    _legend(axes)


def _differences(axes: Axes, series: Mapping[str, Any]) -> None:
    names, floor, limit = list(series["differences"]), 1e-9, series["tolerance"]
    values = np.array([min(max(series["differences"][name], floor), 1e3) for name in names])
    colours = [VERMILION if value > limit else GREEN for value in values]
    axes.barh(np.arange(len(names)), values, left=0, color=colours)
    axes.axvline(limit, color=INK, linewidth=1, linestyle="--")
    axes.set_xscale("log")
    axes.set_xlim(floor / 2, 1e4)
    axes.set_yticks(np.arange(len(names)), names, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlabel("largest change of a score, relative to the spread", fontsize=9)


_FIGURES: tuple[tuple[Callable[[Mapping[str, Any]], bool], Callable[[Axes, Mapping[str, Any]], None], str], ...] = (
    (lambda series: bool(series.get("times")), _times, "Clicks over time, by part"),
    (lambda series: bool(series.get("lengths")), _lengths, "Lengths of sessions, by part"),
    (lambda series: "popularity" in series, _popularity, "Popularity of test items in training and test"),
    (lambda series: "order" in series or "model order" in series, _order, "Shuffle test: the order of clicks"),
    (lambda series: "differences" in series, _differences, "Changes that must not change scores; dashed: the limit"),
)
