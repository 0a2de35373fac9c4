# ruff: noqa: E501 - ruff counts a hanzi as two columns
"""Rules of cleaning: what each one finds, what it leaves alone, and that twice is once."""

import tracemalloc

import ftfy
import numpy as np
import opencc
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minimind.data.cleaning.chain import clean
from minimind.data.cleaning.characters import codes_of
from minimind.data.cleaning.config import Duplicates, Rules
from minimind.data.cleaning.decontaminate import Decontaminate
from minimind.data.cleaning.licence import Licence, licence_class, stated_licence
from minimind.data.cleaning.minhash import Signer
from minimind.data.cleaning.page import Page, ngrams
from minimind.data.cleaning.phrases import matcher
from minimind.data.cleaning.pii import PersonalData, find, is_bank_card, is_id_number
from minimind.data.cleaning.quality import Quality, train
from minimind.data.document import Document
from minimind.errors import ConfigError

PROSE = (
    "那天晚上下了很大的雨，街上一个人也没有。他站在窗前，想起小时候在乡下听过的故事，"
    "心里忽然安静下来。第二天早晨，太阳照常升起，院子里的石榴花开了，红得像火一样。\n"
    "母亲在厨房里忙着做饭，炊烟从屋顶慢慢升上去；弟弟背着书包出门，回头喊了一声：“我走了！”"
)


def run(text: str, **meta: str):
    return clean(Document(text, "x", {"licence": "CC-BY-4.0", **meta}), Rules())


def as_browsers_read(data: bytes, codec: str) -> str:
    """Decode; the five bytes that cp1252 leaves out become control characters, as in browsers."""
    if codec != "cp1252":
        return data.decode(codec)
    return "".join(bytes((b,)).decode(codec, "ignore") or chr(b) for b in data)


def test_plain_prose_is_left_as_it_is():
    outcome = run(PROSE)
    assert outcome.drop is None
    assert outcome.page.text == PROSE
    assert not outcome.counts


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("utf-8", "latin-1"), ("utf-8", "cp1252"), ("gb18030", "latin-1"), ("big5", "gb18030")],
)
def test_text_that_was_read_with_the_wrong_decoder_is_read_again(right, wrong):
    source = opencc.OpenCC("s2tw").convert(PROSE) if right == "big5" else PROSE
    spoilt = as_browsers_read(source.encode(right), wrong)
    outcome = run(spoilt)
    assert any(rule == "encoding" for rule, _ in outcome.counts)
    assert "那天晚上下了很大的雨" in outcome.page.text


def test_one_spoilt_line_among_good_ones_is_repaired_as_ftfy_would():
    spoilt = "我们在公园里散步，看见许多孩子。".encode().decode("cp1252", "ignore")
    line = "今天的会议改到下午三点。".encode().decode("latin-1")
    assert ftfy.fix_encoding(line) == "今天的会议改到下午三点。"
    outcome = run(f"{PROSE}\n{line}")
    assert outcome.page.text.endswith("今天的会议改到下午三点。")
    assert run(f"{PROSE}\n{spoilt}").page.text.startswith(PROSE)


def test_boxes_and_formulas_are_no_mojibake():
    table = "┌────────┐\n│ 名称 │\n├────────┤\n└────────┘\n∑∏√∞≈≠≤≥ αβγδ"
    assert not run(f"{PROSE}\n{table}").counts["encoding", "big5 read as gbk"]
    assert "┌────────┐" in run(f"{PROSE}\n{table}").page.text


def test_sums_and_blanks_are_no_mojibake():
    for line in ("解答：V1 = 12.5 × 4.0 = 50.0; 20×10=200, 3 × 4", "5×2=____  5×4=____  5×6=____",
                 "除非······", "××法建〔××××〕×号"):  # fmt: skip
        assert f"\n{line}" in run(f"{PROSE}\n{line}").page.text


def test_characters_get_one_form_and_punctuation_stays_chinese():
    text = (
        "ＡＢＣ１２３，价格是５０％。\u3000\u200b全角（括号）\xa0和&amp;quot;引号&amp;quot;。"
        + PROSE
    )
    cleaned = run(text).page.text
    assert cleaned.startswith('ABC123，价格是50%。全角（括号）和"引号"。')


