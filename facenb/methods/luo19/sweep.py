"""Choose the margin and the weights on validation people, by short trainings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from facenb.losses import vdc
from facenb.methods.luo19.measures import judge
from facenb.methods.luo19.network import Siamese
from facenb.methods.luo19.targets import PairMaterial
from facenb.methods.luo19.trainings import train_copy
from facenb.training import History

EXTENSIONS = 2  # how often a grid is extended if the best setting lies at its edge
Table = dict[tuple[float, ...], tuple[float, float]]  # AUC and NME (%) of each setting


@dataclass
class Sweep:
    """Short trainings with VDC from one start, judged on the validation people by AUC and NME (%)."""

    pairs: PairMaterial
    start: Siamese
    plain: tuple[float, float] = (0.0, 0.0)
    tables: dict[str, Table] = field(default_factory=dict)  # "contrast, margin" by (w_c, m), "identity" by (w_i,)
    edges: list[str] = field(default_factory=list)  # the options whose chosen value lies at an edge
    networks: dict[tuple[float, ...], Siamese] = field(default_factory=dict)  # by (), (w_c, m) or (w_c, m, w_i)
    histories: list[History] = field(default_factory=list)

    def run(self) -> dict[str, float]:
        """Train the settings of the plan's grids. Return the chosen contrast, margin and identity.

        w_c and m are chosen together, then w_i beside them.
        """
        plan = self.pairs.plan
        self.plain = self._tried({})
        pair = self._search({"contrast": plan.contrasts, "margin": plan.margins}, {})
        return pair | self._search({"identity": plan.identities}, pair)

    def best_of(self, table: Table) -> tuple[float, ...]:
        """Return the setting of highest AUC whose NME is within the tolerance, else the setting of lowest NME."""
        limit = (1 + self.pairs.plan.tolerance) * self.plain[1]
        allowed = [key for key, (_, error) in table.items() if error <= limit]
        if not allowed:
            return min(table, key=lambda key: table[key][1])
        return max(allowed, key=lambda key: table[key][0])

    def _search(self, grids: Mapping[str, Sequence[float]], fixed: Mapping[str, float]) -> dict[str, float]:
        """Return the best setting of a grid, which is extended where the best one lies at an edge."""
        table = self.tables[", ".join(grids)] = {}
        waiting = list(product(*grids.values()))
        for rounds_left in reversed(range(EXTENSIONS + 1)):
            for values in waiting:
                table[values] = self._tried({**fixed, **dict(zip(grids, values, strict=True))})
            best = self.best_of(table)
            beyond = {name: beyond_edge(best, place, table) for place, name in enumerate(grids)}
            waiting = [values for values in beyond.values() if values]
            if not waiting or not rounds_left:
                break
        self.edges += [name for name, values in beyond.items() if values]
        return dict(zip(grids, best, strict=True))

    def _tried(self, options: Mapping[str, float]) -> tuple[float, float]:
        network, history = train_copy(self.pairs, "sweep", self.start, vdc, self.pairs.plan.sweep, **options)
        self.networks[tuple(options.values())] = network
        self.histories.append(history)
        return judge(self.pairs, network)


def beyond_edge(best: tuple[float, ...], place: int, table: Table) -> tuple[float, ...] | None:
    """Return the setting one step beyond the edge at which `best` lies on an axis, or None if it lies at none."""
    values = sorted({key[place] for key in table})
    if len(values) < 2 or best[place] not in (values[0], values[-1]):
        return None
    last, before = (values[0], values[1]) if best[place] == values[0] else (values[-1], values[-2])
    return (*best[:place], float(f"{last * last / before:.2g}"), *best[place + 1 :])
