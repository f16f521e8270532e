"""A report in words, before it is written in any format."""

from dataclasses import dataclass

from autopilot.report.model import Course, Standing


@dataclass(frozen=True)
class Paragraph:
    """Some sentences."""

    text: str


@dataclass(frozen=True)
class Facts:
    """Names and what belongs to them; a name may be empty, to go on with the one above."""

    lines: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Entry:
    """One thing among several, with its facts."""

    title: str
    lines: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Grid:
    """A table; every row has a cell for each name of the head."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Errand:
    """Something to do, and the command that does it, where there is one."""

    what: str
    command: str | None


@dataclass(frozen=True)
class Picture:
    """How a metric went."""

    course: Course
    caption: str


Block = Paragraph | Facts | Entry | Grid | Errand | Picture


@dataclass(frozen=True)
class Part:
    """What belongs under one title."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Document:
    """A report in words.

    Attributes:
        headline: The verdict in one line.
        parts: In the order in which they are read.
    """

    title: str
    standing: Standing
    headline: str
    parts: tuple[Part, ...]
