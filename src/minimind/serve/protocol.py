"""What clients may send: the requests of OpenAI's chat completions and completions, strictly.

A field that is not here is refused (`validation.py` words it). Fields of OpenAI's that don't change
what a model of ours writes are accepted and have no effect; docs/serve.md lists them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, model_validator

MAX_STOPS = 4
MAX_STOP_CHARACTERS = 500
MAX_CHOICES = 128


class Strict(BaseModel):
    """No unknown fields, no guessing of types, no NaN."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


# Integers: JSON and its schemas know no difference between 3 and 3.0. The limits stand before the
# validator, or the schema would not show them.
Whole = BeforeValidator(_whole)
Choices = Annotated[int, Field(ge=1, le=MAX_CHOICES), Whole]
Seed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1), Whole]
TopK = Annotated[int, Field(ge=-1, lt=2**31), Whole]
Tokens = Annotated[int, Field(ge=1, lt=2**31), Whole]
TokensOrNone = Annotated[int, Field(ge=0, lt=2**31), Whole]
ChatAlternatives = Annotated[int, Field(ge=0, le=20), Whole]
TextAlternatives = Annotated[int, Field(ge=0, le=5), Whole]
TokenId = Annotated[int, Field(ge=0, lt=2**31), Whole]


class StreamOptions(Strict):
    """`include_usage` adds a last chunk with the usage; obfuscation is never added."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARACTERS)]
TokenKey = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]
Bias = Annotated[float, Field(ge=-100, le=100)]
LogitBias = Annotated[
    dict[TokenKey, Bias], Field(max_length=1024, json_schema_extra={"additionalProperties": False})
]


class GenerationRequest(Strict):
    """What both kinds of completion have in common."""

    model: str
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: LogitBias | None = None
    min_p: float | None = Field(None, ge=0, lt=1)
    n: Choices | None = None
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    seed: Seed | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_k: TopK | None = None
    top_p: float | None = Field(None, ge=0, le=1)
    user: str | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def choices(self) -> int:
        """How many answers to each prompt."""
        return self.n or 1

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @model_validator(mode="after")
    def _check_stream_options(self) -> GenerationRequest:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options: only allowed when stream is true")
        return self


class TextPart(Strict):
    """A piece of a message; audio and files are refused."""

    type: Literal["text"]
    text: str


class ImageUrl(Strict):
    """An image as a data URI; nothing is fetched. `detail` is accepted and has no effect."""

    url: str = Field(min_length=1)
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(Strict):
    """An image in what a user says."""

    type: Literal["image_url"]
    image_url: ImageUrl


Content = str | list[TextPart]
UserContent = str | list[Annotated[TextPart | ImagePart, Field(discriminator="type")]]


class Function(Strict):
    """What a function tool does; `parameters` is a JSON schema."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = None
    parameters: dict[str, JsonValue] | None = None
    strict: Literal[False] | None = None


class Tool(Strict):
    """A tool that the model may call."""

    type: Literal["function"]
    function: Function

    def shown(self) -> dict[str, Any]:
        """What the chat template prints: the same order of keys whatever the client's."""
        function = self.function.model_dump(exclude_none=True, exclude={"strict"})
        return {"type": "function", "function": function}


class CalledFunction(Strict):
    """Name and JSON text of the arguments."""

    name: str
    arguments: str


class CalledTool(Strict):
    """A call that the model made earlier."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class SystemMessage(Strict):
    """Instructions; `developer` is OpenAI's newer word for them."""

    role: Literal["system", "developer"]
    content: Content
    name: str | None = None


class UserMessage(Strict):
    """What a person said."""

    role: Literal["user"]
    content: UserContent
    name: str | None = None


class AssistantMessage(Strict):
    """What the model said; every field of a response's message may be sent back."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {
                    "required": ["content"],
                    "properties": {"content": {"not": {"type": "null"}}},
                },
                {
                    "required": ["tool_calls"],
                    "properties": {"tool_calls": {"type": "array", "minItems": 1}},
                },
                {
                    "required": ["reasoning_content"],
                    "properties": {"reasoning_content": {"type": "string", "minLength": 1}},
                },
            ]
        }
    )
    role: Literal["assistant"]
    content: Content | None = None
    name: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[CalledTool] | None = None
    annotations: list[JsonValue] | None = None
    audio: None = None
    function_call: None = None

    @model_validator(mode="after")
    def _check_says_something(self) -> AssistantMessage:
        if self.content is None and not self.tool_calls and not self.reasoning_content:
            raise ValueError("content: an assistant message needs content or tool_calls")
        return self


class ToolMessage(Strict):
    """The result of a call."""

    role: Literal["tool"]
    content: Content
    tool_call_id: str


ChatMessage = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")
]


class ResponseFormat(Strict):
    """Only text: answers can't be forced into JSON."""

    type: Literal["text"]


class ChatCompletionRequest(GenerationRequest):
    """The body of POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, fail_fast=True)]
    logprobs: bool | None = None
    max_completion_tokens: Tokens | None = None
    max_tokens: Tokens | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    tool_choice: Literal["none", "auto"] | None = None
    tools: list[Tool] | None = None
    top_logprobs: ChatAlternatives | None = None
    # Accepted, no effect.
    metadata: dict[str, str] | None = None
    modalities: list[Literal["text"]] | None = None
    prediction: dict[str, JsonValue] | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    reasoning_effort: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    store: bool | None = None
    verbosity: str | None = None

    @model_validator(mode="after")
    def _check_top_logprobs(self) -> ChatCompletionRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs: only allowed when logprobs is true")
        return self


# fail_fast: a megabyte of wrong items must not become a million errors.
Ids = Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]
Prompt = (
    str
    | Annotated[list[str], Field(min_length=1, max_length=MAX_CHOICES, fail_fast=True)]
    | Ids
    | Annotated[list[Ids], Field(min_length=1, max_length=MAX_CHOICES, fail_fast=True)]
)


class CompletionRequest(GenerationRequest):
    """The body of POST /v1/completions."""

    prompt: Prompt | None = None
    best_of: Choices | None = None
    echo: bool | None = None
    logprobs: TextAlternatives | None = None
    max_tokens: TokensOrNone | None = None
    suffix: Literal[""] | None = None

    @model_validator(mode="after")
    def _check_best_of(self) -> CompletionRequest:
        if self.best_of is not None and self.best_of != self.choices:
            raise ValueError(
                "best_of: choosing among more answers than are returned is not supported; leave it "
                "out, and choose among n answers yourself"
            )
        return self
