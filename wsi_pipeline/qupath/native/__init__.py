"""data.qpdata without a JVM: the Java serialization stream in which QuPath keeps an image's objects.

`qpdata` is the door; what lies behind it, from the bottom up:

- `mutf8`, `java_model`, `java_reader`, `java_writer` know Java's serialization and no class in particular;
- `descriptors`, `values`, `stored_roi`, `roi_encoding`, `ids` know what QuPath means by its classes;
- reading: `pieces` (the parts of a path object by the general parser), `learned_pieces` and `leaf_reader` (the same,
  quickly), `hierarchy_reading` (the tree, and geometries in batches), `reading` (the file);
- writing: `tree`, `hierarchy_writing` (a path object by the general path), `leaf_writer` (the same, quickly),
  `writing` (the file);
- `data`, `kept`: what was read, and what of it `PathObject` has no place for.
"""
