"""Official layouts of data sets, one short reader each, and the training sets made from them.

A reader takes the folder of a set or one above it; None is the asset. Readers raise AssetError, which names the file
that is missing or damaged and says what was expected.
"""
