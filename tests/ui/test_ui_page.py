"""The page in a real headless Chromium, in front of the real server on a trained checkpoint."""

import itertools
import json
import math
import re
import urllib.request

import pytest
from ui_doubles import (
    ENDLESS,
    EVIL,
    HOME,
    LOOP,
    ME,
    SYSTEM,
    WHERE,
    WHO,
    WRITE,
    PagesBehind,
    serving,
)

from minimind.serve.loading import Loader, LoadSettings


def saved(shown, button):
    with shown.page.expect_download() as download:
        shown.page.click(button)
    return download.value.suggested_filename, download.value.path().read_text(encoding="utf-8")


def test_two_turns_and_what_is_saved_of_them(chatty, chatty_page):
    with chatty_page.open(locale="zh-CN") as shown:
        shown.page.fill("#system textarea", SYSTEM)
        first, second = shown.ask(WHO), shown.ask(WHERE)
        assert "token/秒" in shown.figures()
        assert "说完了" in shown.figures()
        name, text = saved(shown, "#save-json")
        as_read = saved(shown, "#save-markdown")
    messages = json.loads(text)["messages"]
    assert [message["role"] for message in messages] == [
        "system", "user", "assistant", "user", "assistant"]  # fmt: skip
    assert [message["content"] for message in messages] == [
        SYSTEM, WHO, first, WHERE, second]  # fmt: skip

    # The same conversation, from OpenAI's client: the page asked for nothing else.
    answer = chatty.client().chat.completions.create(
        model="mini", messages=messages[:-1], temperature=0, max_tokens=200
    )
    assert answer.choices[0].message.content.strip() == second
    assert (name, as_read[0]) == ("conversation.json", "conversation.md")
    for wanted in ("## 系统提示", "## 用户", f"## 助手 · mini\n\n{first}", second):
        assert wanted in as_read[1]


def test_the_second_turn_sees_the_first(chatty_page):
    with chatty_page.open() as shown:
        assert [shown.ask(WHO), shown.ask(WHERE)] == [ME, HOME]
        assert shown.questions() == [WHO, WHERE]
        shown.page.click("#clear")
        shown.page.locator("#chat .user-row").first.wait_for(state="detached")
        assert shown.ask(WHO) == ME
        assert shown.questions() == [WHO]


def test_the_token_tab_shows_what_the_server_says(chatty, chatty_page):
    told = chatty.client().chat.completions.create(
        model="mini", messages=[{"role": "user", "content": WHO}], temperature=0, max_tokens=400,
        logprobs=True, top_logprobs=5,
    ).choices[0].logprobs.content  # fmt: skip
    with chatty_page.open() as shown:
        shown.ask(WHO)
        shown.tab(1)
        tokens = shown.page.locator(".mm-text .mm-token")
        tokens.first.wait_for()
        texts = tokens.all_inner_texts()
        assert len(texts) == len(told)
        whole = [(shown, token.token) for shown, token in zip(texts, told, strict=True)
                 if bytes(token.bytes).decode("utf-8", "replace") == token.token]  # fmt: skip
        assert len(whole) >= 6
        assert all(shown == token for shown, token in whole)
        assert re.sub("‹.*?›", "", "".join(texts)) == ME
        for number in (0, len(told) - 1):
            tokens.nth(number).click()
            shown.page.locator(".mm-detail h4", has_text=f"token {number + 1}").wait_for()
            rows = shown.page.locator(".mm-detail .mm-row:not(.mm-rest)")
            names = [text.split("\n")[0].split(" ")[0] for text in rows.all_inner_texts()]
            for name, other in zip(names, told[number].top_logprobs, strict=True):
                part = bytes(other.bytes).decode("utf-8", "replace") != other.token
                assert name.startswith("‹") if part else name == other.token
            chosen = shown.page.locator(".mm-detail .mm-chosen").inner_text()
            share = 100 * math.exp(told[number].logprob)
            assert told[number].token in chosen
            assert f"{share:.1f} %" in chosen or (share >= 99.95 and "100 %" in chosen)
            tokens.nth(number).click()  # no longer pinned
        tokens.nth(0).focus()
        shown.page.keyboard.press("ArrowRight")
        shown.page.locator(".mm-detail h4", has_text="token 2").wait_for()
        assert shown.page.locator(".mm-loop").count() == 0
        assert "No loop found" in shown.page.locator(".mm-summary").inner_text()


