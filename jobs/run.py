r"""What ``ray job submit`` runs: the same as ``poolscore run``.

ray job submit --address http://HEAD:8265 --working-dir . -- \
    python jobs/run.py POOL --run-dir /mnt/poolscore/runs/alpaca --config jobs/alpaca.yaml
"""

import sys
from pathlib import Path

# `python jobs/run.py` puts jobs/ first on the path, not the repository.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from engine.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
