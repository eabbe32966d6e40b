"""Every data set and model that the course can use: where it is, its terms, its checksum, and how to get it.

Each is one file in `assets/`. `python -m data_download list` shows them.
"""
