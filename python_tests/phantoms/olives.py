"""A folder in the layout of the OLIVES data set, with rendered scans."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from phantoms.retina import draw_eye, draw_visit, letters, render_scan

ARMS = ("GILA", "Monthly", "TREX")
BOTH_EYES = (201, 204, 213, 226)  # the patients whose two eyes the authors' folds put on different sides
PATH, SCAN = "Path (Trial/Arm/Folder/Visit/Eye/Image Name)", "Scan (n/49)"
BIOMARKERS = (
    "Atrophy / thinning of retinal layers",
    "Disruption of EZ",
    "DRIL",
    "IR hemorrhages",
    "IR HRF",
    "Partially attached vitreous face",
    "Fully attached vitreous face",
    "Preretinal tissue/hemorrhage",
    "Vitreous debris",
    "VMT",
    "DRT/ME",
    "Fluid (IRF)",
    "Fluid (SRF)",
    "Disruption of RPE",
    "Drusen (sub-RPE)",
    "Drusen (RPD)",
    "GA/MA areas",
    "PED (serous)",
    "PED (fibrovascular)",
    "SHRM",
)
MISSING_CELLS = BIOMARKERS[5:9]  # the columns in which the real table lacks a few cells


@dataclass(frozen=True)
class OlivesFolder:
    """A folder that was written, and the truth about it."""

    root: Path
    clinical_table: Path
    biomarker_table: Path
    images: pd.DataFrame  # a row an image: the columns of both tables without a missing cell; biomarkers of all images


def write_olives(
    root: Path,
    patients: int = 6,
    visits: int = 3,
    scans: int = 4,
    size: tuple[int, int] = (504, 496),
    seed: int = 0,
    extensions: tuple[str, ...] = ("tif", "tif", "png", "tif", "jpg"),
    clinical_folder: str = "ml_centric_labels",
    biomarker_folder: str = "full_labels",
    prefix: str = "",
) -> OlivesFolder:
    """Write images and both tables under ``root``.

    Args:
        root: folder to fill; made if need be.
        patients: alternately of TREX-DME and of PRIME; 201, 204, 213 and 226 come first and have two eyes.
        visits: of every eye. As in the real set, only the first and the last have biomarkers.
        scans: of every visit (49 in the real set), spread over the macula.
        size: width and height of the images in pixels.
        seed: the same seed gives the same folder.
        extensions: taken in turn.
        clinical_folder: subfolder of the labels that gets Clinical_Data_Images.xlsx.
        biomarker_folder: subfolder of the labels that gets Biomarker_Clinical_Data_Images.csv.
        prefix: put before every path in the tables, such as /data/Datasets in older ones.
    """
    rng = np.random.default_rng(seed)
    rows = []
    eye_id = 0
    for index in range(patients):
        patient, arm_folder, sides = _patient(index)
        for side in sides:
            eye = draw_eye(rng)
            for number in range(visits):
                visit = draw_visit(eye, number / max(visits - 1, 1), rng)
                seen = {"BCVA": letters(visit, rng), "CST": round(visit.central_thickness + rng.normal(0, 5))}
                folder = f"/{arm_folder.format(side=side, visit=number, week=4 * number)}"
                (root / folder[1:]).mkdir(parents=True, exist_ok=True)
                for scan in range(scans):
                    y = 4400 * ((scan + 0.5) / scans - 0.5)
                    image, found = render_scan(visit, y, size, rng)
                    name = f"{scan}" if "Prime" in folder else f"TREXJ_{scan:06d}"
                    path = f"{folder}/{name}.{extensions[len(rows) % len(extensions)]}"
                    Image.fromarray(image).save(root / path[1:])
                    rows.append(
                        {
                            "File_Path": prefix + path,
                            SCAN: scan + 1,
                            **{name: int(name in found) for name in BIOMARKERS},
                        }
                        | seen
                        | {"Eye_ID": eye_id, "Patient_ID": patient, "visit": number}
                    )
            eye_id += 1
    images = pd.DataFrame(rows)
    labels = root / "OLIVES_Dataset_Labels"
    clinical_table = labels / clinical_folder / "Clinical_Data_Images.xlsx"
    biomarker_table = labels / biomarker_folder / "Biomarker_Clinical_Data_Images.csv"
    for table in (clinical_table, biomarker_table):
        table.parent.mkdir(parents=True, exist_ok=True)

    clinical = images[["File_Path", "BCVA", "CST", "Eye_ID", "Patient_ID"]].astype({"BCVA": float, "CST": float})
    if visits > 2:  # in the real set, one visit lacks both values
        clinical.loc[(images["Eye_ID"] == eye_id - 1) & (images["visit"] == 1), ["BCVA", "CST"]] = np.nan
    clinical.to_excel(clinical_table, index=False)

    graded = images[images["visit"].isin([0, visits - 1])].reset_index(drop=True)
    graded = graded[["File_Path", SCAN, *BIOMARKERS, "Eye_ID", "BCVA", "CST", "Patient_ID"]]
    graded = graded.astype(dict.fromkeys(MISSING_CELLS, "Int64"))
    for name in MISSING_CELLS:
        graded.loc[rng.choice(len(graded), min(2, len(graded) // 4), replace=False), name] = pd.NA
    graded.rename(columns={"File_Path": PATH, "CST": "CST "}).to_csv(biomarker_table, index=False)
    return OlivesFolder(root, clinical_table, biomarker_table, images)


def _patient(index: int) -> tuple[int, str, tuple[str, ...]]:
    """Return a patient's id, the folder of a visit (with side, visit and week left open), and the eyes."""
    number, is_prime = divmod(index, 2)
    if is_prime:
        return 10 + number, f"Prime_FULL/02-{10 + number:03d}/W{{week}}/{{side}}", (("OD", "OS")[number % 2],)
    singles = [patient for patient in range(202, 300) if patient not in BOTH_EYES]
    patient = BOTH_EYES[number] if number < len(BOTH_EYES) else singles[number - len(BOTH_EYES)]
    arm = ARMS[number % len(ARMS)]
    folder = f"TREX DME/{arm}/{patient:04d}{arm[0]}{{side}}/V{{visit}}/{{side}}"
    return patient, folder, ("OD", "OS") if patient in BOTH_EYES else (("OD", "OS")[number % 2],)
