"""Run folders, records, notebooks as jobs, and the report. This file has the values of a run's parameters."""

PROFILES = ("smoke", "quick", "full")
DATA = ("synthetic", "photos", "paper")
DEVICES = ("auto", "cpu", "cuda")
DEFAULTS = {"profile": "quick", "data": "synthetic", "seed": 0, "device": "auto"}
