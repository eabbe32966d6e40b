"""Which records of a run stand beside which table of a paper, and which figures go with them."""

from dataclasses import dataclass

from facenb.runs.papers import TABLES, VERIFICATION

WHOLE, IDENTITY = "mean vertex distance, whole shape", "mean vertex distance, identity shape"
FULL, OWN = "mean distance, full shape", "mean distance, identity shape"  # what our columns are called


@dataclass(frozen=True)
class Comparison:
    """Which records stand beside which table of a paper."""

    table: str  # key of papers.TABLES
    notebook: str  # number of the one that measures it in the end
    experiment: str
    protocols: str  # pattern at the begin of a record's protocol
    metrics: dict[str, tuple[str, ...]]  # a column -> what records call it; columns the paper lacks are ours alone
    pairs: dict[str, str]  # our method -> the paper's row that it stands for
    across: bool = False  # methods across and measures down, for long tables
    also: str = ""  # a second table of the paper's, beside the first
    only: str = ""  # pattern of our methods that belong here
    said: str = ""  # what must be known of ours
    closed: str = ""  # why there may be nothing of ours


RATES = {name: (name,) for name in (*VERIFICATION, "TAR-0.1%")}
DISTANCES = {name: (name,) for name in ("median", "mean", "std")}
BINS = {
    "0-30": ("NME 0-30",), "30-60": ("NME 30-60",), "60-90": ("NME 60-90",), "mean": ("NME mean of bins",),
    "mean of images": ("NME mean of images",),
}  # fmt: skip
ARMS = ("(a) one code", "(b) two codes", "(c) the method")
NOW = {"mean face": "mean face only (FLAME neutral)", "3DDFA-V2": "3DDFA-V2"}
# What stands for whom in Rana: a learner of ours is called by its loss.
ROLES = {"mean face": NOW["mean face"], "teacher": "DECA"} | dict.fromkeys(
    ("learner", "plain", "by spread", "by effect"), "Learner"
)
YAWS = {yaw: (f"RMSE yaw {yaw}",) for yaw in TABLES["bu3dfe pose"].columns[:-1]} | {"avg": ("RMSE mean of yaws",)}
COMPARISONS = {
    "Shape": (
        Comparison("micc", "13", "shape", "MICC|Procrustes on 68",
                   {"mean distance": ("mean", WHOLE), "root mean square": ("RMSE",)}, {"phase III": "Liu18"},
                   said="Here: from vertex to vertex where both meshes are one, else from the scan to the surface."),
        Comparison("bu3dfe pose", "13", "shape", "BU-3DFE pose", YAWS, {"phase III": "Liu18"}, across=True,
                   said="Here: the root of the mean squared distance from the scan to the surface."),
        Comparison("bu3dfe expression", "13", "shape", "BU-3DFE expression|Procrustes on 68",
                   {FULL: ("mean distance full shape", WHOLE), OWN: ("mean distance identity shape", IDENTITY)},
                   {"phase III": "Liu18"}),
        Comparison("now", "13", "shape", "NoW", DISTANCES, NOW, also="now printed"),
        Comparison("ablation", "09", "ablation", "",
                   {FULL: (WHOLE,), OWN: (IDENTITY,), "accuracy %": ("accuracy",)},
                   dict(zip(ARMS, TABLES["ablation"].rows, strict=True))),
    ),
    "Landmarks": (Comparison("aflw", "14", "landmarks", "NME 68", BINS, {}),),
    "Recognition": (
        Comparison("lfw", "15", "recognition", r"LFW|pairs|\d+ folds", RATES,
                   {"phase III": "Liu18 S", "fitted coefficients": "3DMM S"}),
        Comparison("ytf", "15", "recognition", "YTF", RATES, {"phase III": "Liu18 S", "fitted coefficients": "3DMM S"},
                   closed="YTF is given on request; the protocol runs on its official folders (data = paper)"),
        Comparison("fusion", "15", "recognition", r"LFW|pairs|\d+ folds", {"accuracy": ("accuracy",)},
                   {"texture (softmax SphereFace)": "SphereFace alone",
                    "phase III + texture (softmax SphereFace)": "with c_id"}, only="phase III$|.*texture"),
        Comparison("ijb", "15", "recognition", "1:N", {name: (name,) for name in TABLES["ijb"].columns}, {}),
    ),
    "Siamese": (
        Comparison("aflw", "10", "siamese", "NME 68", {k: v for k, v in BINS.items() if k != "mean of images"}, {},
                   said="Luo19's own row is not public; 2DASL is its laboratory's. Here the pose is the network's own, "
                   "and plain regression is what the claims are held against."),
        Comparison("identity", "10", "siamese", "",
                   {"spread": ("spread of identity coefficients",), "spread, mm": ("spread of identity shapes",),
                    "between / within": ("between to within",), "accuracy, %": ("accuracy",)}, {}),
    ),
    "Occlusion": (
        Comparison("now", "12", "occlusion", "NoW", DISTANCES, ROLES, also="now printed",
                   said="Here: pictures under a hand, dark glasses or a mask."),
        Comparison("occluded", "12", "occlusion", "(?!NoW).+",
                   {"distance, mm": ("vertex distance mean of images",), "NME, %": ("NME mean of images",)}, {}),
        Comparison("detail", "11", "teacher", "",
                   {"displacement": ("displacement error",), "what moves of it": ("displacement error, what moves",),
                    "shape at rest": ("shape at rest",)},
                   {"with details": "DECA"}, said="Here: against the true wrinkles of SynthFace; none is a face "
                   "without details.",
                   closed="asks for true wrinkles, which SynthFace alone has (data = synthetic)"),
    ),
    "Speed": (
        Comparison("runtime", "16", "speed", "", {"network": ("network",), "fit": ("fit",), "each": ("in a batch",)},
                   {"Liu18 at the paper's size": "Liu18"}),
    ),
}  # fmt: skip


# What of the notebooks' figures is shown, where, and under which words; of several names the first that is there.
FIGURES = {
    "Shape": {("13_now",): "NoW's protocol: how many points of the scans lie within a distance of the prediction",
              ("13_error_maps",): "Where the distances are, on the scans",
              ("08_error_by_yaw",): "Error of the shape by yaw, before and after phase III",
              ("09_arms",): "The arms of the ablation: error of the shape and accuracy of verification"},
    "Landmarks": {("14_nme",): "Error of the landmarks by yaw"},
    "Recognition": {("15_recognition_curve", "08_recognition_curve"): "True against false accepts, on people nobody "
                    "was trained on", ("15_one_against_many",): "One against many"},
    "Siamese": {("10_measures",): "Spread and ratio of the identity coefficients, and by how much NME falls",
                ("10_three_sides",): "One person from three sides, before and after",
                ("10_swaps",): "What is left of NME with one part of a network's words from the fit"},
    "Occlusion": {("12_errors",): "Teacher and learner by occluder", ("12_gallery",): "Pictures, teacher, learner",
                  ("12_now",): "NoW's protocol under occlusion", ("11_wrinkles",): "Details against the true wrinkles"},
    "Speed": {("16_where_the_time_goes",): "Where the time goes"},
}  # fmt: skip
