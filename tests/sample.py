"""A plan made by hand, every number different, so that reports and files can be tested without a search."""

from __future__ import annotations

import dataclasses
from typing import Any

from moeplan.architecture.shape import Architecture
from moeplan.cost.serving.concurrency import Concurrency
from moeplan.estimates import Estimate
from moeplan.laws.hyperparameters import HyperParameters
from moeplan.laws.law import Outside
from moeplan.laws.leverage import DenseEquivalent, Leverage, LeverageOpinion
from moeplan.laws.pooling import DenseWorth, PooledLeverage
from moeplan.plan.document import (
    SCHEMA,
    Band,
    Counts,
    IfConcurrent,
    LawOpinion,
    MemoryUse,
    NearEqual,
    Plan,
    Price,
    Provenance,
    Request,
)
from moeplan.plan.life import IfServed, Life, ServedLoad
from moeplan.plan.search.variables import DESIGN_VARIABLES, Design
from moeplan.plan.serving_run import ServingPoint, ServingUse
from moeplan.plan.training_run import DesignTime, LayoutOption, TrainingRun
from moeplan.plan.uncertainty.result import LawUncertainty, PlanUncertainty, VariableUncertainty

MOE = Architecture(
    d_model=2048,
    num_layers=24,
    vocab_size=100352,
    num_heads=16,
    num_kv_heads=4,
    head_dim=128,
    num_experts=136,
    num_active_experts=7,
    d_expert=576,
    num_shared_experts=2,
    num_dense_layers=1,
    d_ff=5184,
)
DENSE = Architecture(d_model=4480, num_layers=51, vocab_size=100352, num_heads=40, head_dim=128, d_ff=11904)


def sample_design(**changes: Any) -> Design:
    """A design whose numbers all differ."""
    values: dict[str, Any] = {
        "total_params": 11_234_567_890,
        "active_params": 1_345_678_901,
        "active_param_ratio": 0.1198,
        "tokens": 456_789_012_000,
        "tokens_per_param": 339.4,
        "G": 9,
        "shared_ratio": 0.2222,
        "granularity": 7.111,
        "activation_ratio": 0.05147,
        "expansion_ratio": 15.33,
        "num_experts": 136,
        "num_active_experts": 7,
        "num_shared_experts": 2,
        "d_expert": 576,
        "d_model": 2048,
        "num_layers": 24,
        "num_heads": 16,
        "num_dense_layers": 1,
        "attention_share": 0.3456,
        "value": 3.131e21,
        "efficiency_leverage": 5.678,
    }
    return Design(**{**values, **changes})


