"""Gradio page of the demo: tabs of cats, of interpolations, and of one's own photo if the model has an encoder.

Each control draws anew when it changes; while a slider moves, only its latest place counts.
"""

import secrets
from collections.abc import Callable
from functools import partial
from html import escape
from typing import Any

import gradio as gr

from catsweep.app.session import Session, command_line, facts_line
from catsweep.errors import CatsweepError

TITLE = "catsweep"
SEEDS = 1_000_000  # of those that "Surprise me" draws
N, MOST = 16, 64
STRONGEST = 3.0  # standard deviations; further out a model has seen next to nothing
STEPS = 24  # of a walk: two seconds from cat to cat
FONT = ["ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "sans-serif"]
MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]
KEPT = 86_400  # seconds that a picture can be downloaded
# One drawing at a time: there is one model, and it takes all cores.
QUIETLY: dict[str, Any] = {
    "show_progress": "hidden", "concurrency_limit": 1, "concurrency_id": "model", "api_visibility": "private",
}  # fmt: skip
ABOUT_PHOTO = (
    "Left: the middle of your photo, as the model sees it. Right: what it draws from what it has understood. "
    "The photo stays on this machine."
)


def theme() -> gr.themes.Base:
    """Theme of the page, with the fonts of the machine."""
    soft = gr.themes.Soft(
        primary_hue="orange", secondary_hue="orange", neutral_hue="stone", radius_size="lg", font=FONT, font_mono=MONO
    )
    return soft.set(
        background_fill_primary="*neutral_50", block_background_fill="white", block_border_width="0px",
        block_title_background_fill="transparent", block_title_background_fill_dark="transparent",
        block_title_text_color="*body_text_color", block_title_text_color_dark="*body_text_color",
        block_title_padding="0", block_title_text_weight="500",
        block_label_background_fill="*block_background_fill", block_label_background_fill_dark="*block_background_fill",
        block_label_text_color="*body_text_color", block_label_text_color_dark="*body_text_color",
        slider_color="*primary_400", slider_color_dark="*primary_500",
        button_large_text_weight="600", button_large_text_size="*text_md",
        button_large_padding="*spacing_md *spacing_xl",
    )  # fmt: skip


