"""Fit in many processes
=====================

Each process reads a shard of the data, and all of them end with the surrogate that one process with
all the data would have. ``torchrun`` starts this script, first in one process, then in two:

.. literalinclude:: ../../examples/torchrun_fit.py
   :language: python
   :start-at: def main
   :end-before: if __name__
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from matplotlib import pyplot as plt

import torchkoopman as tk

script = Path(sys.argv[0]).resolve().with_name("torchrun_fit.py")
folder = Path(tempfile.mkdtemp())
for processes in (1, 2):
    where = folder / str(processes)
    where.mkdir()
    subprocess.run(  # as on the command line: torchrun --nproc-per-node 2 examples/torchrun_fit.py
        [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", script],
        cwd=where,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=True,
    )

# %%
# The two processes hold the same surrogate to the last bit, and each row counted once.
one, *two = [path.read_bytes() for path in sorted(folder.glob("*/*.safetensors"))]
print(f"{len(two)} processes, {len(set(two))} surrogate")
alone = tk.Surrogate.load(folder / "1" / "process-0.safetensors")
together = tk.Surrogate.load(folder / "2" / "process-0.safetensors")
print(f"rows: {alone.record.rows} in one process, {together.record.rows} in two")

# %%
# It is that of one process, up to rounding: the eigenvalues lie on each other.
figure, ax = plt.subplots(figsize=(5, 4.5), layout="constrained")
for surrogate, name, marker, size in ((alone, "one process", "o", 90), (together, "two", "x", 30)):
    values = surrogate.spectrum().eigenvalues
    ax.scatter(values.real, values.imag, size, marker=marker, label=name)
ax.set(xlabel="Re λ", ylabel="Im λ")
ax.legend()
difference = (alone.operator.matrix(1.0) - together.operator.matrix(1.0)).abs().max()
print(f"largest difference between the two operators: {difference:.1e}")
