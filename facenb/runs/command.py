"""The command `python -m facenb run`: one notebook, or all in order."""

import argparse
import os
import signal
import sys
import threading
import time
from pathlib import Path

from facenb.errors import FacenbError
from facenb.runs import DATA, DEFAULTS, DEVICES, PROFILES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `run`."""
    parser.add_argument("notebook", help="a notebook's file, or `all`: every notebook that is not up to date, in order")
    parser.add_argument("--profile", choices=PROFILES, default=DEFAULTS["profile"])
    parser.add_argument("--data", choices=DATA, default=DEFAULTS["data"])
    parser.add_argument("--seed", type=int, default=DEFAULTS["seed"])
    parser.add_argument("--device", choices=DEVICES, default=DEFAULTS["device"])
    parser.add_argument("--run-folder", default="", help="default: runs/PROFILE-DATA")
    parser.add_argument("--cores", type=int, help="all: cores to share (default: every core)")
    parser.add_argument("--notebooks", default="", help="all: folder of the notebooks and their Snakefile")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="another parameter")
    parser.add_argument("--timeout", type=int, help="one notebook: limit for one cell in seconds")
    parser.add_argument("--in-graph", action="store_true", help=argparse.SUPPRESS)  # from the Snakefile


def run(options: argparse.Namespace, words: list[str], further: list[str]) -> int:
    """Return the exit code: 0 if done, 1 if a notebook failed, 2 if it could not start, 130 if interrupted."""
    from facenb.runs import graph, notebook, results

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        results.check_run(options.seed, options.device)
        if options.notebook == "all":
            graph.run_all(options, words, further)
        if options.in_graph:
            _end_with_parent()
        parameters = {name: getattr(options, name) for name in DEFAULTS} | dict(options.p)
        run_folder, timeout = options.run_folder, options.timeout
        record = notebook.run_notebook(options.notebook, parameters, run_folder, timeout, options.in_graph)
    except notebook.NotebookError as error:
        print(error, file=sys.stderr)
        return 1
    except FacenbError as error:
        print(f"facenb: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{Path(options.notebook).stem}: interrupted", file=sys.stderr)
        return 130
    print(f"{record['notebook']}: done in {record['wall_seconds']:.1f} s, {record['peak_memory_mb']} MB", flush=True)
    return 0


def _end_with_parent() -> None:
    """End this process, its kernel first, when the process that started it has gone."""
    parent = os.getppid()

    def watch():
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
