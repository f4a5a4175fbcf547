"""The laws against published equivalences: `backtest()`; claimed, predicted, in or out of domain, and the error by law.

A study says that a MoE of so many tokens equals (or beats, or just misses) a dense model of so many tokens. What it
claims is the ratio of their compute, counted from both shapes in each law's own FLOPs. A loss law predicts like for
like: the dense size that, on the study's dense tokens, has the loss that the law gives the MoE. A leverage law predicts
its EL at the MoE's compute. Predictions are points, so intervals may be built from their errors.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from moeplan import __version__
from moeplan.architecture.conventions import CONVENTIONS, Variables
from moeplan.errors import LawError, UsageError
from moeplan.laws import Fit, Law, law_names, load_law
from moeplan.laws.checks import compute_optimum
from moeplan.laws.dense import dense_compute, dense_fit, dense_params_at_tokens
from moeplan.laws.leverage import leverage_by
from moeplan.laws.roles import LEVERAGE_LAW
from moeplan.studies.backtest.equivalences import Equivalence, LawClaim, Loss, Preregistered, publication
from moeplan.studies.backtest.equivalences import equivalences as published_equivalences
from moeplan.studies.backtest.equivalences import law_claims as published_claims
from moeplan.studies.backtest.equivalences import preregistered as published_runs
from moeplan.studies.backtest.intervals import leverage_intervals
from moeplan.studies.backtest.ladder import LadderRung, ladder_rungs
from moeplan.studies.backtest.practice import hyperparameter_rows
from moeplan.studies.backtest.rankings import correcting_laws, ranking_scores, rankings, voted_rms
from moeplan.studies.backtest.scores import (
    SCHEMA,
    BackTest,
    EquivalencePrediction,
    LaterRun,
    OwnClaim,
    Ratio,
    Result,
    Score,
    Silent,
    Votes,
    Widening,
)

_COUNTED = ("non_embedding_full_attention", "causal", "six_active_params", "six_non_embedding")
"""The ways of counting FLOPs that every ratio is shown under."""


def backtest(laws: str | Path | Law | Iterable[str | Path | Law] | None = None) -> BackTest:
    """Evaluate laws (names, files or `Law`s; default every bundled law of MoE) on the published equivalences.

    Raises `LawError` for an unknown law, and where none of `laws` compares with dense models; `UsageError` for two of
    one name.
    """
    given = [laws] if isinstance(laws, (str, Path, Law)) else laws
    asked = [law if isinstance(law, Law) else load_law(law) for law in (law_names() if given is None else given)]
    own = {law.full_name: law for law in asked}
    if len(own) < len(asked):
        raise UsageError("a law is named twice; name each once")
    judges = [law for law in asked if law.objective is not None and not law.objective.is_dense_only]
    with_dense = [law for law in judges if law.has_dense]
    if not with_dense:
        reasons = "; ".join(f"{law.full_name}: {_why_silent(law)}" for law in asked)
        raise LawError(f"no law compares MoE with dense models ({reasons}); {LEVERAGE_LAW} does")
    silent = [law for law in (judges if laws is None else asked) if law not in with_dense]
    results = tuple(_result(row, with_dense) for row in published_equivalences())
    ranked = rankings(asked)
    practised = hyperparameter_rows(asked)
    heard = {said.law for row in practised for said in row.predictions}
    read = [law for law in asked if law in with_dense or law in silent or law.name in heard]
    read += [law for law in correcting_laws() if law.full_name not in own]
    rungs = ladder_rungs(with_dense)
    calibration, intervals, interval_scores = leverage_intervals(with_dense, results, rungs)
    return BackTest(
        schema=SCHEMA,
        version=__version__,
        law_digests={law.full_name: law.digest for law in read},
        scores=tuple(_score(law, results) for law in with_dense),
        widening=tuple(_widening(law, results) for law in with_dense if law.objective and law.objective.uncertainty),
        results=results,
        rankings=ranked,
        ranking_scores=ranking_scores(ranked),
        ladder=rungs,
        votes=tuple(vote for law in with_dense if (vote := _votes(law.full_name, results, rungs)) is not None),
        pool=calibration,
        intervals=intervals,
        interval_scores=interval_scores,
        hyperparameters=practised,
        own_claims=tuple(
            _own_claim(claim, own[claim.law])
            for claim in published_claims()
            if claim.law in own and _takes(own[claim.law].objective, claim.given, bool(claim.over))
        ),
        runs=tuple(
            _run(run, own[run.law])
            for run in published_runs()
            if run.law in own and _takes(own[run.law].fits.get("loss"), run.given)
        ),
        silent=tuple(Silent(law.full_name, _why_silent(law)) for law in silent),
    )


def _why_silent(law: Law) -> str:
    if law.objective is None:
        return "it predicts neither loss nor leverage of an architecture"
    return "it describes dense models only" if law.objective.is_dense_only else "it has no dense counterpart"


def _result(row: Equivalence, laws: Sequence[Law]) -> Result:
    moe, against = row.moe, row.against
    flops = None
    if moe.architecture and moe.tokens:
        shape = Variables(moe.architecture, row.seq_len)
        flops = float(shape.get("train_flops", "non_embedding_full_attention", moe.tokens))
    return Result(
        name=row.name,
        kind=row.kind,
        moe=moe.title,
        against=against.title,
        moe_flops=flops,
        moe_flops_published=row.moe_flops,
        loss=row.loss,
        says=row.says,
        source=row.source,
        confidence=row.confidence,
        assumed=row.assumed,
        note=row.note,
        ratios=_ratios(row),
        predictions=tuple(_prediction(law, row) for law in laws) if flops else (),
    )


def _ratios(row: Equivalence) -> tuple[Ratio, ...]:
    """The claim as published, then as counted from both shapes: training FLOPs, or FLOPs per token without tokens."""
    ratios = [Ratio(stated.ratio, stated.what, computed=False) for stated in row.stated]
    moe, against = row.moe, row.against
    if row.kind == "pair" or not (moe.architecture and against.architecture):
        return tuple(ratios)
    dense, sparse = Variables(against.architecture, row.seq_len), Variables(moe.architecture, row.seq_len)
    size = dense.get("active_params", "non_embedding") / sparse.get("active_params", "non_embedding")
    ratios.append(Ratio(float(size), "active params without embeddings", computed=True))
    for convention in _COUNTED:
        value = dense.get("flops_per_token", convention) / sparse.get("flops_per_token", convention)
        what = "FLOPs per token"
        if moe.tokens and against.tokens:
            value, what = value * against.tokens / moe.tokens, "training FLOPs"
        ratios.append(Ratio(float(value), f"{what}: {CONVENTIONS['flops_per_token'][convention]}", computed=True))
    return tuple(ratios)


def _prediction(law: Law, row: Equivalence) -> EquivalencePrediction:
    """One law on one equivalence whose MoE and its tokens are known."""
    fit, moe, against = law.objective, row.moe, row.against
    assert fit is not None
    assert moe.architecture is not None
    assert moe.tokens is not None
    variables = Variables(moe.architecture, row.seq_len)
    outside = fit.outside(variables, moe.tokens)
    decades = sum(o.decades for o in outside if o.variable in fit.variables)
    best = leverage_by(law, variables, moe.tokens).efficiency_leverage
    claimed = row.stated[0].ratio if row.stated else None
    predicted, basis = best, "EL against the law's own best dense model"
    if row.kind == "pair" and against.architecture and against.tokens:
        other = leverage_by(law, Variables(against.architecture, row.seq_len), against.tokens).efficiency_leverage
        predicted, basis = best / other, "EL of the one over EL of the other, at equal compute"
    elif against.architecture and against.tokens:
        dense = Variables(against.architecture, row.seq_len)
        convention = fit.convention("train_flops")
        ours, theirs = (
            float(side.get("train_flops", convention, tokens))
            for side, tokens in ((variables, moe.tokens), (dense, against.tokens))
        )
        claimed = theirs / ours
        if fit.predicts == "efficiency_leverage":
            basis = "EL at the MoE's compute, by its own formula"
        elif "tokens" not in fit.variables and against.tokens != moe.tokens:
            predicted, basis = math.nan, "the two sides have different tokens, which it does not see"
        else:
            predicted = claimed * _like_for_like(law, fit, variables, moe.tokens, dense, against.tokens)
            basis = "dense size of equal loss on the study's dense tokens"
    published = None
    if row.moe_flops and fit.predicts == "efficiency_leverage":
        per_token = variables.get("flops_per_token", fit.convention("train_flops"))
        published = float(fit.at(variables, row.moe_flops / per_token))
    low, high = _interval(fit, predicted, decades) if row.kind != "pair" else (None, None)
    return EquivalencePrediction(
        law=law.full_name,
        claimed=claimed,
        predicted=_finite(predicted),
        basis=basis if not math.isinf(predicted) else "no dense size has so low a loss",
        ratio=_finite(predicted / claimed) if claimed else None,
        error=_error(row.loss, predicted / claimed) if claimed and row.kind == "study" else None,
        best_dense=_finite(best) if row.kind != "pair" else None,
        at_published_flops=published,
        low=low,
        high=high,
        outside=outside,
        has_domain=bool(fit.domain),
        decades=decades,
    )


def _like_for_like(law: Law, fit: Fit, moe: Variables, moe_tokens: float, dense: Variables, tokens: float) -> float:
    """The dense size with the law's loss of the MoE, on the study's dense tokens, over the study's dense size."""
    equal = dense_params_at_tokens(law, float(fit.at(moe, moe_tokens)), tokens)
    described = dense_fit(law)
    name = next(name for name in ("active_params", "total_params") if name in described.variables)
    return equal / float(dense.get(name, described.convention(name)))


