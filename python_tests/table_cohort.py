"""A small table of images whose target shows, for tests of the commands."""

import numpy as np
import pandas as pd

SIDES = ["train", "train", "train", "validation", "test"]  # of every five patients


def write_cohort(folder, patients=20, size=32):
    """Write images, 3 a patient, and their table; return the options of the command line that read it.

    Images with drusen are brighter; a sixth have no label. There is no image with fluid in training.
    """
    rows = np.arange(3 * patients)
    table = pd.DataFrame({"path": [f"{row:02d}.npy" for row in rows], "patient": [f"p{row // 3:02d}" for row in rows]})
    drusen = rows % 2
    for row, name in enumerate(table["path"]):
        noise = np.random.default_rng(row).integers(0, 200, (size, size))
        np.save(folder / name, (noise + 25 * drusen[row]).astype(np.uint8))
    table["drusen"] = pd.Series(drusen).astype("Int64").mask(rows % 6 == 0)
    table["split"] = [SIDES[row // 3 % 5] for row in rows]
    table["fluid"] = (rows % 2 == 0) & (table["split"] == "test")
    table["fluid"] = table["fluid"].astype(int)
    table.to_csv(folder / "cohort.csv", index=False)
    return [
        *("--data", "table", "--data.file", str(folder / "cohort.csv"), "--data.image", "path"),
        *("--data.group", "patient", "--data.targets", "[drusen,fluid]", "--data.split", "split"),
        *("--data.image_size", str(size), "--data.cache_dir", str(folder / "cache")),
    ]
