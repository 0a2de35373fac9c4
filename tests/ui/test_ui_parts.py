"""The page's parts without a browser: words, tokens, what is saved, the client against servers."""

import asyncio
import contextlib
import dataclasses
import http.server
import json
import math
import re
import string
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ui_doubles import LOOP, ME, WHERE, WHO, serving

from minimind.cli.ui import server_url
from minimind.errors import ConfigError
from minimind.serve.loading import Loader, LoadSettings
from minimind.tokenizer.loops import COPIES, LEAST, LONGEST, find_loop
from minimind.tokenizer.shown import band, percent, texts
from minimind.ui import words
from minimind.ui.answering import Sampling, answer
from minimind.ui.client import Server, ServerError, Token
from minimind.ui.conversation import Conversation, Turn, harmless, messages_of, to_json, to_markdown
from minimind.ui.tokens import render
from minimind.ui.words import language_of, word


def repeats(tokens, first, period):
    """Whether a loop whose first copy begins at `first` is one, as the rule reads."""
    stretch = tokens[first : first + max(period * COPIES, LEAST)]
    whole = len(stretch) == max(period * COPIES, LEAST)
    return whole and all(stretch[at] == stretch[at % period] for at in range(len(stretch)))


letters = st.text("ab", max_size=20)


@given(letters, st.text("ab", max_size=5), st.integers(0, 4), letters)
def test_a_loop_is_found_where_the_rule_says(before, block, copies, after):
    tokens = before + block * copies + after
    places = [
        (first + period, period)
        for first in range(len(tokens))
        for period in range(1, LONGEST + 1)
        if repeats(tokens, first, period)
    ]
    found = find_loop(tokens)
    assert (found and (found.start, found.period)) == min(places, default=None)
    if found:
        looped = tokens[found.start - found.period : found.end]
        assert looped[found.period :] == looped[: -found.period]


def test_loops_of_words_and_of_single_tokens():
    assert find_loop("好好好好好好好") is None  # seven: people do write that
    assert dataclasses.astuple(find_loop("好" * 8)) == (1, 1, 8)
    found = find_loop("从前有座山，" + "天地山水" * 3 + "完")
    assert (found.start, found.period, found.end) == (10, 4, 18)
    assert find_loop("") is None


def test_colours_go_by_surprise():
    probabilities = [1.0, 0.5, 0.4, 0.25, 0.2, 0.0625, 0.02, 0.0156, 1e-9]
    assert [band(math.log(p)) for p in probabilities] == [0, 0, 1, 1, 2, 2, 3, 4, 4]
    assert [percent(p) for p in (1.0, 0.9994, 0.5, 0.0123, 0.004, 1e-9)] == [
        "100 %", "99.9 %", "50.0 %", "1.2 %", "0.40 %", "< 0.01 %"]  # fmt: skip


@given(st.text(max_size=20), st.integers(1, 3))
def test_characters_that_span_tokens_are_shown_once(text, size):
    raw = text.encode()
    tokens = [raw[at : at + size] for at in range(0, len(raw), size)]
    joined = re.sub("‹[0-9A-F ]+›", "", "".join(texts(tokens)))
    for sign, meant in (("↵", "\n"), ("⇥", "\t"), ("␍", "\r"), ("␣", " ")):
        if sign not in text:
            joined = joined.replace(sign, meant)
    assert joined == text


def test_the_html_of_tokens_escapes_them():
    evil = b'"><script>alert(1)</script>'
    html = render([Token(raw=evil, logprob=-1.0, alternatives=((evil, -1.0),))], "en")
    assert "<script" not in html
    assert "&lt;script&gt;" in html


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"), ("en-US,en;q=0.9,zh;q=0.5", "en"), ("zh-TW", "zh"),
        ("fr,en;q=0.3,zh;q=0.7", "zh"), ("de-DE", "en"), ("en;q=abc,zh;q=0.1", "zh"),
    ],
)  # fmt: skip
def test_the_browsers_language(header, language):
    assert language_of(header) == language


def test_without_a_browsers_language_it_is_the_systems(monkeypatch):
    for name, language in (("zh_CN.UTF-8", "zh"), ("C.UTF-8", "en"), ("de_DE", "en")):
        monkeypatch.setenv("LC_ALL", name)
        assert language_of(None) == language
        assert language_of("*") == language


def test_both_languages_say_the_same_things():
    fields = string.Formatter().parse
    for key, (zh, en) in words._WORDS.items():
        assert zh
        assert en
        named = [{name for _, name, _, _ in fields(text) if name} for text in (zh, en)]
        assert named[0] == named[1], key
    for language in ("zh", "en"):
        guide = word("guide", language)
        assert len(re.findall(r"[。.](?:\s|$)|。", guide)) == 2, (
            "two sentences tell what to look for"
        )


def test_tags_and_pictures_become_letters_but_code_stays():
    text = "a<b & ![x](http://y) `<i>`\n```html\n<p>&\n```\n<tool_call>"
    assert harmless(text) == (
        "a&lt;b &amp; !&#91;x](http://y) `<i>`\n```html\n<p>&\n```\n&lt;tool_call>"
    )
    assert harmless("```\n<unfinished") == "```\n<unfinished"


def test_what_is_saved():
    error = ServerError("refused", "no")
    turns = [Turn(user="一", answer="二", model="m"), Turn(user="三", error=error)]
    conversation = Conversation(turns=turns, system=" s ", language="en")
    assert [m["role"] for m in json.loads(to_json(conversation))["messages"]] == [
        "system", "user", "assistant", "user"]  # fmt: skip
    assert to_markdown(conversation) == (
        "# MiniMind · Conversation\n\n## System prompt\n\ns\n\n## User\n\n一\n\n"
        "## Assistant · m\n\n二\n\n## User\n\n三\n\n## Assistant\n\n> Error: no\n"
    )


