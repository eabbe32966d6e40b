"""From a photograph to a 3D face."""
