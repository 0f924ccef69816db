"""Recordings of QuPath's view tracker: `data/<entry>/recordings/*.tsv` in a project.

QuPath 0.2 wrote Timestamp, X, Y, Width, Height, Canvas width and Canvas height; 0.4 and later add Downsample factor,
Rotation and, as asked for, Cursor X, Cursor Y, Active tool, Eye X, Eye Y, Eye fixated, Z and T. Timestamps are
milliseconds since the recording began; the day is not written, so that a recording is a timeline of its own. A frame is
written when the view or the mouse moves, and one when the recording is stopped. Somebody starts it by hand, in one
viewer: what was done before or in another viewer is not in it.
"""

from __future__ import annotations

from wsi_pipeline.measures.time import Event, EventType, Session, TimeSource

_NEEDED = {"timestamp", "x", "y", "width", "height"}


def read_recording(text: str, *, project: str, rater: str, image: str, log: str) -> tuple[Session | None, list[str]]:
    """One recording as a session of `view` events, and what was odd in it.

    Parameters
    ----------
    image
        The entry id of the image that was recorded, from the name of its folder.
    log
        Name of the file.

    Returns
    -------
    No session where the text is no recording.
    """
    lines = [line for line in text.removeprefix("\ufeff").splitlines() if line.strip()]
    header = [name.strip().casefold() for name in lines[0].split("\t")] if lines else []
    if not set(header) >= _NEEDED:
        return None, [f"{log}: is no recording of the view tracker; it is left out"]
    column = header.index("timestamp")
    times: list[float] = []
    unread = back = 0
    for line in lines[1:]:
        try:
            t = float(line.split("\t")[column])
        except (ValueError, IndexError):
            unread += 1
            continue
        if times and t < times[-1]:
            # QuPath refuses such frames itself: whoever edited the file knows better, we do not.
            back += 1
            continue
        times.append(t)
    problems = []
    if unread:
        problems.append(f"{log}: {unread} lines are no frames; they are left out")
    if back:
        problems.append(f"{log}: {back} frames go back in time; they are left out")
    events = tuple(Event(seq, t, EventType.VIEW, image) for seq, t in enumerate(times, start=1))
    session = Session(project, rater, events, log=log, time_source=TimeSource.VIEW_TRACKER, absolute=False)
    return session, problems
