"""Background removers: the protocol, and a file for each way to find the cat in a photo.

One of your own is a class with the members of `Remover`, named on the command line by
`background=remove '~background/remover' +background.remover._target_=mypackage.Mine trust=[mypackage.*]`.
"""

from typing import Any, Protocol

from catsweep.prepare.image_files import Pixels, Points

Alpha = Pixels  # of shape (H, W)


class Remover(Protocol):
    """Function from a photo to a mask of the cat."""

    reliability: float  # confidence in a mask that looks as it should, 0 to 1; about the mean overlap with true masks

    def __call__(self, photo: Pixels, points: Points | None) -> Alpha:
        """Compute how much of each pixel is cat. Called from several threads at once.

        Args:
            photo: uint8, (H, W, 3), RGB.
            points: landmarks, (9, 2), pixels counted from the centre of the first; None if unknown.

        Returns:
            uint8, (H, W), from 0, behind, to 255, in front. Equal photos have equal masks.
        """
        ...

    def parameters(self) -> dict[str, Any]:
        """Return all that decides the masks, as JSON."""
        ...