def _interval(fit: Fit, predicted: float, decades: float) -> tuple[float | None, float | None]:
    if fit.uncertainty is None or not math.isfinite(predicted):
        return None, None
    factor = math.exp(fit.uncertainty.half_width(decades))
    return predicted / factor, predicted * factor


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _error(loss: Loss, ratio: float) -> float | None:
    """ln(predicted / claimed) as far as a study can show it: one-sided where its ratio is a bound."""
    if not math.isfinite(ratio):
        return None
    error = math.log(ratio)
    return min(error, 0.0) if loss == "lower" else max(error, 0.0) if loss == "higher" else error


def _score(law: Law, results: Sequence[Result]) -> Score:
    said = [(r, p) for r in results for p in r.predictions if p.law == law.full_name and p.ratio is not None]
    studies = [(r, p) for r, p in said if r.kind == "study"]
    errors = [
        (p.error, bool(p.outside) or not p.has_domain)
        for r, p in studies
        if p.error is not None and (r.loss == "equal" or p.error)
    ]
    best = [_error(r.loss, p.best_dense / p.claimed) for r, p in studies if p.best_dense and p.claimed]
    signs = [p.ratio > 1 for r, p in said if r.kind == "sign" and p.ratio is not None]
    rms = _rms(error for error, _ in errors)
    bias = sum(error for error, _ in errors) / len(errors) if errors else None
    return Score(
        law=law.full_name,
        equal=sum(r.loss == "equal" for r, _ in studies),
        bounds=sum(r.loss != "equal" for r, _ in studies),
        crossed=sum(r.loss != "equal" and bool(p.error) for r, p in studies),
        inside=sum(p.has_domain and not p.outside for _, p in studies),
        rms=rms,
        bias=bias,
        factor=_exp(rms),
        bias_factor=_exp(bias),
        rms_inside=_rms(error for error, outside in errors if not outside),
        rms_outside=_rms(error for error, outside in errors if outside),
        factor_best_dense=_exp(_rms(error for error in best if error)),
        signs=sum(signs),
        of_signs=len(signs),
    )


