"""From plans and times to the saving: which images count, and what metrics.json says of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from wsi_pipeline.collect.images import CollectedImage
from wsi_pipeline.collect.savings import readings_of, saving_figures, with_ledger
from wsi_pipeline.collect.time_figures import BatchLogs
from wsi_pipeline.collect.times import ImageTime
from wsi_pipeline.config import Costs
from wsi_pipeline.handout import Plan
from wsi_pipeline.handout.plan import HandedOutSlide, PlantedError
from wsi_pipeline.measures.time import Event, EventType, Session
from wsi_pipeline.states import ImageState, Source

RATES = Costs(pathologist_per_hour=120, set_up=1000)


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
    return CollectedImage(plan, slide, 1, state, Source.MEASURED, (), (), {}, ())


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
