"""The flight recorder of one run: append-only, hash-chained, branch-aware.

One process writes a journal, any number read it meanwhile. Events are durable before
:meth:`Journal.append` returns; rows are committed in batches and bound into the chain in blocks.
"""

from autopilot.journal.ancestry import Branch
from autopilot.journal.reader import JournalReader
from autopilot.journal.writer import Journal

__all__ = ["Branch", "Journal", "JournalReader"]
