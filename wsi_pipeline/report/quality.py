"""What is missing, failed or doubtful in the data behind the page."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from wsi_pipeline.report import numbers as fmt
from wsi_pipeline.report.facts import Run, Status
from wsi_pipeline.report.raters import without_names
from wsi_pipeline.report.reading import mapping, text, texts


@dataclass(frozen=True, slots=True)
class Issue:
    """One line: which slide or file (`where`), and what about it."""

    where: str
    what: str


@dataclass(frozen=True, slots=True)
class Concern:
    """A kind of issue; `none` is the sentence for when there is none."""

    title: str
    issues: tuple[Issue, ...]
    none: str


def concerns(run: Run) -> tuple[Concern, ...]:
    """Everything that a reader of the figures should know about the data, worst first."""
    slides = run.slides
    return (
        Concern(
            "Alarms: images left out",
            tuple(Issue("", without_names(word, run)) for word in texts(run.metrics.get("alarms"))),
            "None raised." if run.metrics else "Nothing has been collected yet.",
        ),
        Concern(
            "Slides that failed",
            tuple(Issue(s.slide_id, s.reason or "no reason was recorded") for s in slides if s.status is Status.FAILED),
            "None: every slide that was tried was predicted.",
        ),
        Concern(
            "Slides that tripped a sanity check",
            tuple(Issue(s.slide_id, "; ".join(s.summary.flags)) for s in slides if s.summary and s.summary.flags),
            "None.",
        ),
        Concern(
            "Slides with failed blocks",
            tuple(
                Issue(s.slide_id, f"{fmt.counted(n, 'block')} of {_blocks(s.summary.blocks)} could not be computed")
                for s in slides
                if s.summary and (n := s.summary.blocks.get("failed", 0))
            ),
            "None: every block was computed.",
        ),
        Concern(
            "Handed out, not reviewed",
            _waiting(run),
            "None: everything that was handed out has been reviewed." if run.reviewed else "Nothing is waiting.",
        ),
        Concern(
            "Reviewed without a log of time",
            _without_time(run),
            "None." if run.reviewed else "Nothing has been reviewed yet.",
        ),
        Concern(
            "Objects without a class",
            tuple(
                Issue(s.slide_id, f"{fmt.counted(s.reviewed.unclassified, 'object')} to be given a class in QuPath")
                for s in slides
                if s.reviewed and s.reviewed.unclassified
            ),
            "None." if run.reviewed else "Nothing has been reviewed yet.",
        ),
        Concern(
            "Oddities in the event logs",
            tuple(Issue("", without_names(word, run)) for word in texts(run.metrics.get("flags"))),
            "None." if text(run.time.get("rule")) else "No log was read.",
        ),
        Concern(
            "Odd visits, and what is done about them",
            _anomalies(run),
            "None." if text(run.time.get("rule")) else "No log was read.",
        ),
        Concern(
            "Restored files",
            tuple(Issue("", without_names(word, run)) for word in texts(run.metrics.get("restored") or [])),
            "None." if run.metrics else "Nothing has been collected yet.",
        ),
        Concern(
            "Files left out",
            tuple(Issue("", problem) for problem in run.problems),
            "None: every file that is there could be read.",
        ),
    )


def _anomalies(run: Run) -> tuple[Issue, ...]:
    """`time.anomalies` of metrics.json by kind, with how the default rule treats each."""
    raw = run.time.get("anomalies")
    found = [mapping(item) for item in raw] if isinstance(raw, list) else []
    counts = Counter((text(item.get("kind")) or "", text(item.get("treatment")) or "") for item in found)
    return tuple(
        Issue(kind.replace("_", " "), f"{fmt.counted(count, 'time')}; {treatment}")
        for (kind, treatment), count in sorted(counts.items())
    )


def _waiting(run: Run) -> tuple[Issue, ...]:
    """By slide; in a study by batch, since a page of hundreds of readings tells nobody anything."""
    if not run.is_study:
        waiting = {Status.TODO, Status.IN_PROGRESS}
        return tuple(Issue(s.slide_id, s.status.value) for s in run.slides if s.status in waiting)
    counts = Counter((r.review.batch or "", r.review.arm or "", r.status) for r in run.readings)
    return tuple(
        Issue(batch, f"{fmt.counted(count, 'reading')} of the {arm} arm {status.value}")
        for (batch, arm, status), count in sorted(counts.items())
        if status is not Status.REVIEWED
    )


def _without_time(run: Run) -> tuple[Issue, ...]:
    what = "no active time is known"
    if not run.is_study:
        return tuple(Issue(s.slide_id, what) for s in run.reviewed if s.reviewed and s.reviewed.active_s is None)
    return tuple(
        Issue(r.slide_id, f"{what} of its reading in {r.review.batch}, {r.review.arm} arm")
        for r in run.readings
        if r.review.reviewed and r.review.active_s is None
    )


def _blocks(blocks: dict[str, int] | object) -> str:
    return fmt.integer(sum(blocks.values())) if isinstance(blocks, dict) else fmt.DASH


def recipe(run: Run) -> tuple[tuple[str, str], ...]:
    """What the run was made with, as name and value; what is not recorded says so."""
    missing = "not recorded"
    rows = [
        ("Run", run.run_id),
        ("Model", run.model_id or missing),
        ("Weights, SHA-256", text(run.model.get("sha256")) or "none: the model has no weights"),
        ("Runtime", ", ".join(f"{k} {v}" for k, v in run.runtime.items() if text(v)) or missing),
        ("Region threshold", fmt.significant(_number(run, "regions", "threshold"), 3)),
        ("Smallest region", fmt.area(_number(run, "regions", "min_area_um2"))),
        ("Smallest hole", fmt.area(_number(run, "regions", "min_hole_um2"))),
        ("Simplification", fmt.micrometres(_number(run, "regions", "simplify_um"))),
        ("Surface tolerance", fmt.micrometres(run.tolerance_um)),
        ("Longest pause counted", fmt.duration(_number(run, "review", "idle_s"))),
        ("Rule of time", text(run.time.get("rule")) or "none: no time was measured"),
    ]
    if run.raters:
        rows.append(("Raters", fmt.integer(len(run.raters))))
    versions = ", ".join(f"{name} {version}" for name, version in sorted(run.versions.items()))
    return (*rows, ("Versions", versions or missing))


def _number(run: Run, section: str, key: str) -> float | None:
    value = run.setting(section, key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
