"""Make the transitions that come with the homework: data/humanoid_stand.npz, of a random policy.

    python coursework/make_data.py

The file is in the form that model_study.py reads with --buffer. States are stored with 16 bits, three
digits, so that the file stays below a megabyte. Takes about 10 seconds.
"""

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "benchmark")]
import model_study  # noqa: E402

import ftfl  # noqa: E402

ROWS = 3_000


def main(path=HERE / "data" / "humanoid_stand.npz"):
    """Write the file. Returns its path."""
    args = ftfl.Args(env_id="dm_control/humanoid-stand-v0")
    batch = model_study.collect(ftfl, args, ROWS)
    small = {name: getattr(batch, name).astype(np.float16) for name in ("obs", "actions", "next_obs")}
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(path, **batch._asdict() | small, env_id=args.env_id)
    return path


if __name__ == "__main__":
    path = main()
    print(f"{path}: {ROWS} transitions, {path.stat().st_size / 1e6:.2f} MB")
