"""Print the parameters and Multi-Adds of a network.

python -m hrn.model hrn --scale 4
"""

import argparse

from hrn.model import PRESETS, SCALES, preset
from hrn.model.summary import OUTPUT_SIZE, summarise


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m hrn.model", description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=PRESETS, help="network preset")
    parser.add_argument(
        "--scale", type=int, default=4, choices=SCALES, help="enlargement factor (default: %(default)s)"
    )
    args = parser.parse_args()
    config = preset(args.model, [args.scale])
    print(f"{args.model} x{args.scale}: {config}\n")
    print(f"| part | parameters | Multi-Adds at {OUTPUT_SIZE[1]}x{OUTPUT_SIZE[0]} |\n|---|---|---|")
    for part in summarise(config):
        print(f"| {part.name} | {part.parameters:,} | {part.multi_adds / 1e9:.2f} G |")


if __name__ == "__main__":
    main()
