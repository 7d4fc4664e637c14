"""A folder in the layout of MIMIC-CXR-JPG, with rendered radiographs."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from phantoms.chest import FINDINGS, Study, draw_body, draw_study, render_radiograph

LABELS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Enlarged Cardiomediastinum",
    "Fracture",
    "Lung Lesion",
    "Lung Opacity",
    "No Finding",
    "Pleural Effusion",
    "Pleural Other",
    "Pneumonia",
    "Pneumothorax",
    "Support Devices",
)
VIEWS = ("PA", "LATERAL", "AP", "PA", "LL", "AP", "")  # taken in turn; the real table lacks a few


@dataclass(frozen=True)
class MimicFolder:
    """A folder that was written, and the truth about it."""

    root: Path
    split_table: Path
    metadata_table: Path
    label_table: Path
    images: pd.DataFrame  # a row an image: path, ids, ViewPosition, split, and 0/1 of what is drawn


def write_mimic(
    root: Path,
    patients: int = 8,
    studies: int = 2,
    images: int = 2,
    size: tuple[int, int] = (320, 384),
    seed: int = 0,
    reports: bool = True,
) -> MimicFolder:
    """Write images, the three tables and the reports under ``root``.

    Of the labels, one in eight is -1 (uncertain), and of the absent findings half are blank (not mentioned), as a
    reader of reports would leave them. One study lacks its row in the table of labels.

    Args:
        root: folder to fill; made if need be.
        patients: seven in ten train, the rest validate and test.
        studies: of every patient.
        images: of every study.
        size: width and height of the images in pixels.
        seed: the same seed gives the same folder.
        reports: write a report beside the folder of every study.
    """
    rng = np.random.default_rng(seed)
    rows, labels = [], []
    for index in range(patients):
        subject = 10000032 + 97 * index
        split = ("train", "train", "train", "test", "train", "validate", "train", "train", "train", "test")[index % 10]
        body = draw_body(rng)
        for _ in range(studies):
            study_id, study = int(rng.integers(50_000_000, 60_000_000)), draw_study(body, rng)
            folder = Path("files", f"p{str(subject)[:2]}", f"p{subject}", f"s{study_id}")
            (root / folder).mkdir(parents=True, exist_ok=True)
            if reports:
                (root / folder).with_suffix(".txt").write_text(_report(study))
            truth = {name: study.findings.get(name, False) for name in LABELS}
            labels.append({"subject_id": subject, "study_id": study_id} | _mentioned(truth, rng))
            for _ in range(images):
                view = VIEWS[len(rows) % len(VIEWS)]
                dicom = "-".join(f"{part:08x}" for part in rng.integers(0, 2**32, 5))
                picture = render_radiograph(study, view, size, rng)
                Image.fromarray(picture).save(root / folder / f"{dicom}.jpg", quality=90)
                rows.append(
                    {
                        "dicom_id": dicom,
                        "subject_id": subject,
                        "study_id": study_id,
                        "ViewPosition": view or None,
                        "Rows": size[1],
                        "Columns": size[0],
                        "StudyDate": 21800506 + index,
                        "StudyTime": 213014.531,
                        "split": split,
                        "path": str(folder / f"{dicom}.jpg"),
                    }
                    | {name: int(drawn) for name, drawn in truth.items()}
                )
    table = pd.DataFrame(rows)
    tables = {
        "split": table[["dicom_id", "study_id", "subject_id", "split"]],
        "metadata": table[
            ["dicom_id", "subject_id", "study_id", "ViewPosition", "Rows", "Columns", "StudyDate", "StudyTime"]
        ],
        "chexpert": pd.DataFrame(labels[:-1] if len(labels) > 2 else labels),
    }
    paths = {name: root / f"mimic-cxr-2.0.0-{name}.csv.gz" for name in tables}
    for name, content in tables.items():
        content.to_csv(paths[name], index=False)
    return MimicFolder(root, paths["split"], paths["metadata"], paths["chexpert"], table)


def _mentioned(truth: dict[str, bool], rng: np.random.Generator) -> dict[str, float]:
    """Return the labels of a study as its report mentions them: 1, 0, -1, or NaN."""
    draws = rng.random((2, len(truth)))
    return {
        name: -1.0 if unsure < 0.125 else 1.0 if present else 0.0 if spoken < 0.5 else np.nan
        for (name, present), unsure, spoken in zip(truth.items(), *draws, strict=True)
    }


def _report(study: Study) -> str:
    found = study.findings
    sentences = [f"{name if found[name] else 'No ' + name.lower()}." for name in FINDINGS]
    return f"{'FINAL REPORT':>45}\n FINDINGS:\n {' '.join(sentences)}\n\n IMPRESSION:\n {sentences[0]}\n"
