"""Ask a detector as Frigate does, without Frigate: run `isthmus frigate --bundle FOLDER` first.

python examples/frigate_client.py tcp://127.0.0.1:5555 PICTURES [seconds]

One question every 200 ms, as of a camera whose `detect` is set to 5 frames a second.
"""

import json
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import zmq

SIZE, PATIENCE_MS = 416, 200  # model.width and model.height, request_timeout_ms in Frigate's configuration
PERIOD_S = 0.2

endpoint, folder = sys.argv[1], Path(sys.argv[2])
until = time.monotonic() + float(sys.argv[3]) if len(sys.argv) > 3 else 0.0
detector = zmq.Context().socket(zmq.REQ)
detector.setsockopt(zmq.RCVTIMEO, 10_000)
detector.connect(endpoint)
detector.send_multipart([json.dumps({"model_request": True, "model_name": folder.name}).encode()])
print("model:", detector.recv().decode())

late = asked = 0
while asked == 0 or time.monotonic() < until:
    for path in sorted(folder.iterdir()):
        if (picture := cv2.imread(str(path))) is None:
            continue
        tensor = cv2.cvtColor(cv2.resize(picture, (SIZE, SIZE)), cv2.COLOR_BGR2RGB)[None]
        header = {"shape": tensor.shape, "dtype": tensor.dtype.name, "model_type": "yologeneric"}
        began = time.monotonic()
        detector.send_multipart([json.dumps(header).encode(), tensor.tobytes()])
        rows = np.frombuffer(detector.recv_multipart()[-1], np.float32).reshape(20, 6)
        took_ms = (time.monotonic() - began) * 1e3
        asked, late = asked + 1, late + (took_ms > PATIENCE_MS)
        found = " ".join(f"{int(row[0])}:{row[1]:.2f}" for row in rows if row[1] > 0)
        time.sleep(max(0.0, began + PERIOD_S - time.monotonic()))
        print(f"{path.name}: {took_ms:.0f} ms, {found or 'nothing'}")
print(f"{asked - late} of {asked} replies within {PATIENCE_MS} ms")
