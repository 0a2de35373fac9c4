"""What is on the page and where; `handlers.py` says what happens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio import themes

from minimind.ui.answering import Sampling
from minimind.ui.conversation import Conversation
from minimind.ui.tokens import nothing
from minimind.ui.words import SUGGESTIONS, Language, word

HERE = Path(__file__).parent
FONTS = ("system-ui", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "WenQuanYi Micro Hei",
         "sans-serif")  # fmt: skip
"""The reader's own; Gradio's default theme would bring others."""
LONGEST_ANSWER = 4096
"""Where a server doesn't tell its context."""


def theme() -> themes.Base:
    """Return colours and fonts; nothing of it is fetched."""
    return themes.Soft(
        primary_hue="indigo",
        neutral_hue="slate",
        font=FONTS,
        font_mono=("ui-monospace", "Consolas", "monospace"),
    ).set(
        body_background_fill="*neutral_50",
        body_text_color_subdued="*neutral_500",  # the theme's own is too pale to be read
        body_text_color_subdued_dark="*neutral_400",
        input_border_width="1px",
        block_title_background_fill="transparent",
        block_title_background_fill_dark="transparent",
        block_title_text_color="*body_text_color",
        block_title_text_color_dark="*body_text_color",
        block_title_padding="0",
        block_title_text_weight="600",
    )


@dataclass(frozen=True, kw_only=True)
class Page:
    """The components that events read and change."""

    conversation: gr.State
    header: gr.HTML
    other_language: gr.Button
    tab_chat: gr.Tab
    tab_tokens: gr.Tab
    chat: gr.Chatbot
    message: gr.Textbox
    image: gr.UploadButton
    send: gr.Button
    stop: gr.Button
    figures: gr.HTML
    again: gr.Button
    clear: gr.Button
    save_json: gr.Button
    save_markdown: gr.Button
    download: gr.Textbox
    model: gr.Dropdown
    reload: gr.Button
    status: gr.HTML
    system: gr.Textbox
    sampling: gr.Accordion
    temperature: gr.Slider
    top_p: gr.Slider
    top_k: gr.Slider
    min_p: gr.Slider
    repetition: gr.Slider
    max_tokens: gr.Slider
    seed: gr.Textbox
    guide: gr.HTML
    tokens: gr.HTML
    timer: gr.Timer

    @property
    def controls(self) -> list[Any]:
        """The inputs of a request, in the order in which `handlers.sampling_of` takes them."""
        return [self.temperature, self.top_p, self.top_k, self.min_p, self.repetition,
                self.max_tokens, self.seed]  # fmt: skip

    def relabelled(self, language: Language) -> dict[Any, Any]:
        """Return the updates that bring every word of the page into `language`."""

        def labels(name: str, *, hint: str = "info") -> dict[str, Any]:
            return {"label": word(name, language), hint: word(f"{name}_hint", language)}

        hinted = ("temperature", "top_p", "top_k", "min_p", "repetition", "seed")
        updates = {getattr(self, name): gr.update(**labels(name)) for name in hinted}
        buttons = ("other_language", "send", "stop", "again", "clear", "save_json", "save_markdown",
                   "reload")  # fmt: skip
        updates |= {getattr(self, name): gr.update(value=word(name, language)) for name in buttons}
        updates[self.image] = gr.update(label=word("image", language))
        for name in ("tab_chat", "tab_tokens", "model", "sampling", "max_tokens"):
            updates[getattr(self, name)] = gr.update(label=word(name, language))
        return updates | {
            self.header: header(language),
            self.chat: gr.update(
                placeholder=word("empty", language), examples=suggestions(language)
            ),
            self.message: gr.update(placeholder=word("message", language)),
            self.system: gr.update(**labels("system", hint="placeholder")),
            self.guide: guide(language),
        }


def header(language: Language) -> str:
    """Return the name and what it is for; the attribute tells scripts and readers the language."""
    text = word("tagline", language)
    return f'<div class="mm-header" lang="{language}"><h1>MiniMind</h1><p>{text}</p></div>'


def guide(language: Language) -> str:
    """Return what to look for in the second tab."""
    return f'<p class="mm-guide">{word("guide", language)}</p>'


def suggestions(language: Language) -> list[dict[str, str]]:
    """Return first messages to click on."""
    return [{"text": text, "display_text": text} for text in SUGGESTIONS[language]]


