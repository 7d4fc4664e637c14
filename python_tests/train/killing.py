"""The end of a process in the middle of a training."""

from mmcuda.data import Augment


class Killed(BaseException):
    """Stands for the end of the process."""


class KilledAtCall(Augment):
    """Augmentation that ends the process when it has drawn the views of ``left`` batches."""

    left = 0

    def draw(self, shape, count, generator):
        KilledAtCall.left -= 1
        if KilledAtCall.left < 0:
            raise Killed
        return super().draw(shape, count, generator)
