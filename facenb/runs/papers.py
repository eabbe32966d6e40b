"""The papers' own words: their tables, cell by cell as printed, and the claims to be tested. No number of ours.

RMSE and errors are in millimetres; an empty cell was not printed, or is not known to us.
"""

import re
from dataclasses import dataclass

import pandas as pd

PAPERS = {
    "Liu18": "Liu, Zhu, Zeng, Zhao, Liu: Disentangling Features in 3D Face Shapes for Joint Face Reconstruction and "
    "Recognition. CVPR 2018, arXiv 1803.11366",
    "Luo19": "Luo, Tu, Xie: Learning Robust 3D Face Reconstruction and Discriminative Identity Representation. "
    "ICICSP 2019, arXiv 1905.06505",
    "Rana": "S. Rana: 3D Face Reconstruction from Occluded Images (after Tiwari, Kurmi, Venkatesh, Chen, WACV 2022, "
    "and DECA: Feng et al., SIGGRAPH 2021)",
    "2DASL": "2DASL, arXiv 1903.09359: the closest published relative of Luo19, whose own tables we could not read",
}


@dataclass(frozen=True)
class PaperTable:
    """One table as printed."""

    title: str
    paper: str  # a key of PAPERS
    data: str  # what the paper measured on
    unit: str
    columns: tuple[str, ...]
    rows: dict[str, tuple[str, ...]]  # method -> cells
    note: str = ""

    def frame(self) -> pd.DataFrame:
        """Methods down, columns across; every cell the text that was printed."""
        return pd.DataFrame.from_dict(self.rows, orient="index", columns=list(self.columns))

    def number(self, method: str, column: str) -> float | None:
        """A cell without its spread; None where nothing was printed. KeyError for a row or column it has not."""
        if column not in self.columns:
            raise KeyError(f"{self.title} has no column {column!r}; there are {', '.join(self.columns)}")
        found = re.match(r"[\d.]+", self.rows[method][self.columns.index(column)])
        return float(found[0]) if found else None


def _rows(text: str) -> dict[str, tuple[str, ...]]:
    """`method | cell | cell` a line."""
    lines = [[cell.strip() for cell in line.split("|")] for line in text.strip().splitlines()]
    return {name: tuple(cells) for name, *cells in lines}


VERIFICATION = ("accuracy", "100-EER", "AUC", "TAR-10%", "TAR-1%")

