"""Attack the program with damaged inputs, by hand: `python -m tests.fuzz --minutes 60`."""

import argparse
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.fuzz.mutate import mutated
from tests.fuzz.runner import attack
from tests.fuzz.targets import targets


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1, help="in all, for all targets (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="(default: the time)")
    parser.add_argument("--targets", nargs="+", metavar="TARGET", help="(default: all)")
    parser.add_argument(
        "--again", nargs=3, metavar=("TARGET", "SEED", "NUMBER"), help="check a single input, with its traceback"
    )
    args = parser.parse_args()
    with TemporaryDirectory() as folder:
        scratch = Path(folder)
        every = targets(scratch)
        if args.again:
            name, seed, number = args.again
            target = every[name]()
            data = mutated(int(seed), int(number), target.originals)
            Path(f"{name}-{seed}-{number}.bin").write_bytes(data)
            target.check(data)
            return
        names = args.targets or [*every]
        inputs = findings = 0
        for name in names:
            for finding in attack(name, args.seed, 60 * args.minutes / len(names), scratch):
                if isinstance(finding, int):
                    print(f"{name}: {finding:,} inputs", flush=True)
                    inputs += finding
                else:
                    findings += 1
                    print(finding, flush=True)
    print(f"{inputs:,} inputs, {findings:,} findings, seed {args.seed}")
    sys.exit(findings > 0)


if __name__ == "__main__":
    main()
