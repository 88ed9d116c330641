"""catsweep: sweep a folder of cat photos into the best small generator of cats a budget can find."""

import os

# ONNX Runtime reports its use to Microsoft from 1.29 on, unless this is set before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