def build(session: Session) -> gr.Blocks:
    """Build the page of a session."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(KEPT // 24, KEPT)) as page:
        title = f'<div class="masthead"><h1>cat<b>sweep</b></h1><p>{facts_line(session.source)}</p></div>'
        gr.HTML(title, padding=False)
        with gr.Tabs():
            with gr.Tab("Cats"):
                _cats(page, session)
            with gr.Tab("Walk") as tab:
                _walk(tab, session)
            if session.source.reconstructs:
                with gr.Tab("Your photo"):
                    _photo(session)
    blocks: gr.Blocks = page
    return blocks


def _cats(page: gr.Blocks, session: Session) -> None:
    with gr.Row():
        with gr.Column(scale=3, min_width=320, elem_classes="stays"):
            picture = _picture("A page of drawn cats", "cats", "square")
        with gr.Column(scale=2, min_width=300):
            seed = _seed("Seed", 0, "cats-seed")
            n = gr.Slider(1, MOST, N, step=1, precision=0, label="Cats", elem_id="n")
            truncation = _truncation("truncation")
            sliders = _attributes(session, "cats")
            download = gr.DownloadButton("Download PNG", variant="primary", elem_id="download")
            command = gr.HTML(padding=False)

    def draw(n: int, seed: int | None, truncation: float, *strengths: float) -> tuple[str, str, str]:
        path = session.cats(n, _known(seed), truncation, _named(session, strengths))
        line = escape(command_line(session.source, n, _known(seed), truncation))
        same = f'<div class="note">The same page on the command line: <code>{line}</code></div>'
        return str(path), str(path), "" if any(strengths) else same

    controls: list[Any] = [n, seed, truncation, *sliders]
    _on([page.load, *(control.change for control in controls)], draw, controls, [picture, download, command])


def _walk(tab: gr.Tab, session: Session) -> None:
    with gr.Row():
        with gr.Column(scale=3, min_width=320, elem_classes="stays"):
            picture = _picture("A cat that turns into another and back", "walk", "square")
        with gr.Column(scale=2, min_width=300):
            start, end = _seed("From seed", 0, "start"), _seed("To seed", 1, "end")
            steps = gr.Slider(4, 60, STEPS, step=1, precision=0, label="Steps each way", elem_id="steps")
            truncation = _truncation("walk-truncation")
            with gr.Row():
                webp = gr.DownloadButton("Download WebP", variant="primary", min_width=130, elem_id="download-webp")
                gif = gr.DownloadButton("Download GIF", min_width=130, interactive=False, elem_id="download-gif")

    def draw(start: int | None, end: int | None, steps: int, truncation: float) -> tuple[str, str, Any]:
        path = str(session.walk(_known(start), _known(end), steps, truncation, ".webp"))
        return path, path, gr.DownloadButton(interactive=False)

    def draw_gif(start: int | None, end: int | None, steps: int, truncation: float) -> Any:
        path = str(session.walk(_known(start), _known(end), steps, truncation, ".gif"))
        return gr.DownloadButton(value=path, interactive=True)

    controls: list[Any] = [start, end, steps, truncation]
    drawn = _on([tab.select, *(control.change for control in controls)], draw, controls, [picture, webp, gif])
    drawn.success(draw_gif, controls, gif, **QUIETLY)


def _photo(session: Session) -> None:
    with gr.Row():
        with gr.Column(scale=3, min_width=320):
            photo = gr.Image(
                label="Your photo", type="filepath", image_mode=None, sources=["upload", "clipboard"], buttons=[],
                height=240, elem_id="photo",
            )  # fmt: skip
            # Gradio calls it on this very component; a class of our own would have no part in its page.
            photo.preprocess = _uploaded  # type: ignore[method-assign]  # of this one object, see above
            picture = _picture("Your photo, and beside it what the model makes of it", "pair", "wide", visible=False)
            gr.HTML(f'<div class="note">{ABOUT_PHOTO}</div>', padding=False)
        with gr.Column(scale=2, min_width=300):
            sliders = _attributes(session, "photo")
            download = gr.DownloadButton("Download PNG", variant="primary", interactive=False, elem_id="download-photo")

    def draw(path: str | None, *strengths: float) -> tuple[Any, Any]:
        if path is None:
            return gr.Image(value=None, visible=False), gr.DownloadButton(value=None, interactive=False)
        try:
            drawn = str(session.photo(path, _named(session, strengths)))
        except CatsweepError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return gr.Image(value=drawn, visible=True), gr.DownloadButton(value=drawn, interactive=True)

    controls: list[Any] = [photo, *sliders]
    # The first slider that is moved loads the torch model, which takes seconds: that is shown.
    shown: dict[str, Any] = {"show_progress": "minimal", "show_progress_on": picture}
    _on([control.change for control in controls], draw, controls, [picture, download], **shown)


def _on(events: list[Any], draw: Callable[..., Any], inputs: list[Any], outputs: list[Any], **how: Any) -> Any:
    return gr.on(events, draw, inputs, outputs, trigger_mode="always_last", **(QUIETLY | how))


def _picture(what: str, name: str, shape: str, visible: bool = True) -> gr.Image:
    return gr.Image(
        format="png", type="filepath", interactive=False, show_label=False, buttons=["fullscreen"], alt_text=what,
        elem_id=name, elem_classes=["picture", shape], container=False, visible=visible,
    )  # fmt: skip


def _seed(label: str, value: int, name: str) -> gr.Number:
    with gr.Row(elem_classes="seed"):
        seed = gr.Number(value, label=label, precision=0, step=1, min_width=120, elem_id=name)
        surprise = gr.Button("Surprise me", min_width=120, elem_id=f"{name}-surprise")
    surprise.click(partial(secrets.randbelow, SEEDS), None, seed, show_progress="hidden", api_visibility="private")
    return seed


def _truncation(name: str) -> gr.Slider:
    return gr.Slider(
        0.05, 1, 0.8, step=0.05, label="Truncation", info="Lower: likelier cats, less diversity", elem_id=name
    )


def _attributes(session: Session, name: str) -> list[gr.Slider]:
    return [
        gr.Slider(-STRONGEST, STRONGEST, 0, step=0.1, label=attribute.capitalize(), elem_id=f"{name}-{attribute}")
        for attribute in session.attributes
    ]


def _named(session: Session, strengths: tuple[float, ...]) -> dict[str, float]:
    return dict(zip(session.attributes, strengths, strict=True))


def _uploaded(payload: Any) -> str | None:
    """Path of the uploaded file, for our own reader: Gradio's knows fewer formats and explains less."""
    return None if payload is None else str(payload.path)


def _known(seed: int | None) -> int:
    """Check the seed, which is None while it is being typed."""
    if seed is None or seed < 0:
        raise gr.Error("A seed is a whole number from 0 up.", print_exception=False)
    return seed
