"""The page that a bundle opens with: what it is, how to draw with it, how good it is, where it came from."""

from collections.abc import Mapping
from typing import Any

TEMPLATE = """\
# {name}

A small generator of cats, {size} x {size} pixels, found by catsweep{chosen}.

![samples](samples.png)

## Draw

```python
import numpy as np, onnxruntime                      # pip install numpy onnxruntime pillow
from PIL import Image

latents = np.random.default_rng(0).standard_normal((1, {latent_size}), dtype=np.float32)    # any number of rows
images = onnxruntime.InferenceSession("generator.onnx").run(["images"], {{"latents": latents}})[0]
Image.fromarray((images[0].transpose(1, 2, 0) * 255).round().astype(np.uint8)).save("cat.png")
```

## Scores

{scores}

## Files

| file | what it is |
| --- | --- |
| `generator.onnx` | `latents` float32 (N, {latent_size}), standard normal, to `images` float32 \
(N, 3, {size}, {size}) in [0, 1]; any N; max difference to torch {difference:.1e} |
| `model.safetensors` | the weights it draws with, for `config.yaml` |
| `config.yaml` | every setting of the run |
| `metrics.json` | the scores, each with the card that says how it was measured |
| `provenance.json` | code, data, seed, versions; study and trial; how the export was checked |
| `samples.png` | 64 images drawn from `generator.onnx`, from the same latents for every bundle of this latent size |
"""


def compose(
    name: str,
    latent_size: int,
    image_size: int,
    difference: float,
    chosen: Mapping[str, Any] | None,
    metrics: Mapping[str, Any],
) -> str:
    """Write the page.

    Args:
        name: of the bundle.
        latent_size: length of a latent.
        image_size: side of an image, in pixels.
        difference: largest difference of the ONNX file to torch.
        chosen: content of `choice.json`; `None` for a run that was not chosen from a study.
        metrics: content of `metrics.json`.

    Returns:
        Markdown.
    """
    origin = f": trial {chosen['trial']} of study {chosen['study']}, {chosen['selected_by']}" if chosen else ""
    return TEMPLATE.format(
        name=name,
        size=image_size,
        latent_size=latent_size,
        difference=difference,
        chosen=origin,
        scores=_scores(metrics),
    )


def _scores(metrics: Mapping[str, Any]) -> str:
    rows = ["| score | value | extractor | samples |", "| --- | ---: | --- | ---: |"]
    for key, value in metrics["scores"].items():
        card = metrics.get("cards", {}).get(key, {})
        rows.append(f"| {key} | {value:.4g} | {card.get('extractor', '')} | {card.get('samples', '')} |")
    return "\n".join(rows)
