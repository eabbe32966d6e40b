"""Everything a person looks at: rendered faces, figures, and live 3D views that leave a picture behind.

A live view (k3d) needs a running kernel. So every view also carries a picture made by our own renderer; with
FACENB_HEADLESS set (batch runs, stored notebooks) the picture stands alone.
"""

from facenb.show.figures import (
    CLAY,
    COLOURS,
    STYLE,
    colour_by,
    colour_scale,
    draw_landmarks,
    figure,
    headless,
    sheet,
    snapshot,
    studio_light,
)
from facenb.show.live import Live
from facenb.show.views import View, explore, view

__all__ = ["CLAY", "COLOURS", "STYLE", "Live", "View", "colour_by", "colour_scale", "draw_landmarks", "explore",
           "figure", "headless", "sheet", "snapshot", "studio_light", "view"]  # fmt: skip
