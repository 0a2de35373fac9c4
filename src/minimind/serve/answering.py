"""All answers of one request: prompts are submitted, deltas come out, tokens are counted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

from minimind.errors import ConfigError, DataError
from minimind.inference.backend import BackendClosedError, QueueFullError
from minimind.inference.sampling import SamplingParams
from minimind.serve.choices import Choice, Delta
from minimind.serve.errors import bad_request, queue_full, unavailable
from minimind.serve.registry import Served
from minimind.serve.responses import Usage, usage
from minimind.serve.server import Server


class Answering:
    """The answers to each of some prompts, `n` to each, numbered prompt by prompt.

    Attributes:
        run: their generations.
        choices: their states, by number.
    """

    def __init__(
        self,
        server: Server,
        served: Served,
        prompts: Sequence[Sequence[int]],
        *,
        n: int,
        eager: bool,
        choice: Callable[[], Choice],
    ) -> None:
        """Begin, without submitting anything.

        Args:
            server: the server.
            served: the model.
            prompts: token ids.
            n: answers to each.
            eager: see `Run`.
            choice: makes the state of an answer.
        """
        self._server, self._served, self._prompts, self._n = server, served, prompts, n
        self.choices = [choice() for _ in range(len(prompts) * n)]
        self.run = server.begin(eager=eager)

    def submit(self, params: Callable[[int], SamplingParams], *, param: str) -> None:
        """Queue every answer, or none.

        Args:
            params: of an answer, by its number.
            param: the field with the prompt, for errors.

        Raises:
            ApiError: 400 the backend refuses the prompt, 429 the queue is full, 503 it is closing.
        """
        stats = self._served.backend.stats()
        if len(self.choices) > stats.slots + stats.queue_limit:
            self.end()
            raise bad_request(
                f"{len(self.choices)} answers in one request; this server runs and queues "
                f"{stats.slots + stats.queue_limit} at most. Send fewer prompts, or a smaller n.",
                param="n" if self._n > 1 else param,
                code="invalid_value",
            )
        try:
            for number in range(len(self.choices)):
                prompt = self._prompts[number // self._n]
                self.run.submit(self._served.backend, prompt, params(number))
        except BaseException as error:
            self.end()
            if isinstance(error, QueueFullError):
                raise queue_full(f"The server is busy: {error}.", retry_after=1) from error
            if isinstance(error, BackendClosedError):
                message = "The server is shutting down."
                raise unavailable(message, code="shutting_down") from error
            if isinstance(error, (DataError, ConfigError)):
                raise bad_request(str(error), param=param, code="invalid_value") from error
            raise

    async def deltas(self) -> AsyncIterator[tuple[int, Delta]]:
        """Yield what each answer gained, one delta an answer at a time.

        Raises:
            RunError: the backend failed.
            AbortedError: timeout, shutdown, or the client left.
        """
        async for batch in self.run.events():
            news: dict[int, Delta] = {}
            for number, event in batch:
                choice = self.choices[number]
                was_over = choice.finish is not None
                delta = choice.take(event)
                if number in news:
                    news[number].add(delta)
                elif not was_over:
                    news[number] = delta
                if choice.finish and not was_over and event.end is None:
                    self.run.cancel(number)
            for number, delta in news.items():
                yield number, delta

    async def collect(self) -> list[Delta]:
        """Return the whole answers."""
        whole = [Delta() for _ in self.choices]
        try:
            async for number, delta in self.deltas():
                whole[number].add(delta)
        finally:
            self.end()
        return whole

    def end(self) -> None:
        """Free what is still running."""
        self._server.end(self.run, model=self._served.id, choices=len(self.choices))

    @property
    def usage(self) -> Usage:
        """Return the tokens of all answers; each prompt counts once, as OpenAI counts them."""
        first = self.choices[:: self._n]
        return usage(
            prompt_tokens=sum(map(len, self._prompts)),
            completion_tokens=sum(choice.tokens for choice in self.choices),
            cached_tokens=sum(choice.cached_tokens for choice in first),
        )
