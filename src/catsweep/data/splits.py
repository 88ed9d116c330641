"""Divide photos into training and held-out ones by what they show, not by name or place in the folder.

Part of making a ready set. Copies of a photo share a group, and a group is never divided, so that no copy of a
held-out photo is trained on.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence

TRAIN, VAL = "train", "val"


def split(groups: Sequence[str], val_fraction: float) -> list[str]:
    """Assign each image to a split.

    Groups are put in the order of a hash of their names; each is held out if it still fits into the fraction.
    The answer therefore depends on neither the order nor the names of files, only on what groups there are, and
    a few photos more or less move only a few others.

    Args:
        groups: one label per image, usually the sha256 of the source photo's file.
        val_fraction: wanted share of held-out images, 0 ≤ fraction < 1.

    Returns:
        "train" or "val" per image. Of n images round(n · val_fraction) are held out, or as many fewer as whole
        groups require; at least one group when `val_fraction` > 0, and always one is left to train on.
    """
    sizes = Counter(groups)
    order = sorted(sizes, key=lambda group: hashlib.sha256(f"split:{group}".encode()).digest())
    room, held = round(val_fraction * len(groups)), set[str]()
    for group in order[:-1]:
        if sizes[group] <= room:
            held.add(group)
            room -= sizes[group]
    if not held and val_fraction > 0 and len(order) > 1:
        held.add(min(order, key=sizes.__getitem__))
    return [VAL if group in held else TRAIN for group in groups]
