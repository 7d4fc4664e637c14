"""The end of a process in the middle of a training."""

from mmcuda.data import Augment


class Killed(BaseException):
    """Stands for the end of the process."""


class KilledAtCall(Augment):
    """Augmentation that ends the process when it has been called ``left`` times."""

    left = 0

    def __call__(self, images, generator):
        KilledAtCall.left -= 1
        if KilledAtCall.left < 0:
            raise Killed
        return super().__call__(images, generator)