def sample_plan(**changes: Any) -> Plan:
    """A plan that nobody searched for; `changes` replace its fields."""
    design = sample_design()
    plan = Plan(
        schema=SCHEMA,
        request=Request(
            flops=6.789e21,
            memory="2x24GB",
            laws=("tian2025", "zhao2025"),
            weights={},
            vocab_size=100352,
            tied_embeddings=False,
            seq_len=3072,
            attention="gqa",
            latent=1,
            weight_dtype="fp8",
            kv_dtype="bf16",
            context=6144,
            concurrency=3,
            headroom=0.125,
            fix={"num_shared_experts": 2.0},
            ranges={"tokens": (1.01e11, 2.02e12)},
            tokens_available=7.07e11,
            max_epochs=2.5,
            max_tokens=9.09e12,
            inference_tokens=8.08e11,
            served=0.0,
            serve_gpus="4xH200",
            prompt_tokens=1555,
            answer_tokens=777,
            tokens_per_second_per_user=12.3,
            serve_price_per_gpu_hour=3.75,
            gpus="24xH200",
            days=0.0,
            mfu=0.0,
            goodput=0.83,
            optimise="flops",
            train_precision="fp8",
            software="full graphs",
            layout="tp=1",
            batch=1792,
            multiple_of={"num_experts": 16},
            measured=("a run",),
            price_per_gpu_hour=3.25,
            memory_for=("inference", "training"),
            optimizer="fsdp2",
            alternatives=2,
            choose="best",
            hyperparameters="tian2025",
        ),
        design=design,
        architecture=MOE,
        counts=Counts(
            total_params={"with_embeddings": 11_234_567_890, "without_input_embedding": 11_029_000_000},
            active_params={"with_embeddings": 1_345_678_901, "without_input_embedding": 1_140_000_000},
            params_by_group={"attention": 301_000_000, "routed_experts": 10_000_000_000},
            flops_per_token=8.765e9,
            flops_per_token_tian2025=8.543e9,
            train_flops=6.654e21,
        ),
        memory=MemoryUse(
            by_group={"attention": 302_000_000, "routed_experts": 10_100_000_000, "kv_cache": 403_000_000},
            total_bytes=10_805_000_000,
            usable_bytes=21_000_000_000,
            limit_bytes=24_000_000_000,
            num_devices=2,
        ),
        leverage=Leverage(
            pooled=PooledLeverage(
                efficiency_leverage=3.21,
                low=1.23,
                high=8.38,
                level=0.925,
                decades_outside=0.75,
                weights={"tian2025": 0.41, "abnar2025": 0.59},
                by_law={"tian2025": 4.992, "abnar2025": 3.456},
                studies=13,
                rule="a pooled interval by a rule of two thumbs",
                dense=DenseWorth(24_680_000_000, 246_800_000_000, 2.46e22),
                dense_low=DenseWorth(8_642_000_000, 86_420_000_000, 8.64e21),
                dense_high=DenseWorth(46_820_000_000, 468_200_000_000, 4.68e22),
            ),
            efficiency_leverage=5.432,
            low=4.321,
            high=6.543,
            level=0.875,
            rule="an interval by a rule of thumb",
            decades_outside=1.25,
            allocation_efficiency=0.9191,
            dense=DenseEquivalent(
                total_params=13_579_000_000,
                non_embedding_params=12_468_000_000,
                tokens=357_900_000_000,
                train_flops=3.579e22,
                architecture=DENSE,
            ),
            others=(
                LeverageOpinion("abnar2025", 3.456, True, "its best dense model"),
                LeverageOpinion("clark2022", 2.345, False, "its dense size"),
            ),
        ),
        hyperparameters=(
            HyperParameters("tian2025", 4.56e-4, 5_670_000.0, 1.45, True),
            HyperParameters("steplaw2025", 2.34e-4, 3_450_000.0, 0.0, False),
        ),
        training=TrainingRun(
            device="H200",
            num_gpus=24,
            idle_gpus=1,
            precision="fp8",
            software="full graphs",
            goodput=0.83,
            tokens_per_second_per_gpu=Estimate(2345.6, 1876.5, 2987.6),
            mfu=Estimate(0.31, 0.27, 0.36),
            mfu_convention="a convention",
            mfu_basis="as predicted",
            site_ln_sd=0.155,
            design_ln_sd=0.144,
            site_note="a note of the site",
            gpu_hours=Estimate(6543.0, 5432.0, 7654.0),
            days=Estimate(11.36, 9.43, 13.29),
            money=Estimate(21264.75, 17654.0, 24875.5),
            optimizer="fsdp2",
            batch_sequences=1848,
            usable_bytes=123.4e9,
            layouts=(
                LayoutOption(
                    tp=1,
                    pp=3,
                    ep=8,
                    etp=1,
                    cp=1,
                    dp=8,
                    micro_batch=2,
                    virtual_stages=1,
                    recompute="full",
                    num_gpus=24,
                    batch_sequences=1848,
                    tokens_per_second_per_gpu=Estimate(2345.6, 1876.5, 2987.6),
                    site_ln_sd=0.155,
                    design_ln_sd=0.144,
                    mfu=0.31,
                    days=Estimate(11.36, 9.43, 13.29),
                    bytes_per_gpu=98.7e9,
                    bytes_by_group={"weights": 54.3e9, "activations": 44.4e9},
                    fits=True,
                    step_seconds=3.21,
                    step_time=1.0,
                    step_terms={"compute": 0.71, "expert": 0.29},
                ),
            ),
            layout_note="",
        ),
        serving=ServingUse(
            "H200",
            3,
            Concurrency(6144, 19, 21.3, 98.7, 135.6, 1.459),
            ServedLoad("H200", 4, 1555, 777, 187, 14.6, 678.9, 2037.6, 87.9, "data"),
            (
                ServingPoint(5, 1111, 33.3, 4.44e9, 5.55e8, 6.66e10, 0.00777, "memory", 88.8, True, 41.2, 69.1),
                ServingPoint(5, 2222, 33.3, 4.44e9, 9.99e8, 6.66e10, 0.0121, "memory", 66.6, False, 37.4, 62.8),
            ),
            {"1111": 1.23e13},
            {"1111": 0.0135},
        ),
        life=Life(8.08e11, "flops", 6.654e21, 2.174e21, None, None, 0.3203, None, None),
        if_served=IfServed(1.616e12, 3.5, 10_876_543_210, 954_321_000, 567_800_000_000, 0.8765),
        if_concurrent=IfConcurrent(65, 10_765_432_100, 976_543_210, 578_900_000_000, 0.7654),
        value_ratio=0.4612,
        best_value=3.142e21,
        binding=("memory", "compute"),
        prices=(
            Price("memory", 1.1, 1.034, {"tian2025": 1.028, "zhao2025": 1.041}, 5.6),
            Price("compute", 1.1, 1.067, {"tian2025": 1.071, "zhao2025": 1.062}, 5.5),
        ),
        bands=tuple(sample_band(name, getattr(design, name)) for name in DESIGN_VARIABLES),
        designs_within_1=17,
        designs_within_5=1_357,
        laws=(
            LawOpinion(
                law="tian2025",
                grade="read",
                role="objective",
                optimum=sample_design(total_params=11_300_000_000, active_params=987_000_000, granularity=9.87),
                efficiency=0.9753,
                regret_flops=8.64e19,
                outside=(Outside("train_flops", 6.42e21, 1e18, 3e20),),
                has_domain=True,
                without=sample_design(total_params=11_111_000_000, active_params=1_212_000_000),
                says="",
            ),
            LawOpinion("clark2022", "proven", "second opinion", None, None, None, (), True, None, "leverage only"),
        ),
        alternatives=(
            sample_design(total_params=11_000_000_000, active_params=2_020_000_000, value=3.05e21, num_experts=64),
            sample_design(total_params=9_870_000_000, active_params=876_000_000, value=2.98e21, num_experts=256),
        ),
        alternative_times=(DesignTime(0.265, 9.1, 0.965, 0.876), DesignTime(0.254, 8.2, 0.921, 0.765)),
        near_equal=(
            NearEqual("best", sample_design(), 0.9987, 0.9123, "zhao2025", DesignTime(0.287, 10.1, 0.978, 0.934)),
            NearEqual(
                "lean",
                sample_design(active_params=1_098_000_000),
                0.9571,
                0.8765,
                "tian2025",
                DesignTime(0.276, 12.2, 0.943, 1.123),
            ),
        ),
        notes=("A note of <b>markup</b> | [link] & *stars*.",),
        goal=None,
        spread=sample_spread(),
        provenance=Provenance(
            "0.0.9", "moeplan recommend", {"tian2025": "0123456789abcdef"}, "fedcba98", 98_765, 4_321
        ),
    )
    return dataclasses.replace(plan, **changes)


