"""`slides`."""

from __future__ import annotations

from wsi_pipeline.cli.arguments import AsJson, ConfigFile
from wsi_pipeline.cli.console import print_json, print_table, say
from wsi_pipeline.cli.exit_codes import OK, SOME_FAILED
from wsi_pipeline.config import load_config


def slides(config: ConfigFile, as_json: AsJson = False) -> int:
    """List the cohort with every problem that can be seen before a run."""
    from wsi_pipeline.models import load_card
    from wsi_pipeline.slides.listing import list_cohort
    from wsi_pipeline.stages.predict import model_path_of

    settings = load_config(config)
    needed = settings.inference.mpp or load_card(model_path_of(settings)).mpp
    rows = list_cohort(settings, needed)
    bad = [row for row in rows if row.problems]
    if as_json:
        print_json([row.to_dict() for row in rows])
        return SOME_FAILED if bad else OK
    print_table(
        ("slide", "width", "height", "mpp", "from", "levels", "reader", "patient", "can be used"),
        [
            (
                row.slide_id,
                row.width,
                row.height,
                None if row.mpp is None else f"{row.mpp:.4g}",
                row.mpp_source,
                row.levels,
                row.reader,
                row.patient,
                "no" if row.problems else "yes",
            )
            for row in rows
        ],
        right=(1, 2, 3, 5),
    )
    say(f"{len(rows)} slide{'' if len(rows) == 1 else 's'}, {len(bad)} that cannot be used")
    for row in bad:
        for problem in row.problems:
            say(f"  {row.slide_id}: {problem}")
    for row in rows:
        for note in row.notes:
            say(f"  {row.slide_id}: note: {note}")
    return SOME_FAILED if bad else OK
