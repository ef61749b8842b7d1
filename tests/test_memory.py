"""A process that computes batches of ever new sizes does not grow."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

PROGRAM = """
import resource, torch
from pathlib import Path
from lgsrr import kernels, memory

def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6

torch.set_num_threads(1)
memory.bound_caches()
up, down = (torch.randn(shape, requires_grad=True) for shape in ((1536, 384), (384, 1536)))
sizes = []
for tokens in range(200, 320):
    hidden = kernels.linear(torch.randn(tokens, 384), up, torch.zeros(1536))
    kernels.linear(hidden, down, torch.zeros(384)).sum().backward()
    up.grad = down.grad = hidden = None
    memory.trim()
    sizes.append(resident_mb())
print(sizes[-1] - sizes[40])
"""


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="needs a torch with oneDNN")
@pytest.mark.skipif(sys.platform != "linux", reason="reads resident memory from /proc")
def test_eighty_new_sizes_cost_no_memory() -> None:
    """Unbounded, the caches grow by 2.4 MB a size here: 190 MB."""
    answer = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=120)
    assert float(answer.stdout) < 30
