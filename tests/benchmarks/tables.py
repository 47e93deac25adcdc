"""Reads the tables of Markdown pages."""


def rows(text: str, first: str) -> list[list[str]]:
    """Returns the cells of the table lines whose first cell is this."""
    lines = (line.strip("|").split("|") for line in text.splitlines() if line.startswith("| "))
    found = ([cell.strip() for cell in line] for line in lines)
    return [cells for cells in found if cells[0] == first]
