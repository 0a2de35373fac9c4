"""What happens on the page: each method is an event, and returns what changes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from html import escape
from typing import Any

import gradio as gr

from minimind.errors import DataError
from minimind.ui import models as models_of
from minimind.ui.answering import Sampling, answer
from minimind.ui.client import Server, ServerError
from minimind.ui.conversation import (
    Conversation,
    Turn,
    explained,
    figures,
    shown,
    to_json,
    to_markdown,
)
from minimind.ui.images import attach
from minimind.ui.page import Page
from minimind.ui.tokens import nothing, render
from minimind.ui.words import language_of, word

Updates = dict[Any, Any]

SOON, SELDOM = 1.0, 5.0
"""Seconds between looks at the server's models: until there are some, and from then on."""

DOWNLOAD = """
(given) => {
  const [name, type, text] = JSON.parse(given);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
"""


def sampling_of(
    temperature: float, top_p: float, top_k: float, min_p: float, repetition: float,
    max_tokens: float, seed: str,
) -> Sampling:  # fmt: skip
    """Return what the controls say; an emptied field counts as its neutral value.

    Raises:
        ValueError: the seed is no whole number.
    """
    return Sampling(
        temperature=temperature or 0.0,
        top_p=top_p or 1.0,
        top_k=int(top_k or 0),
        min_p=min_p or 0.0,
        repetition_penalty=repetition or 1.0,
        max_tokens=max(1, int(max_tokens or 1)),
        seed=int(seed) if (seed or "").strip() else None,
    )


