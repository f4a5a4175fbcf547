"""The model of training throughput beside layers that `moeplan hardware --measure` timed on one H200."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from moeplan.architecture.shape import Architecture
from moeplan.cost.devices import load_device, parse_gpus
from moeplan.cost.training.parallelism import Layout
from moeplan.cost.training.throughput.estimate import training_estimate
from moeplan.cost.training.throughput.settings import Software

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "h200.yaml"


@pytest.mark.parametrize("kind", ["dense_layer", "moe_layer"])
def test_the_model_is_near_measured_layers(kind: str) -> None:
    """A layer of Llama 3 8B and one of Qwen3-30B-A3B take within 20 % of what was measured, their optimizer's share,
    which was not measured, included."""
    measured = load_device(EXAMPLE).measured
    assert measured is not None
    layer = getattr(measured, kind)
    one = Architecture.from_dict({k: v for k, v in layer.architecture.items() if k != "num_kv_layers"})
    gpus, software = parse_gpus("1xH200"), Software(graph="full")

    def seconds(num_layers: int) -> float:
        dense = num_layers if one.is_dense else 0
        shape = dataclasses.replace(one, num_layers=num_layers, num_dense_layers=dense, num_kv_layers=num_layers)
        estimate = training_estimate(
            shape, gpus, Layout(micro_batch=layer.sequences), batch=layer.sequences, seq_len=layer.seq_len,
            software=software, balanced=True,
        )  # fmt: skip
        return layer.sequences * layer.seq_len / estimate.tokens_per_second_per_gpu

    assert (seconds(4) - seconds(2)) / 2 == pytest.approx(layer.graph_seconds, rel=0.2)
