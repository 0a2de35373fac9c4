"""The report's sentences in English and Chinese. Figures are filled in by `sections`."""

from __future__ import annotations

from collections.abc import Mapping

from minimind.eval.statistics import Language

STAGE_NAMES: dict[Language, Mapping[str, str]] = {
    "en": {
        "start": "untrained", "data": "data", "tokenizer": "tokenizer", "plan": "plan",
        "pretrain": "pretraining", "sft": "SFT", "preferences": "preference pairs", "dpo": "DPO",
        "evaluation": "evaluation", "problems": "problems for DPO",
    },
    "zh": {
        "start": "未训练", "data": "数据", "tokenizer": "分词器", "plan": "计划",
        "pretrain": "预训练", "sft": "指令微调 SFT", "preferences": "偏好数据",
        "dpo": "偏好优化 DPO", "evaluation": "评测", "problems": "DPO 用的题目",
    },
}  # fmt: skip

STAGE_LINES: dict[Language, Mapping[str, str]] = {
    "en": {
        "data": "fetched open texts by checksum; wrote documents, questions and the licence ledger",
        "tokenizer": "learnt which pieces of words to read and write, guided by jieba",
        "plan": "timed real training steps here and set each stage's budget by them",
        "pretrain": "from random weights, learnt to predict the next token of plain text",
        "sft": "learnt to answer: the same loop, but only the assistant's tokens count",
        "preferences": "had this very model answer problems; a verifier marked its mistakes",
        "dpo": "learnt to prefer verified answers to its own mistakes",
        "evaluation": "measured on text and questions that no stage has trained on",
    },
    "zh": {
        "data": "按校验和下载开放文本，写出文档、问答和许可证台账",
        "tokenizer": "在 jieba 分词引导下，学出读写用的词元",
        "plan": "实测本机训练速度，据此分配各阶段预算",
        "pretrain": "从随机权重开始，学习预测纯文本的下一个词元",
        "sft": "学习回答问题：同一个训练循环，只在助手的回答上计算损失",
        "preferences": "让这个模型自己做题，由验算程序标出错误",
        "dpo": "学习偏好验证过的答案，而不是自己的错误答案",
        "evaluation": "在任何阶段都没有训练过的文本和题目上测量",
    },
}

FIGURES: dict[Language, Mapping[str, str]] = {
    "en": {
        "bits_per_byte": "bits per byte", "answer_loss": "loss on answers, nats per token",
        "dpo_loss": "DPO loss", "preference_accuracy": "preference accuracy",
        "solved_share": "problems solved",
    },
    "zh": {
        "bits_per_byte": "每字节比特数", "answer_loss": "回答损失（nats/词元）",
        "dpo_loss": "DPO 损失", "preference_accuracy": "偏好准确率", "solved_share": "做对的比例",
    },
}  # fmt: skip
"""What `StageRecord.figure` names: a measure of eval.json; anything else is shown as it is."""

DETAILS: dict[Language, Mapping[str, str]] = {
    "en": {},
    "zh": {
        "documents": "文档", "hanzi": "汉字", "bytes": "字节", "instructions": "问答",
        "vocabulary": "词表", "characters per token": "每词元字符数",
        "tokens per second": "词元/秒",
        "pretrain steps": "预训练步数", "sft steps": "SFT 步数", "problems": "题目",
        "pairs": "偏好对", "measures": "指标", "answers": "回答",
        "answers: right": "答对", "answers: wrong": "答错",
        "answers: unclear": "无法判定", "answers: too long": "未写完",
        "pairs: held out": "留出的偏好对",
    },
}  # fmt: skip
"""What `StageRecord.details` may name; anything else is shown as it is."""

COMMANDS: dict[Language, Mapping[str, str]] = {
    "en": {
        "chat": "talk to it", "repeat": "the same run again", "resume": "continue a broken run",
        "bigger": "a larger model", "report": "make this report again",
        "checkpoint": "look inside the checkpoint",
    },
    "zh": {
        "chat": "和它聊天", "repeat": "重复这次运行", "resume": "继续中断的运行",
        "bigger": "训练更大的模型", "report": "重新生成本报告", "checkpoint": "查看检查点",
    },
}  # fmt: skip

