"""Run `mmcuda study` in this process."""

import contextlib
import io

from mmcuda.cli import main


def run(out, *options, code=0):
    """Run in this process; return what it printed."""
    with contextlib.redirect_stdout(io.StringIO()) as screen:
        assert main(["study", *map(str, options), "--out", str(out)]) == code
    return screen.getvalue()
