"""Run a command and print its wall time [s] and its peak memory [bytes] as JSON: `python measure.py COMMAND...`.

A process of its own, because Linux counts the peak of whoever starts a command as the command's own.
"""

import json
import os
import subprocess
import sys
import time

start = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
seconds = time.perf_counter() - start
unit = 1 if sys.platform == "darwin" else 1024
print(json.dumps({"seconds": seconds, "peak_bytes": usage.ru_maxrss * unit}))
sys.exit(os.waitstatus_to_exitcode(status))
