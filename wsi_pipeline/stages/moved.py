"""Slides that lie elsewhere than when their run began, told apart from new ones before anything is done twice."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

from wsi_pipeline.cohort import Cohort, SlideRef, slide_id_of
from wsi_pipeline.config import Config
from wsi_pipeline.errors import ConfigError
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.stages.state import read_run


def refuse_moved(run: RunDir, config: Config, cohort: Cohort) -> None:
    """Stop a run whose slides were moved, unless the configuration says where to (`cohort.moved`).

    An id without a manifest comes from the path, so a slide at another path would be a new one: predicted again and
    not what the pathologist has corrected. With `privacy: strict` run.json keeps no path, and nothing is compared.

    Raises
    ------
    ConfigError
        A slide of the run is gone and one of the same name is there that the run does not know.
    """
    if config.cohort.moved is not None or config.privacy.strict:
        return
    new = {ref.slide_id for ref in cohort.slides} - {slide_id for slide_id, _ in _of_run(run)}
    if not new or not (run.run_json.exists() or run.handout.exists()):
        return
    known = dict(_known(run))
    here = {ref.slide_id for ref in cohort.slides}
    # By each end of the path, since thousands may have been moved, and all may have one name.
    gone: dict[str, str] = {}
    for slide_id, uri in known.items():
        if slide_id not in here:
            gone |= dict.fromkeys(_ends(uri), uri)
    pairs = [
        (gone[end], ref)
        for ref in cohort.slides
        if ref.slide_id not in known and ref.slide_id == slide_id_of(ref.uri)
        for end in [next((end for end in _ends(ref.uri) if end in gone), None)]
        if end is not None
    ]
    if not pairs:
        return
    # Slides of one name in several folders: the pair that has most of its path in common was moved together.
    uri, ref = max(pairs, key=lambda pair: _in_common(*pair))
    before, now = _heads(uri, ref)
    raise ConfigError(
        f"{ref.name} is at {ref.uri}, and lay at {uri} when this run began; its id comes from the path, so that it "
        "would be a new slide, without what was predicted and corrected. If slides were moved, say so: "
        f'`moved: {{"{before}": "{now}"}}` under `cohort`; if these are other slides: `moved: {{}}`'
    )


def _known(run: RunDir) -> Iterator[tuple[str, str]]:
    """Ids that were made from a path, with the path: of the run and of what was handed out."""
    # All that concerns QuPath comes with it: not at each start.
    from wsi_pipeline.handout import read_plans

    found = [(s.slide_id, unquote(urlsplit(s.uri).path)) for plan in read_plans(run) for s in plan.slides]
    return (pair for pair in (*found, *_of_run(run)) if slide_id_of(pair[1]) == pair[0])


def _of_run(run: RunDir) -> list[tuple[str, str]]:
    """Id and path of each slide in run.json."""
    if not run.run_json.exists():
        return []
    return [(slide_id, slide.uri) for slide_id, slide in read_run(run.run_json).slides.items()]


def _ends(uri: str) -> list[str]:
    """Its last parts, from all of them to the name alone."""
    parts = uri.split("/")
    return ["/".join(parts[first:]) for first in range(len(parts))]


def _in_common(uri: str, ref: SlideRef) -> int:
    """How many of the last parts of both paths are the same."""
    before, now = uri.split("/"), ref.uri.split("/")
    return next((n for n, (a, b) in enumerate(zip(before[::-1], now[::-1], strict=False)) if a != b), len(before))


def _heads(uri: str, ref: SlideRef) -> tuple[str, str]:
    """What is before the parts that both paths have in common."""
    same = _in_common(uri, ref)
    return tuple("/".join(path.split("/")[:-same]) or "/" for path in (uri, ref.uri))  # type: ignore[return-value]
