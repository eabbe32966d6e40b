"""The commands `python -m facenb photo` (a 3D face from a photo), `run` (one notebook, or all) and `report`."""

import argparse
import sys
import time
from pathlib import Path

from data_download.folders import ensure_home
from facenb.errors import FacenbError
from facenb.runs import command


def photo(options: argparse.Namespace) -> None:
    """Make a 3D face from a photo, or from photos of one person. Raise FacenbError if a photo or the folder is bad."""
    from facenb.photos import photo as steps  # imported here, since the import takes seconds

    steps.refuse_existing(options.out, options.force)  # before the work
    if options.method == "fit":
        steps.ict_fitter()
    start = time.perf_counter()
    if options.method == "network":
        from facenb.methods.liu18.photo import predict_photo

        face = predict_photo(options.photos[0], options.face)
    elif options.person:
        face = steps.photos_to_face(options.photos, options.face)
    else:
        face = steps.photo_to_face(options.photos[0], options.face)
    steps.save(face, options.out, options.force)
    for path, shown in zip(options.photos, face.others or (face,), strict=True):
        if shown.faces > 1:
            print(f"{path} shows {shown.faces} faces. The {options.face} one was used.")
        print(f"{path}: landmark error {float(shown.fit.error[0]):.1f} px")
    print(f"{options.out}: {', '.join(steps.FILES)}; {time.perf_counter() - start:.2f} s")


def arguments_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m facenb", description="3D faces and identity.", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    face = commands.add_parser("photo", help="a 3D face from a photo: overlay, OBJ, PLY, GLB, coefficients")
    face.add_argument(
        "photos", metavar="PHOTO", nargs="+", help="JPEG, PNG, ... with a face roughly towards the camera"
    )
    face.add_argument("--person", action="store_true", help="all photos show one person: fit one identity")
    face.add_argument(
        "--method",
        choices=("fit", "network"),
        default="fit",
        help="fit a model to landmarks, or predict the shape with the reference network, which learned from SynthFace",
    )
    face.add_argument("--out", required=True, metavar="DIR", help="folder for the results; it is made if needed")
    face.add_argument("--face", choices=("largest", "central"), default="largest", help="which face, if several")
    face.add_argument("--force", action="store_true", help="overwrite an earlier result in DIR")
    run = commands.add_parser("run", help="run one notebook or all of them", epilog="After --: options of Snakemake.")
    command.add_arguments(run)
    page = commands.add_parser("report", help="write report.html from the executed notebook 17")
    page.add_argument("run_folder", type=Path, metavar="RUN_FOLDER")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Return the exit code: 1 after an error, or the code of `run`. Exit with 2 if the arguments are wrong."""
    ensure_home()
    arguments = sys.argv[1:] if arguments is None else arguments
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    parser = arguments_parser()
    options = parser.parse_args(arguments[:cut])
    if options.command == "photo" and len(options.photos) > 1 and not options.person:
        parser.error("several photos: add --person if all of them show one person, or name one photo")
    if options.command == "photo" and options.person and options.method == "network":
        parser.error("--person needs --method fit: the network takes one photo")
    if options.command == "run":
        return command.run(options, arguments, arguments[cut + 1 :])
    try:
        if options.command == "photo":
            photo(options)
        else:
            from facenb.runs.report import write_page

            print(write_page(options.run_folder))
    except FacenbError as error:
        print(f"facenb: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
