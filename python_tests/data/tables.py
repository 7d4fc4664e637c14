"""A small table of images as a research group would have it, in every file format."""

import numpy as np
import pandas as pd
from PIL import Image

from mmcuda.data import DataConfig


def write_images(folder, names, size=(20, 24), seed=0):
    """Write noise of width, height ``size`` under each name."""
    rng = np.random.default_rng(seed)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, size[::-1], dtype=np.uint8)).save(path)


def patients_table(rows=24, seed=0):
    """Return a table of four images a patient, with a column of every kind."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "image": [f"images/{row:03d}.png" for row in range(rows)],
            "patient": [f"{row // 4:04d}" for row in range(rows)],
            "eye": [("OD", "OS")[row // 2 % 2] for row in range(rows)],
            "bcva": rng.integers(27, 100, rows),
            "cst": rng.normal(320, 100, rows).round(1),
            "stage": rng.integers(0, 4, rows),
            "grade": rng.choice(["mild", "severe"], rows),
            "fluid": rng.integers(0, 2, rows),
            "sex": [("F", "M")[row // 4 % 2] for row in range(rows)],
        }
    )
    table.loc[3, "cst"] = np.nan
    return table


def write_table(folder, table=None, name="cohort.csv", with_images=True):
    """Write a table, and its images, and return the path of the table."""
    table = patients_table() if table is None else table
    path = folder / name
    if path.suffix == ".xlsx":
        table.to_excel(path, index=False)
    elif path.suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    if with_images:
        write_images(folder, table["image"])
    return path


def config(path, **options):
    """Return the options that read the table at ``path``."""
    usual = {"image": "image", "group": "patient", "targets": ("fluid",), "image_size": 16}
    return DataConfig(source="table", file=path, cache_dir=path.parent / "cache", **usual | options)
