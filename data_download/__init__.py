"""Every data set and model the course can use: where it is, on what terms, its checksum, and how to get it.

`python -m data_download list` shows them; each is one file in `assets/`.
"""
