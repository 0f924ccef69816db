"""The page that lies in each project, for the person who reviews."""

from __future__ import annotations

from collections.abc import Collection

KEY_CARD = """\
# How to review

Open `project.qpproj` in QuPath. Each image holds regions that a model drew. Correct them; draw only what is missing.

1. Double-click an image in the list. Sorted by `wsi_priority` (right-click, *Sort by*), the least certain come first.
2. Yellow squares (class *Review*) are places where the model was unsure. The script *wsi_review* walks through them
   (*Automate > Project scripts*, or the menu *Extensions > Review study*); its keys stand below.
3. Correct:
   - **Brush** (B): draw inside a region to add to it. **Alt** + drag takes away. **Shift** + drag adds to the
     selected region.
   - **Wand** (W): the same, following colours. **Move** (M): double-click a region to select it.
   - **Delete**: removes the selected region. **Ctrl+Z**: undo (ten steps).
   - Class: select the region, choose a class in *Annotations*, *Set selected*. What should not count: *Ignore\\**.
   - A hides and shows regions, H the squares, F fills them.
4. **Ctrl+S** saves. QuPath does not save by itself.
5. When an image is done, press R in the script's window (it saves, and sets the metadata `wsi_state` to `reviewed`).
   Only then do regions that you left alone count as accepted. More to do? I sets it back to `in_progress`.

## Keys of the review window
In the window itself, and with **Alt** in QuPath's own:

| key | what it does |
|---|---|
| N, Right | next square |
| P, Left | previous square |
| A | accept: what is drawn here is right |
| F | flag the square for discussion |
| 1 to 9 | class of the selected regions, as the window lists them |
| R | save, and mark the image as reviewed |
| I | the image is in progress again |
| O | next image that is not reviewed |
| Ctrl+S | save |

If the brush does not edit: the region is locked (Ctrl+K unlocks it), or it was not selected. On Linux, use Alt+Super.

## What is recorded
If you run the script *wsi_event_log*, it notes which image was open when and which region changed, for the time study
of this project: no mouse, no keys, no screen. Run it again to switch it off. Everything stays in the folder `events`.

{purpose}
"""


def key_card(purpose: str) -> str:
    """The page, with what the records are for."""
    return KEY_CARD.replace("{purpose}", purpose)


def study_card(purpose: str, *, arms: Collection[str], blind: bool, planted: bool, guideline: str | None) -> str:
    """The key card of a study: what is different in it stands before the keys."""
    told = ["Read the images in the order of the list (not sorted). One after the other, until each is `reviewed`."]
    if "manual" in arms:
        told.append(
            "Some images hold no region at all: there, draw every region yourself. That nothing is drawn says nothing "
            "about the image."
        )
    if planted:
        told.append(
            "**A few regions are wrong on purpose**: missing, made up, with a wrong outline or class. It is measured "
            "how many are found. What is left is put right when the corrections are collected."
        )
    if blind:
        told.append("Images have masked names. Please do not look at the path of the file in the tab *Image*.")
    if guideline is not None:
        told.append(f"What counts as what stands in `{guideline}`, beside this page.")
    notes = "\n".join(f"- {text}" for text in told)
    first, rest = key_card(purpose).split("\n\n", 1)
    rest = rest.replace("Each image holds regions that a model drew. Correct them; draw only what is missing.", "")
    rest = rest.replace(" Sorted by `wsi_priority` (right-click, *Sort by*), the least certain come first.", "")
    return f"{first}\n\n## This study\n{notes}\n\n{rest}"