def _rms(errors: Iterable[float]) -> float | None:
    squares = [error**2 for error in errors]
    return math.sqrt(sum(squares) / len(squares)) if squares else None


def _exp(value: float | None) -> float | None:
    return None if value is None else math.exp(value)


def _votes(law: str, results: Sequence[Result], rungs: Sequence[LadderRung]) -> Votes | None:
    """The error of a law over studies (a kept bound shows none) and scored rungs, one vote a publication."""
    studies = [
        (publication(r.source), p.error)
        for r in results
        for p in r.predictions
        if r.kind == "study" and p.law == law and p.error is not None and (r.loss == "equal" or p.error)
    ]
    ladder = [(r.publication, p.error) for r in rungs for p in r.predictions if p.law == law and p.error is not None]
    rows = [*studies, *ladder]
    if not rows:
        return None
    names, errors = zip(*rows, strict=True)
    rms = voted_rms(names, errors)
    return Votes(law, len(set(names)), len(rows), rms, math.exp(rms))


def _widening(law: Law, results: Sequence[Result]) -> Widening:
    rule = law.objective.uncertainty if law.objective else None
    assert rule is not None
    studies = [(r, p) for r in results for p in r.predictions if r.kind == "study" and p.law == law.full_name]
    # A bound that is kept shows no error: its 0 says nothing of how far off the law is.
    outside = [(p.error, p.decades) for _, p in studies if p.decades and p.error]
    excess = sum(error**2 - rule.rms**2 for error, _ in outside)
    spread = sum(decades**2 for _, decades in outside)
    return Widening(
        law=law.full_name,
        rms=rule.rms,
        per_decade=math.sqrt(max(0.0, excess) / spread) if spread else 0.0,
        per_decade_in_file=rule.per_decade_outside,
        studies=len(outside),
        most_decades=max((decades for _, decades in outside), default=0.0),
        held=sum(abs(p.error) <= rule.half_width(p.decades) for _, p in studies if p.error is not None),
        of=len(studies),
    )


def _takes(fit: Fit | None, given: dict[str, float], optimised: bool = False) -> bool:
    """Whether a fit can be asked a claim; a user's law of a bundled law's name may have another form."""
    return fit is not None and (bool(fit.family) if optimised else set(fit.variables) <= set(given))


def _own_claim(claim: LawClaim, law: Law) -> OwnClaim:
    """The ratio that a law's own digits give at what its paper claims."""
    fit, given = law.objective, dict(claim.given)
    assert fit is not None
    if claim.over:
        _, low, high = claim.over
        train_flops = given.pop("train_flops")
        names = tuple(claim.choices)
        picked = [dict(zip(names, values, strict=True)) for values in itertools.product(*claim.choices.values())]
        best = compute_optimum(fit, train_flops, low, high, [given | choice for choice in picked])
        found = dense_compute(law, best[fit.predicts]) / train_flops
    elif fit.predicts == "efficiency_leverage":
        found = float(fit(*(given[name] for name in fit.variables)))
    else:
        loss = float(fit(*(given[name] for name in fit.variables)))
        found = dense_params_at_tokens(law, loss) / given["active_params"]
    return OwnClaim(law.full_name, claim.says, claim.stated, found, claim.source)


def _run(run: Preregistered, law: Law) -> LaterRun:
    fit = law.fits["loss"]
    predicted = float(fit(*(run.given[name] for name in fit.variables)))
    excess = predicted - run.measured
    return LaterRun(law.full_name, run.run, predicted, run.measured, excess, run.source, run.confidence)
