"""Store the outputs of a whole run in the notebooks: `python course/store.py RUN_FOLDER`.

All stored outputs then come from one run. A notebook that has changed since that run is refused.
"""

import sys
from pathlib import Path

import nbformat

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
WIDGET = "application/vnd.jupyter.widget-view+json"  # needs the kernel that made it


def code_cells(notebook) -> dict[str, nbformat.NotebookNode]:
    return {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}


def store(path: Path, executed: Path) -> None:
    """Copy the outputs of an executed notebook to the cells of the notebook it was made from.

    Raise ValueError if a code cell has changed since the execution.
    """
    notebook, executed_cells = nbformat.read(path, 4), code_cells(nbformat.read(executed, 4))
    for number, (key, cell) in enumerate(code_cells(notebook).items(), 1):
        if key not in executed_cells or executed_cells[key].source != cell.source:
            raise ValueError(f"{path.name} has changed since {executed} was made (code cell {number}). Run it again.")
        cell.outputs = executed_cells[key].outputs
        cell.execution_count = number
        for output in cell.outputs:
            output.get("data", {}).pop(WIDGET, None)
            if output.output_type == "execute_result":
                output.execution_count = number
    nbformat.write(notebook, path)


if __name__ == "__main__":
    folder = Path(sys.argv[1]) / "executed"
    for path in sorted(NOTEBOOKS.glob("[0-9]*.ipynb")):
        if (folder / path.name).is_file():
            store(path, folder / path.name)
            print(path.stem)
