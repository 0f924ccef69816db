"""From probability maps to polygons, and to the tiles that deserve a look."""

from wsi_pipeline.regions.extract import extract_regions
from wsi_pipeline.regions.tiles import ReviewTile, read_tiles, review_tiles, tile_objects, write_tiles

__all__ = ["ReviewTile", "extract_regions", "read_tiles", "review_tiles", "tile_objects", "write_tiles"]
