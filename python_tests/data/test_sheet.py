"""Table files as people write them, and as they should not be."""

import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest

from mmcuda.data.sheet import read_sheet
from mmcuda.errors import UserError


def write(tmp_path, content, name="cohort.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def error(path):
    with pytest.raises(UserError) as raised:
        read_sheet(path)
    return str(raised.value).replace(str(path.parent), "")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_delimiters_byte_order_mark_quotes_and_spaces_in_names(tmp_path, delimiter, newline):
    rows = [["image", " CST ", "note"], ["ä.png", "1.5", f'"one{delimiter} two"'], ["b.png", "", ""]]
    text = "\ufeff" + newline.join(delimiter.join(row) for row in rows) + newline
    sheet = read_sheet(write(tmp_path, text))
    assert list(sheet.frame.columns) == ["image", "CST", "note"]
    assert sheet.texts("note").tolist() == [f"one{delimiter} two", ""]
    assert sheet.texts("image").tolist() == ["ä.png", "b.png"]


def test_row_numbers_are_those_of_the_file(tmp_path):
    sheet = read_sheet(write(tmp_path, 'image,note\na,"two\nlines"\n\n,\nb,x\n,,\n'))
    assert sheet.texts("image").tolist() == ["a", "b"]
    assert sheet.where(0, "note") == "cohort.csv row 3 column note"  # where it ends
    assert sheet.where(1, "note") == "cohort.csv row 6 column note"


def test_row_numbers_of_a_spreadsheet(tmp_path):
    frame = pd.DataFrame({"image": ["a", None, "b"], "cst": [1, None, 3]})
    frame.to_excel(tmp_path / "cohort.xlsx", index=False)
    sheet = read_sheet(tmp_path / "cohort.xlsx")
    assert sheet.row_numbers.tolist() == [2, 4]
    assert sheet.texts("cst").tolist() == ["1", "3"]


def test_leading_zeros_stay(tmp_path):
    assert read_sheet(write(tmp_path, "patient\n007\n08\n")).texts("patient").tolist() == ["007", "08"]


@pytest.mark.parametrize("kind", ["csv", "xlsx", "parquet"])
def test_columns_of_one_name(tmp_path, kind):
    path = tmp_path / f"cohort.{kind}"
    if kind == "csv":
        path.write_text("image,cst,bcva, cst\na,1,2,3\n")
    elif kind == "xlsx":
        pd.DataFrame([["image", "cst", "bcva", "cst"], ["a", 1, 2, 3]]).to_excel(path, index=False, header=False)
    else:
        names = ["image", "cst", "bcva", "cst"]
        pyarrow.parquet.write_table(pyarrow.table([["a"], [1], [2], [3]], names=names), path)
    assert error(path) == f"cohort.{kind} row 1: the column name cst appears twice (columns 2 and 4)"


def test_columns_without_a_name_are_let_be(tmp_path):
    sheet = read_sheet(write(tmp_path, ",image,\n0,a,x\n"))
    assert sheet.texts("image").tolist() == ["a"]


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("", "cohort.csv", "/cohort.csv is empty (0 bytes)"),
        ("image,cst\n", "cohort.csv", "cohort.csv holds column names but no rows"),
        ("\n\n", "cohort.csv", "cohort.csv row 1: expected column names, found none"),
        ("image,cst\na,1\nb,2,3\n", "cohort.csv", "cohort.csv row 3: expected 2 cells, got 3"),
        ("image,cst\na,1\nb", "cohort.csv", "cohort.csv row 3: expected 2 cells, got 1"),
        ('image,cst\na,"1\n', "cohort.csv", "cohort.csv row 2: unexpected end of data"),
        ("größe\n1\n".encode("latin1"), "cohort.csv", "/cohort.csv must be UTF-8 text, got the byte 0xf6"),
        ("PK no workbook", "cohort.xlsx", "/cohort.xlsx is not a valid .xlsx file: "),
        ("PAR1 no table", "cohort.parquet", "/cohort.parquet is not a valid .parquet file: "),
        ("no archive", "cohort.csv.gz", "/cohort.csv.gz cannot be read: not a gzipped file"),
        ("anything", "cohort.xls", "/cohort.xls must be a table: one of .csv, .csv.gz, .tsv, .parquet, .xlsx"),
    ],
)
def test_a_file_that_is_no_table(tmp_path, content, name, message):
    assert error(write(tmp_path, content, name)).startswith(message)


def test_a_file_that_is_not_there(tmp_path):
    assert error(tmp_path / "cohort.csv") == "/cohort.csv cannot be read: no such file or directory"
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    assert error(tmp_path / "loop.csv") == "/loop.csv cannot be read: too many levels of symbolic links"
    (tmp_path / "folder.csv").mkdir()
    assert error(tmp_path / "folder.csv") == "/folder.csv cannot be read: is a directory"
