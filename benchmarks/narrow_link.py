"""How many frames the server answers over a narrow link, by policy: the price of the queue at work. Prints one JSON object.

Virtual time, the tests' pair: 15 frames/s, deadline 400 ms, features of 75 to 300 bytes. `python benchmarks/narrow_link.py`
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from pair import Pair

shares = {}
for kbits in (16, 24, 40, 80):
    for policy in ("always-offload", "expected-utility"):
        pair = Pair((3600.0, kbits / 1000, 1.0, 40.0), deadline_s=0.4, policy=policy).connected().run(60)
        answers = pair.between(20, 59)
        shares[f"{kbits} kbit/s, {policy}"] = round(sum(a.source.value == "server" for a in answers) / len(answers), 3)
print(json.dumps(shares, indent=1))
