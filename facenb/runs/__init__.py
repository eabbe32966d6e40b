"""Run folders, records, notebooks as jobs, and the report. Here: the values that a run can be asked for."""

PROFILES = ("smoke", "quick", "full")
DATA = ("synthetic", "photos", "paper")
DEVICES = ("auto", "cpu", "cuda")
DEFAULTS = {"profile": "quick", "data": "synthetic", "seed": 0, "device": "auto"}
