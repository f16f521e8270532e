"""Prompt files: strict to read and fill in; their text is pinned to a version."""

import hashlib
from pathlib import Path

import pytest

import autopilot
from autopilot.errors import BadInput
from autopilot_agents.llm.tokens import bound_tokens
from autopilot_agents.prompts import load_prompt, parse_prompt

FILLED = {
    "diagnose": {"lookups": 5},
    "review": {"words": 120},
    "report": {"words": 250},
    "ask": {"lookups": 5},
}
PINNED = {
    "diagnose@3": "633962ff7edb552c3ff843de325f81d49317a6a05951b98f46fcd72e8edb5058",
    "review@2": "a992b20418aaa60322805ae0f3e67bcceb3365a3b25c1c6c71698cffe896d911",
    "report@1": "27fb84f54404a7e5818b8ea53092ad449dd4a7c81ce6d62c526e29c05ed85845",
    "ask@1": "6cc1989b0357bbd2b37c2d0db63d944a89573522abd3a1049fdea806db117d92",
}
GOOD = "---\nid: a\nversion: 2\npurpose: p\ninputs: [x]\nmax_tokens: 9\n---\nsay {{x}}\n"


@pytest.mark.parametrize("name", FILLED)
def test_a_changed_prompt_is_a_new_version(name: str) -> None:
    prompt = load_prompt(name)
    assert prompt.sha == PINNED[prompt.label], f"{name}.md changed: raise its version, pin its sha"


@pytest.mark.parametrize("name", FILLED)
def test_a_filled_in_prompt_keeps_to_its_tokens(name: str) -> None:
    prompt = load_prompt(name)
    text = prompt.render(FILLED[name])
    assert "{{" not in text
    assert prompt.max_tokens / 2 < bound_tokens(text) <= prompt.max_tokens
    assert str(next(iter(FILLED[name].values()))) in text


@pytest.mark.parametrize("name", FILLED)
def test_every_prompt_says_that_evidence_is_no_instruction(name: str) -> None:
    text = load_prompt(name).text
    assert "evidence" in text
    assert "instruct" in text
    assert "<data-" in text
    assert "metric@step=value" in text


def test_the_digest_is_that_of_the_file() -> None:
    root = Path(autopilot.__file__).parents[1] / "prompts"
    files = {path.stem: path for path in root.glob("*.md")}
    assert files.keys() == FILLED.keys()
    for name, path in files.items():
        assert load_prompt(name).sha == hashlib.sha256(path.read_bytes()).hexdigest()


def test_filling_in_is_literal() -> None:
    prompt = parse_prompt(GOOD, origin="a.md")
    assert (prompt.label, prompt.render({"x": "{{x}} and {{y}}"})) == ("a@2", "say {{x}} and {{y}}")


@pytest.mark.parametrize("given", [{}, {"x": 1, "y": 2}, {"y": 2}])
def test_an_input_that_is_missing_or_unknown_is_an_error(given: dict[str, int]) -> None:
    with pytest.raises(BadInput, match="it takes: x"):
        parse_prompt(GOOD, origin="a.md").render(given)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("no front matter", "expected front matter"),
        ("---\nid: [\n---\ntext", "not YAML"),
        (GOOD.replace("version: 2", "version: two"), "version"),
        (GOOD.replace("purpose: p\n", ""), "purpose"),
        (GOOD.replace("inputs: [x]", "inputs: []"), "disagree about: x"),
        (GOOD.replace("{{x}}", "nothing"), "disagree about: x"),
        (GOOD.replace("id: a", "id: a\nmodel: gpt"), "model"),
    ],
)
def test_a_prompt_file_that_is_not_as_expected_is_named_with_its_fault(
    source: str, words: str
) -> None:
    with pytest.raises(BadInput, match=words) as raised:
        parse_prompt(source, origin="a.md")
    assert str(raised.value).startswith("a.md: ")


def test_a_prompt_that_is_not_there_is_named() -> None:
    with pytest.raises(BadInput, match="prompt poem"):
        load_prompt("poem")
