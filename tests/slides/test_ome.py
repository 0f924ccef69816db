"""Pixel size of OME-TIFF: in whatever unit it is given, and only where it is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from tests.slides.make import texture
from tests.slides.test_reading import ref
from wsi_pipeline.slides import open_slide
from wsi_pipeline.slides.ome import ome_mpp

NAMESPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


def xml(*pixels: str) -> str:
    images = "".join(f'<Image ID="Image:{n}"><Pixels SizeX="9" {text}/></Image>' for n, text in enumerate(pixels))
    return f'<OME xmlns="{NAMESPACE}">{images}</OME>'


@given(size=st.floats(0.01, 100), unit=st.sampled_from([("nm", 1e-3), ("µm", 1.0), ("μm", 1.0), ("mm", 1e3)]))
def test_lengths_are_given_in_um(size: float, unit: tuple[str, float]) -> None:
    name, um = unit
    text = f'PhysicalSizeX="{size!r}" PhysicalSizeXUnit="{name}" PhysicalSizeY="0.5"'
    assert ome_mpp(xml(text), 0) == pytest.approx((size * um, 0.5))


@pytest.mark.parametrize(
    "text",
    [
        "",
        'PhysicalSizeX="0.5"',
        'PhysicalSizeX="0" PhysicalSizeY="0"',
        'PhysicalSizeX="nan" PhysicalSizeY="0.5"',
        'PhysicalSizeX="wide" PhysicalSizeY="high"',
        'PhysicalSizeX="1" PhysicalSizeY="1" PhysicalSizeXUnit="pixel" PhysicalSizeYUnit="pixel"',
    ],
)
def test_what_is_not_said_is_not_made_up(text: str) -> None:
    assert ome_mpp(xml(text), 0) is None


def test_the_size_is_that_of_the_image_which_is_read() -> None:
    both = xml('PhysicalSizeX="0.25" PhysicalSizeY="0.25"', 'PhysicalSizeX="4" PhysicalSizeY="4"')
    assert ome_mpp(both, 0) == (0.25, 0.25)
    assert ome_mpp(both, 1) == (4, 4)
    assert ome_mpp(both, 2) is None
    assert ome_mpp("<OME", 0) is None
    assert ome_mpp("<OME/>", 0) is None


def test_a_pyramid_whose_resolution_only_ome_states_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    how: dict[str, Any] = {"tile": (256, 256), "photometric": "rgb", "compression": "jpeg"}
    sizes = {"PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.25, "PhysicalSizeYUnit": "µm"}
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(texture(600, 600), subifds=1, metadata={"axes": "YXS", **sizes}, **how)
        tiff.write(texture(600, 600)[::2, ::2], subfiletype=1, **how)
    with open_slide(ref(path), needed_mpp=0.5) as slide:
        assert (slide.mpp, slide.mpp_source, len(slide.levels)) == (0.25, "file", 2)
