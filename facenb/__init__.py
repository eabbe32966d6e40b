"""3D faces and identity, as a course of notebooks over a small library.

Units and axes are the same everywhere: millimetres; x to the right, y up, z towards the viewer; image origin top left,
pixel centres at +0.5; colours RGB in [0, 1]; angles in radians; coefficients whitened (one unit is one standard
deviation); the batch comes first.
"""

__version__ = "0.1.0"
