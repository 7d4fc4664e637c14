"""Everything that is wrong with a cohort, found before anything is trained on it."""

from mmcuda.data.check.cohort import CohortCheck, check_cohort, load_checked

__all__ = ["CohortCheck", "check_cohort", "load_checked"]
