"""Cohorts of images with clinical labels and targets, splits by patient, and augmentation."""

from mmcuda.data.augment import Augment
from mmcuda.data.cohort import Cohort
from mmcuda.data.config import DataConfig
from mmcuda.data.load import load_cohort, load_table, read_table
from mmcuda.data.problems import Problem
from mmcuda.data.split import Split, check_no_leak, draw_labelled, split_by_patient, split_table
from mmcuda.data.table import ClinicalLabel, CohortTable

__all__ = [
    "Augment",
    "ClinicalLabel",
    "Cohort",
    "CohortTable",
    "DataConfig",
    "Problem",
    "Split",
    "check_no_leak",
    "draw_labelled",
    "load_cohort",
    "load_table",
    "read_table",
    "split_by_patient",
    "split_table",
]
