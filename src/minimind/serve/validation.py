"""From the bytes of a body to a request, or to an error that names the field, and what to do."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from minimind.errors import did_you_mean
from minimind.serve.errors import ApiError, bad_request
from minimind.serve.protocol import Strict

Request = TypeVar("Request", bound=Strict)

_WHY: dict[str | int, str] = {
    "audio": "this server writes text only",
    "function_call": "it is OpenAI's old form; use tool_choice",
    "functions": "it is OpenAI's old form; use tools",
    "response_format": 'only {"type": "text"} is supported: answers can\'t be forced into JSON',
    "strict": "arguments can't be forced into a schema; leave strict out",
    "suffix": "the models continue text, they don't fill gaps",
    "tool_choice": "use 'auto' or 'none': a call can't be forced",
    "web_search_options": "this server reads nothing but the request",
}
_EXPECTED = {
    "string_type": "a string",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "an array",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "none_required": "null",
}
_JSON_TYPES = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "a boolean",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


def parse(kind: type[Request], body: bytes) -> Request:
    """Read a request.

    Raises:
        ApiError: 400; `param` is the path of the field at fault, as `messages[0].content`.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise _explained(kind, error.errors(include_url=False)) from None


def _explained(kind: type[Strict], errors: list[ErrorDetails]) -> ApiError:
    if errors[0]["type"] == "json_invalid":
        why = errors[0]["msg"].removeprefix("Invalid JSON: ")
        return bad_request(f"The body is not valid JSON: {why}.", code="invalid_json")
    # The branches of a union all complain; the one that got furthest knows most.
    paths = [_path(error) for error in errors]
    depth = max(map(len, paths))
    path = next(p for p in paths if len(p) == depth)
    here = [error for error, p in zip(errors, paths, strict=True) if p == path]
    first, param = here[0], _written(path)
    if first["type"] == "value_error":
        name, _, why = first["msg"].removeprefix("Value error, ").partition(": ")
        param = _written((*path, name))
        return bad_request(f"'{param}': {why}.", param=param, code="invalid_value")
    if not param:
        return bad_request("The body must be a JSON object.", code="invalid_type")
    known = next((_WHY[part] for part in reversed(path) if part in _WHY), None)
    why = f" ({known})" if known else ""
    if first["type"] == "missing":
        message = f"Missing required parameter: '{param}'."
        return bad_request(message, param=param, code="missing_required_parameter")
    if first["type"] == "extra_forbidden":
        hint = did_you_mean(str(path[-1]), kind.model_fields) if len(path) == 1 and not why else ""
        message = f"Unknown parameter: '{param}'{why}.{hint}"
        return bad_request(message, param=param, code="unknown_parameter")
    expected = list(dict.fromkeys(_EXPECTED[e["type"]] for e in here if e["type"] in _EXPECTED))
    if expected and len(expected) == len({e["type"] for e in here}):
        got = _JSON_TYPES.get(type(first["input"]), "something else")
        message = f"Invalid type for '{param}': expected {' or '.join(expected)}, got {got}{why}."
        return bad_request(message, param=param, code="invalid_type")
    wanted = next((e for e in here if e["type"] not in _EXPECTED), first)["msg"]
    message = f"Invalid value for '{param}': {wanted[:1].lower()}{wanted[1:]}{why}."
    return bad_request(message, param=param, code="invalid_value")


def _path(error: ErrorDetails) -> tuple[str | int, ...]:
    """Return the path in the body, without the names that pydantic gives to branches of unions."""
    return tuple(
        part
        for number, part in enumerate(error["loc"])
        if isinstance(part, int) or not _is_branch(part, error["loc"], number)
    )


_PARTS = {"text", "image_url"}
_BRANCHES = {"str", "int", "system", "developer", "user", "assistant", "tool", "none"}


def _is_branch(part: str, location: tuple[Any, ...], number: int) -> bool:
    after_message = number == 2 and location[0] == "messages"
    # messages[0].user.content.list[...][0].image_url.image_url: the first names the kind of a part.
    kind_of_part = number > 0 and isinstance(location[number - 1], int) and number > 2
    is_type = any(mark in part for mark in "[(") or part in {
        "str",
        "int",
        "none",
        "constrained-str",
    }
    return (
        (after_message and part in _BRANCHES)
        or (kind_of_part and part in _PARTS)
        or (number > 0 and is_type)
    )


def _written(path: tuple[str | int, ...]) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
