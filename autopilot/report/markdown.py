"""A report as Markdown that what a run reports cannot break out of."""

import re
from collections.abc import Iterable, Iterator

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
from autopilot.report.picture import bars

_SPECIAL = re.compile(r"([\\`*_\[\]#|~!])")


def to_markdown(document: Document) -> str:
    """The whole report."""
    lines = [f"# {escape(document.title)}", "", f"**{escape(document.headline)}**", ""]
    for part in document.parts:
        lines += [f"## {escape(part.title)}", ""]
        for block in part.blocks:
            lines += [*_block(block), ""]
    return "\n".join(lines).rstrip() + "\n"


def escape(text: str) -> str:
    r"""Text as one line that means nothing but itself.

    >>> print(escape("a|b <script> ![x](http://e.example)"))
    a\|b &lt;script&gt; \!\[x\](http://e.example)
    """
    text = " ".join(text.split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", text)


def _block(block: Block) -> Iterator[str]:
    match block:
        case Paragraph(text):
            yield escape(text)
        case Facts(lines):
            yield from _facts(lines)
        case Entry(title, lines):
            yield f"### {escape(title)}"
            yield ""
            yield from _facts(lines)
        case Errand(what, command):
            yield f"- {escape(what)}"
            if command is not None:
                yield f"  {_code(command)}"
        case Grid(head, rows):
            yield _row(map(escape, head))
            yield _row("---" for _ in head)
            for row in rows:
                yield _row(map(escape, row))
        case Picture(course, caption):
            yield _code(bars(course))
            yield ""
            yield escape(caption)


def _facts(lines: Iterable[tuple[str, str]]) -> Iterator[str]:
    for name, value in lines:
        yield f"- {escape(name)}: {escape(value)}" if name else f"  - {escape(value)}"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _code(text: str) -> str:
    """Code that no backtick in it ends early."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if longest else ""
    return f"{fence}{pad}{' '.join(text.split())}{pad}{fence}"
