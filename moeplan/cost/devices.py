"""Devices, groups of them, and what training costs in GPU time and money.

Devices stand in `data/hardware.yaml` and published utilisations in `data/mfu.yaml`, each row with its source and
confidence. A user's own device is a YAML file of one such row; `moeplan hardware --measure` writes one, with what the
device was measured to do.
"""

from __future__ import annotations

import difflib
import functools
import math
import re
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from moeplan.cost.measured import MeasuredSpeeds, read_measured
from moeplan.errors import UsageError
from moeplan.laws.reader import FileSection, read_text_file, read_yaml

Precision = Literal["bf16", "fp8"]
"""Of the matrix products, and so which of a device's two peaks counts."""

DEFAULT_DEVICE = "H100"
"""The device that GPU-hours are counted on where none is given."""
HEADROOM = 0.10
"""Share of a device's memory that stays free unless it is asked otherwise: for allocator, runtime and exchanges."""
_DEVICE_REQUIRED = ("name", "bf16_tflops", "memory_gb", "bandwidth_gbs", "source", "confidence")
_DEVICE_KEYS = (
    *_DEVICE_REQUIRED,
    *("aliases", "fp8_tflops", "link_gbs", "link_domain", "link_source", "network_gbs", "watts", "kernels"),
    *("note", "measured", "default_for"),
)
_NETWORK = 50.0
"""GB/s that one device sends to other domains where its row says nothing: an adapter of 400 Gb/s each."""
MOST_GPUS = 2**20
"""Most devices that are planned for."""


@dataclass(frozen=True)
class Device:
    """One accelerator."""

    name: str
    """Name as in the data file."""
    bf16_flops: float
    """Dense bf16 peak [FLOP/s]."""
    fp8_flops: float | None
    """Dense fp8 peak [FLOP/s]; None without fp8 units."""
    memory_bytes: int
    """Memory [bytes]."""
    bandwidth: float
    """Bandwidth of its memory [bytes/s]."""
    link_bandwidth: float | None
    """What it sends to the other devices of its domain, one way [bytes/s]; None where none is known."""
    link_domain: int
    """Devices that such links join; 1 where none are known."""
    source: str
    """Where the numbers are from."""
    confidence: str
    """How sure they are: high or medium."""
    note: str = ""
    """What else to know."""
    network_bandwidth: float = _NETWORK * 1e9
    """What it sends to devices of other domains, one way [bytes/s]."""
    watts: float | None = None
    """Power it may draw [W]; None where nothing is known."""
    kernels: str = "hopper"
    """Whose kernels it is taken to run: a family in `data/throughput.yaml`."""
    measured: MeasuredSpeeds | None = field(default=None, hash=False)  # it holds dicts
    """What it was measured to do; None for bundled devices, and files without such a block."""

    def peak(self, precision: Precision = "bf16") -> float:
        """Dense peak [FLOP/s]; raises `UsageError` for fp8 on a device without it."""
        if precision == "bf16":
            return self.bf16_flops
        if precision != "fp8":
            raise UsageError(f"precision {precision!r} must be bf16 or fp8")
        if self.fp8_flops is None:
            raise UsageError(f"device {self.name} has no fp8 peak; use bf16")
        return self.fp8_flops


@dataclass(frozen=True)
class Gpus:
    """A number of equal devices, "256xH100"."""

    count: int
    """How many."""
    device: Device
    """Which."""
    file: str = ""
    """The user's file that describes it; "" for a bundled device."""

    def __str__(self) -> str:
        return f"{self.count}x{self.file or self.device.name}"


@dataclass(frozen=True)
class PublishedMfu:
    """The utilisation that one published run reached."""

    run: str
    """Model and run."""
    hardware: str
    """Hardware as published."""
    mfu: tuple[float, float] | None
    """Lowest and highest share of the dense bf16 peak; None where the device is not known."""
    active_params: float | None
    """The model's active params."""
    granularity: float | None
    """The model's granularity; None for dense models and where unknown."""
    precision: str
    """bf16 or fp8 matrix products; the share is of the bf16 peak either way."""
    source: str
    """Where it is published."""
    confidence: str
    """How sure it is."""
    note: str
    """What else to know."""


@dataclass(frozen=True)
class GpuTime:
    """GPU time and money of training on given devices at a given utilisation."""

    gpus: Gpus
    """The devices."""
    mfu: float
    """Share of the peak assumed."""
    precision: Precision
    """Which peak."""
    gpu_hours: float
    """Device-hours in all."""
    days: float
    """Days from start to end."""
    price_per_gpu_hour: float | None = None
    """Price of a device-hour, in any currency."""

    @property
    def money(self) -> float | None:
        """gpu_hours times the price, in its currency; None without a price."""
        return None if self.price_per_gpu_hour is None else self.gpu_hours * self.price_per_gpu_hour


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", re.sub(r"\(.*\)", "", name.lower()))


