"""How the work goes on: week by week, what waits and for how long, and when it may be done."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from wsi_pipeline.report import numbers as fmt
from wsi_pipeline.report.charts import Panel, trend_chart
from wsi_pipeline.report.facts import Review, Run, Status
from wsi_pipeline.report.parts import Chart, Figure

# The pace is that of the last weeks in which anybody worked, no more than so many.
RECENT_WEEKS = 4
# Over fewer weeks a pace is an accident.
FEWEST_WEEKS = 2
_WEEK = timedelta(weeks=1)
_AGES: tuple[tuple[str, int], ...] = (("under 1 week", 7), ("1 to 2 weeks", 14), ("2 to 4 weeks", 28))
OLDER, UNKNOWN = "over 4 weeks", "not known"
WAITING = (Status.TODO, Status.IN_PROGRESS)


@dataclass(frozen=True, slots=True)
class Week:
    """One week of review, named by its Monday; `slides` are readings in a study. Medians are of those with a value."""

    monday: date
    slides: int
    minutes: float | None
    untouched: float | None
    changed: float | None


def weeks(run: Run) -> tuple[Week, ...]:
    """All weeks from the first to the last, those without work too; a slide counts in the week of its last action.

    In a study each reading counts, in the week of the rater's last action in it.
    """
    by_week: dict[date, list[Review]] = {}
    for monday, review in _dated(run):
        by_week.setdefault(monday, []).append(review)
    if not by_week:
        return ()
    first, last = min(by_week), max(by_week)
    mondays = [first + n * _WEEK for n in range((last - first).days // 7 + 1)]
    return tuple(_week(monday, by_week.get(monday, [])) for monday in mondays)


def _dated(run: Run) -> Iterator[tuple[date, Review]]:
    if run.is_study:
        for reading in run.readings:
            if reading.monday is not None and reading.review.reviewed:
                yield reading.monday, reading.review
        return
    for slide in run.reviewed:
        monday = run.weeks.get(slide.slide_id)
        if monday is not None and slide.reviewed is not None:
            yield monday, slide.reviewed


def _week(monday: date, reviews: Sequence[Review]) -> Week:
    # Without suggestions nothing is kept or changed, and the time is another one.
    assisted = [r for r in reviews if r.arm != "manual"]
    active = [r.active_s / 60 for r in assisted if r.active_s is not None]
    predicted = [sum(n for kind, n in r.counts.items() if kind != "added") for r in assisted]
    untouched = sum(r.counts.get("untouched", 0) for r in assisted)
    before = sum(r.total("area_before") or 0.0 for r in assisted)
    changed = sum(r.changed_um2 or 0.0 for r in assisted)
    return Week(
        monday=monday,
        slides=len(reviews),
        minutes=statistics.median(active) if active else None,
        untouched=untouched / sum(predicted) if sum(predicted) else None,
        changed=changed / before if before else None,
    )


def trend(run: Run) -> Chart | None:
    """The weeks as a chart; None where no log says when the slides were reviewed."""
    found = weeks(run)
    if not found:
        return None
    dated = sum(week.slides for week in found)
    title = "Week by week"
    panels = (
        Panel(
            "Readings, both arms" if run.is_study else "Slides reviewed",
            _points([float(week.slides) for week in found]),
        ),
        Panel("Active time, median min per slide", _points([week.minutes for week in found])),
        Panel("Kept as predicted, % of objects", _points([_percent(w.untouched) for w in found]), highest=100.0),
        Panel("Area changed, % of predicted", _points([_percent(week.changed) for week in found])),
    )
    labels = [f"{week.monday.day} {fmt.MONTHS[week.monday.month - 1][:3]}" for week in found]
    what = "reading" if run.is_study else "slide"
    words = "; ".join(f"week of {w.monday.isoformat()}: {fmt.counted(w.slides, what)}" for w in found)
    whole = sum(r.review.reviewed for r in run.readings) if run.is_study else len(run.reviewed)
    n = fmt.counted(dated, "reading" if run.is_study else "reviewed slide")
    if dated < whole:
        n += f" of {whole}; the others have no log"
    return Chart(
        title=title,
        svg=trend_chart(labels, panels, title=title, description=words),
        n=n,
        definition=(
            f"A {what} counts in the week (from Monday, UTC) of the rater’s last action on it. Weeks differ in their "
            "slides, so a trend is not a trend of people or of the model alone."
            + (" Time, objects and area are of the assisted arm." if run.is_study else "")
        ),
        source=run.sources.get("times", run.source),
        links=("slides.parquet", "time.parquet"),
    )


def _points(values: Sequence[float | None]) -> tuple[tuple[float, float | None], ...]:
    return tuple((float(x), y) for x, y in enumerate(values))


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits, by state and age on the day of the last log; ages are the columns."""

    ages: tuple[str, ...]
    rows: tuple[tuple[str, tuple[int, ...]], ...]
    oldest: tuple[str, int] | None
    as_of: str
    what: str = "slide"
    tiles: tuple[int, int] | None = None
    """Review tiles judged, and shown, of what is in progress: how far in people are."""

    @property
    def total(self) -> int:
        return sum(sum(counts) for _, counts in self.rows)