TABLES = {
    "micc": PaperTable(
        "Shape on MICC Florence", "Liu18", "MICC Florence, 53 subjects, 5,000 frames", "RMSE, mm", ("RMSE",),
        _rows("""
            VRN | 5.34
            3DDFA | 2.73
            3DMM-CNN | 2.20
            3DSR | 2.07
            Liu18 | 2.00"""),
        "Procrustes on 68 landmarks, crop at 95 mm. The paper's formula, taken literally, is too small by about the "
        "root of the number of vertices; we report the mean distance and say so.",
    ),
    "bu3dfe pose": PaperTable(
        "Shape by yaw", "Liu18", "BU-3DFE, rendered at yaw -90 to 90", "RMSE, mm",
        ("90", "80", "70", "60", "50", "40", "30", "20", "10", "0", "avg"),
        _rows("""
            VRN | 6.96 | 6.20 | 6.14 | 6.01 | 5.91 | 5.50 | 4.93 | 3.86 | 3.70 | 3.66 | 5.29
            3DDFA | 2.90 | 2.88 | 2.81 | 2.82 | 2.77 | 2.79 | 2.76 | 2.73 | 2.55 | 2.48 | 2.75
            3DMM-CNN | | | | | 2.30 | 2.26 | 2.23 | 2.22 | 2.19 | 2.17 | 2.23
            3DSR | 2.11 | 2.11 | 2.12 | 2.13 | 2.16 | 2.14 | 2.12 | 2.10 | 2.10 | 2.09 | 2.12
            Liu18 | 2.09 | 2.04 | 2.03 | 2.03 | 2.00 | 1.99 | 2.03 | 2.01 | 1.97 | 1.93 | 2.01"""),
    ),
    "bu3dfe expression": PaperTable(
        "Shape under expression", "Liu18", "BU-3DFE, neutral and level 1 of six expressions", "mean RMSE, mm",
        ("full shape", "identity shape"),
        _rows("""
            VRN | 4.68 |
            3DDFA | 2.56 |
            3DMM-CNN | | 2.21
            3DSR | | 2.10
            Liu18 | 2.19 | 2.00"""),
    ),
    "ablation": PaperTable(
        "What each part is good for", "Liu18", "MICC, BU-3DFE, LFW, YTF", "RMSE, mm; accuracy, %",
        ("MICC", "BU-3DFE pose", "BU-3DFE expr.", "LFW acc. %", "YTF acc. %"),
        _rows("""
            II, one code | 2.51 ± .57 | 2.54 ± .67 | 2.62 ± .73 | |
            II, two codes | 2.23 ± .48 | 2.31 ± .55 | 2.45 ± .62 | 68.00 ± 2.21 | 69.19 ± 1.91
            III, with identification loss | 2.00 ± .32 | 2.01 ± .49 | 2.19 ± .54 | 94.43 ± 1.47 | 88.74 ± 1.03"""),
        "Which phase the first row belongs to is our reading.",
    ),
    "lfw": PaperTable(
        "Verification on LFW", "Liu18", "LFW View 2, ten folds (S shape, T texture)", "%", VERIFICATION,
        _rows("""
            3DMM S | 66.13 ± 2.79 | 65.70 ± 2.81 | 72.24 ± 2.75 | 35.90 ± 3.74 | 12.37 ± 4.81
            3DMM T | 74.93 ± 1.14 | 74.50 ± 1.21 | 82.94 ± 1.14 | 60.40 ± 3.15 | 28.73 ± 7.17
            3DMM S+T | 75.25 ± 2.12 | 74.73 ± 2.56 | 83.21 ± 1.93 | 59.40 ± 4.64 | 29.67 ± 4.73
            3DDFA S | 66.98 ± 2.56 | 67.13 ± 1.90 | 73.30 ± 2.49 | 36.76 ± 6.27 | 10.00 ± 3.22
            3DMM-CNN S | 90.53 ± 1.34 | 90.63 ± 1.61 | 96.60 ± 0.79 | 91.13 ± 2.62 | 58.20 ± 12.14
            3DMM-CNN T | 90.60 ± 1.07 | 90.70 ± 1.17 | 96.75 ± 0.59 | 91.23 ± 2.42 | 52.60 ± 8.14
            3DMM-CNN S+T | 92.35 ± 1.29 | 92.33 ± 1.33 | 97.71 ± 0.64 | 94.20 ± 2.00 | 65.57 ± 6.93
            Liu18 S | 94.43 ± 1.47 | 94.40 ± 1.52 | 98.12 ± 0.90 | 95.07 ± 2.39 | 74.54 ± 4.33"""),
    ),
    "ytf": PaperTable(
        "Verification on YTF", "Liu18", "YTF, ten folds of video pairs (S shape, T texture)", "%", VERIFICATION,
        _rows("""
            3DMM S | 73.26 ± 2.51 | 73.08 ± 2.65 | 80.41 ± 2.60 | 51.36 ± 5.11 | 24.04 ± 4.56
            3DMM T | 77.34 ± 2.54 | 76.96 ± 2.64 | 85.32 ± 2.63 | 63.16 ± 5.07 | 31.36 ± 5.21
            3DMM S+T | 79.56 ± 2.08 | 79.20 ± 2.07 | 87.35 ± 1.92 | 69.08 ± 5.00 | 34.56 ± 6.89
            3DDFA S | 68.10 ± 2.93 | 67.96 ± 3.12 | 74.95 ± 3.04 | 40.52 ± 3.65 | 12.20 ± 2.67
            3DMM-CNN S | 88.28 ± 1.84 | 88.32 ± 2.16 | 95.95 ± 1.38 | 86.60 ± 3.95 | 51.12 ± 8.86
            3DMM-CNN T | 87.56 ± 2.56 | 87.68 ± 2.25 | 94.44 ± 1.38 | 84.80 ± 4.89 | 40.92 ± 8.26
            3DMM-CNN S+T | 88.80 ± 2.21 | 88.84 ± 2.40 | 95.37 ± 1.43 | 87.92 ± 4.18 | 46.56 ± 6.20
            Liu18 S | 88.74 ± 1.03 | 88.70 ± 1.15 | 96.28 ± 0.63 | 89.00 ± 2.40 | 53.44 ± 4.51"""),
    ),
    "fusion": PaperTable(
        "Shape and texture together", "Liu18", "YTF", "accuracy, %", ("accuracy",),
        _rows("""
            SphereFace alone | 94.78
            with c_id | 95.18"""),
    ),
    "ijb": PaperTable(
        "One against many", "Liu18", "IJB-A", "%", ("rank-1", "rank-5", "rank-10", "DIR at FAR 1%", "DIR at FAR 10%"),
        _rows("Liu18 | | | | | "),
        "The paper evaluates identification on IJB-A; its numbers are not recovered.",
    ),
    "runtime": PaperTable(
        "Time per image", "Liu18", "GTX 1080, 700 images, detection not counted", "ms", ("time",),
        _rows("""
            VRN | 55.68
            3DDFA | 39.17
            3DMM-CNN | 30.12
            3DSR | 29.80
            Liu18 | 4.79"""),
    ),
    "aflw": PaperTable(
        "Landmarks by yaw", "2DASL", "AFLW2000-3D", "NME, %", ("0-30", "30-60", "60-90", "mean"),
        _rows("""
            SDM | 3.67 | 4.94 | 9.67 | 6.12
            3DDFA | 3.78 | 4.54 | 7.93 | 5.42
            3DSTN | 3.15 | 4.33 | 5.98 | 4.49
            PRNet | 2.75 | 3.51 | 4.61 | 3.62
            2DASL | 2.75 | 3.44 | 4.41 | 3.53"""),
        "68 points, divided by the root of the box's area; the mean is that of the three bins. Luo19's own table is "
        "not published in what we could read.",
    ),
    "identity": PaperTable(
        "Identity across poses", "Luo19", "not recovered", "spread in deviations or mm",
        ("spread", "between / within"), _rows("Luo19 | | "),
        "Luo19's numbers are not published in what we could read.",
    ),
    "now printed": PaperTable(
        "NoW, as printed in Rana", "Rana", "NoW; which split is not said", "mm", ("median", "mean", "std"),
        _rows("""
            3DDFA-V2 | 1.15 | 1.28 | 1.26
            MGCNet | 1.12 | 1.27 | 1.23
            DECA | 1.10 | 1.26 | 1.20
            Learner | 1.08 | 1.20 | 1.18"""),
        "The printed values match neither split of NoW.",
    ),
    "now": PaperTable(
        "NoW, official test set", "Rana", "NoW test, 80 subjects", "mm", ("median", "mean", "std"),
        _rows("""
            3DDFA-V2 | 1.23 | 1.57 | 1.39
            MGCNet | 1.31 | 1.87 | 2.63
            DECA | 1.09 | 1.38 | 1.18
            Learner | | |
            mean face only (FLAME neutral) | 1.24 | 1.57 | 1.34"""),
        "The mean face alone scores close to all of them. The learner is not listed.",
    ),
    "occluded": PaperTable(
        "By occluder", "Rana", "not recovered", "mean of all pictures", ("error",),
        _rows("""
            DECA |
            Learner |"""),
        "The paper's numbers by occluder, if there are any, are not recovered.",
    ),
    "detail": PaperTable(
        "Details and how they move", "Rana", "not recovered", "distance, mm", ("error",), _rows("DECA | "),
        "The paper's numbers on details, if there are any, are not recovered.",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class PaperClaim:
    """A sentence of a paper that a notebook decides."""

    name: str
    paper: str
    statement: str
    notebook: str  # number of the one whose record decides it
    records: tuple[str, ...] = ()  # names of the records that ask all of it, the best first; empty: its own name
    data: tuple[str, ...] = ()  # kinds that its notebook serves; empty: every kind


CLAIMS = {
    claim.name: claim
    for claim in (
        PaperClaim("L1", "Liu18", "disentangling lowers the shape error", "09"),
        PaperClaim("L2", "Liu18", "the identification loss lowers the shape error further", "09"),
        PaperClaim("L3", "Liu18", "it lifts recognition by a large step (68.0 -> 94.4 %)", "09",
                   ("L3, large", "L3, phase III against I, large")),
        PaperClaim("L4", "Liu18", "the error hardly grows with yaw", "08"),
        PaperClaim("L5", "Liu18", "the learned decoders leave the 3DMM's span and so beat the best the 3DMM can do",
                   "08"),
        PaperClaim("L6", "Liu18", "adding the shape score to a texture score helps recognition", "15"),
        PaperClaim("L7", "Liu18", "one forward pass is several times faster than the iterative and volumetric methods",
                   "16"),
        PaperClaim("S1", "Luo19", "for one subject across poses the spread of identity coefficients shrinks",
                   "10"),
        PaperClaim("S2", "Luo19", "the distance between subjects grows relative to it", "10"),
        PaperClaim("S3", "Luo19", "NME falls, most at large yaw", "10"),
        PaperClaim("D1", "Rana", "on occluded images the learner beats its teacher", "12",
                   data=("synthetic", "photos")),
        PaperClaim("D2", "Rana", "on clear images it loses nothing", "12", data=("synthetic", "photos")),
        PaperClaim("D3", "Rana", "the learner's coefficients for the clear and the occluded copy agree more closely",
                   "12", data=("synthetic", "photos")),
        PaperClaim("D4", "Rana", "the reconstruction keeps detail (wrinkles) and can be animated by expression and jaw",
                   "11", data=("synthetic",)),
    )
}  # fmt: skip
