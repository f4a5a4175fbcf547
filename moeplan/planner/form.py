"""What the page needs to draw its form: the fields, values that sliders stop at, laws, design variables, exports."""

from __future__ import annotations

import dataclasses
from typing import Any

from moeplan.cost.devices import devices
from moeplan.laws import law_names, load_law
from moeplan.laws.roles import OBJECTIVE_LAWS
from moeplan.plan.export import TARGETS
from moeplan.plan.search.variables import DESIGN_VARIABLES
from moeplan.planner.fields import Fields

_MANTISSAS = ("1", "1.2", "1.5", "2", "2.5", "3", "4", "5", "6", "7", "8.5")
_GIGABYTES = (
    4,
    6,
    8,
    10,
    12,
    16,
    20,
    24,
    32,
    40,
    48,
    64,
    80,
    96,
    128,
    141,
    160,
    192,
    256,
    288,
    320,
    384,
    480,
    512,
    640,
)
_TERABYTES = (0.768, 1, 1.28, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)
_DAYS = (1, 2, 3, 4, 5, 6, 7, 10, 14, 18, 21, 25, 30, 35, 40, 45, 50, 60, 75, 90, 120, 150, 180, 270, 365)
STOPS: dict[str, list[str]] = {
    "flops": [f"{mantissa}e{power}" for power in range(18, 27) for mantissa in _MANTISSAS],
    "memory": [*(f"{size}GB" for size in _GIGABYTES), *(f"{size:g}TB" for size in _TERABYTES)],
    "days": [str(days) for days in _DAYS],
    "gpus": [str(count * 2**power) for power in range(16) for count in ((2, 3) if power else (1, 2, 3))],
    "context": [str(2**power) for power in range(9, 21)],
    "concurrency": [str(2**power) for power in range(13)],
    "headroom": [f"{share / 100:g}" for share in range(0, 55, 5)],
}
"""Values that the sliders of fields stop at, as they are typed; of GPUs the number."""


def form_of(fields: Fields) -> dict[str, Any]:
    """The form as JSON."""
    laws = [law for law in map(load_law, law_names()) if law.can_search]
    return {
        "fields": [{**dataclasses.asdict(field), "stops": STOPS.get(field.name, [])} for field in fields.values()],
        "laws": [
            {"name": law.name, "title": law.title, "chosen": law.name in OBJECTIVE_LAWS}
            for law in sorted(laws, key=lambda law: (law.name not in OBJECTIVE_LAWS, law.name))
        ],
        "variables": [{"name": name, "meaning": variable.meaning} for name, variable in DESIGN_VARIABLES.items()],
        "devices": list(devices()),
        "exports": dict(TARGETS),
    }
