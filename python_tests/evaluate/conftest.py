import dataclasses

import numpy as np
import pytest

from mmcuda.data import load_lidc, split_by_patient


@pytest.fixture(scope="session")
def readings():
    """The LIDC readings of the first 120 patients, with their split."""
    whole = load_lidc()
    rows = np.flatnonzero(np.isin(whole.patients, np.unique(whole.patients)[:120]))
    cohort = dataclasses.replace(
        whole,
        images=whole.images[rows],
        patients=whole.patients[rows],
        bags=whole.bags[rows],
        clinical={k: dataclasses.replace(v, values=v.values[rows]) for k, v in whole.clinical.items()},
        targets={k: v[rows] for k, v in whole.targets.items()},
    )
    return cohort, split_by_patient(cohort.patients, 0.3, 0)
