"""The complete method of each paper."""
