"""The real LIDC readings, rendered once for all tests of this folder."""

import sqlite3

import pytest

from mmcuda.data import DataConfig, load_cohort
from mmcuda.data.sources.lidc_readings import database_path, read_readings


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def lidc(cache_dir):
    return load_cohort(DataConfig(image_size=32, cache_dir=cache_dir))


@pytest.fixture(scope="session")
def database():
    connection = sqlite3.connect(f"{database_path().as_uri()}?mode=ro", uri=True)
    yield connection
    connection.close()


@pytest.fixture(scope="session")
def reading():
    """Return the first reading of the database: five slices and more, a real outline."""
    return next(read_readings(database_path()))