def test_traditional_script_becomes_what_opencc_makes_of_it():
    traditional = opencc.OpenCC("s2t").convert(PROSE)
    assert run(traditional).page.text == opencc.OpenCC("t2s").convert(traditional)
    mixed = PROSE * 3 + "他的朋友叫做張偉。"  # one name in a long text
    assert "張偉" in run(mixed).page.text


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("身份证11010519491231002X。", "id-number"),
        ("卡号是6222 0200 0000 0000 008吗", None),
        ("请汇到4111111111111111。", "bank-card"),
        ("电话13812345678。", "phone"),
        ("拨打010-62345678。", "phone"),
        ("来信zhang.san@example.com.cn。", "email"),
        ("住在北京市海淀区中关村大街27号3单元501室。", "address"),
        ("车牌沪A·12345肇事", "plate"),
        ("护照号码E12345678", "passport"),
        ("来自58.30.12.7的请求", "ip"),
        ("加微信号wang_1234", "account"),
        ("身份证110105194912310021。", None),  # the checksum is wrong
        ("内网地址192.168.1.1，版本v1.2.3.4", None),
        ("一共卖出13812345678901件", None),
        ("他走了三条街，2路车来了。", None),
        ("user2:$1$vXGZLVbS$ElyErNf:13261:0", None),
        ("凯特勒（Quetelet, 1796-1874）与第5.2.1.1节", None),
        ("第11号令于2008年5月12日公布，自6月1日起施行", None),
    ],
)
def test_personal_data_is_found_by_its_own_checks(text, kind):
    assert [found[2] for found in find(text)] == ([kind] if kind else [])
    cleaned = run(f"{PROSE}{text}")
    assert all(change.before == "" for rule, change in cleaned.changes if rule == "pii")


def test_checksums_are_the_published_ones():
    assert is_id_number("11010519491231002X")  # the example of GB 11643-1999
    assert is_id_number("440524188001010014") is False  # a true checksum, but of 1880
    assert is_bank_card("4111111111111111")  # the card networks' test number
    assert not is_bank_card("4111111111111112")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("CC-BY-NC-SA-4.0", "cc-nc"), ("CC BY-ND 3.0", "cc-nd"), ("CC-BY-SA-3.0", "cc-by-sa"),
        ("CC-BY-4.0", "cc-by"), ("CC0-1.0", "public-domain"), ("MIT", "permissive"),
        ("Apache-2.0", "permissive"), ("GPL-2.0-or-later", "copyleft"), ("", "unknown"),
        ("https://creativecommons.org/licenses/by-sa/4.0/", "cc-by-sa"), ("someone's", "unknown"),
    ],
)  # fmt: skip
def test_licences_are_classed_by_name_and_link(name, kind):
    assert licence_class(name) == kind


def test_a_statute_that_forbids_copying_is_not_forbidden():
    articles = "".join(
        f"第{n}条 {PROSE[at : at + 30]}\n" for n, at in zip("一二三", (0, 30, 60), strict=True)
    )
    said = "承揽人应当保守秘密，未经定作人许可，不得留存复制品或者技术资料。"
    assert run(f"{articles}第四条 {said}").drop is None
    assert run(f"{articles}第四条 未经许可，不得转载本站内容。").rule == "licence"


def test_the_page_speaks_for_itself_and_the_less_free_counts():
    assert run(PROSE).drop is None
    for said in (
        "本文采用知识共享署名-非商业性使用 4.0 国际许可协议进行许可。",
        "https://creativecommons.org/licenses/by-nc-nd/4.0/", "未经许可，不得转载本文。",
    ):  # fmt: skip
        outcome = run(f"{PROSE}\n{said}")
        assert outcome.rule == "licence"
        start, stop = outcome.drop.spans[0]
        assert outcome.page.text[start:stop].strip("。") in said
    unknown = clean(Document(PROSE, "x", {}), Rules())
    assert unknown.rule == "licence"
    assert "neither" in unknown.drop.reason
    free = clean(Document(f"{PROSE}\n本站采用 CC BY-SA 4.0 许可协议。", "x", {}), Rules())
    assert free.drop is None
    assert free.page.meta["licence_class"] == "cc-by-sa"
    assert stated_licence("知识共享的非商业性使用条款引起了许多讨论。") is None


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("好的。", "length"),
        ("The weather was fine and we went to the park to see the flowers. " * 5, "language"),
        (
            "今日はとても良い天気ですから、公園へ行きましょう。花を見て、歌を歌います。" * 3,
            "language",
        ),
        (
            "\n".join(f"{a}{b}" for a in "产品新闻关于联系" for b in ("中心", "列表", "我们")),
            "listing",
        ),
        (
            "北京 上海 广州 深圳 天津 重庆 南京 武汉 成都 杭州 苏州 西安 长沙 青岛 大连 " * 8,
            "punctuation",
        ),
        ("买车就来大众车行。" * 30, "repetition"),
        ("今天锟斤拷锟斤拷的锟斤拷会议锟斤拷在三点开始，请各位准时参加，谢谢。", "unreadable"),
        (f"加微信领优惠券，全国包邮，货到付款，厂家直销。{PROSE[:60]}", "advertising"),
        ("澳门新葡京，真人荷官，百家乐，注册送彩金，天天有惊喜，人人有奖拿。", "gambling"),
        ("同城约炮，裸聊直播，一夜情，学生妹上门，欢迎各位老板前来。", "adult"),
        ("关键词排名，快速排名，友情链接，百度快照，各种服务应有尽有。", "seo"),
        ("表：" + "，".join(f"{i * i}.{i}年" for i in range(40)), "han_ratio"),
    ],
)
def test_each_filter_drops_what_it_is_for_and_says_where(text, rule):
    outcome = run(text)
    assert (outcome.rule, bool(outcome.drop and outcome.drop.reason)) == (rule, True)
    assert all(0 <= a < b <= len(outcome.page.text) for a, b in outcome.drop.spans)


