"""Protocols of the papers (shape, scans, landmarks, recognition), intervals, and claims with their verdicts."""
