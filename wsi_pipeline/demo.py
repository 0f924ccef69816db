"""The whole loop on a small cohort of real tissue: train, predict, hand out, correct (simulated), measure, learn again.

Everything goes into one run directory, with the demo's own material (slides, truth, models, configuration) in its
folder `demo/`, so that each step can be called again by hand.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from wsi_pipeline.cohort import SlideRef
from wsi_pipeline.collect import CollectResult
from wsi_pipeline.config import Config, load_config
from wsi_pipeline.errors import ConfigError, ModelError
from wsi_pipeline.files import read_json, sha256_bytes, write_json, write_text
from wsi_pipeline.learning import AnnotatedSlide, tiles_of, train
from wsi_pipeline.models import ClassSpec, ModelCard, load_card
from wsi_pipeline.progress import LogProgress, Progress
from wsi_pipeline.report import write_report
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.stages.collect import collect_run
from wsi_pipeline.stages.handout import hand_out_run
from wsi_pipeline.stages.learn import compare_models, corrected_slides
from wsi_pipeline.stages.lock import exclusive
from wsi_pipeline.stages.predict import predict_cohort
from wsi_pipeline.states import Source
from wsi_pipeline.synthetic.camelyon import PLANS, DemoCohort, DemoSlide, Role, build_cohort, slide_path
from wsi_pipeline.synthetic.camelyon import VERSION as COHORT_VERSION
from wsi_pipeline.synthetic.review import review_project
from wsi_pipeline.synthetic.truth import COLORS, TUMOUR_CLASS

if TYPE_CHECKING:
    from wsi_pipeline.learning import Decision, Tile

logger = logging.getLogger(__name__)

MODEL_MPP = 1.0
CLASSES = (
    ClassSpec(name="Background", color=(200, 200, 200), background=True),
    ClassSpec(name=TUMOUR_CLASS, color=COLORS[TUMOUR_CLASS]),
)
# Left in the middle on purpose: a run in the middle of its review is what one mostly looks at.
UNFINISHED = "lymph-07"

# Beside the comparison of the two models.
COMPARISON_NOTES = (
    "The held-out slides were never trained on nor corrected; their truth is the masks that people drew for CAMELYON.",
    "The new model learned from simulated corrections, so its gain says nothing about corrections by people.",
    "It was also trained for longer: how much of a difference comes from the corrections is not measured here.",
)

# What the demo writes into its output, for the day when another version of it makes it anew.
# The recipe (in `demo`) goes last: a move that was cut off is then taken up again.
MADE = (
    "audit.jsonl",
    "audit.head.json",
    "queue.csv",
    "handout",
    "learning",
    "notes.txt",
    "project",
    "report",
    "review",
    "run.json",
    "slides",
    "demo",
)
RECIPE = "demo/demo.json"

CONFIG = f"""\
# The demo's run. Each step can be called again: wsi-pipeline report CONFIG, collect, status, predict ...
output: ..
cohort:
  manifest: {Role.REVIEW.value}.csv
model:
  path: models/first
regions:
  min_area_um2: 2500
review:
  max_tiles: 12
handout:
  classes: [Stroma, Necrosis]
learning:
  name: second
  held_out: [{", ".join(plan.patient for plan in PLANS if plan.role is Role.HELD_OUT)}]
costs:
  currency: EUR
  pathologist_per_hour: 120            # all of these prices are examples
  compute_per_hour: 0.40
  storage_per_gb_month: 0.02
  storage_months: 120
"""

NOTES = """\
A demonstration on nine small slides, laid out on glass from 20 real tiles of lymph nodes with breast-cancer metastases
(CAMELYON, CC0, resampled and their masks smoothed by others). No tile is both in a training slide and in an unseen one.
Patients are groups of neighbouring tile numbers: the source does not say which tiles come from one patient, so tissue
of one patient may be on both sides. The resolution is not stated either; 0.5 µm per pixel is assumed.

