"""Versioned prompt files: strict to read, strict to fill in, and named by what they say."""

import hashlib
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import yaml
from pydantic import Field, ValidationError

import autopilot
from autopilot.errors import BadInput
from autopilot.schema import Record

_HOLE = re.compile(r"\{\{([^{}]*)\}\}")
_FILE = re.compile(r"\A---\n(.*?)\n---\n(.*)\Z", re.DOTALL)


class _Front(Record):
    """The front matter of a prompt file."""

    id: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    version: int = Field(ge=1)
    purpose: str = Field(min_length=1)
    inputs: tuple[str, ...] = ()
    max_tokens: int = Field(ge=1)


class Prompt(Record):
    """One prompt file.

    Attributes:
        inputs: Names that the text leaves open as ``{{name}}``.
        max_tokens: The most that the filled-in text may take; held by a test.
        text: What follows the front matter.
        sha: SHA-256 of the file.
    """

    id: str
    version: int
    purpose: str
    inputs: tuple[str, ...]
    max_tokens: int
    text: str
    sha: str

    @property
    def label(self) -> str:
        """Name and version, as in ``diagnose@1``."""
        return f"{self.id}@{self.version}"

    def render(self, values: Mapping[str, object]) -> str:
        """The text with every input filled in; values are not read for further inputs.

        Raises:
            BadInput: An input is missing, or one is given that the prompt does not know.
        """
        missing = sorted(set(self.inputs) - values.keys())
        unknown = sorted(values.keys() - set(self.inputs))
        if missing or unknown:
            problem = f"input {missing[0]!r} is missing" if missing else f"no input {unknown[0]!r}"
            expected = ", ".join(self.inputs) or "none"
            raise BadInput(f"prompt {self.label}: {problem}; it takes: {expected}")
        return _HOLE.sub(lambda hole: str(values[hole[1]]), self.text)


def parse_prompt(source: str, *, origin: str) -> Prompt:
    """Read a prompt from the text of its file.

    Raises:
        BadInput: The front matter is not as expected, or does not agree with the text.
    """
    parts = _FILE.match(source)
    if parts is None:
        raise BadInput(f"{origin}: expected front matter between two lines '---', then text")
    try:
        front = _Front.model_validate(yaml.safe_load(parts[1]))
    except yaml.YAMLError as error:
        raise BadInput(f"{origin}: front matter is not YAML: {error}") from error
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"])) or "front matter"
        raise BadInput(f"{origin}: {place}: {problem['msg']}") from error
    text = parts[2].strip()
    used = {hole[1] for hole in _HOLE.finditer(text)}
    if used != set(front.inputs):
        apart = ", ".join(sorted(used ^ set(front.inputs)))
        raise BadInput(f"{origin}: inputs and text disagree about: {apart}")
    sha = hashlib.sha256(source.encode()).hexdigest()
    return Prompt(**front.model_dump(), text=text, sha=sha)


@cache
def load_prompt(name: str) -> Prompt:
    """The prompt of that name.

    Raises:
        BadInput: There is none, or its file is not as expected.
    """
    place = _folder() / f"{name}.md"
    if not place.is_file():
        raise BadInput(f"prompt {name}: no such file among the prompts")
    prompt = parse_prompt(place.read_text(encoding="utf-8"), origin=f"prompt {name}")
    if prompt.id != name:
        raise BadInput(f"prompt {name}: its id says {prompt.id!r}; file and id must agree")
    return prompt


def _folder() -> Traversable:
    """Inside the installed package, or at the root of the working tree it is imported from."""
    packaged = files(autopilot) / "_prompts"
    return packaged if packaged.is_dir() else Path(autopilot.__file__).parents[1] / "prompts"
