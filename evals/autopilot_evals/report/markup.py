"""HTML that cannot be broken by what a recording holds: whatever is not marked up is escaped."""

from collections.abc import Collection, Sequence
from html import escape
from importlib.resources import files


class Html(str):
    """Markup; every other string is text, and is escaped where it enters a page."""

    __slots__ = ()


def tag(name: str, *children: str, **attributes: str) -> Html:
    """An element.

    Args:
        name: Of the element.
        children: Markup or text, in order.
        attributes: ``class_`` stands for ``class``, ``aria_label`` for ``aria-label``.

    >>> tag("p", "1 < 2, ", tag("b", "really"), class_="a")
    '<p class="a">1 &lt; 2, <b>really</b></p>'
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
    )
    return Html(f"<{name}{given}>{join(*children)}</{name}>")


def join(*children: str) -> Html:
    """Markup and text, one after the other."""
    return Html("".join(one if isinstance(one, Html) else escape(one) for one in children))


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    words: Collection[str] = (),
    wide: bool = False,
) -> Html:
    """A table that scrolls sideways where the screen is narrow.

    Args:
        head: Names of the columns.
        rows: Cells, as markup or text.
        words: Columns that hold words and stand to the left, beside the first one; the others
            hold figures.
        wide: Its words fill whole sentences.
    """
    classes = ["word" if not at or name in words else "figure" for at, name in enumerate(head)]
    titles = (
        tag("th", name, scope="col", class_=kind) for name, kind in zip(head, classes, strict=True)
    )
    lines = (
        tag("tr", *(tag("td", cell, class_=kind) for cell, kind in zip(row, classes, strict=True)))
        for row in rows
    )
    whole = tag("table", tag("thead", tag("tr", *titles)), tag("tbody", *lines))
    return tag("div", whole, class_="scroll wide" if wide else "scroll")


def section(title: str, *children: str) -> Html:
    """A part of a page under its title."""
    return tag("section", tag("h2", title), *children)


def page(title: str, *children: str) -> str:
    """A whole page that needs nothing besides itself: no script, no font, no network."""
    style = files("autopilot_evals.report").joinpath("style.css").read_text(encoding="utf-8")
    head = tag(
        "head",
        Html('<meta charset="utf-8">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Html('<meta name="color-scheme" content="light dark">'),
        tag("title", title),
        tag("style", Html(style)),
    )
    body = tag("body", tag("main", tag("h1", title), *children))
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"
