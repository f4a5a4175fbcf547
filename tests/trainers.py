"""Exported files read by the trainers' own classes, in a process of its own: `python -m tests.trainers NAME FILE ...`.

Prints one JSON object a file. What only a GPU needs (Triton, DeepEP) or reads and logs data is a stand-in: imports ask
for it, configurations never do. Models are built on the meta device.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

STAND_INS = ("triton", "tensorboard", "datasets", "wandb", "deep_ep")


class _StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the packages above, empty."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] in STAND_INS or name == "torch.utils.tensorboard":
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> Any:
        module = mock.MagicMock(name=spec.name)
        module.__spec__, module.__path__, module.__name__ = spec, [], spec.name
        module.__file__, module.__version__ = "", "0"
        return module

    def exec_module(self, module: Any) -> None:
        pass


def torchtitan(path: Path) -> dict[str, Any]:
    """The trainer's config that a module's function returns, after torchtitan's own checks, and the model's params."""
    import torch
    import torch._functorch.partitioners  # before the stand-ins: torch looks for Triton
    import torch.utils.flop_counter

    if not any(isinstance(finder, _StandIns) for finder in sys.meta_path):
        sys.meta_path.insert(0, _StandIns())
    from torchtitan.config.manager import ConfigManager
    from torchtitan.trainer import Trainer

    sys.path.insert(0, str(path.parent))
    loaded, rest = ConfigManager()._load_config(["--module", path.stem, "--config", "moeplan"])
    assert isinstance(loaded, Trainer.Config)
    assert rest == []
    spec = loaded.model_spec
    assert spec is not None
    spec.model.update_from_config(config=loaded)
    with torch.device("meta"):
        model = spec.model.build()
    routers = [m for m in model.modules() if type(m).__name__ == "TokenChoiceTopKRouter"]
    (group,) = loaded.optimizer.param_groups
    return {
        "params": sum(parameter.numel() for parameter in model.parameters()),
        "layers": len(spec.model.layers),
        "optimizer": group.optimizer_kwargs,
        "route_scale": [getattr(router, "route_scale", None) for router in routers[:1]],
        "activation_checkpoint": type(loaded.activation_checkpoint).__qualname__.partition(".")[0],
        **{
            part: dataclasses.asdict(getattr(loaded, part)) for part in ("training", "parallelism", "lr_scheduler")
        },
    }  # fmt: skip


def megatron(path: Path) -> dict[str, Any]:
    """The model that megatron-core builds from a file of arguments, with its layout and optimizer's configs."""
    import torch

    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0", RANK="0", WORLD_SIZE="1")
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    from megatron.core import parallel_state
    from megatron.core.enums import Fp8Recipe
    from megatron.core.models.gpt import GPTModel
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_decoder_block_spec
    from megatron.core.optimizer import OptimizerConfig
    from megatron.core.transformer import MLATransformerConfig, TransformerConfig
    from megatron.core.transformer.pipeline_parallel_layer_layout import PipelineParallelLayerLayout

    if not parallel_state.is_initialized():
        parallel_state.initialize_model_parallel()
    args = _arguments(path)
    latent = "--multi-latent-attention" in args
    kind = MLATransformerConfig if latent else TransformerConfig
    fields = {f.name: f for f in dataclasses.fields(kind)}
    values = {name: _value(text, fields[name]) for flag, text in args.items() if (name := flag[2:].replace("-", "_"))
              in fields}  # fmt: skip
    pattern = values.pop("pipeline_model_parallel_layout", None)
    stages = None
    if pattern is not None:
        whole = PipelineParallelLayerLayout.from_str(pattern, int(args["--pipeline-model-parallel-size"]))
        whole.validate_layer_layout(num_layers=int(args["--num-layers"]), mtp_num_layers=0)
        stages = [sum(chunk.count(kind) for chunk in rank) for rank in whole.layout for kind in [_decoder()]]
    split = {name: values.pop(name) for name in list(values) if "parallel" in name or "pipeline" in name}
    for fused in ("moe_permute_fusion", "moe_grouped_gemm", "cross_entropy_loss_fusion", "tp_comm_overlap",
                  "moe_flex_dispatcher_backend", "overlap_moe_expert_parallel_comm"):  # fmt: skip
        values.pop(fused, None)  # needs Transformer Engine, or a GPU
    values.pop("moe_token_dispatcher_type", None)
    values |= {
        "normalization": "RMSNorm",
        "layernorm_epsilon": float(args["--norm-epsilon"]),
        "gated_linear_unit": "--swiglu" in args,
        "activation_func": torch.nn.functional.silu,
        "add_bias_linear": "--disable-bias-linear" not in args,
        "num_moe_experts": int(args["--num-experts"]) if "--num-experts" in args else None,
        "apply_rope_fusion": False,
        "use_cpu_initialization": True,
        "perform_initialization": False,
    }
    if "--moe-layer-freq" in args:
        values["moe_layer_freq"] = eval(args["--moe-layer-freq"])
    config = kind(**values)
    known = {f.name: f for f in dataclasses.fields(OptimizerConfig)}
    own = {flag[2:].replace("-", "_"): text for flag, text in args.items()}
    optimizer = OptimizerConfig(
        **{name: _value(text, known[name]) for name, text in own.items() if name in known and text}
    )
    result = {
        "params": None,
        "stages": stages,
        "split": split,
        "precision": [args["--fp8-format"], Fp8Recipe(args["--fp8-recipe"]).value],  # a config of fp8 needs the Engine
        "hidden_dropout": config.hidden_dropout,
        "attention_dropout": config.attention_dropout,
        "scale": config.moe_router_topk_scaling_factor,
        "optimizer": {name: getattr(optimizer, name) for name in
                      ("lr", "min_lr", "adam_beta1", "adam_beta2", "adam_eps", "weight_decay", "clip_grad")},
    }  # fmt: skip
    if latent:  # needs Transformer Engine
        return result
    spec = get_gpt_decoder_block_spec(config, use_transformer_engine=False)
    with torch.device("meta"), mock.patch("torch.cuda.current_device", return_value="meta"):
        model = GPTModel(
            config,
            spec,
            vocab_size=int(args["--vocab-size"]),
            max_sequence_length=int(args["--seq-length"]),
            position_embedding_type="rope",
            share_embeddings_and_output_weights="--untie-embeddings-and-output-weights" not in args,
        )
    return result | {"params": sum(parameter.numel() for parameter in model.parameters())}


def _decoder() -> Any:
    from megatron.core.transformer.enums import LayerType

    return LayerType.decoder


def _arguments(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return {flag: text for flag, _, text in (line.partition(" ") for line in lines)}


def _value(text: str, field: Any) -> Any:
    """An argument as its field's type says."""
    if not text:
        return True
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def deepspeed(path: Path) -> dict[str, Any]:
    """What DeepSpeed reads in a config."""
    from deepspeed.runtime.config import DeepSpeedConfig

    config = DeepSpeedConfig(json.loads(path.read_text(encoding="utf-8")))
    return {
        "batch": config.train_batch_size,
        "micro_batch": config.train_micro_batch_size_per_gpu,
        "optimizer": config.optimizer_params,
        "schedule": config.scheduler_params,
        "stage": config.zero_optimization_stage,
        "clip": config.gradient_clipping,
        "bf16": config.bfloat16_config.enabled,
    }


READERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    read.__name__: read for read in (torchtitan, megatron, deepspeed)
}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=READERS)
    parser.add_argument("files", nargs="+", type=Path)
    asked = parser.parse_args()
    for file in asked.files:
        print("READ " + json.dumps(READERS[asked.name](file)))
