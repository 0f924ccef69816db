"""The first screen: what was saved, whether it can be trusted, how far the work is."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wsi_pipeline.report import numbers as fmt
from wsi_pipeline.report.claims import claim, conflicts, planted
from wsi_pipeline.report.facts import CHANGES, ClassFigures, Run, Status, classes_of, model_classes, total
from wsi_pipeline.report.numbers import known
from wsi_pipeline.report.pace import left_figure
from wsi_pipeline.report.parts import Figure
from wsi_pipeline.report.raters import without_names
from wsi_pipeline.report.reading import text, texts
from wsi_pipeline.report.savings import saving_of

TIME_SOURCES: Mapping[str, str] = {
    "events": "QuPath event log",
    "timestamps": "TimeStamp extension of QuPath",
    "view_tracker": "QuPath view tracker",
    "exact": "EXACT",
    "self_report": "reported by the rater",
    "model": "estimated by a model of time",
    "simulated": "simulated",
}
# Below this share of reviewed slides with a time, the total is a lower bound and is said to be one.
ENOUGH_COVERAGE = 0.95
# More alarms than this are told as a number on the first screen; each stands under data quality.
MOST_ALARMS = 3
_CUT = re.compile(r"active_s_cap(\d+)")


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a bar: `share` from 0 to 1, `look` names its colour in the style sheet."""

    label: str
    count: int
    share: float
    look: str


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that a reader should know before using a figure; `anchor` is where more of it stands."""

    text: str
    anchor: str


@dataclass(frozen=True, slots=True)
class Screen:
    """All of the first screen."""

    saved: str
    saved_why: str
    effort: tuple[Figure, ...]
    trust: str
    trust_why: str
    alarms: tuple[Alarm, ...]
    progress: tuple[Part, ...]
    fate: tuple[Part, ...]
    agreement: tuple[Figure, ...]


def screen(run: Run) -> Screen:
    """Put the first screen together."""
    found = alarms(run)
    trust, why = _trust(run, found)
    saving, left = saving_of(run), left_figure(run)
    return Screen(
        saved=saving.answer,
        saved_why=fmt.sentence(saving.why),
        effort=(*(() if left is None else (left,)), time_figure(run), cost_figure(run), *_assumed(run)),
        trust=trust,
        trust_why=why,
        alarms=found,
        progress=_progress(run),
        fate=fate(run),
        agreement=(*_beside_time(run), *agreement(run)),
    )


def _beside_time(run: Run) -> tuple[Figure, ...]:
    """Quality, where somebody looked: never a gain without what the suggestions alone are worth, and the harm."""
    figures = []
    said, errors = claim(run), planted(run)
    if said.rows:
        found = dict(said.rows)
        note = (
            f"untouched suggestions {found['Untouched suggestions alone']}; right ones harmed: "
            f"{found['Right suggestions harmed']}; against a blind reader, {said.n}"
        )
        value = f"Dice {found['With pre-annotation']} with, {found['Without']} without"
        figures.append(Figure("Quality", value, note, said.source))
    if errors.planted:
        value = f"{fmt.integer(errors.caught)} of {fmt.integer(errors.planted)} caught"
        figures.append(Figure("Planted errors", value, f"{errors.share}; announced, and repaired after review"))
    return tuple(figures)


def _trust(run: Run, found: Sequence[Alarm]) -> tuple[str, str]:
    if not run.reviewed:
        return "Too early to say", "No slide has been reviewed, so nothing has been compared with a correction."
    if run.source == "simulated":
        return (
            "Only as a rehearsal",
            "The corrections are simulated: they show that every step works, not how people correct.",
        )
    return (
        f"With {fmt.counted(len(found), 'reservation')}",
        "Raters saw the prediction while they worked, so agreement with it is not accuracy.",
    )


def time_figure(run: Run) -> Figure:
    """Active time of the raters, over the slides that have one."""
    active = known(run.time.get("active_s"))
    if active is None:
        reason = text(run.time.get("reason")) or "no log of the reviewers’ work was found"
        return Figure("Reviewing time", fmt.NOT_MEASURED, fmt.sentence(reason), missing=True)
    each = _active_of_each(run)
    notes = []
    if each:
        notes.append(f"median {fmt.duration(statistics.median(each))} a slide, n{fmt.NARROW}={fmt.NARROW}{len(each)}")
    coverage = known(run.time.get("coverage"))
    if coverage is not None and coverage < 1:
        notes.append(f"known for {fmt.share(coverage)} of the reviewed slides")
    notes += _other_cuts(run)
    source = text(run.time.get("time_source")) or text(run.time.get("source")) or "not stated"
    named = " and ".join(TIME_SOURCES.get(part, part) for part in source.split(" and "))
    return Figure("Reviewing time", fmt.duration(active), "; ".join(notes), named)


def _active_of_each(run: Run) -> list[float]:
    """Seconds of each reviewed, assisted reading; of each slide where metrics.json lists no readings."""
    if run.readings:
        own = [r.review.active_s for r in run.readings if r.review.reviewed and r.assisted]
        return [active for active in own if active is not None]
    return [s.reviewed.active_s for s in run.slides if s.reviewed is not None and s.reviewed.active_s is not None]


def _other_cuts(run: Run) -> list[str]:
    """What the time would be with pauses cut shorter: how much of it hangs on the rule."""
    cuts = sorted(
        (int(match.group(1)), active)
        for key, value in run.time.items()
        if (match := _CUT.fullmatch(key))
        and (active := known(value)) is not None
        # The configured cut itself is the figure that this stands beside.
        and int(match.group(1)) != known(run.setting("review", "idle_s"))
    )
    if not cuts:
        return []
    if len({fmt.duration(active) for _, active in cuts} | {fmt.duration(known(run.time.get("active_s")))}) == 1:
        return [f"the same with pauses cut at {fmt.listed([str(cut) for cut, _ in cuts])}{fmt.NARROW}s"]
    told = fmt.listed([f"{fmt.duration(active)} with pauses cut at {cut}{fmt.NARROW}s" for cut, active in cuts])
    return [told]


def cost_figure(run: Run) -> Figure:
    """Cost of reviewing at the rates of the configuration."""
    amount = known(run.cost.get("total"))
    if amount is None:
        reason = text(run.cost.get("reason")) or "it needs a measured time and an hourly rate in the configuration"
        return Figure("Cost", fmt.NOT_MEASURED, fmt.sentence(reason), missing=True)
    currency = text(run.cost.get("currency")) or text(run.setting("costs", "currency")) or ""
    each, area = known(run.cost.get("per_slide")), known(run.cost.get("per_mm2"))
    value = fmt.money(amount, currency)
    notes = []
    if each is not None:
        notes.append(f"{value} in all")
        value = f"{fmt.money(each, currency)} a slide"
    if area is not None:
        notes.insert(0, f"{fmt.money(area, currency)} per mm² of tissue")
    missing = texts(run.cost.get("not_included"))
    if missing:
        notes.append(f"without {fmt.listed([name.replace('_', '-') for name in missing])}")
    source = text(run.cost.get("source"))
    if source and source != "simulated" and "times" in run.simulated:
        source += ", which is simulated"
    return Figure("Cost", value, "; ".join(notes), source)


def _assumed(run: Run) -> tuple[Figure, ...]:
    """The configured guess about drawing by hand: shown as what it is, never turned into a saving."""
    manual = known(run.setting("costs", "manual_minutes_per_slide"))
    if manual is None:
        return ()
    note = "an assumption of the configuration, not a measurement"
    return (Figure("By hand", f"{fmt.duration(60 * manual)} a slide", note, "assumed"),)


def alarms(run: Run) -> tuple[Alarm, ...]:
    """What stands against the figures, worst first."""
    found = []
    counts = {status: sum(s.status is status for s in run.slides) for status in Status}
    stated = texts(run.metrics.get("alarms"))
    if len(stated) > MOST_ALARMS:
        found.append(Alarm(f"{fmt.integer(len(stated))} alarms: images that the collection left out.", "quality"))
    else:
        found += [Alarm(fmt.sentence(without_names(word, run)), "quality") for word in stated]
    doubts = saving_of(run).warnings
    if len(doubts) > 1:
        found.append(Alarm(f"{fmt.counted(len(doubts), 'reservation')} about the saving.", "saving"))
    else:
        found += [Alarm(fmt.sentence(word), "saving") for word in doubts]
    if counts[Status.FAILED]:
        found.append(Alarm(f"{fmt.counted(counts[Status.FAILED], 'slide')} failed: in no figure.", "quality"))
    flagged = sum(bool(s.summary and s.summary.flags) for s in run.slides)
    if flagged:
        found.append(Alarm(f"{fmt.counted(flagged, 'slide')} tripped a sanity check of the prediction.", "quality"))
    waiting = counts[Status.TODO] + counts[Status.IN_PROGRESS]
    what = "slide"
    if run.is_study:
        waiting, what = sum(not r.review.reviewed for r in run.readings), "reading"
    if waiting and run.reviewed:
        found.append(Alarm(f"{fmt.counted(waiting, what)} handed out, not yet reviewed: in no figure.", "progress"))
    coverage = known(run.time.get("coverage"))
    if coverage is not None and coverage < ENOUGH_COVERAGE:
        found.append(Alarm(f"Time is known for {fmt.share(coverage)} of the slides: a lower bound.", "quality"))
    nameless = sum(s.reviewed.unclassified for s in run.slides if s.reviewed is not None)
    if nameless:
        found.append(Alarm(f"{fmt.counted(nameless, 'object')} without a class: in no Dice.", "quality"))
    oddities = len(texts(run.metrics.get("flags")))
    if oddities:
        found.append(Alarm(f"{fmt.counted(oddities, 'oddity', 'oddities')} in the event logs.", "quality"))
    undecided = conflicts(run)
    if undecided is not None and undecided.waiting:
        what = fmt.counted(undecided.waiting, "object")
        found.append(Alarm(f"{what} changed differently by raters, not decided yet.", "claims"))
    if run.reviewed and not claim(run).rows:
        found.append(Alarm("No blind second read: how right the corrections are is unknown.", "claims"))
    if run.problems:
        found.append(Alarm(f"{fmt.counted(len(run.problems), 'file')} could not be used.", "quality"))
    return tuple(found)


_LOOKS: Mapping[Status, str] = {
    Status.REVIEWED: "accent",
    Status.IN_PROGRESS: "accent-half",
    Status.TODO: "empty",
    Status.PREDICTED: "empty",
    Status.QUEUED: "empty",
    Status.LEFT_OUT: "failed",
    Status.FAILED: "failed",
}


def _progress(run: Run) -> tuple[Part, ...]:
    """By state: slides, in a study readings, with the slides that have none yet or were left out."""
    found = [r.status for r in run.readings] if run.is_study else []
    read = {r.slide_id for r in run.readings} if run.is_study else set()
    found += [s.status for s in run.slides if s.slide_id not in read]
    return _parts([(status.value, found.count(status), _LOOKS[status]) for status in Status])


def change_look(kind: str) -> str:
    """The colour of one kind of change."""
    return {"untouched": "kept", "deleted": "removed", "added": "added"}.get(kind, "accent")


def review_counts(run: Run) -> dict[str, int]:
    """Objects by kind of change over the reviewed slides (in a study readings of the assisted arm), in page order."""
    if run.is_study:
        reviews = [r.review for r in run.readings if r.review.reviewed and r.assisted]
    else:
        reviews = [s.reviewed for s in run.reviewed if s.reviewed is not None]
    counts = {kind: sum(review.counts.get(kind, 0) for review in reviews) for kind in CHANGES}
    return {kind: count for kind, count in counts.items() if count}


def fate(run: Run) -> tuple[Part, ...]:
    """What became of the objects of the reviewed slides."""
    return _parts([(CHANGES[kind], count, change_look(kind)) for kind, count in review_counts(run).items()])


def _parts(rows: Sequence[tuple[str, int, str]]) -> tuple[Part, ...]:
    whole = sum(count for _, count, _ in rows)
    return tuple(Part(label, count, count / whole, look) for label, count, look in rows if count)


def agreement(run: Run) -> tuple[Figure, ...]:
    """Prediction against correction over the reviewed slides, per class when there are several."""
    figures: list[Figure] = []
    classes = pooled_classes(run)
    judged = [c for c in classes if c.predictable]
    for pooled in judged[:3]:
        name = f"{pooled.name}: " if len(judged) > 1 else ""
        figures.append(_measure(run, pooled, f"{name}Dice", "dice"))
        figures.append(_measure(run, pooled, f"{name}surface Dice" if name else "Surface Dice", "surface_dice"))
    kept = total(c.kept for c in classes)
    before = total(c.area_before for c in classes)
    added = total(c.added for c in classes)
    if kept is not None and before:
        note = f"{fmt.mm2(kept)} of {fmt.mm2(before)}{fmt.NARROW}mm²"
        if added is not None:
            note += f"; {fmt.mm2(added)}{fmt.NARROW}mm² added that was not predicted"
        figures.append(Figure("Predicted area kept", fmt.share(kept / before), note))
    elif added is not None:
        figures.append(Figure("Area added", f"{fmt.mm2(added)}{fmt.NARROW}mm²", "in the correction, not predicted"))
    return tuple(figures)


def pooled_classes(run: Run) -> tuple[ClassFigures, ...]:
    """Figures per class over all reviewed slides, as metrics.json pools them; none before a review."""
    totals: Mapping[str, Any] = run.metrics.get("totals") or {}
    return classes_of(totals.get("classes"), model_classes(run.model)) if run.reviewed else ()


def _measure(run: Run, pooled: ClassFigures, label: str, field: str) -> Figure:
    values = [
        value
        for slide in run.reviewed
        for c in (slide.reviewed.classes if slide.reviewed else ())
        if c.name == pooled.name and (value := getattr(c, field)) is not None
    ]
    overall = getattr(pooled, field)
    if overall is None and not values:
        return Figure(label, fmt.NOT_MEASURED, "no slide has it", missing=True)
    spread = spread_of(values)
    if overall is None:
        return Figure(label, fmt.score(statistics.median(values)), spread)
    return Figure(label, fmt.score(overall), f"all area pooled; {spread}" if values else "all area pooled")


def spread_of(values: Sequence[float]) -> str:
    """Median over the slides and range in words, with n."""
    n = f"n{fmt.NARROW}={fmt.NARROW}{len(values)}"
    if len(values) < 2:
        return n
    low, high = fmt.score(min(values)), fmt.score(max(values))
    return f"median of slides {fmt.score(statistics.median(values))} ({low}{fmt.DASH}{high}), {n}"
