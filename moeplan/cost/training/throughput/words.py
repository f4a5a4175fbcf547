"""What times of training are said in; it stands alone, so that a plan without GPUs starts fast."""

from __future__ import annotations

from typing import Literal

TrainPrecision = Literal["bf16", "fp8", "mxfp8", "nvfp4"]
"""Of the matrix products in training: bf16, fp8 with a scale a tensor or tile, or microscaled fp8 and fp4."""
MFU_CONVENTION = "6*active params + causal attention a token, nothing recomputed, over the dense bf16 peak"
"""The FLOPs and the peak that model FLOPs utilisation is counted by."""
DEFAULT_SOFTWARE = "partial graphs"
"""The software that trains where none is named, out of `data/throughput.yaml`."""
