"""Tables in CSV files, as they are read everywhere."""

import csv
from pathlib import Path

from pnncore.errors import DataError


def read_table(path: Path) -> list[tuple[int, list[str]]]:
    """Return the rows of a CSV file that are not empty, with the number of the line each ends at.

    Raises
    ------
    DataError
        If there is no such file, or it is no text with commas between fields.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder, not a file")
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    rows: list[tuple[int, list[str]]] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            for row in reader:
                if any(field.strip() for field in row):
                    rows.append((reader.line_num, [field.strip() for field in row]))
    except UnicodeDecodeError:
        raise DataError(f"{path} is no text in UTF-8") from None
    except csv.Error as error:
        raise DataError(f"{path} is no CSV file: {error}") from None
    for line, row in rows:
        if row[0].startswith("#"):
            raise DataError(f"{path}, row {line}: comments are not understood; leave them out")
    if rows and len(rows[0][1]) == 1:
        for sign, name in ((";", "semicolons"), ("\t", "tabs")):
            if sign in rows[0][1][0]:
                raise DataError(f"{path} has {name} between fields; they must be commas")
    return rows


def is_number(field: str) -> bool:
    """Return whether a field holds a number; "nan" is one."""
    try:
        float(field)
    except ValueError:
        return False
    return "_" not in field
