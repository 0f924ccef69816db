"""What a worker does in `benchmarks.scaling` in the place of predicting: nothing. Workers can import it from here."""

from __future__ import annotations

from wsi_pipeline.inference.store import BlockState
from wsi_pipeline.inference.work import BlockOutcome, BlockRun, RunOutcome, Seconds


def done_at_once(run: BlockRun) -> RunOutcome:
    """All blocks are said to be done."""
    return RunOutcome(tuple(BlockOutcome(b.row, b.column, BlockState.DONE) for b in run.blocks), Seconds())
