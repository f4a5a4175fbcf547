"""The equations of the published laws: pure functions, no numbers of any paper.

Variables are positional under the glossary's names and may be floats or arrays that broadcast; coefficients are
keyword-only under the paper's letters. The signature is the schema: a law file that names a form must give exactly
its coefficients. Sizes are raw counts, tokens raw counts, compute FLOPs, losses nats per token; `log` is natural unless
the equation says otherwise.

Every public function defined in this module is a form; `moeplan laws` lists them from here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from moeplan.laws.reduced import reduced_expansion_joint, saturated_expansion

# Floats and float64 arrays alike: a form computes elementwise on whatever it is given.
Value = Any


def additive_power_law(
    total_params: Value, tokens: Value, /, *, E: float, A: float, B: float, alpha: float, beta: float
) -> Value:
    """L = E + A/N^alpha + B/D^beta (Hoffmann et al. 2022, arXiv 2203.15556, Eq. 10)."""
    return E + A * total_params**-alpha + B * tokens**-beta


def efficiency_leverage(
    activation_ratio: Value,
    granularity: Value,
    train_flops: Value,
    /,
    *,
    a: float,
    d: float,
    gamma: float,
    beta: float,
    A_start: float,
    A_max: float,
) -> Value:
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
    flops_per_token: Value, train_flops: Value, /, *, coefficient: float, exponent: float, w: float
) -> Value:
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
    e: float,
    f: float,
    m: float,
    n: float,
    k: float,
    h: float,
    a: float,
    alpha: float,
    b: float,
    beta: float,
    c: float,
    eps: float,
) -> Value:
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
    a: float,
    alpha: float,
    delta: float,
    gamma: float,
    b: float,
    beta: float,
    omega: float,
    zeta: float,
    Es: float,
    Em: float,
    c: float,
) -> Value:
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
    a: float,
    alpha: float,
    b: float,
    beta: float,
    g_c: float,
    gamma: float,
    c: float,
) -> Value:
    """L = c + (g_c/G^gamma + a)/N^alpha + b/D^beta, G the granularity (Krajewski et al. 2024, arXiv 2402.07871)."""
    return c + (g_c * granularity**-gamma + a) * total_params**-alpha + b * tokens**-beta


def activation_joint(
    total_params: Value,
    tokens: Value,
    activation_ratio: Value,
    /,
    *,
    a: float,
    alpha: float,
    b: float,
    beta: float,
    c: float,
    lam: float,
    d: float,
    delta: float,
    gamma: float,
    e: float,
) -> Value:
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
    active_params: Value, expansion_ratio: Value, /, *, a: float, b: float, c: float, d: float, Es: float, Em: float
) -> Value:
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
    a_S: float,
    b_S: float,
    c_S: float,
    b_N: float,
    a_D: float,
    b_D: float,
    c: float,
) -> Value:
    """L = (a_S*(1 - S)^b_S + c_S)*Nnz^-b_N + (a_D/D)^b_D + c, S the share of zero weights (Frantar et al. 2023)."""
    return (a_S * (1 - weight_sparsity) ** b_S + c_S) * nonzero_params**-b_N + (a_D / tokens) ** b_D + c


def compute_power_law(train_flops: Value, /, *, coefficient: float, exponent: float, irreducible: float = 0.0) -> Value:
    """y = irreducible + coefficient * C^exponent."""
    return irreducible + coefficient * train_flops**exponent


def size_tokens_power_law(
    total_params: Value,
    tokens: Value,
    /,
    *,
    coefficient: float,
    size_exponent: float = 0.0,
    tokens_exponent: float = 0.0,
) -> Value:
    """y = coefficient * N^size_exponent * D^tokens_exponent."""
    return coefficient * total_params**size_exponent * tokens**tokens_exponent


def expansion_power_law(
    active_params: Value,
    expansion_ratio: Value,
    /,
    *,
    ln_coefficient: float,
    size_exponent: float,
    expansion_exponent: float,
) -> Value:
    """y = exp(ln_coefficient + size_exponent*ln Na + expansion_exponent*ln E)."""
    return np.exp(ln_coefficient + size_exponent * np.log(active_params) + expansion_exponent * np.log(expansion_ratio))


def linear_flops_per_token(active_params: Value, /, *, slope: float, intercept: float) -> Value:
    """M = slope*Na + intercept [FLOPs per token]."""
    return slope * active_params + intercept


def base_power_law(
    base_params: Value, tokens: Value, /, *, A: float, alpha: float, B: float, beta: float, E: float
) -> Value:
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
    A: float,
    alpha_1: float,
    alpha_2: float,
    alpha_3: float,
    B: float,
    beta: float,
    E: float,
) -> Value:
    """L = A*D1^alpha_1*D2^(alpha_2 + alpha_3*ln D1) + B*N1^beta + E.

    A dense model of `base_params` N1 trained on `base_tokens` D1, turned into a MoE and trained on `tokens` D2 more
    (Liew et al. 2025, arXiv 2502.03009).
    """
    return A * base_tokens**alpha_1 * tokens ** (alpha_2 + alpha_3 * np.log(base_tokens)) + B * base_params**beta + E


def repeated_tokens(tokens: Value, unique_tokens: Value, /, *, R: float) -> Value:
    """D' = U + U*R*(1 - exp(-(D/U - 1)/R)) for D > U, else D: what D tokens from U unique ones are worth.

    Muennighoff et al. 2023, arXiv 2305.16264, Eq. 5.
    """
    repeats = np.maximum(tokens / unique_tokens - 1, 0)
    return np.where(repeats > 0, unique_tokens * (1 - R * np.expm1(-repeats / R)), tokens)[()]


def constant(*, value: float) -> float:
    """y = value."""
    return value


def expansion_interaction(
    total_params: Value,
    tokens: Value,
    expansion_ratio: Value,
    /,
    *,
    A: float,
    alpha: float,
    B: float,
    beta: float,
    C: float,
    gamma: float,
    F: float,
    d: float,
    Es: float,
    Em: float,
) -> Value:
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
    A: float,
    alpha: float,
    gamma: float,
    B: float,
    beta: float,
    sigma: float,
) -> Value:
    """L = A/(N^alpha * E^gamma) + B/D^beta + sigma (Wang et al. 2024, arXiv 2410.05661; no published coefficients)."""
    return A * total_params**-alpha * num_experts**-gamma + B * tokens**-beta + sigma
