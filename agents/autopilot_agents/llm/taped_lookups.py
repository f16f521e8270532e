"""Look-ups that a tape takes up, with every figure that they made citable."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from autopilot.schema.consultations import LookedUp
from autopilot_agents.llm.figures import Figures
from autopilot_agents.llm.lookups import LookUp
from autopilot_agents.llm.tape import Tape


def taped(lookups: Mapping[str, LookUp], tape: Tape, figures: Figures) -> Mapping[str, LookUp]:
    """The same look-ups, each taped, or told as it was taped.

    One is made at a time, so that it is known which figures it showed.

    Args:
        lookups: By name.
        tape: Of the question that they belong to.
        figures: Where they enter what they show.
    """
    lock = asyncio.Lock()
    tape.offered = tuple(lookups)
    return {name: _taped(name, one, tape, figures, lock) for name, one in lookups.items()}


def _taped(name: str, lookup: LookUp, tape: Tape, figures: Figures, lock: asyncio.Lock) -> LookUp:
    async def look(**arguments: Any) -> str:
        asked = json.dumps(arguments, sort_keys=True)
        async with lock:
            known = tape.recall(name, asked)
            if known is not None:
                for cited in known.figures:
                    figures.add(cited.metric, cited.step, cited.value)
            else:
                before = len(figures)
                try:
                    text = await lookup.ask(**arguments)
                except Exception as error:  # a run that is gone is no end of the question
                    text = f"{name} failed: {type(error).__name__}"
                shown = figures.since(before)
                known = LookedUp(name=name, arguments=asked, text=text, figures=shown)
            tape.look(known)
            return known.text

    return LookUp(lookup.words, lookup.arguments, look)
