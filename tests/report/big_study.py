"""A simulated study of 200 slides and three raters over eight weeks, half of it behind: for the report's own tests."""

from __future__ import annotations

from tests.report.build_run import Recipe

RATERS = ("m.okafor", "lindqvist", "reader-3")

# The figures are made up to show the page: the whole run is labelled simulated.
BIG = Recipe(
    slides=200,
    classes=("Tumor", "Stroma"),
    source="simulated",
    picture_size=(320, 224),
    failed=frozenset({7, 101}),
    todo=frozenset(range(150, 192)),
    in_progress=frozenset(range(192, 200)),
    oddities=("events/m.okafor-0.jsonl: image 4 was never closed; it counts to its last action",),
    learned=True,
    raters=RATERS,
    weeks=8,
    privacy={"raters_in_report": True},
    saving={
        "kind": "measured",
        "source": "simulated",
        "ratio": 0.66,
        "ci95": [0.52, 0.84],
        "level": 0.95,
        "ratio_of_totals": 0.69,
        "raters": 3,
        "slides": 148,
        "pairs": 74,
        "rule": "timeline-1, gaps capped at 300 s",
        "label": "for these 3 raters only",
        "warnings": ["Fewer than five raters: the interval is for these raters only."],
    },
    confidence={
        "source": "simulated",
        "caveat": "A change by the reviewer is no error, and what is left alone is not right.",
        "flags": {
            "tiles": 5920,
            "slides": 148,
            "precision": 0.61,
            "precision_ci95": [0.55, 0.67],
            "recall": 0.72,
            "area_recall": 0.8,
            "early": 0.43,
            "early_share_of_queue": 0.1,
            "early_random": 0.1,
            "early_best": 0.66,
        },
        "audit": {"recall": 0.58, "recall_ci95": [0.4, 0.8]},
        "out_of_distribution": {
            kind: {
                "reference": "changed by the reviewer",
                "tiles": 5900,
                "slides": 148,
                "flagged": strange,
                "changed": 1300,
                "precision": precision,
                "recall": 0.1,
                "area_recall": 0.12,
                "familiar_changed": 0.21,
            }
            for kind, strange, precision in (("appearance", 60, 0.25), ("structure", 210, 0.44))
        },
        "reliability": [
            {
                "name": name,
                "cases": 4000,
                "groups": 40,
                "ece": 0.041,
                "bins": [
                    {
                        "low": low / 10,
                        "high": low / 10 + 0.1,
                        "count": 400,
                        "stated": low / 10 + 0.05,
                        "found": (low / 10 + 0.05) ** power,
                    }
                    for low in range(10)
                ],
            }
            for name, power in (("Tumor", 1.2), ("Stroma", 0.9))
        ],
        "risk_coverage": {
            "cases": 4000,
            "groups": 40,
            "mean_loss": 0.12,
            "augrc": 0.021,
            "augrc_random": 0.06,
            "augrc_best": 0.008,
            "coverage": [step / 50 for step in range(1, 51)],
            "generalized_risk": [0.12 * (step / 50) ** 3 for step in range(1, 51)],
        },
    },
)