def backlog(run: Run) -> Backlog | None:
    """Slides (in a study readings) that were handed out and are not reviewed; None when nothing waits.

    Ages count to the last day in the logs, not to today, so that the same run gives the same page. A simulated clock
    says nothing about ages.
    """
    waiting = _waiting(run)
    if not waiting:
        return None
    today = date.fromisoformat(run.dates[-1]) if run.dates and "times" not in run.simulated else None
    aged = [(slide_id, status, _age(day, today)) for slide_id, status, day in waiting]
    names = [*(name for name, _ in _AGES), OLDER, UNKNOWN]
    unknown = sum(age is None for _, _, age in aged)
    shown = names if unknown else names[:-1]
    if unknown == len(aged):
        shown = [UNKNOWN]
    rows = []
    for status in WAITING:
        counts = Counter(_bucket(age) for _, own, age in aged if own is status)
        rows.append((status.value, tuple(counts[name] for name in shown)))
    oldest = max(((slide_id, age) for slide_id, _, age in aged if age is not None), key=_by_age, default=None)
    what = "reading" if run.is_study else "slide"
    as_of = fmt.days(run.dates[-1:]) if today else ""
    return Backlog(tuple(shown), tuple(rows), oldest, as_of, what, _tiles_in_progress(run))


def _tiles_in_progress(run: Run) -> tuple[int, int] | None:
    reviews = [r.review for r in run.readings if r.status is Status.IN_PROGRESS]
    if not run.is_study:
        reviews = [s.review for s in run.slides if s.status is Status.IN_PROGRESS and s.review is not None]
    known = [review.tiles for review in reviews if review.tiles is not None]
    return (sum(judged for judged, _ in known), sum(shown for _, shown in known)) if known else None


def _waiting(run: Run) -> list[tuple[str, Status, date | None]]:
    if run.is_study:
        return [(r.slide_id, r.status, r.handed_out) for r in run.readings if r.status in WAITING]
    return [(s.slide_id, s.status, s.handed_out) for s in run.slides if s.status in WAITING]


def _by_age(item: tuple[str, int]) -> tuple[int, str]:
    return item[1], item[0]


def _age(handed_out: date | None, today: date | None) -> int | None:
    """Days since the handout; None where that is not known, or lies after the last log."""
    if today is None or handed_out is None or handed_out > today:
        return None
    return (today - handed_out).days


def _bucket(age: int | None) -> str:
    if age is None:
        return UNKNOWN
    return next((name for name, days in _AGES if age < days), OLDER)


def left_figure(run: Run) -> Figure | None:
    """What is left to review, in slides and hours, and when it may be done at the present pace."""
    done = len(run.reviewed)
    left = sum(s.status not in {Status.REVIEWED, Status.FAILED, Status.LEFT_OUT} for s in run.slides)
    if not run.slides:
        return None
    if run.is_study:
        return _readings_left(run)
    if not left:
        return Figure("Done", f"all {fmt.counted(done, 'slide')}", "nothing is left to review")
    notes = []
    active = [s.reviewed.active_s for s in run.reviewed if s.reviewed is not None and s.reviewed.active_s is not None]
    if active:
        each = statistics.median(active)
        notes.append(f"about {fmt.duration(each * left)} of reviewing at the median of n = {len(active)} slides")
    notes.append(_forecast(run, left))
    value = f"{fmt.integer(done)} done, {fmt.integer(left)} left"
    return Figure("Slides", value, "; ".join(notes))


def _readings_left(run: Run) -> Figure:
    """In a study a slide is done when every rater has read it in every arm, so readings are what counts."""
    readings = run.readings
    left = sum(not reading.review.reviewed for reading in readings)
    raters, arms = (len({getattr(r.review, name) for r in readings}) for name in ("rater", "arm"))
    of = f"{fmt.counted(len(run.slides), 'slide')}, {fmt.counted(raters, 'rater')}, {fmt.counted(arms, 'arm')}"
    if not left:
        return Figure("Done", f"all {fmt.integer(len(readings))} readings", of)
    value = f"{fmt.integer(len(readings) - left)} done, {fmt.integer(left)} left"
    return Figure("Readings", value, f"{of}; {_forecast(run, left)}")


def _forecast(run: Run, left: int) -> str:
    """The expected end, as a range between the slowest and the fastest of the last weeks."""
    if "times" in run.simulated:
        return "no date: the clock is simulated"
    found = [week for week in weeks(run) if week.slides][-RECENT_WEEKS:]
    if len(found) < FEWEST_WEEKS:
        return f"no date yet: it takes {FEWEST_WEEKS} weeks of review to know a pace"
    pace = statistics.mean(week.slides for week in found)
    what = "reading" if run.is_study else "slide"
    end = date.fromisoformat(run.dates[-1]) + timedelta(days=math.ceil(7 * left / pace))
    return (
        f"done about {fmt.days((end.isoformat(),))} at {fmt.significant(pace, 2)} {what}s a week, "
        f"the pace of the last {len(found)} weeks with work"
    )
