"""How a face is seen: camera, light, rasteriser, renderer, occluders."""
