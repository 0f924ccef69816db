"""Where the maps of a run lie: in its folder, or on an object store that the configuration names (`inference.maps`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wsi_pipeline.errors import StoreError
from wsi_pipeline.files import read_json
from wsi_pipeline.rundir import RunDir

MAPS = "prediction.zarr"


def map_place(run: RunDir, slide_id: str, maps: str | None) -> Path | str:
    """Path or URL of the prediction store of a slide; `maps` is the folder on an object store, None for the run's."""
    return run.slide(slide_id).prediction if maps is None else f"{maps.rstrip('/')}/{slide_id}/{MAPS}"


def recorded_place(run: RunDir, slide_id: str) -> Path | str:
    """The same for a run that is there, as its `run.json` says.

    Raises
    ------
    StoreError
        run.json is damaged.
    """
    value: Any = read_json(run.run_json) if run.run_json.is_file() else {}
    for key in ("config", "inference", "maps"):
        if not isinstance(value, dict):
            raise StoreError(f"{run.run_json} is no record of a run; run `wsi-pipeline predict` again")
        value = value.get(key, None if key == "maps" else {})
    return map_place(run, slide_id, value)
