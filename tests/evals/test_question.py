"""What a model is asked about a decision, and how its answer is read."""

import pytest

from autopilot_evals.suites.decisions import reviewed
from autopilot_evals.suites.question import ANSWERS, question, read_answer


def test_every_answer_that_experts_accept_can_be_given() -> None:
    for decision in reviewed():
        assert any(read_answer(f'{{"answer": "{word}"}}') == word for word in ANSWERS)
        for word in decision.sets.acceptable:
            assert set(word.split("+")) - {"rewarm_lr"} <= set(ANSWERS)


def test_a_question_shows_the_window_and_not_what_was_done_then() -> None:
    for decision in reviewed():
        asked, window = question(decision.window()), decision.window()
        assert all(finding.message in asked for finding in window.findings)
        assert all(f"{summary.metric}: last" in asked for summary in window.summaries)
        assert asked.count("tried at step") == len(window.history)
        assert decision.what not in asked
        assert decision.reason not in asked
        assert len(asked) < 6000


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('{"answer": "nothing", "why": "it comes back"}', "nothing"),
        ('```json\n{"answer": "skip_batches+rollback"}\n```', "rollback+skip_batches"),
        ('{"answer": "rollback+rewarm_lr"}', "rollback"),
        ('first {"answer": "stop"}, no: {"answer": "ask"}', "ask"),
        ('{"answer": "delete_everything"}', None),
        ('{"answer": ["rollback"]}', None),
        ('{"reply": "rollback"}', None),
        ("rollback", None),
        ("", None),
    ],
)
def test_an_answer_is_one_of_the_closed_words_or_none(text: str, word: str | None) -> None:
    assert read_answer(text) == word
