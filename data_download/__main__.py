"""`python -m data_download list | get NAME... | verify [NAME...] | licence NAME | where NAME`."""

import argparse
import sys

from data_download.entries import Entry, load_entries, load_entry
from data_download.install import data_folder, install, is_ready, marker, usable_sources, verify
from facenb.errors import AssetError


def _megabytes(entry: Entry) -> str:
    sizes = [file.size for source in entry.sources[:1] for file in source.files]
    return "" if not sizes or None in sizes else f"{sum(sizes) / 1e6:.1f} MB"


def list_entries() -> int:
    print(f"folder: {data_folder()}")
    print("ready: here; -: `get NAME` fetches it; register: its owner hands it out, `where NAME` tells how")
    print(f"{'name':24} {'data':7} {'state':9} {'size':>9}  what it is [licence]")
    for entry in load_entries().values():
        state = "ready" if is_ready(entry) else ("register" if entry.needs_registration else "-")
        print(f"{entry.name:24} {entry.data:7} {state:9} {_megabytes(entry):>9}  {entry.title} [{entry.licence}]")
    return 0


def get(names: list[str], again: bool, accept: bool) -> int:
    failed = 0
    for name in names:
        try:
            entry = load_entry(name)
            folder = install(entry, again, accept)
            found = marker(entry)
            print(f"{name}: {folder}" + (f"  from {found['source']} ({found['holds']})" if found else ""))
        except AssetError as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed = 1
    return failed


def verify_entries(names: list[str]) -> int:
    """Checks the named assets; without names, those that are on this machine."""
    entries = [load_entry(name) for name in names] or [e for e in load_entries().values() if is_ready(e)]
    failed = 0
    for entry in entries:
        problems = verify(entry)
        failed |= bool(problems)
        print(f"{entry.name}: {'whole' if not problems else 'NOT whole'}")
        for problem in problems:
            print(f"  {problem}")
    return failed


def licence(name: str) -> int:
    entry = load_entry(name)
    print(f"{entry.title}\nlicence: {entry.licence}\nterms: {entry.terms}\ncite: {entry.citation}\nsee: {entry.home}")
    return 0


def where(name: str) -> int:
    entry = load_entry(name)
    print(f"{entry.title}\nhome: {entry.home}\nfolder here: {data_folder() / name}")
    for source in entry.sources:
        print(f"source: {source.base}\n  holds: {source.holds}\n  checked: {source.checked}")
        for file in source.files:
            print(f"  {file.source}  {file.size or '?'} bytes  {file.sha256 or file.md5 or 'no checksum known'}")
    if entry.sources and not is_ready(entry):
        print(f"now taken from: {usable_sources(entry)[0].base}")
    if entry.register:
        print(f"how to get it: {entry.register}")
    for place in entry.places:
        print(f"place: {data_folder() / name / place.path}  ({place.what})")
    return 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m data_download", description="Get and check data sets and models.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="every asset and whether it is on this machine")
    getter = commands.add_parser("get", help="make assets ready: mirror folder first, then the web")
    getter.add_argument("names", nargs="+", metavar="NAME", help="`photos` stands for all that need no registration")
    getter.add_argument("--again", action="store_true", help="replace what is there")
    getter.add_argument("--accept-unverified", action="store_true", help="also where no checksum is published")
    commands.add_parser("verify", help="check every file again").add_argument("names", nargs="*", metavar="NAME")
    commands.add_parser("licence", help="terms and citation").add_argument("name", metavar="NAME")
    commands.add_parser("where", help="where it comes from, where it goes").add_argument("name", metavar="NAME")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "list":
            return list_entries()
        if chosen.command == "get":
            names = chosen.names
            if names == ["photos"]:
                names = [entry.name for entry in load_entries().values() if not entry.needs_registration]
            return get(names, chosen.again, chosen.accept_unverified)
        if chosen.command == "verify":
            return verify_entries(chosen.names)
        return licence(chosen.name) if chosen.command == "licence" else where(chosen.name)
    except AssetError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