def sample_spread() -> PlanUncertainty:
    """What a fitted law leaves open, every number different."""
    design = sample_design()
    law = LawUncertainty(
        "mylaw", Estimate(2.0918, 2.0559, 2.135), 2.0418, 2.1436, 1.553, 1.258, 2.088, "its own draws",
        ("active_params",), True,
    )  # fmt: skip
    return PlanUncertainty(
        level=0.885,
        draws=234,
        unusable=3,
        held=("tian2025",),
        variables=tuple(sample_variable_spread(name, float(getattr(design, name))) for name in DESIGN_VARIABLES),
        laws=(law,),
        same_design=0.2051,
        efficiency_median=0.9438,
        efficiency_low=0.7096,
        covers="Coefficients alone.",
    )


def sample_variable_spread(name: str, value: float) -> VariableUncertainty:
    """An interval about a value, whole numbers for variables that are."""
    if DESIGN_VARIABLES[name].integer:
        return VariableUncertainty(name, value, max(value - 3, 0.0), value + 1, value + 7)
    return VariableUncertainty(name, value, *(float(f"{value * factor:.6g}") for factor in (0.61, 1.07, 1.77)))


def sample_band(name: str, value: float) -> Band:
    """A band around a value, whole numbers for variables that are."""
    value = float(value)
    if DESIGN_VARIABLES[name].integer:
        return Band(name, value, value - 1, value + 3, max(value - 2, 0.0), value + 5)
    return Band(name, value, *(float(f"{value * factor:.6g}") for factor in (0.97, 1.04, 0.83, 1.19)))
