"""Skip where there is no GPU."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def cuda() -> str:
    """The device; skips the test where there is none."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU")
    return "cuda"