def build(
    language: Language, attach: Callable[[Page], None], *, sampling: Sampling | None = None
) -> gr.Blocks:
    """Return the page.

    Args:
        language: of the first paint; the browser's own follows when the page has loaded.
        attach: adds the events.
        sampling: where the controls stand at first.
    """
    with gr.Blocks(title="MiniMind", analytics_enabled=False, fill_width=True) as blocks:
        parts: dict[str, Any] = {"conversation": gr.State(Conversation(language=language))}
        with gr.Row(elem_id="top"):
            parts["header"] = gr.HTML(header(language), elem_id="header")
            parts["other_language"] = gr.Button(
                word("other_language", language), size="sm", elem_id="language", scale=0
            )
        with gr.Tabs(elem_id="tabs"):
            with (
                gr.Tab(word("tab_chat", language), elem_id="tab-chat", id="chat") as tab_chat,
                gr.Row(elem_id="columns"),
            ):
                with gr.Column(scale=3, min_width=320):
                    parts |= _talk(language)
                with gr.Column(scale=1, min_width=280):
                    parts |= _settings(language, sampling or Sampling())
            with gr.Tab(
                word("tab_tokens", language),
                elem_id="tab-tokens",
                id="tokens",
                render_children=True,
            ) as tab_tokens:
                parts["guide"] = gr.HTML(guide(language), elem_id="guide")
                parts["tokens"] = gr.HTML(
                    nothing("no_answer", language),
                    elem_id="tokens",
                    js_on_load=_script("tokens.js"),
                )
        parts |= {"tab_chat": tab_chat, "tab_tokens": tab_tokens, "timer": gr.Timer(1.0)}
        attach(Page(**parts))
    return blocks


def _talk(language: Language) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    parts["chat"] = gr.Chatbot(
        show_label=False, container=False, height="58vh", min_height=320, elem_id="chat",
        buttons=[], allow_tags=False, sanitize_html=True, layout="bubble",
        group_consecutive_messages=False, feedback_options=None, allow_file_downloads=False,
        placeholder=word("empty", language), examples=suggestions(language),  # pyright: ignore
    )  # fmt: skip
    parts["figures"] = gr.HTML("", elem_id="figures")
    with gr.Row(elem_id="write"):
        parts["message"] = gr.Textbox(
            show_label=False, container=False, lines=1, max_lines=8, scale=8, autofocus=True,
            placeholder=word("message", language), elem_id="message",
        )  # fmt: skip
        parts["image"] = gr.UploadButton(
            word("image", language), file_types=["image"], type="filepath", scale=0, min_width=84,
            visible=False, elem_id="image",
        )  # fmt: skip
        parts["send"] = gr.Button(
            word("send", language), variant="primary", scale=1, min_width=90, elem_id="send"
        )
        parts["stop"] = gr.Button(
            word("stop", language), variant="stop", scale=1, min_width=90, elem_id="stop",
            visible=False,
        )  # fmt: skip
    with gr.Row(elem_id="actions"):
        for name in ("again", "clear", "save_json", "save_markdown"):
            parts[name] = gr.Button(
                word(name, language), size="sm", min_width=80, elem_id=name.replace("_", "-")
            )
    parts["download"] = gr.Textbox(visible="hidden", show_label=False, elem_id="download")
    return parts


def _settings(language: Language, at: Sampling) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    parts["model"] = gr.Dropdown([], label=word("model", language), elem_id="model")
    with gr.Row(elem_id="connection"):
        parts["status"] = gr.HTML("", elem_id="status")
        parts["reload"] = gr.Button(
            word("reload", language), size="sm", scale=0, min_width=84, elem_id="reload"
        )
    parts["system"] = gr.Textbox(
        label=word("system", language), placeholder=word("system_hint", language), lines=2,
        max_lines=8, elem_id="system",
    )  # fmt: skip

    def slider(name: str, low: float, high: float, step: float, value: float) -> None:
        hint = "" if name == "max_tokens" else word(f"{name}_hint", language)
        parts[name] = gr.Slider(
            low, high, value=value, step=step, label=word(name, language), info=hint or None,
            elem_id=name.replace("_", "-"), buttons=[],
        )  # fmt: skip

    with gr.Accordion(word("sampling", language), open=True, elem_id="sampling") as accordion:
        slider("temperature", 0.0, 2.0, 0.05, at.temperature)
        slider("top_p", 0.05, 1.0, 0.05, at.top_p)
        slider("top_k", 0, 200, 1, at.top_k)
        slider("min_p", 0.0, 0.5, 0.01, at.min_p)
        slider("repetition", 1.0, 2.0, 0.05, at.repetition_penalty)
        slider("max_tokens", 1, LONGEST_ANSWER, 1, at.max_tokens)
        parts["seed"] = gr.Textbox(  # a number field would say 0 where it is empty
            "" if at.seed is None else str(at.seed), label=word("seed", language),
            info=word("seed_hint", language), max_lines=1, elem_id="seed",
        )  # fmt: skip
    return parts | {"sampling": accordion}


def _script(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
