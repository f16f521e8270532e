"""What an evaluation is asked to do, by options, by a TOML file, or by both.

A file says what the options would, for one suite or, in ``[[suite]]`` tables, for several::

    [[suite]]
    suite = "detection"
    corpus = "recordings"          # beside this file

    [[suite]]
    name = "fresh"                 # by default that of the suite
    suite = "sandbox"
    agents = ["rules", "observe"]
    split = "held_out"
    seeds = 5
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from autopilot.errors import BadInput
from autopilot.schema import Record
from autopilot_evals.labels import Split, first_complaint

SuiteName = Literal["detection", "decisions", "sandbox"]


class Asked(Record):
    """What is asked of one suite.

    Attributes:
        name: What its results are called in a file of several suites.
        agents: Whose decisions are scored.
        corpus: Labelled recordings, or decisions.
        scenarios: Of the sandbox; none stands for all.
        seeds: How often is drawn or trained; None takes the suite's own number.
        split: The part to evaluate on; None takes both.
        references: Agents of others fly too.
    """

    suite: SuiteName
    name: Annotated[str, Field(pattern=r"^[\w.-]*$")] = ""
    agents: Annotated[tuple[str, ...], Field(min_length=1)] = ("rules",)
    corpus: Path | None = None
    scenarios: tuple[str, ...] = ()
    seeds: Annotated[int, Field(ge=1)] | None = None
    split: Split | None = None
    references: bool = False


USED: dict[SuiteName, tuple[str, ...]] = {
    "detection": ("agents", "corpus", "seeds", "split"),
    "decisions": ("agents", "corpus", "seeds"),
    "sandbox": ("agents", "scenarios", "seeds", "split", "references"),
}
"""What each suite can be asked beside its name."""
_OPTIONS = {"agents": "--agent", "scenarios": "--scenario"}


def read_asked(what: str, options: Mapping[str, Any]) -> dict[str, Asked]:
    """What is asked, by name; under the empty name alone where it is one suite by itself.

    Args:
        what: A suite's name, or the path of a TOML file.
        options: Fields of :class:`Asked` that override what a file says.

    Raises:
        BadInput: There is no such suite or file, or it does not say what it may say.
    """
    if what in USED:
        tables: list[tuple[str, Any]] = [(what, {"suite": what})]
        named = False
    elif what.endswith(".toml"):
        tables, named = _tables(Path(what))
    else:
        known = ", ".join(USED)
        raise BadInput(f"{what}: no such suite; known: {known}, or a .toml file that says more")
    found = [_asked(where, table, Path(what).parent) for where, table in tables]
    _check_used(options, found)
    found = [_overridden(one, options) for one in found]
    if not named:
        return {"": found[0]}
    names = [one.name or one.suite for one in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise BadInput(f"{what}: two suites are called {twice!r}; give each a name of its own")
    return dict(zip(names, found, strict=True))


def _tables(path: Path) -> tuple[list[tuple[str, Any]], bool]:
    """The tables of a file, each with where it stands, and whether there may be several."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise BadInput(f"{path}: cannot be read as a suite file: {reason}") from error
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        last = f"line {len(text.splitlines())}, the last"
        words = str(error).replace("end of document", last)
        raise BadInput(f"{path}: not valid TOML: {words}") from error
    if not isinstance(given.get("suite"), list):
        return [(str(path), given)], False
    if len(given) > 1:
        stray = next(key for key in given if key != "suite")
        raise BadInput(f"{path}: {stray} stands outside of the [[suite]] tables; put it into one")
    if not given["suite"] or not all(isinstance(table, dict) for table in given["suite"]):
        raise BadInput(f"{path}: suite: expected a name, or [[suite]] tables")
    tables = enumerate(given["suite"], start=1)
    return [(f"{path}, suite {number}", table) for number, table in tables], True


def _asked(where: str, table: Any, folder: Path) -> Asked:
    try:
        asked = Asked.model_validate(table)
    except ValidationError as error:
        unknown = [one["loc"] for one in error.errors() if one["type"] == "extra_forbidden"]
        if unknown:
            known = ", ".join(Asked.model_fields)
            raise BadInput(f"{where}: {unknown[0][0]}: no such key; known: {known}") from error
        raise BadInput(f"{where}: {first_complaint(error)}") from error
    used = ("suite", "name", *USED[asked.suite])
    unused = next((key for key in asked.model_fields_set if key not in used), None)
    if unused is not None:
        known = ", ".join(used)
        raise BadInput(f"{where}: {unused}: nothing to {asked.suite}, which knows {known}")
    if asked.corpus is None:
        return asked
    return asked.model_copy(update={"corpus": folder / asked.corpus})


def _check_used(options: Mapping[str, Any], found: list[Asked]) -> None:
    for key in options:
        if not any(key in USED[one.suite] for one in found):
            suites = ", ".join(dict.fromkeys(one.suite for one in found))
            raise BadInput(f"{_OPTIONS.get(key, '--' + key)}: nothing to {suites}; leave it out")


def _overridden(asked: Asked, options: Mapping[str, Any]) -> Asked:
    own = {key: value for key, value in options.items() if key in USED[asked.suite]}
    try:
        return Asked.model_validate({**asked.model_dump(), **own})
    except ValidationError as error:
        raise BadInput(f"--{first_complaint(error)}") from error