WORDS: dict[Language, Mapping[str, str]] = {
    "en": {
        "title": "A language model that you trained yourself",
        "intro": "{parameters}, trained from random weights in **{time}** on {device}"
        "{machine}. Every figure below was measured in this run, on text that it was not "
        "trained on, and can be repeated with the commands at the end.",
        "parameters": "**{million:.2f} million parameters**",
        "parameters_unknown": "A model",
        "device_unknown": "this machine",
        "machine": " (preset `{preset}`, seed {seed}, torch {torch})",
        "stages": "What happened",
        "stage": "stage", "did": "what it did", "time": "time", "tokens": "tokens",
        "figure": "figure", "before_after": "before → after", "total": "all",
        "curves": "Loss curves",
        "curves_caption": "Training and held-out loss of each stage",
        "curves_text": "Down is better. The light line is each logged step, the dark one their "
        "running mean, the dots the held-out loss. When the held-out loss turns up while the "
        "training loss goes on falling, the model begins to learn by heart.",
        "bpb": "How well does it know the language?",
        "bpb_text": "Bits per byte: how many bits it needs for each byte of unseen text (a hanzi "
        "is "
        "3 bytes). No knowledge at all is 8. After pretraining: **{value:.3f}** "
        "({interval}, {n} documents).",
        "bpb_text_of": "Bits per byte: how many bits it needs for each byte of unseen text (a "
        "hanzi is 3 bytes). No knowledge at all is 8. {name}: **{value:.3f}** ({interval}, {n} "
        "documents).",
        "bpb_lower": "bits per byte (lower is better)",
        "bpb_unigram": "That is **{percent:.0f} % below** a model that knows only how often each "
        "token occurs ({value:.3f}): the difference is what context taught it.",
        "bpb_unigram_worse": "That is not below a model that knows only how often each token "
        "occurs ({value:.3f}): it has learnt next to nothing yet.",
        "bpb_better": "It is **{percent:.0f} % below** {name} ({value:.3f}), the strongest "
        "compressor measured, which was given all the training text.",
        "bpb_worse": "It does **not** beat {name} ({value:.3f}; {percent:.0f} % above), the "
        "strongest compressor measured, which was given all the training text.",
        "bpb_fair": "How fair is that? The compressors read the held-out documents as one stream "
        "and "
        "pay nothing for where a document ends; the model reads each document alone and pays for "
        "its end. Neither the weights nor the training text are counted.",
        "bpb_caption": "Bits per byte by source, the model beside its baselines",
        "source": "source", "documents": "documents", "model": "this model", "all": "all",
        "unigram": "token frequencies", "zstd": "zstd -19", "xz": "xz -9e",
        "bpb_stages": "Bits per byte after each stage: {list}. A rise is what the later stages "
        "forgot of plain text.",
        "sft": "Does it answer?",
        "sft_text": "Loss on the answers of {n} held-out conversations, in nats per token: "
        "**{before:.3f} → {after:.3f}** by SFT (after: {interval}). In other words, it is as "
        "unsure as "
        "between {p_before:.1f} equally likely tokens before, {p_after:.1f} after.",
        "dpo": "Does it prefer right answers?",
        "dpo_loss": "DPO's loss on {n} held-out pairs: {before:.3f} → **{after:.3f}** (0.693 is "
        "ln 2, no preference).",
        "dpo_accuracy": "Relative to the SFT model it moved towards the verified answer in "
        "**{value:.0%}** of the pairs ({interval}): {chance}.",
        "dpo_raw": "Taken absolutely, the verified answer is the likelier one in {value:.0%} of "
        "the "
        "pairs ({interval}); before DPO it was {before}.",
        "dpo_margin": "Mean margin of the implicit rewards: {value:.3f} ({interval}).",
        "solved": "Held-out problems with the right final value: {list}.",
        "choice": "Four-choice questions from held-out documents",
        "choice_text": "The most likely of four texts is its answer; guessing gives 25 %. Entries "
        "that another training text names are not asked.",
        "clean_text": "**Unseen only**: the same without the items that share 13 characters in a "
        "row with a training document.",
        "question": "question", "after": "after", "correct": "right", "interval": "95 % interval",
        "n": "n", "verdict": "verdict",
        "samples": "What it says, stage by stage",
        "prompt": "Prompt: {prompt}", "output": "output", "empty": "(nothing: it stopped at once)",
        "can": "What such a model can and can't do",
        "data": "What it was trained on",
        "licence": "licence", "package": "package", "megabytes": "MB", "rows": "rows",
        "use": "used for", "templated": "templated", "yes": "yes", "no": "no",
        "data_text": "Each source with its licence as declared. Keep this table when you give the "
        "model away. Templated: the facts are the source's, the sentences around them ours.",
        "next": "Do it again, and go on",
        "missing": "Not in this report",
        "missing_file": "`{file}` is not there: {what} is left out",
        "broken_file": "{error}: {what} is left out",
        "missing_measure": "{what} was not measured",
        "missing_plots": "no pictures: {error}",
        "what_stages": "the list of stages", "what_eval": "what the evaluation measured",
        "what_metrics": "the loss curve of {stage}", "what_ledger": "the table of sources",
        "what_bpb": "bits per byte", "what_sft": "the answer loss before and after SFT",
        "what_dpo": "the held-out preference accuracy", "what_samples": "samples of its text",
        "what_baselines": "baselines for the bits per byte",
        "seconds": "{s:.0f} s", "minutes": "{m:.0f} min {s:.0f} s",
    },
    "zh": {
        "title": "你亲手训练的语言模型",
        "intro": "{parameters}，从随机权重开始，在 {device} 上用 **{time}** 训练而成{machine}。"
        "下面的每个数字都是这次运行在未参与训练的文本上测得的，用文末的命令可以重复。",
        "parameters": "一个**{wan:,.0f} 万参数**的模型",
        "parameters_unknown": "一个模型",
        "device_unknown": "本机",
        "machine": "（预设 `{preset}`，随机种子 {seed}，torch {torch}）",
        "stages": "发生了什么",
        "stage": "阶段", "did": "做了什么", "time": "用时", "tokens": "词元",
        "figure": "指标", "before_after": "之前 → 之后", "total": "合计",
        "curves": "损失曲线",
        "curves_caption": "各阶段的训练损失与留出集损失",
        "curves_text": "越低越好。浅色线是每次记录的值，深色线是滑动平均，圆点是留出集损失。"
        "如果训练损失继续下降而留出集损失开始上升，说明模型开始死记硬背了。",
        "bpb": "它对语言掌握得怎么样？",
        "bpb_text": "每字节比特数：每预测一个字节的陌生文本需要多少比特（一个汉字 3 字节）。"
        "一无所知是 8。预训练之后：**{value:.3f}**（{interval}，{n} 篇文档）。",
        "bpb_text_of": "每字节比特数：每预测一个字节的陌生文本需要多少比特（一个汉字 3 字节）。"
        "一无所知是 8。{name}：**{value:.3f}**（{interval}，{n} 篇文档）。",
        "bpb_lower": "每字节比特数（越低越好）",
        "bpb_unigram": "比只知道词元频率的模型（{value:.3f}）**低 {percent:.0f} %**："
        "这个差距就是它从上下文中"
        "学到的东西。",
        "bpb_unigram_worse": "并不低于只知道词元频率的模型（{value:.3f}）：它几乎还没学到什么。",
        "bpb_better": "比 {name}（{value:.3f}）**低 {percent:.0f} %**；"
        "它是测过的最强的压缩程序，事先读过全部训练文本。",
        "bpb_worse": "**没有**胜过 {name}（{value:.3f}，高出 {percent:.0f} %）；"
        "它是测过的最强的压缩程序，事先读过全部训练文本。",
        "bpb_fair": "这样比公平吗？压缩程序把留出文档当作一整条流来读，"
        "也不用为“文档在哪里结束”付出代价；"
        "模型则单独读每篇文档，并要为结束符付出代价。模型权重和训练文本的大小都不计入。",
        "bpb_caption": "各来源的每字节比特数：模型与基线",
        "source": "来源", "documents": "文档数", "model": "本模型", "all": "全部",
        "unigram": "词频模型", "zstd": "zstd -19", "xz": "xz -9e",
        "bpb_stages": "各阶段之后的每字节比特数：{list}。升高的部分，是后面的阶段对纯文本的遗忘。",
        "sft": "它会回答问题吗？",
        "sft_text": "{n} 段留出对话中，回答部分每个词元的损失（nats）：SFT 使它 **{before:.3f} → "
        "{after:.3f}**"
        "（之后：{interval}）。换句话说，之前好比在 {p_before:.1f} 个同样可能的词元中犹豫，之后是 "
        "{p_after:.1f} 个。",
        "dpo": "它偏好正确的答案吗？",
        "dpo_loss": "{n} 对留出数据上的 DPO 损失：{before:.3f} → **{after:.3f}**（0.693 即 ln 2，"
        "表示没有偏好）。",
        "dpo_accuracy": "与 SFT 模型相比，有 **{value:.0%}** "
        "的数据对（{interval}）向验证过的答案移动：{chance}。",
        "dpo_raw": "绝对地看，验证过的答案概率更高的占 {value:.0%}（{interval}）；DPO 之前是 "
        "{before}。",
        "dpo_margin": "隐式奖励的平均差距：{value:.3f}（{interval}）。",
        "solved": "留出题目中最终数值正确的比例：{list}。",
        "choice": "由留出文档出的四选一题",
        "choice_text": "四段文本中概率最高的一段就是它的回答；随机猜测是 25 %。"
        "其他训练文本里提到过的条目不出题。",
        "clean_text": "**仅未见过的**：去掉与训练文档有连续 13 个字相同的题目。",
        "question": "题型", "after": "阶段之后", "correct": "正确率", "interval": "95 % 区间",
        "n": "题数", "verdict": "结论",
        "samples": "各阶段模型的输出",
        "prompt": "提示：{prompt}", "output": "输出", "empty": "（空：它立刻停下了）",
        "can": "这样的模型能做什么、不能做什么",
        "data": "它读过什么",
        "licence": "许可证", "package": "软件包", "megabytes": "MB", "rows": "行数",
        "use": "用于", "templated": "模板化", "yes": "是", "no": "否",
        "data_text": "每个来源及其声明的许可证。分发模型时请附上这张表。模板化：事实来自来源，"
        "句子是我们写的。",
        "next": "再来一次，以及下一步",
        "missing": "本报告缺少的部分",
        "missing_file": "没有 `{file}`：缺{what}",
        "broken_file": "{error}：缺{what}",
        "missing_measure": "没有测量{what}",
        "missing_plots": "没有图：{error}",
        "what_stages": "阶段列表", "what_eval": "评测结果",
        "what_metrics": "{stage}的损失曲线", "what_ledger": "数据来源表",
        "what_bpb": "每字节比特数", "what_sft": "SFT 前后的回答损失",
        "what_dpo": "留出集偏好准确率", "what_samples": "生成样例",
        "what_baselines": "每字节比特数的基线",
        "seconds": "{s:.0f} 秒", "minutes": "{m:.0f} 分 {s:.0f} 秒",
    },
}  # fmt: skip