The pathologist is a program that knows the truth and corrects towards it through the project's files. Its times and
corrections are simulated.

Twenty tiles show that every step works. They are far too few to say how good a model is.
"""


@dataclass(frozen=True, slots=True)
class DemoSteps:
    """How long to train; the clock of the machine plays no part, so that the same steps give the same models.

    About a third of a CPU second a step.
    """

    first: int = 200
    second: int = 90
    seed: int = 0


@dataclass(frozen=True, slots=True)
class DemoOutcome:
    """What the demo made, in a few plain lines for people."""

    run: RunDir
    collected: CollectResult
    decision: Decision

    @property
    def lines(self) -> tuple[str, ...]:
        old, new = self.decision.old_dice or 0.0, self.decision.new_dice or 0.0
        return (
            f"report   {self.run.report}",
            f"project  {self.run.project} (opens in QuPath)",
            f"config   {self.run.root / 'demo' / 'config.yaml'} (to call single steps again)",
            f"review   {self.collected.summary} - by a simulated pathologist",
            f"models   Dice on held-out slides: {old:.3f} before the corrections, {new:.3f} after",
            f"         {self.decision.reason}",
        )


def run_demo(output: Path, *, steps: DemoSteps | None = None, progress: Progress | None = None) -> DemoOutcome:
    """Run the loop into the folder `output`; called again, it goes on where it was and changes nothing that is done.

    What another version of the demo, or another recipe, left there is moved to `earlier-<n>/` beside it, never deleted:
    somebody may have tried out QuPath on it.

    Raises
    ------
    ConfigError
        The folder holds a run that is not the demo's.
    RunLocked, StoreError
        Another process works there, or it cannot be written.
    """
    steps = steps or DemoSteps()
    progress = progress or LogProgress()
    run = RunDir(output.absolute())
    with exclusive(run.lock):
        make_room(run, steps)
        cohort = build_cohort(run.root / "demo", seed=steps.seed)
        if not (cohort.folder / "config.yaml").exists():
            write_text(cohort.folder / "config.yaml", CONFIG)
        write_text(run.root / "notes.txt", NOTES)
        tiles = _tiles([_annotated(cohort, slide) for slide in cohort.of(Role.TRAIN)], steps)
        _train(cohort.folder / "models" / "first", tiles, steps.first, steps.seed, progress)
    config = load_config(cohort.folder / "config.yaml")
    predict_cohort(config, progress=progress)
    hand_out_run(config, progress=progress)
    _simulate_review(run, cohort, steps.seed)
    collected = collect_run(config)
    decision = _learn_again(config, cohort, tiles, steps, progress)
    write_report(run)
    return DemoOutcome(run, collected, decision)


def make_room(run: RunDir, steps: DemoSteps) -> None:
    """Begin, go on, or move aside what another recipe made."""
    recipe = {"schema": 1, "cohort": COHORT_VERSION, "config": CONFIG, **asdict(steps)}
    path = run.root / RECIPE
    if path.is_file():
        if read_json(path) == recipe:
            return
        _move_aside(run.root)
    elif run.run_json.exists() or run.project.exists():
        raise ConfigError(f"{run.root} holds a run that is not the demo's; give another --output")
    write_json(path, recipe)


def _move_aside(root: Path) -> None:
    number = 1
    while (root / f"earlier-{number}").exists():
        number += 1
    target = root / f"earlier-{number}"
    target.mkdir()
    for name in MADE:
        if (root / name).exists():
            (root / name).rename(target / name)
    logger.warning("another demo was here: it is in %s now", target)


def _annotated(cohort: DemoCohort, slide: DemoSlide) -> AnnotatedSlide:
    """A slide with its truth, known wherever there is tissue. The masks are CAMELYON's, drawn by people."""
    path = slide_path(cohort.folder, slide.slide_id)
    ref = SlideRef(slide.slide_id, str(path), path.name, patient=slide.plan.patient, site=slide.plan.site)
    objects = tuple(slide.truth.objects(slide_id=slide.slide_id))
    return AnnotatedSlide(ref, objects, reviewed=slide.truth.tissue, source=Source.MEASURED)


