"""Assisted time over manual time of the same expert on the same image, and why it is not a saving that was measured."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from benchmarks.study.layout import Study, Work, time_text
from benchmarks.study.times import RULES, Seconds
from wsi_pipeline.measures.crossed import crossed_mean

# Above this share of pairs without a time the figure is flagged: what was left out may not be like the rest.
MAX_DROPPED = 0.05
LABEL = "before/after, confounded with practice and memory"


@dataclass(frozen=True, slots=True)
class Pair:
    """Seconds of one expert on one image in both arms, each above zero."""

    expert: str
    image: str
    manual: float
    assisted: float


def pairs_of(study: Study, seconds: dict[str, dict[str, Seconds]]) -> tuple[list[Pair], int]:
    """Pairs with a time above zero in both arms, and how many were opened in either arm without being such a pair."""
    pairs, opened = [], 0
    for expert in study.experts:
        works = [arm[expert] for arm in study.work.values() if expert in arm]
        images = sorted(set[str]().union(*(work.opened for work in works)))
        opened += len(images)
        manual, assisted = (seconds[arm].get(expert, {}) for arm in ("manual", "assisted"))
        for image in images:
            before, after = manual.get(image, 0.0), assisted.get(image, 0.0)
            if before > 0 and after > 0:
                pairs.append(Pair(expert, image, before, after))
    return pairs, opened - len(pairs)


def saving_of(pairs: list[Pair], dropped: int) -> dict[str, Any]:
    """The geometric mean of assisted/manual with its interval, and the ratio of the sums over the same pairs."""
    share = dropped / (dropped + len(pairs)) if dropped else 0.0
    counts = {"pairs": len(pairs), "dropped": dropped, "dropped_share": share, "flagged": share > MAX_DROPPED}
    if not pairs:
        note = "no expert has a time above zero on the same image in both arms"
        return {"ratio": None, "ci95": None, "ratio_of_totals": None, **counts, "label": LABEL, "interval_note": note}
    logs = [math.log(pair.assisted / pair.manual) for pair in pairs]
    mean = crossed_mean(logs, [pair.expert for pair in pairs], [pair.image for pair in pairs])
    manual, assisted = sum(pair.manual for pair in pairs), sum(pair.assisted for pair in pairs)
    return {
        "ratio": math.exp(mean.mean),
        "ci95": None if math.isnan(mean.low) else [math.exp(mean.low), math.exp(mean.high)],
        "ratio_of_totals": assisted / manual,
        **counts,
        "label": LABEL,
        "interval_note": mean.note,
        "experts": mean.raters,
        "images": mean.slides,
        "total_seconds": {"manual": manual, "assisted": assisted},
        "log_variance": {
            "expert": _number(mean.rater_variance),
            "image": _number(mean.slide_variance),
            "rest": _number(mean.rest_variance),
        },
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def all_saving(study: Study, seconds: dict[str, dict[str, dict[str, Seconds]]]) -> dict[str, dict[str, Any]]:
    """`saving[rule]`."""
    return {rule: saving_of(*pairs_of(study, seconds[rule])) for rule in RULES}


def confounding(study: Study) -> dict[str, Any]:
    """What the design leaves open: which round came when, on which images and in which order."""
    experts = {}
    for expert in study.experts:
        manual, assisted = (study.work[arm].get(expert) for arm in ("manual", "assisted"))
        if manual is not None and assisted is not None:
            experts[expert] = _rounds(manual, assisted)
    always = bool(experts) and all((row["gap_days"] or 0) > 0 for row in experts.values())
    order = "each expert did the manual round first" if always else "the order of the rounds is not that of all experts"
    return {
        "label": LABEL,
        "saving_measured": False,
        "assisted_always_second": always,
        "experts": experts,
        "facts": [
            f"There is no control arm and no crossover: {order}, so practice and memory of the images and of the "
            "task work in the same direction as the suggestions.",
            "The ratio of times describes these two rounds. It must not be shown as a saving that was measured.",
            "Quality of the assisted round starts from the suggestions' own: it has to be read beside that of the "
            "untouched suggestions and beside the share of right ones that were harmed.",
        ],
    }


def _rounds(manual: Work, assisted: Work) -> dict[str, Any]:
    """Dates of both rounds, the days between them, the images of both, and whether their order was the same."""
    before, after = _first_seen(manual), _first_seen(assisted)
    both = sorted({*before} & {*after})
    ends = {work.arm: _span(work) for work in (manual, assisted)}
    gap = None
    if ends["manual"] and ends["assisted"]:
        gap = (ends["assisted"][0] - ends["manual"][1]) / 86_400e6
    return {
        **{arm: [time_text(t) for t in span] if span else None for arm, span in ends.items()},
        "gap_days": gap,
        "images_in_both": len(both),
        "images_in_one": len({*before} ^ {*after}),
        "order_rank_correlation": _rank_correlation([before[i] for i in both], [after[i] for i in both]),
    }


def _events(work: Work) -> list[tuple[int, str]]:
    return sorted([(line.t, line.image) for line in work.own_log] + work.own_actions)


def _span(work: Work) -> tuple[int, int] | None:
    events = _events(work)
    return (events[0][0], events[-1][0]) if events else None


def _first_seen(work: Work) -> dict[str, int]:
    """When each image was first opened."""
    starts = [(line.t, line.image) for line in work.own_log if line.start]
    first: dict[str, int] = {}
    for t, image in sorted(starts + work.own_actions):
        first.setdefault(image, t)
    return first


def _rank_correlation(a: list[int], b: list[int]) -> float | None:
    """Spearman's; None with fewer than three images, or where one side has but one value."""
    if len(a) < 3 or len(set(a)) == 1 or len(set(b)) == 1:
        return None
    # Ranks first: microseconds since 1970 are large numbers.
    return float(spearmanr(np.argsort(np.argsort(a)), np.argsort(np.argsort(b))).statistic)
