"""The report as one HTML page: notebook 17 without its code. It needs no network and runs no script."""

import re
from pathlib import Path

from nbconvert import HTMLExporter

from facenb.errors import RunError
from facenb.files import atomic_write


def write_page(folder: Path) -> Path:
    """Write `report.html` into a run folder from its executed notebook 17. Raise RunError if that was not run."""
    source, target = folder / "executed/17_report.ipynb", folder / "report.html"
    if not source.is_file():
        raise RunError(f"There is no {source}. Run notebook 17 first: python -m facenb run notebooks/17_report.ipynb")
    templates = str(Path(__file__).parent / "templates")
    exporter = HTMLExporter(template_name="page", extra_template_basedirs=[templates], exclude_input=True)
    exporter.exclude_output_prompt = True
    html, _ = exporter.from_filename(str(source))
    html = re.sub(r'href="(\d\d_\w+\.ipynb)"', r'href="executed/\1"', html)  # notebooks lie beside notebook 17
    with atomic_write(target) as partial:
        partial.write_text(html, encoding="utf-8")
    return target