def _tiles(slides: Sequence[AnnotatedSlide], steps: DemoSteps) -> list[Tile]:
    return tiles_of(slides, mpp=MODEL_MPP, classes=CLASSES, seed=steps.seed)


def _train(
    folder: Path,
    tiles: Sequence[Tile],
    steps: int,
    seed: int,
    progress: Progress,
    *,
    init: Path | None = None,
    replay: Sequence[Tile] = (),
) -> ModelCard:
    """Train, or take the model that an earlier call trained in just this way."""
    there = _earlier(folder, steps, seed, init)
    if there is not None:
        logger.info("model %s is there already", there.model_id)
        return there
    progress.begin(f"train {folder.name}", 1)
    card = train(
        tiles,
        out=folder,
        steps=steps,
        mpp=MODEL_MPP,
        classes=CLASSES,
        name=f"demo-{folder.name}",
        seed=seed,
        init=init,
        replay=replay,
        # With two, the threads wait for each other: a step takes five times as long on a machine that is busy.
        threads=1,
        progress=lambda done, total, _loss: progress.advance(f"{folder.name} model", done, total),
    )
    progress.finish(f"{folder.name} model", card.model_id)
    progress.end()
    return card


def _earlier(folder: Path, steps: int, seed: int, init: Path | None) -> ModelCard | None:
    try:
        card = load_card(str(folder))
        parent = None if init is None else load_card(str(init)).model_id
    except ModelError:
        return None
    made = card.trained_on
    return card if (made.steps, made.seed, made.parent) == (steps, seed, parent) else None


def _simulate_review(run: RunDir, cohort: DemoCohort, seed: int) -> None:
    """Somebody must correct: here a simulation does, through the project's files and with an event log."""
    truths = {slide.slide_id: slide.truth for slide in cohort.of(Role.REVIEW)}
    edits = review_project(run.project.parent, truths, seed=seed, unfinished={UNFINISHED})
    if edits:
        logger.info("simulated review: looked at %d regions", len(edits))


def _learn_again(
    config: Config, cohort: DemoCohort, old_tiles: Sequence[Tile], steps: DemoSteps, progress: Progress
) -> Decision:
    """Fine-tune on the corrections, and compare on patients that neither model has seen."""
    run = RunDir(config.output)
    new = run.root / "learning" / "models" / "second"
    corrected = corrected_slides(config)
    tiles = _tiles(corrected.train, steps)
    first = cohort.folder / "models" / "first"
    # Somebody may have gone on with the corrections in QuPath: then the model of before is not the right one.
    lessons = {"corrections": _digest(run, [slide.ref.slide_id for slide in corrected.train])}
    noted = cohort.folder / "learned_from.json"
    if not noted.is_file() or read_json(noted) != lessons:
        (new / "card.json").unlink(missing_ok=True)
    _train(new, tiles, steps.second, steps.seed, progress, init=first, replay=old_tiles)
    write_json(noted, lessons)
    # Whatever rests on simulated corrections is simulated, though people drew the truth that it is judged by.
    held_out = [replace(_annotated(cohort, slide), source=Source.SIMULATED) for slide in cohort.of(Role.HELD_OUT)]
    decision = compare_models(config, str(new), held_out)
    path = run.root / "learning" / "promotion.json"
    write_json(path, {**read_json(path), "notes": list(COMPARISON_NOTES)})
    return decision


def _digest(run: RunDir, slide_ids: Sequence[str]) -> str:
    """SHA-256 over the corrected annotations of these slides."""
    return sha256_bytes(b"".join((run.review / "corrected" / f"{name}.geojson").read_bytes() for name in slide_ids))
