"""``python -m mmcuda`` is the command ``mmcuda``."""

import sys

from mmcuda.cli import main

if __name__ == "__main__":
    sys.exit(main())
