"""A report as one HTML file that needs nothing besides itself: no script, no font, no network."""

from collections.abc import Iterable
from html import escape
from importlib.resources import files

from autopilot.console.words import number
from autopilot.report.document import (
    Block,
    Document,
    Entry,
    Errand,
    Facts,
    Grid,
    Paragraph,
    Picture,
)
from autopilot.report.picture import HEIGHT, WIDTH, Drawing, draw

_TONES = {"healthy": "good", "rescued": "good", "needs_you": "bad"}
_EDGE = 20.0


def to_html(document: Document) -> str:
    """The whole report; every text is escaped where it enters the page."""
    style = files("autopilot.report").joinpath("style.css").read_text(encoding="utf-8")
    parts = "".join(
        f"<section>{_tag('h2', part.title)}{''.join(map(_block, part.blocks))}</section>"
        for part in document.parts
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"{_tag('title', document.title)}<style>{style}</style></head><body><main>"
        f"{_tag('h1', document.title)}"
        f"{_tag('p', document.headline, f'verdict {_TONES[document.standing]}')}"
        f"{parts}</main></body></html>\n"
    )


def _tag(name: str, text: str, kind: str = "") -> str:
    given = f' class="{escape(kind)}"' if kind else ""
    return f"<{name}{given}>{escape(text)}</{name}>"


def _block(block: Block) -> str:
    match block:
        case Paragraph(text):
            return _tag("p", text)
        case Facts(lines):
            return _facts(lines)
        case Entry(title, lines):
            return f"<article>{_tag('h3', title)}{_facts(lines)}</article>"
        case Errand(what, command):
            typed = "" if command is None else _tag("code", command)
            return f'<div class="errand">{_tag("p", what)}{typed}</div>'
        case Grid(head, rows):
            names = "".join(_tag("th", name) for name in head)
            cells = "".join(f"<tr>{''.join(_tag('td', c) for c in row)}</tr>" for row in rows)
            table = f"<table><thead><tr>{names}</tr></thead><tbody>{cells}</tbody></table>"
            return f'<div class="scroll">{table}</div>'
        case Picture(course, caption):
            drawn = draw(course)
            scale = "; by its logarithm" if drawn.logarithmic else ""
            picture = _picture(drawn, caption)
            return f"<figure>{picture}{_tag('figcaption', f'{caption}{scale}')}</figure>"


def _facts(lines: Iterable[tuple[str, str]]) -> str:
    return f"<dl>{''.join(_tag('dt', name) + _tag('dd', value) for name, value in lines)}</dl>"


def _picture(drawn: Drawing, description: str) -> str:
    """The drawing as SVG, in colours of the page around it."""
    shapes = [
        f'<polyline class="series" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in line)}"/>'
        for line in drawn.lines
    ]
    shapes += [
        f'<line class="break" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{HEIGHT:g}"/>'
        for x in drawn.breaks
    ]
    for x, label in drawn.marks:
        side = "end" if x > WIDTH / 2 else "start"
        shapes.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{HEIGHT:g}"/>')
        shapes.append(f'<text x="{x:.1f}" y="-6" text-anchor="{side}">{escape(label)}</text>')
    for value, y in ((drawn.high, 10.0), (drawn.low, HEIGHT - 3.0)):
        shapes.append(f'<text class="scale" x="-6" y="{y:g}">{escape(number(value))}</text>')
    box = f"{-3 * _EDGE:g} {-_EDGE:g} {WIDTH + 4 * _EDGE:g} {HEIGHT + 2 * _EDGE:g}"
    label = escape(description)
    return f'<svg viewBox="{box}" role="img" aria-label="{label}">{"".join(shapes)}</svg>'
