"""Reference trainings: networks that ship with the package, and the measurements on which the verdicts stand.

Each part has a folder here: `card.json` says how it was made, the networks are safetensors in half precision, and
`measures.safetensors` holds the measurements of every arm and seed. `python -m facenb.reference` trains the parts.
"""

from facenb.reference.shipment import Part, Shipment, read_part, read_seeds, rounded, strength_of
