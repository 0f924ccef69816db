"""`status`."""

from __future__ import annotations

from dataclasses import asdict

from wsi_pipeline.cli.arguments import AsJson, ConfigFile
from wsi_pipeline.cli.console import print_json, print_table, say
from wsi_pipeline.cli.exit_codes import OK, SOME_FAILED
from wsi_pipeline.config import load_config
from wsi_pipeline.rundir import RunDir


def status(config: ConfigFile, as_json: AsJson = False) -> int:
    """How far each slide is: predicted, handed out, reviewed."""
    from wsi_pipeline.stages.status import status_of

    result = status_of(RunDir(load_config(config).output))
    if as_json:
        print_json(asdict(result))
    else:
        print_table(
            ("slide", "prediction", "review", "regions", "tissue mm²", "to know"),
            [
                (
                    s.slide_id,
                    s.prediction,
                    s.review,
                    s.regions,
                    None if s.tissue_mm2 is None else f"{s.tissue_mm2:.2f}",
                    s.reason or "; ".join(s.flags) or None,
                )
                for s in result.slides
            ],
            right=(3, 4),
        )
        if len(result.batches) > 1:
            say("")
            print_table(
                ("batch", "rater", "images", "review"),
                [(b.batch, b.rater, sum(b.images.values()), _counts(b.images)) for b in result.batches],
                right=(2,),
            )
        predicted, reviewed = _counts(result.predictions), _counts(result.images)
        # One image for each slide needs no second noun.
        of = "images " if sum(result.images.values()) > len(result.slides) else ""
        say(f"run {result.run_id}, model {result.model}: {predicted}" + (f"; {of}{reviewed}" if reviewed else ""))
        for problem in result.problems:
            say(f"  problem: {problem}")
    return SOME_FAILED if result.problems or result.predictions["failed"] else OK


def _counts(counter: dict[str, int]) -> str:
    return ", ".join(f"{n} {name}" for name, n in sorted(counter.items()))
