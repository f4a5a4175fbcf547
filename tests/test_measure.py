"""`moeplan hardware --measure` on a CPU: a file that every command reads, alone and under torchrun."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from click.testing import CliRunner

from moeplan.cli import cli
from moeplan.cost.devices import load_device

pytestmark = [
    pytest.mark.verify,
    pytest.mark.skipif(find_spec("torch") is None, reason="needs torch (the extra verify)"),
]
ROOT = Path(__file__).resolve().parents[1]


def test_measuring_writes_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file has every speed and is read as a device; JSON holds the same."""
    from moeplan.verification import measure

    monkeypatch.setattr(measure, "SUSTAINED_SECONDS", 0.1)
    quick = dataclasses.replace(measure.SIZES["cpu"], repeat_seconds=0.01, product=256, moved=(512, 64))
    monkeypatch.setitem(measure.SIZES, "cpu", quick)
    file = tmp_path / "mine.yaml"
    answer = CliRunner().invoke(cli, ["hardware", "--measure", "--device", "cpu", "--output", str(file), "--json"])
    assert answer.exit_code == 0, answer.output
    device = load_device(file)
    found = device.measured
    assert found is not None
    assert json.loads(answer.stdout)["devices"][0]["measured"]["product_flops"] == found.product_flops
    assert device.bf16_flops == pytest.approx(found.product_flops, rel=1e-4)
    assert found.dense_layer.graph_seconds is None
    assert found.moe_layer.expert_products in ("blocks", "grouped_mm")
    assert found.moe_layer.flops / found.moe_layer.seconds < 10 * found.product_flops
    assert found.all_to_all == {}
    assert 0 < found.launch_seconds < found.sync_seconds
    shown = CliRunner().invoke(cli, ["hardware", str(file)])
    assert "Measured:" in shown.output


def test_ranks_of_a_torchrun_measure_their_links(tmp_path: Path) -> None:
    """Two processes of one node exchange what they hold; the first answers for both."""
    code = (
        "import sys; from moeplan.verification import measure, collectives\n"
        "collectives.BYTES = {'cpu': 2**16}\n"
        "from moeplan.records import to_json; import json, torch\n"
        "with collectives.group('cpu') as ranks:\n"
        "    where = torch.device('cpu')\n"
        "    found = [ranks.all_to_all(where), ranks.all_gather(where)]\n"
        "    if ranks.rank == 0:\n"
        "        open(sys.argv[1], 'w').write(json.dumps(to_json(found)))\n"
    )
    script = tmp_path / "ranks.py"
    script.write_text(code, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(
        [*command, str(tmp_path / "found")], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    all_to_all, all_gather = json.loads((tmp_path / "found").read_text())
    assert set(all_to_all) == set(all_gather) == {"node"}
    sent = all_to_all["node"]
    assert (sent["ranks"], sent["bytes_per_rank"]) == (2, 2**16)
    assert sent["bytes_per_second"] == pytest.approx(2**15 / sent["seconds"])
    assert all_gather["node"]["bytes_per_rank"] == 2**15


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["H100", "--measure"], "leave out NAME"),
        (["--output", "x.yaml"], "--output is for --measure"),
        (["--measure", "--output", "no/such/folder/x.yaml"], "there is no folder"),
    ],
)
def test_wrong_requests_are_refused(arguments: list[str], answer: str) -> None:
    """Before anything is measured, in a sentence, with exit code 2."""
    found = CliRunner().invoke(cli, ["hardware", *arguments])
    assert found.exit_code == 2
    assert answer in found.output