def test_the_token_tab_marks_where_a_loop_sets_in(chatty_page):
    with chatty_page.open(locale="zh") as shown:
        answer = shown.ask(ENDLESS)
        assert answer.startswith(LOOP * 3)
        assert "到了长度上限" in shown.figures()
        shown.tab(1)
        shown.page.locator(".mm-loop").wait_for()
        start = int(shown.page.locator(".mm-loop").get_attribute("data-at")) - 1
        tokens = shown.page.locator(".mm-text .mm-token").all_inner_texts()
        assert "".join(tokens[:start]) == LOOP  # the first copy is new, the second isn't
        copied = shown.page.locator(".mm-copy").all_inner_texts()
        assert len(copied) > 60
        assert copied == tokens[start : start + len(copied)]
        assert "".join(copied) == (LOOP * len(copied))[: len("".join(copied))]
        assert "开始循环" in shown.page.locator(".mm-found").inner_text()


@pytest.fixture
def very_slow(slow):
    """The slow server at 8 tokens a second: an answer of 400 takes longer than any click."""
    slow.pace(8)
    yield slow
    slow.pace(50)


def test_stop_frees_the_slot_and_keeps_what_came(very_slow, slow_page):
    slow = very_slow
    with slow_page.open() as shown:
        shown.send(ENDLESS)
        shown.wait_for_text(8)
        assert slow.stats().running == 1
        shown.page.click("#stop")
        slow.wait_for(lambda stats: stats.running == 0)
        shown.finish()
        kept = shown.answers()[-1]
        assert kept.startswith(LOOP)
        assert len(kept) < 300
        assert "stopped" in shown.figures()
        shown.page.click("#again")
        shown.wait_for_text(4)
        assert len(shown.answers()) == 1
    slow.wait_for(lambda stats: stats.running == 0)  # the tab was closed within the answer


def test_fifty_characters_a_second_without_flicker(slow_page):
    with slow_page.open() as shown:
        page = shown.page
        shown.ask(WHO)
        # A node that is made anew loses the marker; one that is written again shows in `touched`.
        page.evaluate("""() => {
          window.seen = []; window.touched = 0;
          for (const row of document.querySelectorAll("#chat .message-row"))
            row.querySelectorAll("*").forEach((node) => { node.marked = true; });
          const count = (list) => list.length;
          window.earlier = [...document.querySelectorAll("#chat .message-row")];
          window.nodes = window.earlier.map((row) => row.querySelectorAll("*").length);
          const quiet = new MutationObserver((list) => { window.touched += count(list); });
          for (const row of window.earlier)
            quiet.observe(row.querySelector(".message-content"),
                          { childList: true, characterData: true, subtree: true });
          new MutationObserver(() => {
            const texts = [...document.querySelectorAll("#chat .bot-row .message-content")];
            const text = texts.length > 1 ? texts.at(-1).innerText.trim() : "";
            if (text !== window.seen.at(-1)?.[1]) window.seen.push([performance.now(), text]);
          }).observe(document.querySelector("#chat"),
                     { childList: true, characterData: true, subtree: true });
        }""")
        shown.send(ENDLESS)
        shown.wait_for_text(120)
        page.wait_for_function(
            "loop => window.seen.filter(([, text]) => text.includes(loop)).length >= 6", arg=LOOP
        )
        page.click("#stop")
        shown.finish()
        assert page.evaluate("() => window.earlier.every((row) => row.isConnected)")
        assert page.evaluate("""() => window.earlier.every((row, n) =>
          [...row.querySelectorAll(".message-content, .message-content *")]
            .every((node) => node.marked))""")
        assert page.evaluate("() => window.touched") == 0
        seen = [(at, text) for at, text in page.evaluate("() => window.seen") if LOOP in text]
        texts = [text for _, text in seen]
        assert all(after.startswith(before) for before, after in itertools.pairwise(texts))
        seconds = (seen[-1][0] - seen[0][0]) / 1000
        assert len(seen) / seconds < 15
        assert len(seen) >= 5  # and yet it flows


def test_what_a_model_writes_stays_text(chatty_page):
    with chatty_page.open() as shown:
        answer = shown.ask(WRITE)
        plain = EVIL.replace("`", "")
        assert answer == plain
        chat = shown.page.locator("#chat .message-content")
        assert chat.locator("img, script, b").count() == 0
        assert chat.locator("code").inner_text() == "<i>"
        shown.tab(1)
        shown.page.locator(".mm-text .mm-token").first.wait_for()
        tokens = "".join(shown.page.locator(".mm-text .mm-token").all_inner_texts())
        assert re.sub("‹.*?›", "", tokens).replace("␣", " ") == EVIL
        assert shown.page.locator(".mm-text img, .mm-text script, .mm-text b").count() == 0
        for number in range(shown.page.locator(".mm-text .mm-token").count()):
            shown.page.locator(".mm-text .mm-token").nth(number).hover()
        assert shown.page.locator(".mm-detail img, .mm-detail script").count() == 0
        assert shown.page.evaluate("() => window.hacked") is None


