"""Readers of data sets in their official layouts, and the training sets made from them.

A reader takes the folder of a set, or a folder above it; None means the asset's folder. Readers raise AssetError. Its
message names the file that is missing or damaged and what was expected.
"""