def test_neutral_controls_send_nothing_that_openai_lacks():
    off = Sampling(temperature=1.0, top_p=1.0, repetition_penalty=1.0, max_tokens=9)
    assert off.options() == {"temperature": 1.0, "top_p": 1.0, "max_tokens": 9}
    on = Sampling(top_k=5, min_p=0.1, repetition_penalty=1.2, seed=0)
    assert on.options().keys() - off.options().keys() == {
        "top_k", "min_p", "repetition_penalty", "seed"}  # fmt: skip


def test_addresses_of_servers():
    assert server_url("http://127.0.0.1:8000") == "http://127.0.0.1:8000/v1"
    assert server_url("https://host/api/v1/") == "https://host/api/v1"
    for wrong in ("127.0.0.1:8000", "ftp://host", "http://"):
        with pytest.raises(ConfigError, match="--server"):
            server_url(wrong)


# Against servers


def result_of(coroutine):
    """Run a coroutine on a thread of its own: Playwright keeps a loop on the one of the tests."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(asyncio.run, coroutine).result()


def answered(url, conversation, sampling, *, key=None):
    """Have the last turn answered."""

    async def run():
        server = Server(url=url, key=key)
        async for _ in answer(server, conversation, conversation.turns[-1], sampling):
            pass

    result_of(run())
    return conversation.turns[-1]


GREEDY = Sampling(temperature=0.0, top_p=1.0, repetition_penalty=1.0, max_tokens=60)


def test_old_turns_are_left_out_when_the_context_is_full(chatty):
    long = LOOP * 60  # 120 tokens
    turns = [Turn(user=long, answer=long) for _ in range(2)]
    turns += [Turn(user=WHO, answer=ME), Turn(user=WHERE, model="mini")]
    turn = answered(chatty.url, Conversation(turns=turns), GREEDY)
    assert turn.error is None
    assert (turn.dropped, turn.shortened) == (1, False)
    assert turn.answer
    asked = chatty.client().chat.completions.create(
        model="mini", messages=[*messages_of(turns[1:-1]), {"role": "user", "content": WHERE}],
        temperature=0, max_tokens=60,
    )  # fmt: skip
    assert turn.answer == asked.choices[0].message.content


def test_the_answer_is_shortened_when_one_message_nearly_fills_the_context(chatty):
    turn = Turn(user=LOOP * 230, model="mini")  # 460 of 512 tokens
    answered(chatty.url, Conversation(turns=[turn]), GREEDY)
    assert (turn.error, turn.dropped, turn.shortened) == (None, 0, True)
    turn = Turn(user=LOOP * 500, model="mini")
    answered(chatty.url, Conversation(turns=[turn]), GREEDY)
    assert turn.error is not None
    assert "maximum context length is 512" in turn.error.message


def test_errors_of_the_server_come_as_its_words(chatty, chatty_dir):
    turn = answered(chatty.url, Conversation(turns=[Turn(user=WHO, model="mimi")]), GREEDY)
    assert turn.error.kind == "refused"
    assert "Did you mean 'mini'?" in turn.error.message
    registry = Loader(LoadSettings(slots=1, queue=1)).load([f"mini={chatty_dir}"], [])
    with serving(registry, api_keys=("secret",)) as keyed:
        turn = answered(keyed.url, Conversation(turns=[Turn(user=WHO, model="mini")]), GREEDY)
        assert (turn.error.kind, turn.error.status) == ("refused", 401)
        right = Conversation(turns=[Turn(user=WHO, model="mini")])
        assert answered(keyed.url, right, GREEDY, key="secret").answer == ME
    gone = answered(keyed.url, Conversation(turns=[Turn(user=WHO, model="mini")]), GREEDY)
    assert gone.error.kind == "unreachable"


def test_a_key_is_not_in_what_is_printed():
    assert "secret" not in repr(Server(url="http://x/v1", key="secret"))


class Limited(http.server.BaseHTTPRequestHandler):
    """An OpenAI-compatible server that refuses log-probabilities, as some do."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        refused = next((name for name in ("logprobs", "stream_options") if name in body), None)
        if refused:
            error = {"message": f"unsupported: {refused}", "param": refused}
            self._send(400, json.dumps({"error": error}))
            return
        events = [{"choices": [{"delta": {"content": part}}]} for part in ("你", "好")]
        events.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
        self._send(200, "".join(f"data: {json.dumps(event)}\n\n" for event in events))

    def do_GET(self):
        self._send(200, "<html>hello</html>")

    def _send(self, status, text):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def limited():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Limited)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def test_a_server_without_log_probabilities_still_answers():
    with limited() as url:
        turn = answered(url, Conversation(turns=[Turn(user=WHO, model="m")]), GREEDY)
        assert (turn.answer, turn.tokens, turn.finish, turn.error) == ("你好", [], "stop", None)
        with pytest.raises(ServerError, match="no list of models") as caught:
            result_of(Server(url=url).models())
        assert caught.value.kind == "foreign"


def test_adapters_say_whose_they_are(chatty):
    from minimind.ui.client import Model
    from minimind.ui.models import choices

    assert [model.id for model in result_of(Server(url=chatty.url).models())] == ["mini"]
    cards = [Model(id="base"), Model(id="poet", parent="base")]
    assert choices(cards, "en") == (("base", "base"), ("poet (adapter of base)", "poet"))
