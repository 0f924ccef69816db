"""The classes that QuPath 0.4 to 0.7 put into data.qpdata, as a writer must describe them.

Names, serial version ids and fields are QuPath's; they are the same in all these versions.
"""

from __future__ import annotations

from wsi_pipeline.objects import Kind, Roi
from wsi_pipeline.qupath.native.java_model import ClassDesc, Field, Flag, JavaString

OBJECTS = "qupath.lib.objects."
_MEASUREMENTS = "qupath.lib.measurements."
_ROI = "qupath.lib.roi."
PLAIN = Flag.SERIALIZABLE
OWN_WRITER = Flag.SERIALIZABLE | Flag.WRITE_METHOD
EXTERNAL = Flag.EXTERNALIZABLE | Flag.BLOCK_DATA

_TYPES: dict[str, JavaString] = {}


def _fields(*described: str) -> tuple[Field, ...]:
    """Fields from texts such as `I count` and `Ljava/lang/String; name`; equal types are one string, as in Java."""
    made = []
    for text in described:
        kind, name = text.split(" ")
        written = _TYPES.setdefault(kind, JavaString(kind)) if kind[0] in "L[" else None
        made.append(Field(kind[0], name, written))
    return tuple(made)


def _signed(suid: int) -> int:
    return suid - (1 << 64) if suid >> 63 else suid


def _java(name: str, suid: int, flags: Flag, *fields: str, parent: ClassDesc | None = None) -> ClassDesc:
    return ClassDesc(name, _signed(suid), flags, _fields(*fields), parent)


def _qupath(name: str, flags: Flag, *fields: str, parent: ClassDesc | None = None) -> ClassDesc:
    return ClassDesc(name, 1, flags, _fields(*fields), parent)


STRING = "Ljava/lang/String;"

NUMBER = _java("java.lang.Number", 0x86AC951D0B94E08B, PLAIN)
INTEGER = _java("java.lang.Integer", 0x12E2A0A4F7818738, PLAIN, "I value", parent=NUMBER)
BOOLEAN = _java("java.lang.Boolean", 0xCD207280D59CFAEE, PLAIN, "Z value")
ENUM = _java("java.lang.Enum", 0, PLAIN | Flag.ENUM)
ARRAY_LIST = _java("java.util.ArrayList", 0x7881D21D99C7619D, OWN_WRITER, "I size")
HASH_MAP = _java("java.util.HashMap", 0x0507DAC1C31660D1, OWN_WRITER, "F loadFactor", "I threshold")
LOCALE = _java(
    "java.util.Locale",
    0x7EF811609C30F9EC,
    OWN_WRITER,
    "I hashcode",
    f"{STRING} country",
    f"{STRING} extensions",
    f"{STRING} language",
    f"{STRING} script",
    f"{STRING} variant",
)
OBJECT_ARRAY = _java("[Ljava.lang.Object;", 0x90CE589F1073296C, PLAIN)
FLOAT_ARRAY = _java("[F", 0x0B9C818922E00C42, PLAIN)
DOUBLE_ARRAY = _java("[D", 0x3EA68C14AB635A1E, PLAIN)
BYTE_ARRAY = _java("[B", 0xACF317F8060854E0, PLAIN)

IMAGE_TYPE = _java("qupath.lib.images.ImageData$ImageType", 0, PLAIN | Flag.ENUM, parent=ENUM)
STAINS = _qupath("qupath.lib.color.ColorDeconvolutionStains", EXTERNAL)
WORKFLOW = _qupath("qupath.lib.plugins.workflow.Workflow", EXTERNAL)

