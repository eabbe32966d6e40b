"""Print what each reference training took and reached, from the cards that ship: `python benchmarks/reference.py`."""

import json

import pandas as pd

from facenb.reference.shipment import CARD, PACKAGE


def main() -> None:
    parts, figures = [], []
    for path in sorted(PACKAGE.glob(f"**/{CARD}")):
        card = json.loads(path.read_text(encoding="utf-8"))
        part = card["part"] + (" (photos)" if card["data"] == "LFW" else "")
        size = sum(file.stat().st_size for file in path.parent.iterdir()) / 1e6
        people, images = card["people"]["train"], card["images"]["train"]
        row = {"part": part, "people": people, "images": images, "minutes": card["seconds"] / 60, "MB": size}
        parts.append(row | {"device": card["device"], "date": card["date"]})
        for effect in card["figures"]:
            value = "{value:.3g} [{low:.3g}, {high:.3g}] {unit}".format(**effect)
            figures.append({"part": part, "figure": effect["name"], "value, 95 % interval": value})
    for rows in (parts, figures):
        print(pd.DataFrame(rows).to_string(index=False, float_format="{:.1f}".format), end="\n\n")


if __name__ == "__main__":
    main()
