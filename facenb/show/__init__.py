"""Visual output of the notebooks: rendered faces, figures, and live 3D views.

A live view (k3d) needs a kernel, so it also carries an image. With FACENB_HEADLESS set only the image is shown.
"""

from facenb.show.figures import (
    CLAY,
    COLOURS,
    colour_by,
    colour_scale,
    draw_landmarks,
    figure,
    sheet,
    snapshot,
    studio_light,
)
from facenb.show.live import Live
from facenb.show.views import View, explore, view
