"""What reviewing cost: the ledger of a run, with its amounts per slide and per mm² of tissue reviewed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wsi_pipeline.collect.images import CollectedImage
from wsi_pipeline.collect.spending import Beside
from wsi_pipeline.collect.time_figures import key_of
from wsi_pipeline.collect.times import ImageTime
from wsi_pipeline.config import Costs
from wsi_pipeline.handout.plan import ASSISTED
from wsi_pipeline.measures import review_cost
from wsi_pipeline.measures.ledger import Basis, Told, Work, ledger
from wsi_pipeline.measures.time import TimeSource
from wsi_pipeline.states import Source

_SECONDS = 3600.0


def cost_figures(
    images: Sequence[CollectedImage],
    times: Sequence[ImageTime],
    costs: Costs,
    source: Source,
    tissue_mm2: Mapping[str, float],
    *,
    beside: Beside | None = None,
) -> dict[str, Any]:
    """The part `cost` of metrics.json, of the assisted arm.

    Parameters
    ----------
    images, times
        Of all arms; of readers only, as adjudication is in `beside`.
    source
        Of the times.
    tissue_mm2
        Area of tissue by slide id, where it is known.
    beside
        What else was counted.
    """
    assisted = [time for time in times if time.arm == ASSISTED]
    by_image = {(time.batch, time.rater, time.slide_id): time for time in assisted}
    reviewed = [i for i in images if i.state.is_reviewed and i.slide.arm == ASSISTED and key_of(i) in by_image]
    seconds = [by_image[key_of(image)].active_s for image in reviewed]
    cost = review_cost(
        costs,
        active_s=sum(time.active_s for time in assisted) if assisted else None,
        reviewed_s=sum(seconds) if reviewed else None,
        reviewed=len(reviewed),
        source=source,
    )
    known = [(s, tissue_mm2[i.slide.slide_id]) for s, i in zip(seconds, reviewed, strict=True) if _area(tissue_mm2, i)]
    return with_ledger(
        cost,
        costs,
        sum(time.active_s for time in assisted if not time.repeat) if assisted else None,
        reviewer_s=sum(time.active_s for time in assisted if time.repeat) or None,
        slides=len(reviewed),
        reviewed_areas=known,
        beside=beside,
        told=_told(assisted, source),
    )


def _told(assisted: Sequence[ImageTime], source: Source) -> dict[str, Told]:
    """How the times of readings are known."""
    basis = Basis.SIMULATED if source is Source.SIMULATED else Basis.MEASURED
    found = {}
    for name, times in (
        ("pathologist", [time for time in assisted if not time.repeat]),
        ("reviewer", [time for time in assisted if time.repeat]),
    ):
        sources = sorted({time.time_source for time in times})
        read_from = " and ".join(_READ_FROM.get(source, source.replace("_", " ")) for source in sources)
        images = f"{len(times)} image{'' if len(times) == 1 else 's'}"
        found[name] = Told(basis, f"active time in {images}, from {read_from}") if times else Told(why=_NONE[name])
    return found


_READ_FROM: Mapping[str, str] = {
    TimeSource.EVENTS: "event logs",
    TimeSource.SELF_REPORT: "what raters wrote down",
    TimeSource.SIMULATED: "simulated logs",
}
_NONE = {"pathologist": "no time of an assisted image was found", "reviewer": "no second reading has a time"}


def _area(tissue_mm2: Mapping[str, float], image: CollectedImage) -> float:
    return tissue_mm2.get(image.slide.slide_id, 0.0)


def with_ledger(
    cost: dict[str, Any],
    costs: Costs,
    active_s: float | None,
    *,
    reviewer_s: float | None = None,
    slides: int = 0,
    reviewed_areas: Sequence[tuple[float, float]] = (),
    beside: Beside | None = None,
    told: Mapping[str, Told] | None = None,
) -> dict[str, Any]:
    """`cost` of metrics.json with all that has a rate and a count in its total, and by name what it does not hold.

    `per_slide` and `per_mm2` are the pathologist's time on reviewed slides alone, `total_per_slide` and
    `total_per_mm2` what people did and the set-up over the same slides, and with it what computing and storage cost
    for each predicted slide. With `beside`, `ledger` has a line for each of them, counted or not, with how it is known.

    Parameters
    ----------
    active_s
        Of first readings; second ones are `reviewer_s`, and cost the pathologist's rate where they have none.
    slides
        Reviewed slides with a time.
    reviewed_areas
        Seconds and mm² of tissue of each reviewed slide where both are known.
    beside
        What else was counted.
    told
        How the readings' times are known, by line.
    """
    said = dict(told or {})
    if reviewer_s is not None and costs.reviewer_per_hour is None:
        active_s, reviewer_s = (active_s or 0.0) + reviewer_s, None
        said["reviewer"] = Told(
            why="in the pathologist's line and at that rate: `costs.reviewer_per_hour` is not given"
        )
    area = sum(mm2 for _, mm2 in reviewed_areas)
    whole_ledger = ledger(costs, _work(active_s, reviewer_s, slides, beside, said))
    if beside is not None:
        cost = {**cost, "ledger": [line.as_json() for line in whole_ledger.lines]}
        if whole_ledger.machines_per_slide:
            cost["machines_per_slide"] = whole_ledger.machines_per_slide
    if "total" not in cost:
        return cost
    book = whole_ledger.as_json()
    whole = book.pop("per_slide", None)
    found = {**cost, **{name: value for name, value in book.items() if name != "currency"}}
    if whole is not None:
        found["total_per_slide"] = whole
    if area and costs.pathologist_per_hour is not None:
        found |= {"area_mm2": area, "slides_with_area": len(reviewed_areas)}
        found["per_mm2"] = costs.pathologist_per_hour * sum(s for s, _ in reviewed_areas) / _SECONDS / area
        # A total over part of the area would be too much per mm².
        if len(reviewed_areas) == slides:
            found["total_per_mm2"] = (whole or 0.0) * slides / area
    return found


def _work(
    active_s: float | None, reviewer_s: float | None, slides: int, beside: Beside | None, told: Mapping[str, Told]
) -> Work:
    other = beside or Beside()
    return Work(
        pathologist_s=active_s,
        reviewer_s=reviewer_s,
        adjudicator_s=other.adjudicator_s,
        compute_s=other.compute_s,
        gpu_s=other.gpu_s,
        storage_gb_months=other.storage_gb_months,
        slides=slides,
        predicted=other.predicted,
        told={
            **told,
            "compute": other.compute,
            "storage": other.storage,
            "adjudicator": other.adjudicator,
        },
    )
