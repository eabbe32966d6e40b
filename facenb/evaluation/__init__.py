"""Protocols of the papers: alignment, shape, landmarks, recognition."""