PATH_OBJECT = _qupath(f"{OBJECTS}PathObject", EXTERNAL)
ROOT = _qupath(f"{OBJECTS}PathRootObject", EXTERNAL, parent=PATH_OBJECT)
ROI_OBJECT = _qupath(f"{OBJECTS}PathROIObject", EXTERNAL, parent=PATH_OBJECT)
DETECTION = _qupath(f"{OBJECTS}PathDetectionObject", EXTERNAL, parent=ROI_OBJECT)
BY_KIND = {
    Kind.ANNOTATION: _qupath(f"{OBJECTS}PathAnnotationObject", EXTERNAL, parent=ROI_OBJECT),
    Kind.DETECTION: DETECTION,
    Kind.TILE: _qupath(f"{OBJECTS}PathTileObject", EXTERNAL, parent=DETECTION),
    Kind.CELL: _qupath(f"{OBJECTS}PathCellObject", EXTERNAL, parent=DETECTION),
    Kind.TMA_CORE: _qupath(f"{OBJECTS}TMACoreObject", EXTERNAL, parent=ROI_OBJECT),
}
KINDS = {desc.name: kind for kind, desc in BY_KIND.items()}
METADATA = _qupath(f"{OBJECTS}MetadataMap", EXTERNAL)
PATH_CLASS = _qupath(
    f"{OBJECTS}classes.PathClass",
    PLAIN,
    "Ljava/lang/Integer; colorRGB",
    f"{STRING} name",
    "Lqupath/lib/objects/classes/PathClass; parentClass",
)
HIERARCHY = _qupath(
    f"{OBJECTS}hierarchy.PathObjectHierarchy",
    PLAIN,
    "Lqupath/lib/objects/PathObject; rootObject",
    "Lqupath/lib/objects/hierarchy/TMAGrid; tmaGrid",
)
TMA_GRID = _qupath(f"{OBJECTS}hierarchy.DefaultTMAGrid", PLAIN, "I gridHeight", "I gridWidth", "Ljava/util/List; cores")

_NUMERIC_LIST = _qupath(
    f"{_MEASUREMENTS}NumericMeasurementList$AbstractNumericMeasurementList",
    PLAIN,
    "Z isClosed",
    "Ljava/util/Map; map",
    "Ljava/util/List; names",
)
FLOAT_LIST = _qupath(f"{_MEASUREMENTS}NumericMeasurementList$FloatList", PLAIN, "[F values", parent=_NUMERIC_LIST)
DOUBLE_LIST = _qupath(f"{_MEASUREMENTS}NumericMeasurementList$DoubleList", PLAIN, "[D values", parent=_NUMERIC_LIST)
# Only read: what QuPath gives to annotations.
DEFAULT_LIST = _qupath(f"{_MEASUREMENTS}DefaultMeasurementList", PLAIN, "Ljava/util/ArrayList; list")
DOUBLE_MEASUREMENT = _qupath(f"{_MEASUREMENTS}DoubleMeasurement", PLAIN, "D value", f"{STRING} name")

_PLANE = ("I c", "I t")
_CORNERS = (*_PLANE, "D x", "D x2", "D y", "D y2", "I z", f"{STRING} name")
_ARRAYS = ("[F x", "[F y")
BY_ROI = {
    Roi.RECTANGLE: _qupath(f"{_ROI}RectangleROI$SerializationProxy", PLAIN, *_CORNERS),
    Roi.ELLIPSE: _qupath(f"{_ROI}EllipseROI$SerializationProxy", PLAIN, *_CORNERS),
    Roi.LINE: _qupath(f"{_ROI}LineROI$SerializationProxy", PLAIN, *_CORNERS),
    Roi.POLYGON: _qupath(
        f"{_ROI}PolygonROI$SerializationProxy",
        PLAIN,
        *_PLANE,
        "I z",
        f"{STRING} name",
        f"L{_ROI.replace('.', '/')}ClosedShapeStatistics; stats",
        *_ARRAYS,
    ),
    Roi.POINTS: _qupath(f"{_ROI}PointsROI$SerializationProxy", PLAIN, *_PLANE, "I z", f"{STRING} name", *_ARRAYS),
    Roi.POLYLINE: _qupath(f"{_ROI}PolylineROI$SerializationProxy", PLAIN, *_PLANE, "I z", *_ARRAYS),
    Roi.GEOMETRY: _qupath(
        f"{_ROI}GeometryROI$WKBSerializationProxy",
        PLAIN,
        *_PLANE,
        "I z",
        f"L{_ROI.replace('.', '/')}GeometryROI$GeometryStats; stats",
        "[B wkb",
    ),
}
ROIS = {desc.name: kind for kind, desc in BY_ROI.items()}

# Every class of which a field is looked at, by name.
KNOWN = {
    desc.name: desc
    for desc in (
        INTEGER,
        BOOLEAN,
        PATH_CLASS,
        HIERARCHY,
        TMA_GRID,
        FLOAT_LIST,
        DOUBLE_LIST,
        DEFAULT_LIST,
        DOUBLE_MEASUREMENT,
        *BY_ROI.values(),
    )
}
