"""Runs that were measured at a site, as people type them, and the site that they tell of.

A run is a text, "qwen3-30b-a3b on 64xH100, tp=1,pp=2,ep=8: 666000 tokens/s", or a YAML file of such texts. It says
whose tokens a second it counts, "tokens/s/GPU" or "tokens/s in all"; where it does not, the reading nearer to what is
predicted is taken, which is told. Beside the degrees of its layout a run may say batch=1024, seq_len=8192 and
precision=fp8; what it does not say is as the request has it, and dp fills the GPUs.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable
from pathlib import Path

from moeplan.cost.devices import Device, parse_gpus
from moeplan.cost.training.parallelism import read_layout
from moeplan.cost.training.throughput.estimate import Spread80
from moeplan.cost.training.throughput.layer import recomputed_by
from moeplan.cost.training.throughput.runs import Run
from moeplan.cost.training.throughput.settings import Software, peak_flops
from moeplan.cost.training.throughput.site import Site, site_of
from moeplan.errors import InfeasibleError, UsageError
from moeplan.laws.reader import read_text_file
from moeplan.laws.roles import LEVERAGE_LAW
from moeplan.plan.budget import nominal_batch
from moeplan.plan.existing import read_model
from moeplan.texts import counted
from moeplan.units import parse_count

EXAMPLE = "qwen3-30b-a3b on 64xH100, tp=1,pp=2,ep=8: 666000 tokens/s"
_FAR = 8.0
"""Beyond this factor from what is predicted a speed is taken for a slip: of one GPU for all, or the reverse."""
_OWN = ("batch", "seq_len", "precision")


def measured_site(
    texts: Iterable[str], device: Device, *, precision: str, software: Software, seq_len: int
) -> tuple[Site, str]:
    """The site where runs were measured on a device, and in a sentence what they did to it; "" without runs.

    Raises `UsageError` for texts that are no runs, and for speeds beyond what a site may differ by.
    """
    rows = [row for text in texts for row in _rows(text)]
    runs = [_run(row, device, precision, software, seq_len) for row in rows]
    before, site = site_of(device), site_of(device, runs)
    if not runs:
        return site, ""
    wide, narrow = (100 * (Spread80(each.ln_sd, 0.0).around(1.0)[1] - 1) for each in (before, site))
    several = counted(len(runs), "measured run(s)")
    several += f" ({', '.join(f'{run.tokens_per_second:,.0f}' for run in runs)} tokens/s a GPU)"
    return site, (
        f"{several}: this site is {site.scale:.2f} times as fast as predicted before, and what its designs have in "
        f"common is known to {narrow:.0f} % in place of {wide:.0f} % (80 % interval)"
    )


def _rows(text: str) -> list[str]:
    """The runs of a text, or of the file that it names."""
    if not re.search(r"\.ya?ml$", text.strip()):
        return [text]
    import yaml

    try:
        rows = yaml.safe_load(read_text_file(Path(text.strip())))
    except (ValueError, RecursionError):  # numbers and nesting that Python refuses
        raise UsageError(f"{text}: is not YAML: a number or a nest of lists is too large") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{text}: is not YAML: {str(error).splitlines()[0]}") from None
    if not (isinstance(rows, list) and rows and all(isinstance(row, str) for row in rows)):
        raise UsageError(f'{text}: must be a list of measured runs in quotes, each like "{EXAMPLE}"')
    return rows


def _run(text: str, device: Device, precision: str, software: Software, seq_len: int) -> Run:
    what = f"measured run {text!r}"
    found = re.fullmatch(
        r"\s*(?P<model>.+?)\s+on\s+(?P<gpus>[^,:]+?)\s*(?:,\s*(?P<layout>[^:]*?))?\s*:\s*(?P<speed>[\d.,_]+(?:e\d+)?[kMB]?)\s*"
        r"(?:tokens|tok)/s\s*(?:(?P<each>(?:/|per)\s*GPU)|(?P<all>in all))?\s*",
        text,
        re.IGNORECASE,
    )
    if found is None:
        raise UsageError(f"{what} must be MODEL on GPUS, LAYOUT: SPEED tokens/s, for example {EXAMPLE}")
    gpus = parse_gpus(found["gpus"])
    if gpus.device != device:
        raise UsageError(f"{what} is of {gpus.device.name}, and the GPUs are {device.name}; give one of these")
    words = [word.strip() for word in (found["layout"] or "").split(",") if word.strip()]
    own = dict(word.split("=", 1) for word in words if word.split("=")[0].strip() in _OWN and "=" in word)
    degrees = ",".join(word for word in words if word.split("=")[0].strip() not in _OWN)
    model = read_model(found["model"])
    if model.gaps:
        raise UsageError(f"{what}: {model.name} is not counted whole, so its speed is not predicted")
    precision = own.get("precision", precision)
    peak_flops(device, precision)
    length = int(parse_count(own["seq_len"], "seq_len")) if "seq_len" in own else seq_len
    shape = model.architecture
    tokens = model.tokens or 20.0 * shape.active_params()
    batch = int(parse_count(own["batch"], "batch")) if "batch" in own else 0
    try:
        layout = read_layout(degrees, gpus.count)
        layout.check(shape, length)
        multiple = layout.dp * layout.micro_batch
        usual = nominal_batch(LEVERAGE_LAW, float(shape.flops_per_token(length)) * tokens, length)
        batch = batch or max(1, round(usual / multiple)) * multiple
        if batch % multiple:
            raise InfeasibleError(f"batch {batch} must be a multiple of dp times micro_batch, {multiple}")
    except InfeasibleError as error:
        raise UsageError(f"{what}: {error}") from None
    speed = parse_count(found["speed"].replace(",", ""), "tokens/s")
    run = Run(
        model=model.name,
        architecture=shape,
        device=device,
        layout=layout,
        batch=batch,
        seq_len=length,
        precision=precision,
        software=software,
        recomputed=recomputed_by(layout),
        balanced=False,
        sharded_weights=False,
        tokens_per_second=speed,
        label=text,
        weight=1.0,
    )
    expected = float(run.step().tokens_per_second)
    readings = [speed / gpus.count] if found["all"] else [speed] if found["each"] else [speed, speed / gpus.count]
    speed = min(readings, key=lambda each: abs(math.log(each / expected)))
    if not 1 / _FAR <= speed / expected <= _FAR:
        raise UsageError(
            f"{what}: {speed:.5g} tokens/s a GPU is {speed / expected:.2g} times the predicted {expected:,.0f}, beyond"
            f" what sites differ by; {expected * gpus.count:,.0f} tokens/s are predicted of all {gpus.count}"
        )
    reached = speed * float(shape.flops_per_token(length)) / peak_flops(device, precision)
    if reached >= 1:
        raise UsageError(
            f"{what}: {speed:.5g} tokens/s a GPU takes {reached:.2f} times the {precision} peak of {device.name}; "
            f"{expected * gpus.count:,.0f} tokens/s are predicted of all {gpus.count}"
        )
    return dataclasses.replace(run, tokens_per_second=speed)
