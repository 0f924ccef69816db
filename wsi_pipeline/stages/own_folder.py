"""A run has a folder of its own."""

from __future__ import annotations

from wsi_pipeline.errors import ConfigError
from wsi_pipeline.rundir import RunDir, SlideDir

# What lies there before run.json: of a call that was killed early, and of the demo.
_BEFORE = ("log", "demo")
_ASIDE = "earlier-"
_NAMED = 5


def refuse_foreign(run: RunDir) -> None:
    """Stop a run that would begin in a folder that holds something else.

    Its files would mix with what is there: `slides/` above all may be where the slides themselves are. Single files
    (a configuration, a manifest) and hidden ones are in nobody's way.

    Raises
    ------
    ConfigError
        There is no run.json, but a folder that is no run's.
    """
    if run.run_json.exists() or not run.root.is_dir() or _is_own(run):
        return
    foreign = sorted(
        path.name
        for path in run.root.iterdir()
        if path.is_dir() and path.name not in _BEFORE and not path.name.startswith((".", _ASIDE))
    )
    if foreign:
        names = ", ".join(foreign[:_NAMED]) + (", ..." if len(foreign) > _NAMED else "")
        raise ConfigError(
            f"{run.root} holds no run, but other folders ({names}); a run needs a folder of its own: "
            "give an empty or a new one as `output`"
        )


def _is_own(run: RunDir) -> bool:
    """Whether a run was here and only its run.json is lost: its slides are there, in folders of their own."""
    slides = run.root / "slides"
    found = list(slides.iterdir()) if slides.is_dir() else []
    return all(path.is_dir() for path in found) and any(_is_slide(run.slide(path.name)) for path in found)


def _is_slide(folder: SlideDir) -> bool:
    return folder.tissue.exists() or folder.thumbnail.exists() or folder.prediction.exists()
