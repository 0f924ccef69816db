"""From the frame in which QuPath shows a slide to level-0 px."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from shapely import Point, affinity

from wsi_pipeline.errors import ProjectError
from wsi_pipeline.qupath.affine import SlideFrame, affine_of, compose, invert, keeps_axes, probe_slide
from wsi_pipeline.qupath.builders import BIOFORMATS, OPENSLIDE
from wsi_pipeline.qupath.protocol import IDENTITY, Affine
from wsi_pipeline.tiling import Bounds

WIDTH, HEIGHT = 300, 200
numbers = st.floats(min_value=-50, max_value=50, allow_nan=False)
affines = st.tuples(*[numbers] * 6).filter(lambda m: abs(m[0] * m[3] - m[1] * m[2]) > 0.1)


def _slide(**extra: Any) -> dict[str, Any]:
    return {"builderType": "uri", "providerClassName": BIOFORMATS, "uri": "file:///a.tif", "args": [], **extra}


def _sized(width: int = WIDTH, height: int = HEIGHT) -> dict[str, Any]:
    return {"metadata": {"width": width, "height": height}}


def _unreachable(_: str) -> SlideFrame | None:
    return None


def _of(builder: dict[str, Any], frame: SlideFrame | None = None) -> Affine:
    return affine_of(builder, "a.tif", lambda _: frame)


def _apply(affine: Affine, x: float, y: float) -> tuple[float, float]:
    point = affinity.affine_transform(Point(x, y), affine)
    return point.x, point.y


@given(affines, affines, numbers, numbers)
def test_composed_transforms_do_one_after_the_other(outer: Affine, inner: Affine, x: float, y: float) -> None:
    step = _apply(inner, *_apply(outer, x, y))
    assert _apply(compose(outer, inner), x, y) == pytest.approx(step, abs=1e-6)


@given(affines, numbers, numbers)
def test_the_inverse_leads_back(affine: Affine, x: float, y: float) -> None:
    assert _apply(invert(affine), *_apply(affine, x, y)) == pytest.approx((x, y), abs=1e-5)


def test_a_transform_without_inverse_is_refused() -> None:
    with pytest.raises(ProjectError, match="inverse"):
        invert((1.0, 2.0, 2.0, 4.0, 0.0, 0.0))
    assert invert(IDENTITY) == IDENTITY


def _shown(pixels: np.ndarray[Any, Any], kind: str) -> np.ndarray[Any, Any]:
    """What QuPath shows of an image (rows, columns); np.rot90 turns counterclockwise, QuPath clockwise."""
    return {
        "ROTATE_NONE": pixels,
        "ROTATE_90": np.rot90(pixels, -1),
        "ROTATE_180": np.rot90(pixels, 2),
        "ROTATE_270": np.rot90(pixels, 1),
        "NONE": pixels,
        "HORIZONTAL": pixels[:, ::-1],
        "VERTICAL": pixels[::-1],
        "BOTH": pixels[::-1, ::-1],
    }[kind]


@pytest.mark.parametrize("kind", ["ROTATE_NONE", "ROTATE_90", "ROTATE_180", "ROTATE_270"])
@pytest.mark.parametrize("where", ["inner", "outer", "slide"])
def test_a_pixel_of_a_rotated_image_is_found_on_the_slide(kind: str, where: str) -> None:
    turned = kind in {"ROTATE_90", "ROTATE_270"}
    outer = _sized(HEIGHT, WIDTH) if turned else _sized()
    builder = {
        "builderType": "rotated",
        "rotation": kind,
        "builder": _slide(**_sized()) if where == "inner" else _slide(),
        **(outer if where == "outer" else {}),
    }
    _check_pixels(_of(builder, SlideFrame((WIDTH, HEIGHT), None) if where == "slide" else None), kind)


@pytest.mark.parametrize("kind", ["NONE", "HORIZONTAL", "VERTICAL", "BOTH"])
def test_a_pixel_of_a_flipped_image_is_found_on_the_slide(kind: str) -> None:
    builder = {"builderType": "flipped", "flip": kind, "builder": _slide(**_sized())}
    _check_pixels(_of(builder), kind)


def _check_pixels(affine: Affine, kind: str) -> None:
    slide = np.arange(WIDTH * HEIGHT).reshape(HEIGHT, WIDTH)
    shown = _shown(slide, kind)
    for row, column in [(0, 0), (3, 7), (shown.shape[0] - 1, shown.shape[1] - 1)]:
        x, y = _apply(affine, column + 0.5, row + 0.5)
        assert slide[int(y), int(x)] == shown[row, column]
    assert keeps_axes(affine)


def test_crops_and_affine_servers_and_everything_nested_are_followed() -> None:
    cropped = {"builderType": "cropped", "builder": _slide(), "region": {"x": 10, "y": 20, "width": 5, "height": 5}}
    assert _of(cropped) == (1, 0, 0, 1, 10, 20)
    # The transform goes from the inner image to the outer one: twice as large, and shifted.
    transform = {"m00": 2.0, "m01": 0.0, "m02": 6.0, "m10": 0.0, "m11": 2.0, "m12": 8.0}
    affine = {"builderType": "affine", "builder": _slide(), "transform": transform}
    assert _apply(_of(affine), 6.0, 8.0) == (0.0, 0.0)
    assert _apply(_of(affine), 26.0, 28.0) == (10.0, 10.0)
    sized = _slide(**_sized())
    nested = {
        "builderType": "pyramidize",
        "builder": {
            "builderType": "cropped",
            "region": {"x": 1, "y": 2, "width": 9, "height": 9},
            "builder": {"builderType": "rotated", "rotation": "ROTATE_180", "builder": sized},
        },
    }
    assert _apply(_of(nested), 0, 0) == (WIDTH - 1, HEIGHT - 2)


@pytest.mark.parametrize(
    "kind", ["channels", "color", "color_deconvolved", "normalized", "typeConvert", "swapRedBlue", "pyramidize"]
)
def test_servers_that_change_colours_only_leave_pixels_where_they_are(kind: str) -> None:
    assert _of({"builderType": kind, "builder": _slide()}) == IDENTITY


@pytest.mark.parametrize("kind", ["sparse", "sliced", "z_projected", "z_concatenated", "warped", None])
def test_an_image_server_that_is_not_known_is_refused_by_its_name(kind: str | None) -> None:
    with pytest.raises(ProjectError, match=f"a.tif: .*{kind}"):
        _of({"builderType": kind, "builder": _slide()})


def test_readers_whose_frame_is_not_known_are_refused() -> None:
    with pytest.raises(ProjectError, match="ROTATE_90"):
        _of(_slide(args=["--rotate", "ROTATE_90"]))
    with pytest.raises(ProjectError, match="series 3"):
        _of(_slide(args=["--series", "3"]))
    assert _of(_slide(args=["--series", "0"])) == IDENTITY
    with pytest.raises(ProjectError, match=r"my\.Reader"):
        _of(_slide(providerClassName="my.Reader"))
    with pytest.raises(ProjectError, match="rotates it by SIDEWAYS"):
        _of({"builderType": "rotated", "rotation": "SIDEWAYS", "builder": _slide()})
    with pytest.raises(ProjectError, match="flips it by OVER"):
        _of({"builderType": "flipped", "flip": "OVER", "builder": _slide()})
    with pytest.raises(ProjectError, match="states no size"):
        _of({"builderType": "rotated", "rotation": "ROTATE_90", "builder": _slide()})
    with pytest.raises(ProjectError, match="lacks `region`"):
        _of({"builderType": "cropped", "builder": _slide()})
    with pytest.raises(ProjectError, match="lacks a number `m11`"):
        _of({"builderType": "affine", "builder": _slide(), "transform": {"m00": 1, "m01": 0, "m10": 0}})


@pytest.mark.parametrize("provider", [None, OPENSLIDE])
class TestBounds:
    """OpenSlide crops to the bounds that a slide states."""

    frame = SlideFrame((1000, 800), Bounds(100, 50, 700, 450))

    def _slide(self, provider: str | None, **extra: Any) -> dict[str, Any]:
        return {"builderType": "uri", "providerClassName": provider, "uri": "file:///a.mrxs", **extra}

    def test_a_cropped_slide_is_shifted_by_its_bounds(self, provider: str | None) -> None:
        assert _of(self._slide(provider), self.frame) == (1, 0, 0, 1, 100, 50)
        stated = self._slide(provider, **_sized(600, 400))
        assert _of(stated, self.frame) == (1, 0, 0, 1, 100, 50)

    def test_a_slide_that_differs_in_one_direction_only_is_shifted_too(self, provider: str | None) -> None:
        frame = SlideFrame((1000, 800), Bounds(0, 50, 1000, 450))
        assert _of(self._slide(provider), frame) == (1, 0, 0, 1, 0, 50)

    def test_no_crop_and_the_whole_size_are_level_0(self, provider: str | None) -> None:
        assert _of(self._slide(provider, args=["--no-crop"]), self.frame) == IDENTITY
        assert _of(self._slide(provider, **_sized(1000, 800)), self.frame) == IDENTITY

    def test_another_size_than_the_slide_has_is_refused(self, provider: str | None) -> None:
        with pytest.raises(ProjectError, match="stored the size 7 x 8"):
            _of(self._slide(provider, **_sized(7, 8)), self.frame)

    def test_a_mosaic_that_cannot_be_reached_is_refused_and_other_formats_are_level_0(
        self, provider: str | None
    ) -> None:
        with pytest.raises(ProjectError, match=r"\.mrxs.*relocate"):
            _of(self._slide(provider))
        assert _of({**self._slide(provider), "uri": "file:///a.svs"}) == IDENTITY

    def test_a_rotation_turns_about_the_cropped_image(self, provider: str | None) -> None:
        builder = {"builderType": "rotated", "rotation": "ROTATE_180", "builder": self._slide(provider)}
        assert _apply(_of(builder, self.frame), 0, 0) == (700, 450)


def test_the_bounds_of_a_real_slide_are_those_that_openslide_states(tmp_path: Path) -> None:
    """A tiled TIFF without its first column of tiles, as scanners write for glass."""
    path = tmp_path / "sparse.tif"
    pixels = np.full((768, 1024, 3), 200, np.uint8)
    with tifffile.TiffWriter(path) as writer:
        writer.write(pixels, tile=(256, 256), photometric="rgb", compression="zlib")
    with tifffile.TiffFile(path, mode="r+") as file:
        for name in ("TileOffsets", "TileByteCounts"):
            tag = file.pages.first.tags[name]
            tag.overwrite([0 if i % 4 == 0 else value for i, value in enumerate(tag.value)])
    frame = probe_slide(path.as_uri())
    assert frame is not None
    assert frame.size == (1024, 768)
    with openslide.OpenSlide(path) as slide:
        # Older libraries of OpenSlide look for missing tiles in some formats only.
        stated = slide.properties.get("openslide.bounds-x", "0")
    assert affine_of({"builderType": "uri", "uri": path.as_uri()}, "sparse.tif") == (1, 0, 0, 1, float(stated), 0)


def test_a_slide_that_cannot_be_opened_has_no_frame(tmp_path: Path) -> None:
    (tmp_path / "text.svs").write_text("no slide")
    assert probe_slide((tmp_path / "text.svs").as_uri()) is None
    assert probe_slide((tmp_path / "gone.svs").as_uri()) is None
    assert probe_slide("https://host/a.svs") is None
