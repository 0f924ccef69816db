"""Raw event logs are deleted once they are old; the times that were collected from them stay."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

from wsi_pipeline.config import Review
from wsi_pipeline.handout import read_plans
from wsi_pipeline.measures import Session
from wsi_pipeline.privacy.logs import going, let_go
from wsi_pipeline.rundir import RunDir

logger = logging.getLogger(__name__)


def expire_events(run: RunDir, review: Review, keep_days: int, *, now: datetime | None = None) -> int:
    """Delete event logs whose last event is more than `keep_days` days ago; returns how many.

    Only what was collected goes: a log that is younger than review/metrics.json stays, and without that file all do.
    """
    if not run.metrics.is_file():
        return 0
    last = (now or datetime.now(tz=UTC)) - timedelta(days=keep_days)
    collected = run.metrics.stat().st_mtime

    def is_old(log: Path, session: Session) -> bool:
        ended = max((event.t for event in session.events), default=None)
        return ended is not None and ended < 1000 * last.timestamp() and log.stat().st_mtime <= collected

    deleted = let_go(run, going(run, read_plans(run), review, is_old))
    if deleted:
        logger.info("deleted %d event logs older than %d days; their times are kept", deleted, keep_days)
    return deleted
