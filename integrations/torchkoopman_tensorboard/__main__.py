"""``python -m torchkoopman_tensorboard LOGDIR REPORT.html``: a log folder as one file."""

from __future__ import annotations

import argparse

from torchkoopman_tensorboard.folders import report


def main() -> None:
    """Write a report, or say why not, with status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m torchkoopman_tensorboard",
        description="Write a log folder into one HTML file with the panels of the Koopman tab.",
    )
    parser.add_argument("logdir", help="as for tensorboard --logdir")
    parser.add_argument("report", help="the HTML file to write")
    given = parser.parse_args()
    try:
        path = report(given.logdir, given.report)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
