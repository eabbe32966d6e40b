"""Which of SynthFace's subject numbers serve what: ranges that never meet."""

SUBJECTS = {
    "exercises": range(0, 10_000),  # shown in notebooks and tests
    "model": range(10_000, 20_000),  # the course's morphable model is built from the first of them
    "training": range(20_000, 60_000),
    "validation": range(60_000, 70_000),
    "test": range(70_000, 80_000),
}
