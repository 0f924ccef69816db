"""A cache of our own for each test session, one thread, and a small network whose map has contrast."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.models.nets import contrasty_unet, tumor_card
from wsi_pipeline.models.unet import save_model


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WSI_PIPELINE_CACHE", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-class U-Net with its card."""
    folder = tmp_path_factory.mktemp("model")
    save_model(folder, contrasty_unet(), tumor_card())
    return folder
