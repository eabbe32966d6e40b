"""`python -m data_download list | get NAME... | verify [NAME...] | licence NAME | where NAME`."""

import argparse
import sys

from data_download import AssetError
from data_download.entries import load_entries, load_entry
from data_download.folders import data_folder
from data_download.install import install, marker, problems, usable_sources, verify


def list_entries() -> None:
    print(f"folder: {data_folder()}")
    print("ready: it is here; -: `get NAME` fetches it; register: ask its owner, `where NAME` says how")
    print(f"{'name':24} {'data':7} {'state':9} {'size':>9}  what it is [licence]")
    for entry in load_entries().values():
        state = "ready" if not problems(entry) else ("register" if entry.places else "-")
        sizes = [file.size for source in entry.sources[:1] for file in source.files]
        size = f"{sum(sizes) / 1e6:.1f} MB" if sizes and None not in sizes else ""
        print(f"{entry.name:24} {entry.data:7} {state:9} {size:>9}  {entry.title} [{entry.licence}]")


def get(names: list[str], again: bool) -> int:
    failed = 0
    if names == ["photos"]:
        names = [entry.name for entry in load_entries().values() if not entry.places]
    for name in names:
        try:
            entry = load_entry(name)
            folder, record = install(entry, again), marker(entry)
            print(f"{name}: {folder}" + (f"  from {record['source']} ({record['holds']})" if record else ""))
        except AssetError as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed = 1
    return failed


def verify_entries(names: list[str]) -> int:
    failed = 0
    for entry in [load_entry(name) for name in names] or [e for e in load_entries().values() if not problems(e)]:
        faults = verify(entry)
        failed |= bool(faults)
        print("\n  ".join([f"{entry.name}: {'NOT complete' if faults else 'complete'}", *faults]))
    return failed


def licence(name: str) -> None:
    entry = load_entry(name)
    print(f"{entry.title}\nlicence: {entry.licence}\nterms: {entry.terms}\ncite: {entry.citation}\nsee: {entry.home}")


def where(name: str) -> None:
    entry, folder = load_entry(name), data_folder() / name
    print(f"{entry.title}\nhome: {entry.home}\nfolder here: {folder}")
    for source in entry.sources:
        print(f"source: {source.base}\n  holds: {source.holds}\n  checked: {source.checked}")
        for file in source.files:
            print(f"  {file.source}  {file.size or '?'} bytes  {file.sha256 or file.md5 or 'no checksum known'}")
    for source in usable_sources(entry)[:1]:
        print(f"`get` uses: {source.base}")
    if entry.register:
        print(f"how to get it: {entry.register}")
    for rule in entry.places:
        print(f"place: {folder / rule.path}  ({rule.what})")


def main(arguments: list[str] | None = None) -> int:
    """Return the exit code: 0 for success, 1 for a problem with an asset. Misspelt commands exit with 2."""
    parser = argparse.ArgumentParser("python -m data_download", description="Get and check data sets and models.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="every asset and whether it is on this machine")
    getter = commands.add_parser("get", help="make assets ready, from the mirror folder or else from the web")
    getter.add_argument("names", nargs="+", metavar="NAME", help="`photos` means all that need no registration")
    getter.add_argument("--again", action="store_true", help="replace what is there")
    commands.add_parser("verify", help="check every file again").add_argument("names", nargs="*", metavar="NAME")
    commands.add_parser("licence", help="terms and citation").add_argument("name", metavar="NAME")
    commands.add_parser("where", help="where it comes from and where it goes").add_argument("name", metavar="NAME")
    options = vars(parser.parse_args(arguments))
    functions = {"list": list_entries, "get": get, "verify": verify_entries, "licence": licence, "where": where}
    try:
        return functions[options.pop("command")](**options) or 0
    except AssetError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