@functools.cache
def bundled(name: str) -> FileSection:
    """A data file of this package, read strictly; the same for all who ask, so to be left as it is."""
    return read_yaml((resources.files("moeplan") / "data" / name).read_text(encoding="utf-8"), name)


_LEAST, _MOST = 1e-3, 1e9
"""Between what every figure of a device lies, in the units of its file."""


def _device(row: FileSection) -> Device:
    row.only(_DEVICE_KEYS, _DEVICE_REQUIRED)

    def amount(key: str, unit: float) -> float:
        value = row.number(key)
        if value <= 0:
            raise row.error(key, f"is {value:g}, must be above 0")
        if not _LEAST <= value <= _MOST:
            raise row.error(key, f"is {value:g}, must be from {_LEAST:g} to {_MOST:g}")
        return value * unit

    return Device(
        row.text("name"),
        amount("bf16_tflops", 1e12),
        amount("fp8_tflops", 1e12) if "fp8_tflops" in row else None,
        round(amount("memory_gb", 1e9)),
        amount("bandwidth_gbs", 1e9),
        amount("link_gbs", 1e9) if "link_gbs" in row else None,
        max(1, int(amount("link_domain", 1))) if "link_domain" in row else 1,
        row.text("source"),
        row.text("confidence"),
        row.text("note", ""),
        amount("network_gbs", 1e9) if "network_gbs" in row else _NETWORK * 1e9,
        amount("watts", 1.0) if "watts" in row else None,
        row.text("kernels", "hopper"),
        read_measured(row.section("measured"), f"{row.file}: measured") if "measured" in row else None,
    )


@functools.cache
def devices() -> dict[str, Device]:
    """The bundled devices by name, in the order of the data file."""
    return {device.name: device for device in (_device(row) for row in bundled("hardware.yaml").sections("devices"))}


@functools.cache
def _spellings() -> dict[str, str]:
    rows = bundled("hardware.yaml").sections("devices")
    return {_plain(name): row["name"] for row in rows for name in (row["name"], *row.get("aliases", ()))}


@functools.cache
def _defaults() -> dict[str, str]:
    """Names that several devices have, each with the one that it is taken to mean."""
    rows = bundled("hardware.yaml").sections("devices")
    return {_plain(row["default_for"]): row["name"] for row in rows if "default_for" in row}


def assumed_device(text: str) -> str:
    """What "8xA100" is taken to mean, in a sentence; "" where a name is of one device alone."""
    name = text.rpartition("x")[2].strip()
    taken = _defaults().get(_plain(name))
    others = [x for x in devices() if taken and x != taken and _plain(x).startswith(_plain(name))]
    return f"{name} is taken to mean {taken}; write {' or '.join(others)} for another" if taken else ""


def bundled_device(name: str) -> Device | None:
    """The bundled device that a driver means: "NVIDIA H100 80GB HBM3" is the H100; None for others.

    A spelling counts if it is whole words of the name, the longest if several are.
    """
    words = re.findall(r"[a-z0-9]+", name.lower())
    runs = {"".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, len(words) + 1)}
    inside = [spelling for spelling in _spellings() if spelling in runs]
    return devices()[_spellings()[max(inside, key=len)]] if inside else None


def device_file(row: dict[str, Any]) -> str:
    """The text of a device's file."""
    import yaml

    return str(yaml.safe_dump(row, sort_keys=False, width=100))


def read_device(text: str, file: str) -> Device:
    """The device of a file's text; raises `UsageError` with file, line and key of what is wrong."""
    return _device(read_yaml(text, file))


def load_device(name: str | Path) -> Device:
    """A device by name ("H100", "a100-80gb", "MI300X") or from a user's YAML file of one row.

    Raises `UsageError` for an unknown name, with the nearest ones, and for a file that is not a device.
    """
    text = str(name)
    if _is_file(text):
        return read_device(read_text_file(Path(text)), text)
    if re.search(r"\.\w+$|[/\\]", text):
        raise UsageError(
            f"{text}: a device's file is YAML, named .yaml; moeplan hardware lists the devices with a name"
        )
    spellings = _spellings()
    plain = _plain(text)
    taken = spellings.get(plain) or _defaults().get(plain)
    if taken:
        return devices()[taken]
    near = [spellings[x] for x in spellings if plain and x.startswith(plain)]
    near = near or [spellings[x] for x in difflib.get_close_matches(plain, spellings, n=3, cutoff=0.5)]
    hint = f"did you mean {' or '.join(dict.fromkeys(near))}?" if near else f"known are {', '.join(devices())}"
    raise UsageError(f"unknown device {text!r}; {hint}")


