"""Where everything lies in a run directory. Paths only: nothing here reads or writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class SlideDir:
    """The files of one slide."""

    root: Path

    @property
    def prediction(self) -> Path:
        return self.root / "prediction.zarr"

    @property
    def tissue(self) -> Path:
        return self.root / "tissue.png"

    @property
    def regions(self) -> Path:
        return self.root / "regions.geojson"

    @property
    def tiles(self) -> Path:
        return self.root / "tiles.parquet"

    @property
    def overview(self) -> Path:
        return self.root / "overview.png"

    @property
    def thumbnail(self) -> Path:
        return self.root / "thumbnail.jpg"

    @property
    def summary(self) -> Path:
        return self.root / "summary.json"


@dataclass(frozen=True, slots=True)
class RunDir:
    """The folder that one configuration writes (`output`)."""

    root: Path

    @property
    def run_json(self) -> Path:
        return self.root / "run.json"

    @property
    def lock(self) -> Path:
        return self.root / "run.lock"

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def compute_log(self) -> Path:
        """What predicting and training took; see `wsi_pipeline.spent`."""
        return self.log / "compute.jsonl"

    @property
    def notes(self) -> Path:
        """What a reader of the report should know first; optional, paragraphs of plain text."""
        return self.root / "notes.txt"

    @property
    def queue(self) -> Path:
        """Every tile that a person should look at, of the whole cohort."""
        return self.root / "queue.csv"

    @property
    def handout(self) -> Path:
        return self.root / "handout"

    @property
    def project(self) -> Path:
        return self.root / "project" / "project.qpproj"

    @property
    def review(self) -> Path:
        return self.root / "review"

    @property
    def corrections(self) -> Path:
        return self.review / "corrections.parquet"

    @property
    def changed_tiles(self) -> Path:
        return self.review / "changed_tiles.parquet"

    @property
    def judged_tiles(self) -> Path:
        return self.review / "judged_tiles.parquet"

    @property
    def time(self) -> Path:
        return self.review / "time.parquet"

    @property
    def region_time(self) -> Path:
        return self.review / "region_time.parquet"

    @property
    def metrics(self) -> Path:
        return self.review / "metrics.json"

    @property
    def report(self) -> Path:
        return self.root / "report" / "index.html"

    def slide(self, slide_id: str) -> SlideDir:
        return SlideDir(self.root / "slides" / slide_id)
