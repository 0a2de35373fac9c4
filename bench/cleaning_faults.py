# ruff: noqa: E501 - ruff counts a hanzi as two columns
"""Does each cleaning rule find what it is for, and leave the rest alone? Faults planted in real text.

    python bench/cleaning_faults.py corpus/pretrain --documents 1000

Half of the documents get one fault of a kind each; the same rule is asked about the untouched half,
where what it finds counts as false (real text has real e-mail addresses too, so for personal data
this is an upper bound). Decoys look like a fault and aren't one. Everything is seeded. Spam is
written by hand below, not made of the phrases that the rules look for; the share of a long document
that it makes up is given in the table.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from minimind.data.cleaning.chain import Outcome, clean
from minimind.data.cleaning.config import Duplicates, Rules
from minimind.data.cleaning.decontaminate import Decontaminate
from minimind.data.cleaning.minhash import Signer, find_duplicates
from minimind.data.cleaning.page import Page
from minimind.data.cleaning.pii import KINDS, is_bank_card, is_id_number
from minimind.data.document import Document
from minimind.data.formats import TextRow
from minimind.data.reader import Rejects, expand_paths, read_rows

LICENSED = {"licence": "CC-BY-4.0"}


@dataclass(frozen=True, slots=True)
class Result:
    """How often a rule fired on planted faults, on decoys and on untouched documents."""

    fault: str
    planted: int
    found: int
    decoys: int
    decoys_hit: int
    untouched: int
    fired_on_untouched: int


def read_texts(paths: list[str], count: int, rng: random.Random) -> list[str]:
    """Draw documents of 200 to 4,000 characters from all files alike."""
    files = []
    for path in expand_paths(paths):
        rows = read_rows(path, "text", rejects=Rejects())
        texts = (row.text for _, _, row in rows if isinstance(row, TextRow))
        fitting = [t for t, _ in zip((t for t in texts if 200 <= len(t) <= 4000), range(400))]  # noqa: B905
        rng.shuffle(fitting)
        files.append(fitting)
    drawn = [texts.pop() for _ in range(400) for texts in files if texts]
    rng.shuffle(drawn)
    return drawn[:count]


# ---------------------------------------------------------------- personal data


def digits(rng: random.Random, count: int) -> str:
    return "".join(rng.choice("0123456789") for _ in range(count))


def id_number(rng: random.Random, *, valid: bool = True) -> str:
    while True:
        born = f"{rng.randint(1950, 2010)}{rng.randint(1, 12):02d}{rng.randint(1, 28):02d}"
        number = rng.choice(("110101", "310104", "440305", "510107")) + born + digits(rng, 3)
        number += rng.choice("0123456789X")
        if is_id_number(number) == valid:
            return number


def bank_card(rng: random.Random, *, valid: bool = True) -> str:
    while True:
        number = rng.choice(("622202", "621700", "436742", "520083")) + digits(rng, 10)
        if is_bank_card(number) == valid:
            spaced = " ".join(number[i : i + 4] for i in range(0, 16, 4))
            return rng.choice((number, spaced))


def mobile(rng: random.Random) -> str:
    number = rng.choice(("138", "159", "186", "199", "173")) + digits(rng, 8)
    spaced = f"{number[:3]} {number[3:7]} {number[7:]}"
    return rng.choice((number, f"{number[:3]}-{number[3:7]}-{number[7:]}", spaced, f"+86 {number}",
                       "010-6" + digits(rng, 7), "0571-8" + digits(rng, 7)))  # fmt: skip


PII: dict[str, tuple[Callable[[random.Random], tuple[str, str]], Callable[[random.Random], str]]] = {
    "id-number": (lambda r: (rf"她的身份证号码是{(v := id_number(r))}，请核对。", v),
                  lambda r: f"订单编号为{id_number(r, valid=False)}，请妥善保存。"),
    "bank-card": (lambda r: (f"请汇款到{(v := bank_card(r))}，户名李明。", v),
                  lambda r: f"流水号{bank_card(r, valid=False)}已经生成。"),
    "phone": (lambda r: (f"有事可以打电话{(v := mobile(r))}找我。", v),
              lambda r: f"这颗小行星的编号是{r.randint(20, 99)}{digits(r, 9)}。"),
    "email": (lambda r: ((f"来信请寄{(v := f'{r.choice(NAMES)}{digits(r, 3)}@{r.choice(HOSTS)}')}。"), v),
              lambda r: f"在代码里写上@{r.choice(NAMES)}即可提醒他。"),
    "address": (lambda r: (f"他住在{(v := address(r))}，已经十年了。", v),
                lambda r: f"这趟{r.randint(2, 99)}路公交车每天{r.randint(2, 30)}号检修。"),
    "plate": (lambda r: (f"肇事车辆的牌照是{(v := plate(r))}。", v),
              lambda r: f"沪C{r.choice('ABC')}型标准的第{r.randint(2, 9)}版已经发布。"),
    "passport": (lambda r: (f"护照号：{(v := r.choice('EG') + digits(r, 8))}，签发于北京。", v),
                 lambda r: f"型号E{digits(r, 8)}的零件已经停产。"),
    "ip": (lambda r: (f"攻击来自{(v := f'{r.choice((58, 101, 183, 221))}.{r.randint(1, 250)}.{r.randint(1, 250)}.{r.randint(1, 250)}')}这个地址。", v),
           lambda r: f"路由器的地址一般是192.168.{r.randint(0, 9)}.1，固件版本是v{r.randint(1, 9)}.{r.randint(0, 9)}.{r.randint(0, 9)}.{r.randint(0, 9)}。"),
    "account": (lambda r: (f"加我的微信号{(v := r.choice(NAMES) + '_' + digits(r, 4))}聊聊。", v),
                lambda r: f"微信在{r.randint(2011, 2020)}年有了{r.randint(2, 9)}个新功能。"),
}  # fmt: skip
NAMES = ("zhangwei", "lihong", "wangfang", "chenjie", "liuyang")
HOSTS = ("163.com", "qq.com", "example.com.cn", "gmail.com", "mail.tsinghua.edu.cn")


def address(rng: random.Random) -> str:
    return rng.choice((
        f"北京市海淀区中关村大街{rng.randint(2, 99)}号院{rng.randint(2, 9)}号楼{digits(rng, 3)}室",
        f"浙江省杭州市西湖区文三路{rng.randint(2, 400)}号",
        f"上海市浦东新区张江路{rng.randint(2, 900)}弄{rng.randint(2, 60)}号{digits(rng, 3)}室",
        f"成都市武侯区人民南路四段{rng.randint(2, 60)}号{rng.randint(2, 9)}单元{digits(rng, 3)}号",
        f"湖南省长沙县星沙街道开元路{rng.randint(2, 99)}号{rng.randint(2, 9)}栋",
    ))  # fmt: skip


def plate(rng: random.Random) -> str:
    place = rng.choice("京沪粤浙川鲁") + rng.choice("ABCDE")
    return place + rng.choice(("", "·")) + rng.choice("ABCDEFGH") + digits(rng, 4)


# ---------------------------------------------------------------- spam, licences

SPAM = {
    "advertising": (
        "本店所有商品一律三折起，今天下单还送价值三百元的大礼包，库存不多，先到先得，赶快联系客服小妹吧！加微信 mm88 领券，全国包邮，货到付款。",
        "祖传老中医秘方，三个疗程彻底根治牛皮癣，无效退款，绝无副作用，现在拨打咨询热线还可免费试用七天。",
        "不看征信，无抵押贷款，身份证就能贷，最快十分钟到账，黑户白户都能做，需要的老板扫码添加经理微信咨询。",
        "厂家直销各类办公家具，批发价格，量大从优，欢迎来电洽谈，常年诚招代理，一件代发，全国联保。",
        "专业代写论文，职称论文代写，核心期刊包发表，代开发票，办理各类证件，诚信经营，先办后付，联系QQ。",
        "在家就能做的兼职，每天两小时，日赚三百不是梦，零投入，轻松赚钱，名额有限，长按识别二维码添加老师。",
        "想减肥又管不住嘴？明星都在用的减肥产品，一个月瘦二十斤，不反弹，限时特价，立即购买再送一盒。",
        "奶茶加盟哪家好？总部扶持，三万开店，当月回本，加盟热线全天开通，现在签约免加盟费，在线咨询领取资料。",
    ),
    "seo": (
        "免费下载 高速下载 本地下载 电信下载 联通下载 破解版下载 绿色版 汉化版下载 安卓版下载 苹果版 官网下载 最新版本 手机版下载 点击下载",
        "小说最新章节 全文免费阅读 无弹窗 txt下载 全集下载 笔趣阁 顶点小说 手机阅读 在线阅读 番外 大结局 目录 电子书下载",
        "高清在线观看 免费观看 完整版在线 国语 手机在线看 迅雷下载 BT种子 电视剧全集在线观看 抢先版 百度云资源",
        "网站优化 关键词排名 快速排名 百度推广 整站优化 外链代发 友情链接交换 蜘蛛池出租 站群系统 百度快照",
        "热门搜索：北京装修公司 上海装修公司 广州装修公司 相关搜索：装修多少钱 装修报价 猜你喜欢 热门标签 相关推荐 更多精彩尽在本站",
        "本站提供最全的表格模板免费下载，工作总结免费下载，合同范本立即下载，收藏本站，设为首页，大家都在搜，热门推荐",
    ),
    "adult": (
        "同城约炮，寂寞少妇在线等你，一夜情安全私密，裸聊直播免费看，真实照片，上门服务小姐随叫随到。",
        "国产自拍 偷拍自拍 成人视频 无码 有码 东京热 一本道 高清 AV在线 免费看片 人妻 熟女 丝袜美腿",
        "最新成人小说网，激情小说每日更新，乱伦小说，黄色小说，情色小说大全，成人电影在线看。",
        "外围女 外围模特 学生妹上门 包夜 楼凤信息 莞式服务 全套服务 各城市高端资源 加联系方式看照片",
    ),
    "gambling": (
        "澳门新葡京娱乐城，真人荷官在线发牌，百家乐、老虎机应有尽有，注册送彩金三十八元，提现秒到账。",
        "北京赛车pk10计划群，导师带单，稳赚不赔，时时彩、快三、六合彩全天计划，包赢，首存送百分之百。",
        "皇冠体育投注平台，滚球赔率最高，世界杯期间存款优惠不断，体育投注首选，网上赌博安全可靠有保障。",
        "最好玩的真钱棋牌，炸金花、牛牛平台，捕鱼游戏一炮成富翁，每天彩金领不停，秒提现，玩家都说稳赢。",
    ),
}  # fmt: skip

FORBIDDEN = (
    "本文采用知识共享署名-非商业性使用 4.0 国际许可协议进行许可。",
    "本站文章除特别声明外，均采用 CC BY-NC-SA 4.0 许可协议。转载请注明来自某某的博客！",
    "License: https://creativecommons.org/licenses/by-nc-nd/4.0/deed.zh",
    "本作品采用 知识共享署名-禁止演绎 3.0 中国大陆许可协议 进行许可",
    "版权所有，未经许可不得转载。",
    "未经作者书面授权，严禁转载、摘编或以其他方式使用本文内容。",
    "© 2020 All Rights Reserved.",
    "许可协议：CC BY-NC 4.0",
)
ALLOWED = (
    "本文采用知识共享署名 4.0 国际许可协议进行许可。",
    "本站文章除特别声明外，均采用 CC BY-SA 4.0 许可协议。转载请注明来自某某的博客！",
    "License: https://creativecommons.org/licenses/by/4.0/deed.zh",
    "本作品已进入公有领域。https://creativecommons.org/publicdomain/mark/1.0/",
    "在知识共享的各种协议里，带有非商业性使用条款的并不算自由文化作品。",
    "很多博客会写上版权声明，但是读者往往视而不见。",
)


# ---------------------------------------------------------------- the measurement


def insert(text: str, part: str, rng: random.Random) -> str:
    """Put a passage after a sentence in the text."""
    ends = [i + 1 for i, c in enumerate(text) if c in "。！？\n"] or [len(text)]
    at = rng.choice(ends)
    return text[:at] + part + text[at:]


def changed(text: str, share: float, pool: str, rng: random.Random) -> str:
    """Replace a share of the characters, scattered."""
    return "".join(rng.choice(pool) if rng.random() < share else c for c in text)


def resentenced(text: str, share: float, others: list[str], rng: random.Random) -> str:
    """Replace a share of the sentences by those of other documents."""
    pieces = text.replace("！", "。").split("。")
    return "。".join(
        rng.choice(rng.choice(others).split("。")) if rng.random() < share else p for p in pieces
    )


def run(text: str, rules: Rules, meta: dict[str, str] | None = None) -> Outcome:
    return clean(Document(text, "x", dict(LICENSED if meta is None else meta)), rules)


def count(outcomes: Iterator[bool]) -> int:
    return sum(outcomes)


def pii_results(texts: list[str], rules: Rules, rng: random.Random) -> Iterator[Result]:
    half = len(texts) // 2
    untouched = [run(text, rules).counts for text in texts[half:]]
    for kind in KINDS:
        plant, decoy = PII[kind]
        found = decoys = 0
        for text in texts[:half]:
            sentence, value = plant(rng)
            found += value not in run(insert(text, sentence, rng), rules).page.text
            before = run(text, rules).counts["pii", kind]
            decoys += run(insert(text, decoy(rng), rng), rules).counts["pii", kind] > before
        fired = count(bool(counts["pii", kind]) for counts in untouched)
        yield Result(f"pii: {kind}", half, found, half, decoys, len(untouched), fired)


def spam_results(texts: list[str], rules: Rules, rng: random.Random) -> Iterator[Result]:
    half = len(texts) // 2
    for kind, passages in SPAM.items():
        fired = count(run(text, rules).rule == kind for text in texts[half:])
        pages = ["\n".join(rng.sample(passages, rng.randint(1, 3))) for _ in range(half)]
        found = count(run(page, rules).drop is not None for page in pages)
        yield Result(f"{kind}: whole page", half, found, 0, 0, len(texts) - half, fired)
        mixed = [
            insert(text[:800], f"\n{page}\n", rng) for text, page in zip(texts, pages, strict=False)
        ]
        found = count(run(page, rules).drop is not None for page in mixed)
        yield Result(f"{kind}: in 800 characters", half, found, 0, 0, 0, 0)


def licence_result(texts: list[str], rules: Rules, rng: random.Random) -> Result:
    half = len(texts) // 2
    found = decoys = 0
    for text in texts[:half]:
        for sayings, meta in ((FORBIDDEN, LICENSED), (ALLOWED, LICENSED)):
            said = rng.choice(sayings)
            page = f"{text}\n\n{said}" if rng.random() < 0.7 else f"{said}\n{text}"
            dropped = run(page, rules, meta).rule == "licence"
            found, decoys = (
                found + (dropped and sayings is FORBIDDEN),
                decoys + (dropped and sayings is ALLOWED),
            )
    fired = count(run(text, rules).rule == "licence" for text in texts[half:])
    return Result("licence: NC, ND, reserved", half, found, half, decoys, len(texts) - half, fired)


MOJIBAKE = (("utf-8", "latin-1"), ("utf-8", "cp1252"), ("utf-8", "gb18030"), ("gb18030", "latin-1"),
            ("big5", "gb18030"), ("gb18030", "big5"))  # fmt: skip


def as_browsers_read(data: bytes) -> str:
    """Decode cp1252; the five bytes that it leaves out become control characters."""
    return "".join(bytes((b,)).decode("cp1252", "ignore") or chr(b) for b in data)


def mojibake_results(texts: list[str], rules: Rules) -> Iterator[Result]:
    import opencc

    half = len(texts) // 2
    fired = count(
        bool([k for k in run(text, rules).counts if k[0] == "encoding"]) for text in texts[half:]
    )
    traditional = opencc.OpenCC("s2t").convert
    for right, wrong in MOJIBAKE:
        planted = repaired = caught = 0
        for text in texts[:half]:
            source = traditional(text) if right == "big5" else text
            data = source.encode(right, "ignore")
            spoilt = as_browsers_read(data) if wrong == "cp1252" else data.decode(wrong, "replace")
            outcome, clean_text = run(spoilt, rules), run(data.decode(right), rules).page.text
            planted += 1
            good = similar(outcome.page.text, clean_text) >= 0.95
            repaired += good and outcome.drop is None
            caught += good or outcome.drop is not None
        yield Result(f"{right} read as {wrong}: repaired", planted, repaired, 0, 0, half, fired)
        yield Result(f"{right} read as {wrong}: or dropped", planted, caught, 0, 0, 0, 0)


def similar(a: str, b: str) -> float:
    """Return the Jaccard similarity of runs of three characters, spaces left out."""
    grams = [
        {"".join(t.split())[i : i + 3] for i in range(len("".join(t.split())) - 2)} for t in (a, b)
    ]
    return len(grams[0] & grams[1]) / max(len(grams[0] | grams[1]), 1)


def duplicate_results(texts: list[str], rng: random.Random) -> Iterator[Result]:
    half, pool = len(texts) // 2, "".join(texts)
    cases = [(f"near-duplicate: {share:.0%} of {what}", share, edit) for what, edit in (
        ("characters", lambda t, s: changed(t, s, pool, rng)),
        ("sentences", lambda t, s: resentenced(t, s, texts, rng))) for share in (0.05, 0.2, 0.5)]  # fmt: skip
    for name, share, edit in cases:
        copies = [edit(text, share) for text in texts[:half]]
        gone = duplicates(texts + copies)
        found = count(number in gone for number in range(len(texts), len(texts) + half))
        fired = count(number in gone for number in range(len(texts)))
        yield Result(name, half, found, 0, 0, len(texts), fired)


def duplicates(texts: list[str]) -> set[int]:
    signer = Signer(Duplicates())
    for number, text in enumerate(texts):
        signer.add(Page(Document(text, str(number))))
    with tempfile.TemporaryDirectory() as folder:
        signer.write(Path(folder) / "all")
        return {found.row for found in find_duplicates([Path(folder) / "all"], Duplicates())[0]}


def contamination_results(texts: list[str], rng: random.Random) -> Iterator[Result]:
    """Take sentences of other documents for the evaluation set."""
    third = len(texts) // 3
    sentences = [
        s for t in texts[:third] for s in t.split("。") if 25 <= len(s) <= 120 and "\n" not in s
    ]
    questions = rng.sample(sentences, min(300, len(sentences)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "evaluation.jsonl"
        path.write_text("".join(json.dumps({"question": q}) + "\n" for q in questions), "utf-8")
        rules = Rules(decontaminate=Decontaminate(against=(str(path),)))
        hosts = texts[third:]
        fired = count(run(text, rules).rule == "decontaminate" for text in hosts)
        for name, edit in (
            ("as it is", lambda q: q),
            ("other punctuation and spaces", lambda q: " ".join(q.replace("，", ",\n"))),
            ("5% of characters changed", lambda q: changed(q, 0.05, "的一是了我", rng)),
        ):
            planted = [
                insert(rng.choice(hosts), edit(rng.choice(questions)) + "。", rng)
                for _ in range(third)
            ]
            found = count(run(page, rules).rule == "decontaminate" for page in planted)
            yield Result(f"evaluation item: {name}", third, found, 0, 0, len(hosts), fired)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("paths", nargs="+", help="files or folders of real text")
    parser.add_argument("--documents", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    texts = [t for t in read_texts(args.paths, args.documents, rng) if run(t, Rules()).drop is None]
    results = [
        *pii_results(texts[:400], Rules(), rng), *mojibake_results(texts[:200], Rules()),
        *spam_results(texts[:600], Rules(), rng), licence_result(texts[:600], Rules(), rng),
        *duplicate_results(texts, rng), *contamination_results(texts[:600], rng),
    ]  # fmt: skip
    if args.json:
        print(json.dumps([asdict(result) for result in results], ensure_ascii=False))
        return
    table = Table(title=f"planted faults in {len(texts)} real documents", title_justify="left")
    for column in ("fault", "recall", "decoys hit", "fired on untouched"):
        table.add_column(column, justify="left" if column == "fault" else "right")
    for r in results:
        table.add_row(r.fault, *(f"{hit / of:.1%} ({hit}/{of})" if of else "" for hit, of in (
            (r.found, r.planted), (r.decoys_hit, r.decoys), (r.fired_on_untouched, r.untouched))))  # fmt: skip
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
