"""A disk that is full: an error that names the file, the old file as it was, and a live process.

Torch's own writer of ``.pt2`` files ends the process, so all this runs in another one.
"""

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import resource, sys
from pathlib import Path
import torch, torchkoopman as tk

def at_most(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

torch.manual_seed(0)
x = torch.randn(200, 4)
model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 6))
surrogate = tk.fit(model, [x], ["0", "2"], method="dmd", progress=False)
model = tk.swap(model, surrogate, example_inputs=x)
writing = {
    "surrogate.safetensors": surrogate.save,
    "model.safetensors": lambda path: tk.export(model, path),
    "model.pt2": lambda path: tk.export(model, path, x),
    "model.onnx": lambda path: tk.export(model, path, x),
    "report.html": lambda path: tk.report(path, surrogate),
}
path = Path(sys.argv[1])
write = writing[path.name]
write(path)
content = path.read_bytes()
for size in (0, 10, len(content) // 3, len(content) - 5):
    at_most(size)
    try:
        write(path)
    except OSError as error:
        assert str(path) in str(error), error
        assert "File too large" in str(error), error
        print(type(error).__name__)
    finally:
        at_most(resource.RLIM_INFINITY)
    assert path.read_bytes() == content
    assert [each.name for each in path.parent.iterdir()] == [path.name]
write(path)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows limits no files")
@pytest.mark.parametrize(
    "name", ["surrogate.safetensors", "model.safetensors", "model.pt2", "model.onnx", "report.html"]
)
def test_a_full_disk_is_an_error_that_names_the_file_and_changes_nothing(
    name: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, tmp_path / name], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == 4 * ["OSError"]
