"""Tables, as text and in notebooks."""

import html
from collections.abc import Sequence

Rows = Sequence[Sequence[str]]


def text_table(rows: Rows, left: Sequence[str] = ()) -> str:
    """Return a table as text: a header and rows, the first column and those in `left` to the left.

    The others are numbers, and to the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    is_left = [k == 0 or name in left for k, name in enumerate(rows[0])]
    lines = [
        "  ".join(
            field.ljust(width) if to_left else field.rjust(width)
            for field, width, to_left in zip(row, widths, is_left, strict=True)
        ).rstrip()
        for row in rows
    ]
    return "\n".join(lines)


def html_table(rows: Rows, left: Sequence[str] = ()) -> str:
    """Return the table of `text_table` as HTML."""
    is_left = [k == 0 or name in left for k, name in enumerate(rows[0])]

    def line(kind: str, fields: Sequence[str]) -> str:
        return "".join(
            f"<{kind} style='text-align: {'left' if to_left else 'right'}'>{html.escape(field)}"
            f"</{kind}>"
            for field, to_left in zip(fields, is_left, strict=True)
        )

    header, *others = rows
    body = "".join(f"<tr>{line('td', row)}</tr>" for row in others)
    return f"<table><thead><tr>{line('th', header)}</tr></thead><tbody>{body}</tbody></table>"
