"""Print the parameters and Multi-Adds of a network.

python -m hrn.model hrn --scale 4
python -m hrn.model hrn_light --set frequency=none channels=29
"""

import argparse

from hrn.model import PRESETS, SCALES, preset
from hrn.model.config import with_settings
from hrn.model.summary import OUTPUT_SIZE, summarise


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m hrn.model", description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=PRESETS, help="network preset")
    parser.add_argument(
        "--scale", type=int, default=4, choices=SCALES, help="enlargement factor (default: %(default)s)"
    )
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="fields of HRNConfig to change")
    args = parser.parse_args()
    try:
        config = with_settings(preset(args.model, [args.scale]), args.set)
    except ValueError as error:
        parser.error(f"--set: {error}")
    print(f"{args.model} x{args.scale}: {config}\n")
    print(f"| part | parameters | Multi-Adds at {OUTPUT_SIZE[1]}x{OUTPUT_SIZE[0]} |\n|---|---|---|")
    for part in summarise(config):
        print(f"| {part.name} | {part.parameters:,} | {part.multi_adds / 1e9:.2f} G |")


if __name__ == "__main__":
    main()