class Handlers:
    """The events of one page, for all who have it open.

    Attributes:
        open: conversations by the session of the browser tab.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.open: dict[str, Conversation] = {}
        self._page: Page | None = None

    @property
    def page(self) -> Page:
        """The components."""
        assert self._page is not None, "attach comes first"
        return self._page

    def attach(self, page: Page) -> None:
        """Add the events; within `gr.Blocks`."""
        self._page = page
        self._attach_answers(page)
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        held = [page.conversation]
        seen = [page.model, page.status, page.max_tokens, page.timer, page.image]
        page.stop.click(self.stop, held, queue=False, **quiet)
        page.clear.click(
            self.clear, held, [page.chat, page.figures, page.tokens, page.message], **quiet
        )
        for button, fn in ((page.save_json, self.as_json), (page.save_markdown, self.as_markdown)):
            written = button.click(fn, held, page.download, **quiet)
            written.then(None, page.download, js=DOWNLOAD, **quiet)
        words = [*page.relabelled("en"), page.figures, page.tokens, *seen]
        words = list(dict.fromkeys(words))
        look = [*held, page.model, page.max_tokens]
        page.other_language.click(self.switch, look, words, **quiet)
        page.image.upload(self.attach_image, [page.image, *held], [page.figures], **quiet)
        page.timer.tick(self.look, look, seen, concurrency_limit=None, **quiet)
        page.reload.click(self.look, look, seen, **quiet)
        page.model.change(self.chosen, look, [page.max_tokens, page.status, page.image], **quiet)
        blocks = gr.context.Context.root_block  # pyright: ignore
        blocks.load(self.opened, look, words, **quiet)
        blocks.unload(self.closed)

    def _attach_answers(self, page: Page) -> None:
        said = [page.conversation, page.model, page.system, *page.controls]
        changed = [page.chat, page.message, page.send, page.stop, page.figures, page.tokens]
        quiet: dict[str, Any] = {
            "show_progress": "hidden",
            "api_visibility": "private",
            "concurrency_limit": None,
        }
        for event in (page.message.submit, page.send.click):
            event(self.ask, [page.message, *said], changed, **quiet)
        page.again.click(self.again, said, changed, **quiet)
        page.chat.example_select(self.suggested, said, changed, **quiet)

    # Answers

    async def ask(
        self, request: gr.Request, text: str, conversation: Conversation, model: str | None,
        system: str, *controls: Any,
    ) -> AsyncIterator[Updates]:  # fmt: skip
        """Answer a message."""
        if not text.strip() or conversation.busy:
            yield {self.page.send: gr.skip()}
            return
        self.open[request.session_hash or ""] = conversation
        image, conversation.image = conversation.image, None
        turn = Turn(user=text, image=image, model=model or "")
        async for updates in self._answer(conversation, turn, system, controls):
            yield updates

    async def suggested(
        self, request: gr.Request, picked: gr.SelectData, conversation: Conversation,
        model: str | None, system: str, *controls: Any,
    ) -> AsyncIterator[Updates]:  # fmt: skip
        """Answer a message that the page suggested."""
        text = str(picked.value["text"])
        async for updates in self.ask(request, text, conversation, model, system, *controls):
            yield updates

    async def again(
        self, request: gr.Request, conversation: Conversation, model: str | None, system: str,
        *controls: Any,
    ) -> AsyncIterator[Updates]:  # fmt: skip
        """Answer the last message anew; the old answer stays where no new one comes."""
        if not conversation.turns or conversation.busy:
            yield {self.page.send: gr.skip()}
            return
        self.open[request.session_hash or ""] = conversation
        before = conversation.turns[-1]
        turn = Turn(user=before.user, image=before.image, model=model or "")
        async for updates in self._answer(conversation, turn, system, controls, replaced=before):
            yield updates

    async def _answer(
        self, conversation: Conversation, turn: Turn, system: str, controls: tuple[Any, ...], *,
        replaced: Turn | None = None,
    ) -> AsyncIterator[Updates]:  # fmt: skip
        page, language = self.page, conversation.language
        try:
            sampling = sampling_of(*controls)
        except ValueError:
            yield {page.figures: _line(word("bad_seed", language, seed=controls[-1]))}
            return
        conversation.turns[-1 if replaced else len(conversation.turns) :] = [turn]
        conversation.system = system or ""
        running = {page.send: gr.update(visible=False), page.stop: gr.update(visible=True),
                   page.figures: _line(word("answering", language))}  # fmt: skip
        emptied = {} if replaced else {page.message: ""}
        yield self._view(conversation) | running | emptied
        async for _ in answer(self.server, conversation, turn, sampling):
            yield self._view(conversation)
        if replaced and not turn.answer:
            turn.keep(replaced)
        yield self._view(conversation) | {
            page.send: gr.update(visible=True),
            page.stop: gr.update(visible=False),
            page.figures: _line(figures(turn, conversation.language)),
            page.tokens: self._tokens(conversation),
        }

    def _view(self, conversation: Conversation) -> Updates:
        turns, language = conversation.turns, conversation.language
        return {self.page.chat: shown(turns, language, url=self.server.url)}

    def _tokens(self, conversation: Conversation) -> str:
        language = conversation.language
        if not conversation.turns or not conversation.turns[-1].answer:
            return nothing("no_answer", language)
        tokens = conversation.turns[-1].tokens
        return render(tokens, language) if tokens else nothing("no_logprobs", language)

    def attach_image(self, path: str | None, conversation: Conversation) -> str:
        """Take an image for the next message, or say why not."""
        language = conversation.language
        if path is None:
            return ""
        try:
            conversation.image = attach(path)
        except DataError as error:
            return _line(word("bad_image", language, message=str(error)))
        return _line(word("attached", language, name=conversation.image.name))

    def stop(self, conversation: Conversation) -> None:
        """End the answer that is coming; the rest of the page follows from its end."""
        conversation.stop()

    def clear(self, conversation: Conversation) -> tuple[Any, ...]:
        """Begin anew."""
        conversation.stop()
        conversation.turns.clear()
        conversation.image = None
        return [], "", self._tokens(conversation), gr.skip()

    def as_json(self, conversation: Conversation) -> str:
        """Hand the conversation to the script that saves it."""
        return json.dumps(["conversation.json", "application/json", to_json(conversation)])

    def as_markdown(self, conversation: Conversation) -> str:
        """Hand the conversation to the script that saves it."""
        return json.dumps(["conversation.md", "text/markdown", to_markdown(conversation)])

    # The page itself

    async def opened(
        self, request: gr.Request, conversation: Conversation, model: str | None, length: float
    ) -> Updates:
        """Speak the browser's language, and look for models."""
        conversation.language = language_of(request.headers.get("accept-language"))
        return await self._words(conversation, model, length)

    def closed(self, request: gr.Request) -> None:
        """End what a closed tab was still waiting for."""
        conversation = self.open.pop(request.session_hash or "", None)
        if conversation is not None:
            conversation.stop()

    async def switch(self, conversation: Conversation, model: str | None, length: float) -> Updates:
        """Change the language; the conversation stays."""
        conversation.language = "en" if conversation.language == "zh" else "zh"
        return await self._words(conversation, model, length)

    async def _words(self, conversation: Conversation, model: str | None, length: float) -> Updates:
        language = conversation.language
        turn = conversation.turns[-1] if conversation.turns else None
        updates = self.page.relabelled(language) | {self.page.tokens: self._tokens(conversation)}
        if turn and not conversation.busy:
            updates |= self._view(conversation)
            updates[self.page.figures] = _line(figures(turn, language))
        conversation.status, conversation.models, conversation.sees = "", (), False
        for component, update in (await self.look(conversation, model, length)).items():
            before = updates.get(component)
            if isinstance(before, dict) and isinstance(update, dict):
                update = before | update  # the label of the choice, and what to choose from
            updates[component] = update
        return updates

    # The server's models

    async def look(self, conversation: Conversation, model: str | None, length: float) -> Updates:
        """See which models there are; nothing changes on the page where nothing did."""
        page, language = self.page, conversation.language
        try:
            models = await self.server.models()
        except ServerError as error:
            loading = error.status == 503 and error.code == "loading"
            why = explained(error, language, url=self.server.url)
            updates = self._status(conversation, word("loading", language) if loading else why)
            return updates | {page.timer: gr.update(value=SOON)}
        choices = models_of.choices(models, language)
        ids = [one.id for one in models]
        value = model if model in ids else next(iter(ids), None)
        updates = self._status(
            conversation, models_of.about(models, value, language, url=self.server.url)
        )
        updates |= self._eyes(conversation, models_of.sees(models, value))
        if choices != conversation.models or value != model:
            conversation.models = choices
            updates[page.model] = gr.update(choices=list(choices), value=value)
            updates |= self._limit(models_of.longest(models, value), length)
        return updates | {page.timer: gr.update(value=SELDOM if models else SOON)}

    async def chosen(self, conversation: Conversation, model: str | None, length: float) -> Updates:
        """Fit the page to the model that was chosen."""
        try:
            models = await self.server.models()
        except ServerError:
            return {self.page.status: gr.skip()}  # the next look says it
        about = models_of.about(models, model, conversation.language, url=self.server.url)
        limit = self._limit(models_of.longest(models, model), length)
        eyes = self._eyes(conversation, models_of.sees(models, model))
        return self._status(conversation, about) | limit | eyes

    def _eyes(self, conversation: Conversation, sees: bool) -> Updates:
        """Show the button for images to models that read them."""
        if conversation.sees == sees:
            return {}
        conversation.sees = sees
        if not sees:
            conversation.image = None
        return {self.page.image: gr.update(visible=sees)}

    def _limit(self, longest: int, length: float) -> Updates:
        return {self.page.max_tokens: gr.update(maximum=longest, value=min(length, longest))}

    def _status(self, conversation: Conversation, text: str) -> Updates:
        if conversation.status == text:
            return {self.page.status: gr.skip()}
        conversation.status = text
        return {self.page.status: _line(text)}


def _line(text: str) -> str:
    return f"<p>{escape(text)}</p>" if text else ""
