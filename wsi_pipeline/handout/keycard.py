"""The page that lies in each project, for the person who reviews."""

from __future__ import annotations

KEY_CARD = """\
# How to review

Open `project.qpproj` in QuPath. Each image holds regions that a model drew. Correct them; draw only what is missing.

1. Double-click an image in the list. Sorted by `wsi_priority` (right-click, *Sort by*), the least certain come first.
2. Yellow squares (class *Review*) are places where the model was unsure. The script *wsi_review* walks through them
   (*Automate > Project scripts*).
3. Correct:
   - **Brush** (B): draw inside a region to add to it. **Alt** + drag takes away. **Shift** + drag adds to the
     selected region.
   - **Wand** (W): the same, following colours. **Move** (M): double-click a region to select it.
   - **Delete**: removes the selected region. **Ctrl+Z**: undo (ten steps).
   - Class: select the region, choose a class in *Annotations*, *Set selected*. What should not count: *Ignore\\**.
   - A hides and shows regions, H the squares, F fills them.
4. **Ctrl+S** saves. QuPath does not save by itself.
5. When an image is done, set its metadata `wsi_state` to `reviewed` (key R in the script). Only then do regions that
   you left alone count as accepted.

If the brush does not edit: the region is locked (Ctrl+K unlocks it), or it was not selected. On Linux, use Alt+Super.

## What is recorded
If you run the script *wsi_event_log*, it notes which image was open when and which region changed, for the time study
of this project: no mouse, no keys, no screen. Run it again to switch it off. Everything stays in the folder `events`.

{purpose}
"""


def key_card(purpose: str) -> str:
    """The page, with what the records are for."""
    return KEY_CARD.replace("{purpose}", purpose)
