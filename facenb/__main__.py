"""`python -m facenb photo me.jpg --out DIR`: a 3D face from a photo."""

import argparse
import sys
import time

from facenb.errors import FacenbError


def photo(path: str, out: str, which: str, force: bool) -> int:
    from facenb.photos import photo as steps  # only here: it takes seconds to import

    try:
        steps.refuse_existing(out, force)  # before the work, not after it
        steps.ict_fitter()
        start = time.perf_counter()
        face = steps.photo_to_face(path, which)
        steps.save(face, out, force)
    except FacenbError as error:
        print(f"facenb: {error}", file=sys.stderr)
        return 1
    if face.faces > 1:
        print(f"{path} shows {face.faces} faces; the {which} one was taken")
    stages = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in face.seconds.items())
    print(f"{out}: {', '.join(steps.FILES)}")
    print(f"landmark error {float(face.fit.error[0]):.1f} px; {time.perf_counter() - start:.2f} s ({stages})")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 done, 1 the photo or the folder cannot be used as asked, 2 the command is misspelt."""
    parser = argparse.ArgumentParser("python -m facenb", description="3D faces from photographs.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("photo", help="a 3D face from a photo: overlay, OBJ, PLY, GLB, coefficients")
    command.add_argument("photo", metavar="PHOTO", help="JPEG, PNG, ... with a face that looks roughly at the camera")
    command.add_argument("--out", required=True, metavar="DIR", help="folder for the results, made if it is not there")
    command.add_argument("--face", choices=("largest", "central"), default="largest", help="which one, if several")
    command.add_argument("--force", action="store_true", help="overwrite an earlier result in DIR")
    chosen = parser.parse_args(arguments)
    return photo(chosen.photo, chosen.out, chosen.face, chosen.force)


if __name__ == "__main__":
    sys.exit(main())
