"""Do photographs of SynthFace's people look like people? Released networks answer; needs the mirror's assets.

`python benchmarks/photographs.py` prints the share of faces that MediaPipe finds, how well MobileFaceNet tells the
people apart, how near 3DDFA-V2's landmarks are to the true ones, and photographs a second. `--sheet docs/people.png`
draws 64 people instead, from the front, at three quarters and in profile.
"""

import argparse
import time
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import normalize

from facenb.assets import asset
from facenb.imaging.lighting import ambient, directional
from facenb.networks.onnx_network import IMAGENET, OnnxNetwork
from facenb.networks.tddfa_v2 import TDDFA, crop, square_box
from facenb.photos.crops import crop_faces, five_of_68
from facenb.photos.landmarks import detect
from facenb.synthface import photographs
from facenb.synthface.people import SynthFace
from facenb.synthface.photographs import Photographs, concatenate, photograph

FIRST = 1000  # subject from which the people are taken


def verification(photos: Photographs) -> float:
    """Return the area under the ROC curve of all pairs, by the cosine of MobileFaceNet's features."""
    network = OnnxNetwork(asset("mobilefacenet") / "MobileFaceNet.onnx", *IMAGENET)
    crops = crop_faces(photos.image, five_of_68(photos.landmarks), (112, 112))
    features = normalize(network(crops.float() / 255), dim=-1)
    row, column = torch.triu_indices(len(features), len(features), 1)
    score, same = (features @ features.T)[row, column], (photos.subject[row] == photos.subject[column])
    below = torch.searchsorted(score[~same].sort().values, score[same])
    return below.double().mean().item() / int((~same).sum())


def landmark_errors(photos: Photographs) -> torch.Tensor:
    """Return the distances (photos, 68) to 3DDFA-V2's landmarks in % of sqrt(width x height) of the true ones' box."""
    method, boxes = TDDFA.load(asset("3ddfa-v2")), square_box(photos.landmarks)
    with torch.no_grad():
        predicted = torch.cat(
            [
                method.landmarks(method(crop(image, box[None])), box[None])
                for image, box in zip(photos.image, boxes, strict=True)
            ]
        )
    extent = (photos.landmarks.amax(1) - photos.landmarks.amin(1)).prod(-1).sqrt()
    return 100 * (predicted[..., :2] - photos.landmarks).norm(dim=-1) / extent[:, None]


def draw_sheet(synth: SynthFace, path: str, people: int = 64, columns: int = 4, side: int = 108) -> None:
    """Write a picture of people at rest, each seen from three sides, before a plain wall."""
    lamp = torch.tensor([[0.45, 0.45, 1.0]]), torch.tensor([[0.72, 0.70, 0.68]])
    scene = {"light": (ambient(torch.tensor([[0.42, 0.42, 0.43]])) + directional(*lamp))[0]}
    scene |= {"background": torch.full((side, side, 3), 0.75)}
    size, texels = (side, side), photographs._texels((side, side), 2, 185.0)
    tiles = []
    for k in range(people):
        person = photographs._Person.make(synth, k, texels)
        drawn = photographs._Scene.draw(synth, person, 0, size, 0.0, False)
        scenes = []
        for yaw, shift in ((0.0, 0.5), (40.0, 1.3), (85.0, 2.1)):  # to the right: the back of the head is seen
            angles = torch.tensor([np.radians(yaw), 0.0, 0.0], dtype=torch.float32)
            scenes.append(replace(drawn, angles=angles, framing=np.array([1.2, shift, 0.6, 0.5]), **scene))
        shots = photographs._expose(synth, scenes, texels, size, "weak", 2, 0.0, 185.0)
        tiles.append(torch.cat(list(shots.image), 1))
    sheet = torch.cat([torch.cat(tiles[k : k + columns], 1) for k in range(0, people, columns)])
    image = Image.fromarray((255 * sheet).round().byte().numpy())
    image.quantize(256, Image.Quantize.MEDIANCUT, kmeans=3, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=250, help="with two photographs each")
    parser.add_argument("--sheet", help="PNG to draw people on")
    arguments = parser.parse_args()
    people, synth = arguments.people, SynthFace(0)
    if arguments.sheet:
        draw_sheet(synth, arguments.sheet)
        return
    photos = concatenate([photograph(synth, [k, k], [0, 1], (224, 224), 40.0) for k in range(FIRST, FIRST + people)])
    found = sum(len(detect(image).points) > 0 for image in photos.image)
    print(f"MediaPipe finds {found} of {len(photos)} photographs (224 pixels, yaw to 40 degrees)")
    print(f"MobileFaceNet: AUC {verification(photos):.3f} over all pairs")
    errors = landmark_errors(photos)[:200]
    inner, jaw = errors[:, 17:].mean(), errors[:, :17].mean()
    print(f"3DDFA-V2 on {len(errors)}: NME {errors.mean():.2f} %, jaw line {jaw:.2f} %, others {inner:.2f} %")
    subjects, pictures = [k for k in range(6) for _ in range(12)], list(range(12)) * 6
    photograph(synth, subjects, pictures, (64, 64))
    wall, processor = time.perf_counter(), time.process_time()
    photograph(synth, subjects, pictures, (64, 64))
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    print(f"photographs at 64 pixels: {72 / wall:.0f} a second; {1000 * processor / 72:.1f} ms of processor each")


if __name__ == "__main__":
    main()