def test_the_browser_may_not_ask_other_hosts(chatty_page):
    with urllib.request.urlopen(chatty_page.address) as answer:
        policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy
    with chatty_page.open() as shown:
        blocked = shown.page.evaluate(
            "() => fetch('http://127.0.0.1:1/').then(() => 'sent', () => 'refused')"
        )
        assert blocked == "refused"


def test_the_language_follows_the_browser_and_the_switch(chatty_page):
    with chatty_page.open(locale="zh-CN") as shown:
        page = shown.page
        assert page.locator("#send").inner_text() == "发送"
        assert "模型" in page.locator("#model").inner_text()
        shown.ask(WHO)
        page.click("#language")
        page.locator("#send", has_text="Send").wait_for()
        assert shown.answers() == [ME]
        assert page.locator("#tabs button[role=tab]").all_inner_texts() == [
            "Chat", "Token by token"]  # fmt: skip
        assert "connected to" in page.locator("#status").inner_text()
        assert "finished" in shown.figures()
        assert page.locator("#header [lang]").get_attribute("lang") == "en"
        visible = page.locator("#tabs").inner_text().replace(WHO, "").replace(ME, "")
        assert not any("\u4e00" <= character <= "\u9fff" for character in visible)
    with chatty_page.open(locale="de-DE") as shown:
        assert shown.page.locator("#send").inner_text() == "Send"


def test_a_suggestion_is_sent_by_a_click(chatty_page):
    with chatty_page.open(locale="zh-CN") as shown:
        shown.page.locator("#chat button", has_text="你是谁？").click()
        shown.page.locator("#chat .user-row").first.wait_for()
        shown.finish()
        assert (shown.questions(), shown.answers()) == ([WHO], [ME])


def test_colours_can_be_read_in_light_and_dark(chatty_page):
    for scheme in ("light", "dark"):
        with chatty_page.open(scheme=scheme) as shown:
            shown.ask(WHO)
            shown.tab(1)
            shown.page.locator(".mm-legend .mm-band4").wait_for()
            found = shown.page.evaluate("""() => {
              const rgb = (text) => text.match(/[0-9.]+/g).map(Number);
              const behind = (node) => {
                const [r, g, b, a = 1] = rgb(getComputedStyle(node).backgroundColor);
                return a > 0 || !node.parentElement ? [r, g, b] : behind(node.parentElement);
              };
              return [...document.querySelectorAll(".mm-legend span, .mm-guide")].map((n) =>
                [rgb(getComputedStyle(n).color).slice(0, 3), behind(n)]);
            }""")
            assert len(found) == 8
            for ink, paper in found:
                assert contrast(ink, paper) >= 4.5, (scheme, ink, paper)


def contrast(one, other):
    """WCAG's ratio."""

    def luminance(rgb):
        linear = [c / 3294.6 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in rgb]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.slow
def test_a_server_that_goes_away_is_said_in_words_and_nothing_is_lost(chatty_dir, chromium):
    registry = Loader(LoadSettings(slots=2, queue=2)).load([f"mini={chatty_dir}"], [])
    with serving(registry) as server:
        pages = PagesBehind(server.url, chromium)
        with pages, pages.open() as shown:
            shown.ask(WHO)
            server.stop()
            server.join()
            shown.send(WHERE)
            shown.finish()
            assert shown.questions() == [WHO, WHERE]
            answers = shown.answers()
            assert answers[0] == ME
            assert "can't be reached" in answers[1]
            assert "Answer again" in answers[1]
            assert WHERE in json.loads(saved(shown, "#save-json")[1])["messages"][-1]["content"]
            shown.page.locator("#status", has_text="can't be reached").wait_for()


def test_a_bad_seed_is_said_and_the_message_kept(chatty_page):
    with chatty_page.open() as shown:
        shown.page.fill("#seed input, #seed textarea", "abc")
        shown.page.fill("#message textarea", WHO)
        shown.page.press("#message textarea", "Enter")
        shown.page.locator("#figures", has_text="whole number").wait_for()
        assert shown.page.input_value("#message textarea") == WHO
        shown.page.fill("#seed input, #seed textarea", "7")
        shown.page.press("#message textarea", "Enter")
        shown.page.locator("#chat .user-row").first.wait_for()
        shown.finish()
        assert shown.answers() == [ME]
