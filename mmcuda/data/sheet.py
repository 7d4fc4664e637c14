"""A table file as it is written: unique column names, a row number for every row, cells not yet interpreted."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mmcuda.errors import UserError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

DELIMITERS = (",", ";", "\t")
FORMATS = (".csv", ".csv.gz", ".tsv", ".parquet", ".xlsx")
SHOWN = 20  # column names in one message
MISSING_WORDS = ("na", "n/a", "nan", "null")  # read as missing, with a warning; "none" may well be a grade


class Place(NamedTuple):
    """Where the cells of a column are written."""

    files: npt.NDArray[np.str_]  # [N] names, "" where a row has no cell
    rows: npt.NDArray[np.int64]  # [N] the header is row 1


@dataclass(frozen=True)
class Sheet:
    """The cells of one table file, or of several that were joined."""

    name: str  # of the file, for messages
    frame: pd.DataFrame  # column names unique and stripped; cells as strings, or as numbers where the file has types
    row_numbers: npt.NDArray[np.int64]  # [N] the header is row 1
    joined: Mapping[str, Place] = field(default_factory=dict)  # columns of other files

    def __len__(self) -> int:
        return len(self.frame)

    def where(self, row: int, column: str) -> str:
        """Return the words by which a message names a cell; ``row`` counts from 0."""
        if column in self.joined and self.joined[column].files[row]:
            files, rows = self.joined[column]
            return f"{files[row]} row {rows[row]} column {column}"
        return f"{self.name} row {self.row_numbers[row]} column {column}"

    def where_all(self, column: str) -> str:
        """Return the words by which a message names a column as a whole."""
        files: Iterable[str] = self.joined[column].files if column in self.joined else ()
        return f"{next(filter(None, files), self.name)} column {column}"

    def texts(self, column: str) -> pd.Series:
        """Return the cells of a column as stripped strings, "" where they are empty; 201.0 of a number is "201"."""
        import pandas as pd

        cells = self.frame[column]
        if pd.api.types.is_float_dtype(cells.dtype) and (cells.dropna() % 1 == 0).all():
            cells = cells.astype("Int64")
        return cells.astype(object).where(cells.notna(), "").astype(str).str.strip()

    def take(self, rows: npt.NDArray[Any]) -> Sheet:
        """Return the sheet of ``rows`` (indices or a mask) alone."""
        joined = {column: Place(files[rows], numbers[rows]) for column, (files, numbers) in self.joined.items()}
        return Sheet(self.name, self.frame.iloc[rows].reset_index(drop=True), self.row_numbers[rows], joined)

    def with_columns(self, columns: Mapping[str, Any]) -> Sheet:
        """Return the sheet with columns added or replaced, [N] each."""
        return replace(self, frame=self.frame.assign(**columns))

    def join(self, other: Sheet, keys: pd.Series, other_keys: pd.Series) -> Sheet:
        """Return the sheet with the columns of another one that it lacks, row by row where the keys are equal.

        Args:
            other: the other sheet.
            keys: [N] of this sheet's rows.
            other_keys: [M] of the other's rows.

        Raises:
            UserError: if two rows of the other sheet have one key.
        """
        import pandas as pd

        if other_keys.duplicated().any():
            key = other_keys[other_keys.duplicated()].iloc[0]
            rows = " and ".join(str(row) for row in other.row_numbers[other_keys == key][:2])
            raise UserError(f"{other.name} rows {rows}: expected one row for {key}")
        found = pd.Index(other_keys).get_indexer(pd.Index(keys))
        place = Place(np.where(found >= 0, other.name, ""), np.where(found >= 0, other.row_numbers[found], 0))
        lacking = [column for column in other.frame.columns if column not in self.frame.columns]
        theirs = other.frame[lacking].reindex(found).set_axis(self.frame.index)
        frame = pd.concat([self.frame, theirs], axis=1)
        return replace(self, frame=frame, joined=dict(self.joined) | dict.fromkeys(lacking, place))

    def append(self, other: Sheet) -> Sheet:
        """Return the sheet with the rows of another one below; what one of them lacks is empty there."""
        import pandas as pd

        def place(sheet: Sheet, column: str) -> Place:
            return sheet.joined.get(column) or Place(np.full(len(sheet), sheet.name), sheet.row_numbers)

        frame = pd.concat([self.frame, other.frame], ignore_index=True)
        places = ((column, place(self, column), place(other, column)) for column in frame.columns)
        joined = {
            column: Place(np.concatenate([mine.files, theirs.files]), np.concatenate([mine.rows, theirs.rows]))
            for column, mine, theirs in places
        }
        return Sheet(self.name, frame, np.concatenate([self.row_numbers, other.row_numbers]), joined)

    def check_columns(self, wanted: Mapping[str, Iterable[str]]) -> None:
        """Raise a UserError naming every missing column of ``wanted``: the columns that each option names."""
        present = list(self.frame.columns)
        faults = []
        for option, columns in wanted.items():
            for column in columns:
                if column not in present:
                    hint = did_you_mean(column, present) or f"; it has {', '.join(present[:SHOWN])}"
                    faults.append(f"--data.{option}: {self.name} has no column {column}{hint}")
        if faults:
            raise UserError(". ".join(faults))


def read_sheet(path: Path) -> Sheet:
    """Read a .csv, .csv.gz, .tsv, .parquet or .xlsx file (its first sheet). Rows without any content are left out.

    Raises:
        UserError: if the file is missing, empty, of another kind or damaged, or two columns share a name.
    """
    kind = path.name.lower()
    if not kind.endswith(FORMATS):
        raise UserError(f"{path} must be a table: one of {', '.join(FORMATS)}")
    try:
        if path.stat().st_size == 0:
            raise UserError(f"{path} is empty (0 bytes)")
        if kind.endswith(".parquet"):
            return _read_parquet(path)
        return _read_excel(path) if kind.endswith(".xlsx") else _read_delimited(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from error


def _read_delimited(path: Path) -> Sheet:
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    numbers, rows = [], []
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=max(DELIMITERS, key=first.count), strict=True)
            for row in reader:
                numbers.append(reader.line_num)
                rows.append(row)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} must be UTF-8 text, got the byte 0x{error.object[error.start]:02x}: save it as UTF-8"
        ) from None
    except csv.Error as error:
        raise UserError(f"{path.name} row {reader.line_num}: {error}") from None
    except EOFError:
        raise UserError(f"{path} is cut off") from None
    return _from_rows(path.name, rows, np.array(numbers))


def _from_rows(name: str, rows: Sequence[Sequence[Any]], numbers: npt.NDArray[np.int64]) -> Sheet:
    import pandas as pd

    names = _column_names(name, rows[0] if rows else [])
    width = len(names)
    for row, number in zip(rows, numbers, strict=True):
        if row and (len(row) < width or any(cell.strip() for cell in row[width:])):
            raise UserError(f"{name} row {number}: expected {width} cells, got {len(row)}")
    kept = [position for position, row in enumerate(rows) if position > 0 and any(cell.strip() for cell in row)]
    cells = [rows[position][:width] for position in kept]
    return _checked(name, pd.DataFrame(cells, columns=names, dtype="str"), numbers[kept])


def _read_excel(path: Path) -> Sheet:
    import zipfile

    import pandas as pd

    try:
        frame = pd.read_excel(path, header=None, dtype=object, engine="openpyxl")
    except (ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not a valid .xlsx file: {error}") from error
    names = _column_names(path.name, frame.iloc[0].fillna("").tolist() if len(frame) else [])
    body = frame.iloc[1:].set_axis(names, axis=1).dropna(how="all")
    return _checked(path.name, body.infer_objects().reset_index(drop=True), body.index.to_numpy() + 1)


def _read_parquet(path: Path) -> Sheet:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(path).read()
    except (pyarrow.ArrowException, ValueError) as error:
        raise UserError(f"{path} is not a valid .parquet file: {error}") from error
    names = _column_names(path.name, table.column_names)
    frame = table.rename_columns(names).to_pandas(ignore_metadata=True)
    return _checked(path.name, frame, np.arange(2, len(frame) + 2))


def _column_names(name: str, header: Sequence[Any]) -> list[str]:
    """Return the stripped names; unnamed columns get a name that no option can mean."""
    names = [str(cell).strip() for cell in header]
    if not any(names):
        raise UserError(f"{name} row 1: expected column names, found none")
    for position, column in enumerate(names):
        if column and names.index(column) != position:
            places = f"columns {names.index(column) + 1} and {position + 1}"
            raise UserError(f"{name} row 1: the column name {column} appears twice ({places})")
    return [column or f"(unnamed {position + 1})" for position, column in enumerate(names)]


def _checked(name: str, frame: pd.DataFrame, numbers: npt.NDArray[np.int64]) -> Sheet:
    if len(frame) == 0:
        raise UserError(f"{name} holds column names but no rows")
    return Sheet(name, frame, np.asarray(numbers, dtype=np.int64))
