"""Chinese data sets of the hub by name: what they are for, how large, under which licence.

Nothing of them was downloaded for this project: size, fields and licence are what each card says
(`checked`), and where no card could be read the licence counts as unknown. What is non-commercial,
bound to an agreement, or unknown is off unless `data.accept_licences` names its licence.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from minimind.data.formats import Kind

OPEN_LICENCES = frozenset({
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "isc", "unlicense", "cc0-1.0", "pddl",
    "odc-by", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-2.0", "cc-by-sa-2.5",
    "cc-by-sa-3.0", "cc-by-sa-4.0", "gfdl", "gpl-2.0", "gpl-3.0", "lgpl-3.0", "mpl-2.0",
    "cdla-permissive-1.0", "cdla-permissive-2.0", "public domain", "local files",
})  # fmt: skip
"""Free to train on and to pass the model on; share-alike and copyleft are the user's to weigh."""


@dataclass(frozen=True, kw_only=True)
class HubEntry:
    """One data set.

    Attributes:
        name: what the command line calls it: `hub:NAME`.
        id: `ORG/NAME` on the hub.
        kind: which stage reads it.
        gb: size as its card gives it, in GB; 0 where it doesn't say.
        rows: the same in rows, in words.
        fields: what a row has that is read.
        licence: as declared; `unknown` where it isn't, or wasn't seen.
        rename: (theirs, ours) for fields that go by another name.
        checked: the card was read for this entry (as archived, 2026-11).
    """

    name: str
    id: str
    kind: Kind
    about: str
    gb: float
    rows: str
    fields: str
    licence: str
    config: str | None = None
    split: str = "train"
    rename: tuple[tuple[str, str], ...] = ()
    checked: bool = True

    @property
    def bytes(self) -> int:
        """Return the size in bytes; 0 if it is not known."""
        return int(self.gb * 1e9)

    @property
    def is_open(self) -> bool:
        """Tell whether it is used without asking."""
        return self.checked and is_open(self.licence)


def is_open(licence: str) -> bool:
    """Tell whether every licence in a comma-separated list is an open one."""
    return all(part.strip().lower() in OPEN_LICENCES for part in licence.split(","))


HUB: tuple[HubEntry, ...] = (
    HubEntry(
        name="fineweb-edu-zh", id="opencsg/chinese-fineweb-edu", kind="text",
        about="web pages chosen for teaching value / 教育网页", gb=0, rows="10-100 M",
        fields="text", licence="apache-2.0",
    ),
    HubEntry(
        name="fineweb-edu-zh-v2", id="opencsg/chinese-fineweb-edu-v2", kind="text",
        about="the larger second edition / 第二版", gb=0, rows="0.1-1 G",
        fields="text", licence="apache-2.0",
    ),
    HubEntry(
        name="wikipedia-zh", id="wikimedia/wikipedia", kind="text", config="20231101.zh",
        about="encyclopaedia / 维基百科", gb=0, rows="1.4 M",
        fields="title, text", licence="cc-by-sa-3.0, gfdl", checked=False,
    ),
    HubEntry(
        name="skypile", id="Skywork/SkyPile-150B", kind="text",
        about="filtered web pages / 网页", gb=620, rows="233 M",
        fields="text", licence="skywork agreement",
    ),
    HubEntry(
        name="cci3", id="BAAI/CCI3-Data", kind="text",
        about="web pages of chosen sites; log in first / 网页，需登录", gb=1000, rows="",
        fields="content", licence="cci agreement",
    ),
    HubEntry(
        name="cci3-hq", id="BAAI/CCI3-HQ", kind="text",
        about="the better half of it; log in first / 高质量子集", gb=500, rows="",
        fields="text", licence="cci agreement",
    ),
    HubEntry(
        name="smoltalk-zh", id="opencsg/smoltalk-chinese", kind="chat",
        about="synthetic conversations of many tasks / 合成对话", gb=0, rows="0.7 M",
        fields="conversations", licence="apache-2.0",
    ),
    HubEntry(
        name="coig", id="BAAI/COIG", kind="chat",
        about="translated and hand-checked instructions / 人工校验指令", gb=0, rows="0.19 M",
        fields="instruction, input, output", licence="apache-2.0",
    ),
    HubEntry(
        name="coig-cqia", id="m-a-p/COIG-CQIA", kind="chat",
        about="hand-picked answers from forums and exams / 精选问答", gb=0, rows="",
        fields="instruction, input, output", licence="unknown", checked=False,
    ),
    HubEntry(
        name="belle-1m", id="BelleGroup/train_1M_CN", kind="chat",
        about="Alpaca-style, by a commercial model; research only / 指令", gb=0, rows="1 M",
        fields="instruction, input, output", licence="research only",
    ),
    HubEntry(
        name="belle-0.5m", id="BelleGroup/train_0.5M_CN", kind="chat",
        about="its first part; research only / 指令", gb=0, rows="0.5 M",
        fields="instruction, input, output", licence="research only",
    ),
    HubEntry(
        name="alpaca-zh", id="shibing624/alpaca-zh", kind="chat",
        about="Alpaca's tasks answered anew in Chinese / 指令", gb=0, rows="",
        fields="instruction, input, output", licence="unknown", checked=False,
    ),
    HubEntry(
        name="firefly", id="YeungNLP/firefly-train-1.1M", kind="chat",
        about="23 tasks from templates / 多任务指令", gb=0, rows="1.1 M",
        fields="input, target", licence="unknown", checked=False,
        rename=(("input", "instruction"), ("target", "output")),
    ),
    HubEntry(
        name="dpo-zh", id="hiyouga/DPO-En-Zh-20k", kind="preference", config="zh",
        about="preference pairs, the Chinese half / 偏好数据", gb=0.029, rows="10 k",
        fields="conversations, chosen, rejected", licence="apache-2.0",
    ),
    HubEntry(
        name="ultrafeedback-zh", id="opencsg/UltraFeedback-chinese", kind="preference",
        about="four models' answers, scored by a fifth / 打分偏好", gb=0, rows="58 k",
        fields="chosen, rejected (its binarized files)", licence="apache-2.0",
    ),
    HubEntry(
        name="huatuo-encyclopedia", id="FreedomIntelligence/huatuo_encyclopedia_qa", kind="chat",
        about="medical questions from encyclopaedias / 医疗百科问答", gb=0, rows="0.36 M",
        fields="questions, answers", licence="unknown", checked=False,
    ),
    HubEntry(
        name="medical-zh", id="shibing624/medical", kind="chat", config="finetune",
        about="medical consultations and instructions / 医疗指令", gb=0, rows="",
        fields="instruction, input, output", licence="unknown", checked=False,
    ),
)  # fmt: skip

BY_NAME = {entry.name: entry for entry in HUB}


def near_names(name: str) -> str:
    """Return the nearest names and ids of the catalogue, quoted, or ""."""
    known = {label.lower(): label for entry in HUB for label in (entry.name, entry.id)}
    near = difflib.get_close_matches(name.lower(), known, n=2, cutoff=0.6)
    return " or ".join(repr(known[label]) for label in near)
