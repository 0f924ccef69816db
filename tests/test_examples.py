"""The examples in configs/ are read as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsi_pipeline.config import load_config

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_an_example_is_a_configuration(path: Path) -> None:
    config = load_config(path)
    assert config.cohort.slides or config.cohort.manifest


@pytest.mark.parametrize("kind", ["slurm", "kubernetes"])
def test_the_examples_for_clusters_say_which(kind: str) -> None:
    (path,) = (path for path in CONFIGS if path.stem == kind)
    cluster = load_config(path).inference.cluster
    assert cluster is not None
    assert cluster.kind == kind