ABILITIES: dict[Language, tuple[str, ...]] = {
    "en": (
        "**Form, yes.** It writes Chinese that looks like its sources: articles of law, dictionary "
        "entries, worked sums. In a chat it takes turns and stops.",
        "**Facts, no.** It has read a few million characters of a few kinds of text, with no "
        "encyclopaedia and no news. What it says about the world is made up to sound right.",
        "**Laws and medicine: never rely on it.** It mixes article numbers, terms and symptoms "
        "fluently and wrongly.",
        "**Arithmetic, by luck.** It copies the shape of a solution; it does not calculate. "
        "Where the "
        "share of problems solved is given above, the rest are confident mistakes.",
        "**Short memory.** It sees {context} tokens at a time, and little of that well.",
        "**Not filtered for the public.** No test for bias, privacy or harmful text was run on it.",
        "**What it is good for:** seeing every step of how such models are made, changing one, and "
        "measuring what that does. For a model that is useful, use the same commands with a larger "
        "preset, a GPU and more text.",
    ),
    "zh": (
        "**形式：能。** 它写出的中文像它读过的东西：法律条文、词典条目、解题过程。"
        "聊天时会一问一答并停下来。",
        "**事实：不能。** 它只读过几类文本、几百万字，没有百科，也没有新闻。"
        "它关于世界的说法只是听起来像真的。",
        "**法律和医学：绝不能依赖。** 它会把条文序号、术语和症状混在一起，读着流畅，其实是错的。",
        "**算术：靠运气。** 它模仿解题的样子，并不真的计算。上面若给出了做对的比例，"
        "其余都是自信的错误。",
        "**记性很短。** 一次只看 {context} 个词元，而且看不太清。",
        "**没有面向公众的过滤。** 没有做过偏见、隐私或有害内容的检查。",
        "**它的用处：** 看清这类模型制作的每一步，改动其中一步，并测出改动的效果。想要有用的模型，"
        "用同样的命令，换更大的预设、一块 GPU 和更多文本。",
    ),
}
