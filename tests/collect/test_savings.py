"""From plans and times to the saving: which images count, and what metrics.json says of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from wsi_pipeline.collect.costs import cost_figures, with_ledger
from wsi_pipeline.collect.images import CollectedImage
from wsi_pipeline.collect.savings import readings_of, saving_figures
from wsi_pipeline.collect.splits import false_positive_bands, weeks_of
from wsi_pipeline.collect.time_figures import BatchLogs
from wsi_pipeline.collect.times import ImageTime
from wsi_pipeline.config import Costs
from wsi_pipeline.handout import Plan
from wsi_pipeline.handout.plan import HandedOutSlide, PlantedError
from wsi_pipeline.measures.time import Event, EventType, Session
from wsi_pipeline.states import ImageState, Source

RATES = Costs(pathologist_per_hour=120, set_up=1000)
# µm² that was taken away of 1000 predicted, where it is not 10.
REMOVED = {"s1": 100.0, "s3": 100.0, "s5": 500.0}


def slide_of(name: str, arm: str, position: int, **more: object) -> HandedOutSlide:
    return HandedOutSlide.model_validate(
        {
            "slide_id": name, "name": name, "uri": f"file:///{name}.tif", "width": 10, "height": 10, "mpp": 0.5,
            "run_id": "run", "key": "key", "snapshot": "s.geojson", "sha256": "0", "objects": 0,
            "arm": arm, "position": position, **more,
        }
    )  # fmt: skip


def image_of(rater: str, batch: str, slide: HandedOutSlide, state: ImageState = ImageState.REVIEWED) -> CollectedImage:
    plan = Plan(batch=batch, rater=rater, project=f"projects/{rater}/{batch}/project.qpproj", slides=(slide,))
    figures = {"Tumor": {"area_before_um2": 1000.0, "removed_um2": REMOVED.get(slide.slide_id, 10.0)}}
    return CollectedImage(plan, slide, 1, state, Source.MEASURED, (), (), {"classes": figures}, ())


def time_of(image: CollectedImage, seconds: float, source: str = "measured") -> ImageTime:
    slide = image.slide
    return ImageTime(
        slide_id=slide.slide_id, patient=slide.patient, batch=image.plan.batch, rater=image.plan.rater, arm=slide.arm,
        position=slide.position, repeat=slide.repeat, active_s=seconds, active_s_cap60=seconds, active_s_cap100=seconds,
        active_s_cap300=seconds, visits=1, cap_s=300.0, time_source="events", source=source, rule="timeline_cap300",
    )  # fmt: skip


def crossover(raters: int = 5, slides: int = 10, even: bool = True) -> tuple[list[CollectedImage], list[ImageTime]]:
    """By hand slide j takes 600 + 10 j seconds, with suggestions a share that differs a little from pair to pair."""
    images, times = [], []
    for i in range(raters):
        for j in range(slides):
            manual_late = even and (i + j) % 2
            share = 0.6 + 0.02 * ((3 * i + 7 * j) % 5 - 2)
            for arm in ("manual", "assisted"):
                late = (arm == "manual") == bool(manual_late)
                image = image_of(f"r{i}", f"batch-{1 + late}", slide_of(f"s{j}", arm, 1 + j + slides * late))
                images.append(image)
                times.append(time_of(image, (600 + 10 * j) * (share if arm == "assisted" else 1)))
    return images, times


def test_a_crossover_becomes_a_measured_saving_with_what_follows_from_it() -> None:
    images, times = crossover()
    found = saving_figures(images, times, RATES, open_slides=40)
    assert found["kind"] == "measured"
    assert found["ratio"] == pytest.approx(0.6, rel=0.01)
    assert found["ci95"][0] < 0.6 < found["ci95"][1]
    assert (found["raters"], found["slides"], found["pairs"], found["dropped"]) == (5, 10, 50, 0)
    assert found["source"] == "measured"
    assert found["rule"] == "timeline_cap300"
    # 645 s by hand at 120 an hour is 21.5 a slide, 40 % of it saved: 1000 is paid back after 117 slides.
    assert found["break_even"]["slides"] == pytest.approx(117, abs=1)
    assert found["forecast"]["slides"] == 40
    assert {part["group"] for part in found["splits"][0]["parts"]} == {"manual first", "assisted first"} or found[
        "splits"
    ][0]["refused"]


def test_one_order_only_is_before_and_after_without_break_even() -> None:
    images, times = crossover(even=False)
    found = saving_figures(images, times, RATES, open_slides=40)
    assert found["kind"] == "before_after"
    assert "confounded" in found["label"]
    assert "break_even" not in found
    assert "forecast" not in found


def test_without_a_control_arm_nothing_is_measured() -> None:
    images, times = crossover()
    assisted = [image for image in images if image.slide.arm == "assisted"]
    found = saving_figures(assisted, times, RATES, open_slides=0)
    assert found["kind"] == "not_measured"
    assert found["status"] == "not measured"
    assert "control arm" in found["reason"]
    assert "ratio" not in found


def test_repeats_planted_errors_and_open_images_are_other_work() -> None:
    planted = PlantedError(kind="missing", true="uuid", truth="t.geojson", sha256="0")
    images = [
        image_of("a", "batch-1", slide_of("s1", "assisted", 1)),
        image_of("a", "batch-1", slide_of("s2", "assisted", 2, repeat=True)),
        image_of("a", "batch-1", slide_of("s3", "assisted", 3, planted=planted)),
        image_of("a", "batch-1", slide_of("s4", "assisted", 4), ImageState.IN_PROGRESS),
    ]
    assert [r.slide for r in readings_of(images, {})] == ["s1"]


def test_a_reviewed_image_without_time_is_counted_as_dropped() -> None:
    images, times = crossover()
    found = saving_figures(images, times[4:], RATES, open_slides=0)
    assert found["dropped"] == 4
    assert found["pairs"] == 48


def shuffled(raters: int = 5, slides: int = 10) -> tuple[list[CollectedImage], list[ImageTime]]:
    """The crossover with an order of slides of its own for each rater, so that position and slide come apart."""
    images, times = crossover(raters, slides)
    moved = []
    for image in images:
        late = image.plan.batch == "batch-2"
        i, j = int(image.plan.rater[1:]), int(image.slide.slide_id[1:])
        place = 1 + (7 * j + 3 * i * (j % 3) + 5 * i) % slides + slides * late
        moved.append(replace(image, slide=image.slide.model_copy(update={"position": place})))
    return moved, times


def split_of(found: dict[str, object], name: str) -> dict[str, dict[str, object]]:
    splits = found["splits"]
    assert isinstance(splits, list)
    (split,) = [s for s in splits if s["name"] == name]
    assert split["label"] == "exploratory"
    return {part["group"]: part for part in split["parts"]}


def test_splits_stand_beside_the_saving_with_n_and_without_an_interval_where_they_are_small() -> None:
    images, times = shuffled()
    kinds = {f"s{j}": "lymph node" if j < 3 else "breast" for j in range(10)}
    found = saving_figures(images, times, RATES, open_slides=0, tissue_kinds=kinds)
    tissue = split_of(found, "tissue kind")
    assert {name: part["slides"] for name, part in tissue.items()} == {"lymph node": 3, "breast": 7}
    areas = split_of(found, "false-positive area")
    assert {name: part["slides"] for name, part in areas.items()} == {
        "0 to 2 %": 7,
        "2 to 20 %": 2,
        "20 % and more": 1,
    }
    assert all(part["ci95"] is None for part in (*tissue.values(), *areas.values())), "under ten slides"
    assert all(part["raters"] == 5 for part in tissue.values())


def test_a_split_of_enough_raters_and_slides_has_an_interval_and_three_raters_have_none() -> None:
    for raters, has_interval in ((5, True), (3, False)):
        images, times = shuffled(raters, 24)
        kinds = {f"s{j}": "ab"[j % 2] for j in range(24)}
        tissue = split_of(saving_figures(images, times, RATES, open_slides=0, tissue_kinds=kinds), "tissue kind")
        assert all((part["ci95"] is not None) == has_interval for part in tissue.values())


def test_splits_are_refused_where_position_and_slide_are_aliased() -> None:
    images, times = crossover()
    found = saving_figures(images, times, RATES, open_slides=0, tissue_kinds={"s1": "lymph node"})
    assert {s["name"] for s in found["splits"]} == {"tissue kind", "false-positive area", "order"}
    assert all(s["parts"] == [] and "aliased" in s["refused"] for s in found["splits"])


def test_weeks_are_those_of_the_raters_own_last_action() -> None:
    image = image_of("a", "batch-1", slide_of("s1", "assisted", 1))
    # Monday, 11 May 2026, 00:30 UTC; the day before, and the day on which somebody else was there.
    monday = 1_778_459_400_000
    own = Session("p", "a", (event(0, monday - 86_400_000), event(1, monday)))
    foreign = Session("p", "b", (event(0, monday + 8 * 86_400_000),))
    undated = Session("p", "a", (event(0, 5.0),), absolute=False)
    logs = [BatchLogs(image.plan, [own, foreign, undated])]
    assert weeks_of([image], logs) == {("a", "s1", "assisted"): date(2026, 5, 11)}
    open_only = BatchLogs(image.plan, [Session("p", "a", (Event(0, monday, EventType.HEARTBEAT, "1"),))])
    assert weeks_of([image], [open_only]) == {}


def event(seq: int, t: float) -> Event:
    return Event(seq, t, EventType.EDIT, "1")


def test_bands_of_false_positive_area_are_of_assisted_first_readings() -> None:
    planted = PlantedError(kind="missing", true="uuid", truth="t.geojson", sha256="0")
    images = [
        image_of("a", "batch-1", slide_of("s0", "assisted", 1)),
        image_of("a", "batch-1", slide_of("s1", "manual", 2)),
        image_of("a", "batch-1", slide_of("s3", "assisted", 3, planted=planted)),
        image_of("a", "batch-1", slide_of("s5", "assisted", 4), ImageState.TODO),
    ]
    assert false_positive_bands(images) == {"s0": "0 to 2 %"}
    images[0].facts["classes"]["Tumor"] |= {"area_before_um2": 0.0, "removed_um2": 0.0}
    assert false_positive_bands(images) == {"s0": "nothing predicted"}


def test_cost_is_told_per_slide_and_per_area_of_the_same_slides() -> None:
    images, times = crossover(1, 4)
    found = cost_figures(images, times, RATES, Source.MEASURED, {"s0": 2.0, "s1": 3.0})
    own = {t.slide_id: t.active_s for t in times if t.arm == "assisted"}
    assert found["pathologist"] == pytest.approx(sum(own.values()) / 30)
    assert found["per_slide"] == pytest.approx(found["pathologist"] / 4)
    assert found["per_mm2"] == pytest.approx((own["s0"] + own["s1"]) / 30 / 5)
    assert (found["area_mm2"], found["slides_with_area"]) == (5, 2)
    assert found["total_per_slide"] == pytest.approx((found["pathologist"] + 1000) / 4)
    assert "total_per_mm2" not in found, "the area of two slides is not known"
    whole = cost_figures(images, times, RATES, Source.MEASURED, {f"s{j}": 2.0 for j in range(4)})
    assert whole["total_per_mm2"] == pytest.approx(whole["total"] / 8)


def test_second_readings_cost_the_reviewers_rate_where_there_is_one() -> None:
    first = image_of("a", "batch-1", slide_of("s0", "assisted", 1))
    again = image_of("a", "batch-2", slide_of("s0", "assisted", 2, repeat=True))
    times = [time_of(first, 3600), time_of(again, 1800)]
    plain = cost_figures([first, again], times, RATES, Source.MEASURED, {})
    assert plain["pathologist"] == pytest.approx(180)
    assert "reviewer" in plain["not_included"]
    rated = RATES.model_copy(update={"reviewer_per_hour": 80.0})
    split = cost_figures([first, again], times, rated, Source.MEASURED, {})
    assert (split["pathologist"], split["reviewer"]) == (pytest.approx(120), pytest.approx(40))
    assert split["total"] == pytest.approx(1160)
    assert "per_mm2" not in split


def test_without_time_or_rate_there_is_no_cost() -> None:
    images, times = crossover(1, 2)
    assert cost_figures(images, [], RATES, Source.MEASURED, {"s0": 1.0})["status"] == "not measured"
    assert cost_figures(images, times, Costs(), Source.MEASURED, {"s0": 1.0})["status"] == "not measured"


def test_simulated_times_are_named() -> None:
    images, _ = crossover()
    times = [time_of(image, 100.0 + k % 7, source="simulated") for k, image in enumerate(images)]
    assert saving_figures(images, times, RATES, open_slides=0)["source"] == "simulated"


def test_the_cost_names_what_it_holds() -> None:
    cost = with_ledger({"currency": "EUR", "pathologist": 240, "total": 240, "per_slide": 24}, RATES, 7200)
    assert cost["total"] == pytest.approx(1240)
    assert cost["included"] == ["pathologist", "set_up"]
    assert "reviewer" in cost["not_included"]
    assert cost["per_slide"] == 24
    gap = {"currency": "EUR", "status": "not measured", "reason": "it needs a measured time"}
    assert with_ledger(gap, RATES, None) == gap


def test_what_people_say_of_their_own_time_is_no_saving() -> None:
    images, times = crossover()
    said = [replace(time, time_source="self_report") for time in times]
    found = saving_figures(images, said, RATES, open_slides=0)
    assert "ratio" not in found
    mixed = saving_figures(images, [*said[:2], *times[2:]], RATES, open_slides=0)
    assert mixed["dropped"] >= 1


def test_arms_that_were_timed_in_different_ways_are_not_compared() -> None:
    images, times = crossover()
    unlike = [replace(t, time_source="view_tracker") if t.arm == "manual" else t for t in times]
    found = saving_figures(images, unlike, RATES, open_slides=0)
    assert found["kind"] == "not_measured"
    assert found["reason"] == (
        "the times of the two arms come from different sources (assisted: events; manual: view_tracker)"
    )


def test_arms_whose_logs_hold_other_kinds_of_event_are_not_compared() -> None:
    images, times = crossover(raters=1, slides=2)
    logs = []
    for image in images:
        kinds = [EventType.EDIT] if image.slide.arm == "manual" else [EventType.OPEN, EventType.EDIT, EventType.CLOSE]
        events = tuple(Event(k, 1000 * k, kind, str(image.entry_id)) for k, kind in enumerate(kinds))
        logs.append(BatchLogs(image.plan, [Session(image.plan.project, image.plan.rater, events)]))
    found = saving_figures([images[0], images[1]], times, RATES, open_slides=0, logs=[logs[0], logs[1]])
    assert found["kind"] == "not_measured"
    assert "arm manual has no events of kind close, open" in found["reason"]