def parse_gpus(text: str | Gpus) -> Gpus:
    """Read a number of devices: "256xH100", "8 x MI300X", "64xmy/device.yaml"; a bare name is one device.

    Raises `UsageError` for anything else, with the text and an example.
    """
    if isinstance(text, Gpus):
        return text
    match = re.fullmatch(r"\s*(\d+)\s*[xX×*]\s*(.+?)\s*", text)
    if match is None:
        if re.fullmatch(r"\s*[-+\d][-+.\de]*\s*[xX×*]\s*[^\d\s].*", text):
            raise UsageError(f"GPUs {text!r} need a whole number of devices, for example 256xH100")
        if re.fullmatch(r"\s*\d*\s*", text):
            raise UsageError(f"GPUs {text!r} need a device, for example 256xH100")
        return _gpus(1, text.strip())
    nodes = re.fullmatch(r"(\d+)\s*[xX×*]\s*(\D.*)", match[2])
    if nodes:
        product = int(match[1][:9]) * int(nodes[1][:9])
        raise UsageError(f"GPUs {text!r} need one number of devices, for example {product}x{nodes[2]}")
    count = match[1].lstrip("0")
    if not count or len(count) > 7 or int(count) > MOST_GPUS:
        raise UsageError(f"GPUs {text!r} need between 1 and {MOST_GPUS} devices, for example 256xH100")
    return _gpus(int(count), match[2])


def _gpus(count: int, device: str) -> Gpus:
    """So many of a device by its name or file; a file stays named, as commands know its device by no other name."""
    return Gpus(count, load_device(device), device if _is_file(device) else "")


def _is_file(device: str) -> bool:
    """Whether a device is given by its file."""
    return re.search(r"\.ya?ml$", device) is not None


@functools.cache
def _runs() -> tuple[PublishedMfu, ...]:
    runs = []
    for row in bundled("mfu.yaml").sections("runs"):
        mfu = None
        if "mfu_low" in row:
            mfu = row.number("mfu_low"), row.number("mfu_high")
        elif "device" in row:
            peak = load_device(row.text("device")).bf16_flops
            mfu = row.number("tflops_low") * 1e12 / peak, row.number("tflops_high") * 1e12 / peak
        runs.append(
            PublishedMfu(
                row.text("run"),
                row.text("hardware"),
                mfu,
                row.number("active_params") if "active_params" in row else None,
                row.number("granularity") if "granularity" in row else None,
                row.text("precision"),
                row.text("source"),
                row.text("confidence"),
                row.text("note", ""),
            )
        )
    return tuple(runs)


def published_mfu() -> tuple[PublishedMfu, ...]:
    """Published runs, to hold predictions against."""
    return _runs()


def _share(mfu: float) -> float:
    if not 0 < mfu <= 1:
        raise UsageError(f"mfu {mfu!r} must be above 0 and at most 1, for example 0.35")
    return mfu


def flops_of_time(gpus: Gpus, days: float, mfu: float, precision: Precision = "bf16") -> float:
    """Training compute that GPU time buys [FLOPs]: gpus * seconds * peak * mfu.

    Raises `UsageError` for a time or share that cannot be.
    """
    if not (math.isfinite(days) and days > 0):
        raise UsageError(f"days {days!r} must be above 0 and finite, for example 30")
    return gpus.count * days * 86400 * gpus.device.peak(precision) * _share(mfu)


def gpu_time(
    train_flops: float, gpus: Gpus, mfu: float, precision: Precision = "bf16", price_per_gpu_hour: float | None = None
) -> GpuTime:
    """GPU-hours, days and money of `train_flops` [FLOPs]: FLOPs / (peak * mfu), shared by all devices.

    Raises `UsageError` for a share or price that cannot be.
    """
    if price_per_gpu_hour is not None and not (math.isfinite(price_per_gpu_hour) and price_per_gpu_hour >= 0):
        raise UsageError(f"price_per_gpu_hour {price_per_gpu_hour!r} must be at least 0 and finite, for example 2.5")
    hours = train_flops / (gpus.device.peak(precision) * _share(mfu)) / 3600
    return GpuTime(gpus, mfu, precision, hours, hours / gpus.count / 24, price_per_gpu_hour)
