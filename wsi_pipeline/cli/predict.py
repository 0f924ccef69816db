"""`predict` and `run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsi_pipeline.cli.arguments import ClusterKind, ConfigFile, Limit, Only, Scheduler, Workers
from wsi_pipeline.cli.console import log_to, print_table, say
from wsi_pipeline.cli.exit_codes import OK, SOME_FAILED
from wsi_pipeline.cli.progress import shown_progress
from wsi_pipeline.config import ClusterSettings, Config, load_config
from wsi_pipeline.errors import ConfigError
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.start import loading

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only estimate hours and disk; writes nothing.")]


def predict(
    config: ConfigFile,
    limit: Limit = None,
    slides: Only = None,
    scheduler: Scheduler = None,
    cluster: ClusterKind = None,
    workers: Workers = None,
) -> int:
    """Run the model over the tissue of each slide and draw the regions.

    Goes on where an earlier call ended; slides that are done are left alone.
    """
    code, _ = _predict(_with(load_config(config), scheduler, cluster, workers), limit, slides)
    return code


def run(
    config: ConfigFile,
    limit: Limit = None,
    slides: Only = None,
    scheduler: Scheduler = None,
    cluster: ClusterKind = None,
    workers: Workers = None,
    dry_run: DryRun = False,
) -> int:
    """Predict, then hand out: from slides to a QuPath project in one command."""
    from wsi_pipeline.cli.handout import hand_out

    settings = _with(load_config(config), scheduler, cluster, workers)
    if dry_run:
        return _estimate(settings, limit, slides)
    code, done = _predict(settings, limit, slides)
    if not done:
        return code
    return max(code, hand_out(settings))


def _with(config: Config, scheduler: str | None, cluster: str | None, workers: int | None) -> Config:
    """The configuration with what the command line says of where to run, in place of what it said itself.

    Raises
    ------
    ConfigError
        The command line names two places.
    """
    places: dict[str, object] = {"scheduler": scheduler, "cluster": cluster, "workers": workers}
    said = [name for name, value in places.items() if value is not None]
    if not said:
        return config
    if len(said) > 1:
        raise ConfigError(f"--{said[0]} and --{said[1]} are two places to run at; give one of them")
    if cluster is not None:
        known = config.inference.cluster or ClusterSettings()
        places["cluster"] = known.model_copy(update={"kind": cluster})
    return config.model_copy(update={"inference": config.inference.model_copy(update=places)})


def _predict(config: Config, limit: int | None, slides: list[str] | None) -> tuple[int, int]:
    """The exit code so far, and how many slides are done."""
    with loading():
        from wsi_pipeline.stages.own_folder import refuse_foreign
        from wsi_pipeline.stages.predict import predict_cohort

    # Before the log, so that nothing is left in a folder that is somebody else's.
    refuse_foreign(RunDir(config.output))
    log_to_run(config.output, private=config.privacy.strict)
    with shown_progress() as progress:
        outcome = predict_cohort(config, limit=limit, only=slides, progress=progress)
    say(f"{outcome.done} slides done, {outcome.failed} failed, {outcome.queued} left; see {config.output}")
    for slide_id, reason in outcome.reasons.items():
        say(f"  failed {slide_id}: {reason}")
    return (SOME_FAILED if outcome.failed else OK), outcome.done


def log_to_run(output: Path, *, private: bool = False) -> None:
    """Keep a log in the run directory; an output that cannot be written is an error of its own, told later."""
    from wsi_pipeline.errors import StoreError

    try:
        log_to(output / "log", private=private)
    except OSError as error:
        raise StoreError(
            f"cannot write {output}: {error.strerror}; give another `output` or mend its permissions"
        ) from error


def _estimate(config: Config, limit: int | None, slides: list[str] | None) -> int:
    from wsi_pipeline.stages.estimate import estimate
    from wsi_pipeline.stages.own_folder import refuse_foreign

    refuse_foreign(RunDir(config.output))
    with shown_progress() as progress:
        result = estimate(config, limit=limit, only=slides, progress=progress)
    print_table(
        ("slide", "tissue mm²", "Mpx to compute", "minutes", "MB on disk, at most"),
        [
            (r.slide_id, f"{r.tissue_mm2:.1f}", f"{r.mpx:.1f}", f"{60 * r.hours:.1f}", f"{r.disk_mb:.1f}")
            for r in result.rows
        ],
        right=(1, 2, 3, 4),
    )
    say(
        f"in all {_long(result.hours)} on this machine ({result.runtime}, {result.mpx_per_s:.2f} Mpx/s measured "
        f"now on {result.sample_mpx:.1f} Mpx) and at most {_large(result.disk_mb)} on disk"
    )
    for problem in result.problems:
        say(f"  cannot be done: {problem}")
    return SOME_FAILED if result.problems else OK


def _long(hours: float) -> str:
    """A time as people say it: an estimate is not known to the second."""
    if hours < 1 / 60:
        return "under a minute"
    return f"{60 * hours:.0f} minutes" if hours < 2 else f"{hours:.1f} hours"


def _large(mb: float) -> str:
    return f"{mb:.0f} MB" if mb < 1000 else f"{mb / 1000:.1f} GB"
