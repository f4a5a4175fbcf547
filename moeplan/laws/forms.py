"""The equations of the published laws: pure functions, no numbers of any paper.

Variables are positional under the glossary's names and may be floats or arrays that broadcast; coefficients are
keyword-only under the paper's letters. The signature is the schema: a law file that names a form must give exactly
its coefficients, and the annotations say what each is (`moeplan.laws.coefficients`): its bounds, and how it is fitted.
Sizes are raw counts, tokens raw counts, compute FLOPs, losses nats per token; `log` is natural unless the equation
says otherwise.

Every public function defined in this module is a form; `moeplan laws` lists them from here.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np

from moeplan.laws.coefficients import (
    AllocationEfficiency,
    Amplitude,
    DecayFraction,
    EffectiveTokens,
    Exponent,
    FlopsPerToken,
    LargestExpansion,
    Level,
    LogLearningRate,
    LogLeverage,
    LogLoss,
    Loss,
    NegativeExponent,
    StartExpansion,
    positive,
    power,
    signed,
)
from moeplan.laws.reduced import reduced_expansion_joint, saturated_expansion

# Floats and float64 arrays alike: a form computes elementwise on whatever it is given.
Value = Any


def additive_power_law(
    total_params: Value, tokens: Value, /, *, E: Level, A: Amplitude, B: Amplitude, alpha: Exponent, beta: Exponent
) -> Loss:
    """L = E + A/N^alpha + B/D^beta (Hoffmann et al. 2022, arXiv 2203.15556, Eq. 10)."""
    return E + A * total_params**-alpha + B * tokens**-beta


def efficiency_leverage(
    activation_ratio: Value,
    granularity: Value,
    train_flops: Value,
    /,
    *,
    a: Annotated[float, signed(20.0, 1.0, affine=True)],
    d: Annotated[float, signed(2.0, 0.1, affine=True)],
    gamma: Annotated[float, signed(2.0, 0.1, affine=True)],
    beta: Annotated[float, signed(4.0, 0.3, affine=True)],
    A_start: Annotated[float, positive(1e-06, 0.9, (1e-3, 0.3))],
    A_max: Annotated[float, positive(1.0, 1e18, (100.0, 1e16))],
) -> LogLeverage:
    """EL = Ahat^(a + d*log10 C + gamma*(log2 g)^2 + beta*log2 g), 1/Ahat = 1/(A + 1/(1/A_start - 1/A_max)) + 1/A_max.

    Compute that a dense model needs for the same loss, in units of the MoE's (Tian et al. 2025, arXiv 2507.17702).
    A dense model (A = 1) has EL 1 by definition; the formula's .99 there is clamped.
    """
    saturated = 1 / (1 / (activation_ratio + 1 / (1 / A_start - 1 / A_max)) + 1 / A_max)
    bits = np.log2(granularity)
    exponent = a + d * np.log10(train_flops) + gamma * bits**2 + beta * bits
    leverage = np.exp(np.log(saturated) * exponent)
    return np.where(np.asarray(activation_ratio) >= 1, np.maximum(leverage, 1.0), leverage)[()]


def allocation_efficiency(
    flops_per_token: Value,
    train_flops: Value,
    /,
    *,
    coefficient: Annotated[float, positive(1e-9, 1e9, (1e-3, 100.0))],
    exponent: Annotated[float, power(0.05, 0.95, (0.4, 0.65))],
    w: Annotated[float, positive(1e-3, 100.0, (0.05, 2.0))],
) -> AllocationEfficiency:
    """phi = exp(-w * ln(M / M_opt(C))^2), M_opt(C) = coefficient * C^exponent.

    The share of a budget C that is worth something when the model's FLOPs per token M are not the optimal ones: the
    second-order loss of a misallocated budget. More tokens never hurt: at fixed M, C*phi rises up to
    ln C = ln C_M + 1/(2*w*exponent^2) with M_opt(C_M) = M, and beyond that C*phi is held there.
    """
    ln_budget = np.log(train_flops)
    ln_matched = (np.log(flops_per_token) - np.log(coefficient)) / exponent
    ln_used = np.minimum(ln_budget, ln_matched + 1 / (2 * w * exponent**2))
    return np.exp(ln_used - ln_budget - w * (exponent * (ln_matched - ln_used)) ** 2)


def active_shared_joint(
    total_params: Value,
    active_params: Value,
    tokens: Value,
    G: Value,
    shared_ratio: Value,
    /,
    *,
    e: Amplitude,
    f: Amplitude,
    m: Amplitude,
    n: Annotated[float, signed(1e4, 10.0, affine=True)],
    k: Annotated[float, positive(1e-12, 1e6, (1e-4, 1.0))],
    h: Annotated[float, positive(1e-12, 1e6, (1e-4, 1.0))],
    a: Amplitude,
    alpha: Exponent,
    b: Amplitude,
    beta: Exponent,
    c: Amplitude,
    eps: Level,
) -> Loss:
    """L = (e*G + f/G + m*S^2 + n*S)*(1/N^alpha + k/Na^alpha + h*Na/N) + a/N^alpha + b/D^beta + c/Na^alpha + eps.

    Zhao et al. 2025, arXiv 2509.23678. G counts active experts including shared ones, S = shared/(active + shared).
    """
    total, active = total_params**-alpha, active_params**-alpha
    routing = e * G + f / G + (m * shared_ratio + n) * shared_ratio
    return (
        routing * (total + k * active + h * (active_params / total_params))
        + a * total
        + b * tokens**-beta
        + c * active
        + eps
    )


def expansion_joint(
    active_params: Value,
    tokens: Value,
    expansion_ratio: Value,
    /,
    *,
    a: Amplitude,
    alpha: NegativeExponent,
    delta: Annotated[float, signed(3.0, 0.5)],
    gamma: Annotated[float, signed(0.5, 0.02)],
    b: Amplitude,
    beta: NegativeExponent,
    omega: Annotated[float, signed(3.0, 0.8)],
    zeta: Annotated[float, signed(0.5, 0.04)],
    Es: StartExpansion,
    Em: LargestExpansion,
    c: Level,
) -> Loss:
    """L = a*Eh^delta*Na^(alpha + gamma*ln Eh) + b*Eh^omega*D^(beta + zeta*ln Eh) + c, Eh = saturated_expansion(E).

    Ludziejewski et al. 2025, arXiv 2502.05172. E = 1 is dense.
    """
    at = reduced_expansion_joint(
        expansion_ratio,
        a=a,
        alpha=alpha,
        delta=delta,
        gamma=gamma,
        b=b,
        beta=beta,
        omega=omega,
        zeta=zeta,
        Es=Es,
        Em=Em,
        c=c,
    )
    size, data = np.exp(at["mu"] * np.log(active_params)), np.exp(at["nu"] * np.log(tokens))
    return at["m"] * size + at["n"] * data + c


def fine_grained(
    total_params: Value,
    tokens: Value,
    granularity: Value,
    /,
    *,
    a: Amplitude,
    alpha: Exponent,
    b: Amplitude,
    beta: Exponent,
    g_c: Amplitude,
    gamma: Annotated[float, power(0.0, 4.0, (0.2, 1.5))],
    c: Level,
) -> Loss:
    """L = c + (g_c/G^gamma + a)/N^alpha + b/D^beta, G the granularity (Krajewski et al. 2024, arXiv 2402.07871)."""
    return c + (g_c * granularity**-gamma + a) * total_params**-alpha + b * tokens**-beta


def activation_joint(
    total_params: Value,
    tokens: Value,
    activation_ratio: Value,
    /,
    *,
    a: Amplitude,
    alpha: Exponent,
    b: Amplitude,
    beta: Exponent,
    c: Amplitude,
    lam: Annotated[float, signed(3.0, 0.5)],
    d: Amplitude,
    delta: Annotated[float, signed(3.0, 0.5)],
    gamma: Exponent,
    e: Level,
) -> Loss:
    """L = a/N^alpha + b/D^beta + c/A^lam + d/(A^delta * N^gamma) + e, A = active/total experts (1 - S in the paper).

    Abnar et al. 2025, arXiv 2501.12370.
    """
    return (
        a * total_params**-alpha
        + b * tokens**-beta
        + c * activation_ratio**-lam
        + d * activation_ratio**-delta * total_params**-gamma
        + e
    )


def routed(
    active_params: Value,
    expansion_ratio: Value,
    /,
    *,
    a: Annotated[float, signed(3.0, 0.2, affine=True)],
    b: Annotated[float, signed(3.0, 0.3, affine=True)],
    c: Annotated[float, signed(1.0, 0.05, affine=True)],
    d: Annotated[float, signed(30.0, 2.0, affine=True)],
    Es: StartExpansion,
    Em: LargestExpansion,
) -> LogLoss:
    """log10 L = a*log10 N + b*log10 Eh + c*log10 N*log10 Eh + d, Eh = saturated_expansion(E), at fixed tokens.

    N are active params (Clark et al. 2022, arXiv 2202.01169).
    """
    size = np.log10(active_params)
    expansion = np.log10(saturated_expansion(expansion_ratio, Es, Em))
    return 10 ** (a * size + b * expansion + c * size * expansion + d)


def weight_sparse(
    nonzero_params: Value,
    tokens: Value,
    weight_sparsity: Value,
    /,
    *,
    a_S: Amplitude,
    b_S: Annotated[float, power(0.0, 5.0, (0.2, 2.0))],
    c_S: Amplitude,
    b_N: Exponent,
    a_D: Annotated[float, positive(1e-06, 1e30, (1e4, 1e11))],
    b_D: Exponent,
    c: Level,
) -> Loss:
    """L = (a_S*(1 - S)^b_S + c_S)*Nnz^-b_N + (a_D/D)^b_D + c, S the share of zero weights (Frantar et al. 2023)."""
    return (a_S * (1 - weight_sparsity) ** b_S + c_S) * nonzero_params**-b_N + (a_D / tokens) ** b_D + c


def compute_power_law(
    train_flops: Value,
    /,
    *,
    coefficient: Amplitude,
    exponent: Annotated[float, signed(3.0, 0.5)],
    irreducible: Level = 0.0,
) -> Loss:
    """y = irreducible + coefficient * C^exponent."""
    return irreducible + coefficient * train_flops**exponent


def size_tokens_power_law(
    total_params: Value,
    tokens: Value,
    /,
    *,
    coefficient: Amplitude,
    size_exponent: Annotated[float, signed(3.0, 1.0, affine=True)] = 0.0,
    tokens_exponent: Annotated[float, signed(3.0, 1.0, affine=True)] = 0.0,
) -> LogLearningRate:
    """y = coefficient * N^size_exponent * D^tokens_exponent."""
    return coefficient * total_params**size_exponent * tokens**tokens_exponent


def expansion_power_law(
    active_params: Value,
    expansion_ratio: Value,
    /,
    *,
    ln_coefficient: Annotated[float, signed(100.0, 10.0, affine=True)],
    size_exponent: Annotated[float, signed(3.0, 1.0, affine=True)],
    expansion_exponent: Annotated[float, signed(3.0, 1.0, affine=True)],
) -> LogLearningRate:
    """y = exp(ln_coefficient + size_exponent*ln Na + expansion_exponent*ln E)."""
    return np.exp(ln_coefficient + size_exponent * np.log(active_params) + expansion_exponent * np.log(expansion_ratio))


def linear_flops_per_token(
    active_params: Value, /, *, slope: Amplitude, intercept: Annotated[float, signed(1e20, 1.0, affine=True)]
) -> FlopsPerToken:
    """M = slope*Na + intercept [FLOPs per token]."""
    return slope * active_params + intercept


def base_power_law(
    base_params: Value,
    tokens: Value,
    /,
    *,
    A: Amplitude,
    alpha: NegativeExponent,
    B: Amplitude,
    beta: NegativeExponent,
    E: Level,
) -> Loss:
    """L = A*D^alpha + B*N1^beta + E, N1 the params of the dense model that the MoE is made from.

    Liew et al. 2025, arXiv 2502.03009; for a dense model N1 is its own size.
    """
    return A * tokens**alpha + B * base_params**beta + E


def upcycled(
    base_params: Value,
    base_tokens: Value,
    tokens: Value,
    /,
    *,
    A: Amplitude,
    alpha_1: Annotated[float, signed(3.0, 0.2)],
    alpha_2: NegativeExponent,
    alpha_3: Annotated[float, signed(0.5, 0.01)],
    B: Amplitude,
    beta: NegativeExponent,
    E: Level,
) -> Loss:
    """L = A*D1^alpha_1*D2^(alpha_2 + alpha_3*ln D1) + B*N1^beta + E.

    A dense model of `base_params` N1 trained on `base_tokens` D1, turned into a MoE and trained on `tokens` D2 more
    (Liew et al. 2025, arXiv 2502.03009).
    """
    return A * base_tokens**alpha_1 * tokens ** (alpha_2 + alpha_3 * np.log(base_tokens)) + B * base_params**beta + E


def repeated_tokens(
    tokens: Value, unique_tokens: Value, /, *, R: Annotated[float, positive(0.01, 1e4, (1.0, 100.0))]
) -> EffectiveTokens:
    """D' = U + U*R*(1 - exp(-(D/U - 1)/R)) for D > U, else D: what D tokens from U unique ones are worth.

    Muennighoff et al. 2023, arXiv 2305.16264, Eq. 5.
    """
    repeats = np.maximum(tokens / unique_tokens - 1, 0)
    return np.where(repeats > 0, unique_tokens * (1 - R * np.expm1(-repeats / R)), tokens)[()]


def constant(*, value: Amplitude) -> DecayFraction:
    """y = value."""
    return value


def expansion_interaction(
    total_params: Value,
    tokens: Value,
    expansion_ratio: Value,
    /,
    *,
    A: Amplitude,
    alpha: Exponent,
    B: Amplitude,
    beta: Exponent,
    C: Amplitude,
    gamma: Exponent,
    F: Level,
    d: Annotated[float, signed(0.2, 0.01)],
    Es: StartExpansion,
    Em: LargestExpansion,
) -> Loss:
    """log L = log(A/N^alpha + B/Eh^beta + C/D^gamma + F) + d*log N*log Eh, Eh = saturated_expansion(E).

    Yun et al. 2024, arXiv 2404.02852; its coefficients were not published.
    """
    expansion = saturated_expansion(expansion_ratio, Es, Em)
    level = A * total_params**-alpha + B * expansion**-beta + C * tokens**-gamma + F
    return level * np.exp(d * np.log(total_params) * np.log(expansion))


def expert_count_power_law(
    total_params: Value,
    tokens: Value,
    num_experts: Value,
    /,
    *,
    A: Amplitude,
    alpha: Exponent,
    gamma: Annotated[float, power(-1.0, 3.0, (0.0, 0.5))],
    B: Amplitude,
    beta: Exponent,
    sigma: Level,
) -> Loss:
    """L = A/(N^alpha * E^gamma) + B/D^beta + sigma (Wang et al. 2024, arXiv 2410.05661; no published coefficients)."""
    return A * total_params**-alpha * num_experts**-gamma + B * tokens**-beta + sigma