def test_a_novel_may_speak_of_gambling():
    assert run(PROSE + "他在赌场里下注，输光了钱，回家的路上哭了一场。").drop is None


def test_boilerplate_lines_go_and_prose_about_them_stays():
    text = f"首页 > 新闻 > 正文\n{PROSE}\n责任编辑：李明\nCopyright © 2020 某某网\n上一篇：春天来了"
    assert run(text).page.text == PROSE
    assert run(PROSE + "\n他说版权所有的问题很复杂，需要讨论。").page.text.endswith("需要讨论。")


def test_evaluation_items_are_found_whatever_the_punctuation(tmp_path):
    path = tmp_path / "eval.jsonl"
    path.write_text('{"question": "下列关于光合作用的说法，正确的是哪一项？", "A": "x"}\n', "utf-8")
    rules = Rules(decontaminate=Decontaminate(against=(str(path),)))

    def rule(text: str) -> str:
        return clean(Document(text, "x", {"licence": "MIT"}), rules).rule

    assert rule(PROSE) == ""
    assert rule(f"{PROSE}下列 关于光合作用的说法正确的是哪一项（）") == "decontaminate"
    assert rule(f"{PROSE}下列关于光合作用的说法很多。") == ""


def test_quality_learns_from_examples(tmp_path):
    good = [PROSE[i : i + 40] for i in range(0, 80, 4)]
    bad = [f"第{i}号商品价格{i}元，规格{i}克，编号{i * 7}" for i in range(40)]
    train(good, bad).save(tmp_path / "q.npz")
    rule = Quality(model=str(tmp_path / "q.npz"), minimum=0.5)
    assert rule.check(Page(Document(PROSE[10:70], ""))) is None
    assert rule.check(Page(Document("第99号商品价格12元，规格9克", ""))) is not None


def test_settings_name_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'phone'"):
        PersonalData(kinds=("phones",))
    with pytest.raises(ConfigError, match="cc-by"):
        Licence(allow=("cc-bye",))


@given(st.text(alphabet="甲乙丙丁a1。 ", max_size=60), st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_ngram_hashes_are_equal_exactly_where_the_ngrams_are(text, n):
    hashes = ngrams(codes_of(text), n).tolist()
    grams = [text[i : i + n] for i in range(len(text) - n + 1)]
    assert len(hashes) == len(grams)
    assert len(set(hashes)) == len(set(grams))
    assert len(set(zip(hashes, grams, strict=True))) == len(set(grams))


@given(
    st.lists(
        st.sampled_from(["加微信", "包邮", "天", "加", "微", "邮", "\n", "货到付款"]), max_size=30
    )
)
@settings(max_examples=40, deadline=None)
def test_phrases_are_found_as_a_plain_search_finds_them(parts):
    import re

    text, phrases = "".join(parts), ("加微信", "包邮", "货到付款")
    found = [
        s for s in matcher("advertising").find(text, codes_of(text)) if text[slice(*s)] in phrases
    ]
    assert found == [m.span() for m in re.finditer("|".join(phrases), text)]


PIECES = [
    PROSE, "首页 > 新闻", "電話：138-1234-5678", "ＡＢＣ，", "&amp;lt;", "\u3000\u3000", "\n\n\n\n", ",", "你,好", " ",
    "版权所有", "\ufeff", "ä¸\xadæ–‡", "涓枃", "11010519491231002X", "。 ", "\t", "[电话]", "張偉", "&nbsp;", "K",
    "…", "e\u0301", "Ａ\u0301", "\r\n", "责任编辑：李明", "\ud800", "锟斤拷", "微信号：abc_123", "\x85", "乾隆",
]  # fmt: skip


@example(["11010519491231002X", "微信号：abc_123"])  # a name of an account right after a letter
@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=12)), max_size=12))
@settings(max_examples=120, deadline=None)
def test_cleaning_twice_is_cleaning_once(parts):
    once = run(PROSE + "".join(parts) if len(parts) % 2 else "".join(parts))
    if once.drop is None:
        again = clean(Document(once.page.text, "x", dict(once.page.meta)), Rules())
        assert again.drop is None
        assert again.page.text == once.page.text
    assert np.all(codes_of(once.page.text) < 0x110000)


def test_hashes_of_long_documents_do_not_pile_up(monkeypatch):
    monkeypatch.setattr("minimind.data.cleaning.minhash._HASHES", 1 << 15)
    rng = np.random.default_rng(0)
    signer = Signer(Duplicates(permutations=16, bands=4))
    text = "".join(map(chr, rng.integers(0x4E00, 0x9FA0, 20_000)))
    tracemalloc.start()
    for number in range(60):  # 60 x 160 kB of hashes
        signer.add(Page(Document(text, str(number))))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6
