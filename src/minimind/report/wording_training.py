"""Further sentences: the path, training curves, bands, scores, cost, comparisons."""

from __future__ import annotations

from collections.abc import Mapping

from minimind.eval.statistics import Language

TRAINING_WORDS: dict[Language, Mapping[str, str]] = {
    "en": {
        "run_title": "Training run {name}", "runs_title": "Training runs in {name}",
        "run_intro": "Everything here was read from the files that the run left in `{directory}`; "
        "nothing was measured anew. What was not found is named at the end.",
        "card_parameters": "parameters", "card_tokens": "tokens trained on",
        "card_time": "wall-clock", "card_cost": "cost", "card_bpb": "bits per byte, held-out",
        "card_loss": "held-out loss", "card_price": "at {price:g} {currency} an hour",
        "card_bpb_note": "8 is knowing nothing", "card_presets": "preset {preset}",
        "path": "From data to chat", "chat": "chat", "path_documents": "{documents:,} documents",
        "path_vocabulary": "{vocabulary:,} tokens", "path_trained": "{tokens:,} tokens",
        "path_pairs": "{pairs:,} pairs", "path_chat": "`minimind chat`",
        "path_files": "{files} data files", "path_start": "from {start}",
        "random": "random weights",
        "passes_title": "How often it read its text", "path_read": "text",
        "tokens_read": "tokens trained on", "tokens_there": "tokens that there are",
        "passes": "passes", "passes_unknown": "unknown", "counted": "counted",
        "estimated": "estimated",
        "passes_many": "{list} passes over the same text: beyond about {many:g} each further one "
        "teaches less than fresh text would. More text: `minimind speedrun --text`; or fewer "
        "minutes.",
        "passes_text": "A pass is the text once, without what is held out. Tokens are those of "
        "full rows; a chat's include padding. Estimated: from 2 MB of it, or from its size. That "
        "about 4 passes are nearly as good as fresh text was found at billions of tokens "
        "(Muennighoff et al. 2023); in short runs at nano they already cost more (docs/recipe.md).",
        "training": "Training curves", "x_tokens": "tokens", "x_step": "step", "x_time": "time",
        "loss_title": "Loss", "loss_unit": "nats", "lr_title": "Learning rate",
        "loss_by_time": "Loss over time", "on_training": "training",
        "norm_title": "Gradient norm, before clipping", "rate_title": "Tokens per second",
        "bits_title": "Bits per byte, held-out", "raw": "each logged step", "mean": "running mean",
        "held_out": "held-out", "no_preference": "ln 2: no preference",
        "band": "band of {seeds} seeds",
        "training_text": "{steps:,} steps, {tokens:,} tokens in {time}; the last logged loss "
        "{loss:.3f}.",
        "training_best": "Held-out loss: best **{best:.3f}** at step {step:,}, last {last:.3f}.",
        "training_skipped": "**{skipped:,} steps were skipped**: their loss or gradient was not "
        "finite.",
        "training_caption": "Loss, learning rate, gradient norm and tokens per second of {stage}",
        "metrics_caption": "Further figures of {stage}",
        "band_inside": "On track at {tokens:.2f}M tokens: {loss:.3f}, inside the band of {seeds} "
        "seeds ({low:.3f}–{high:.3f}).",
        "band_above": "**Above** the band of {seeds} seeds at {tokens:.2f}M tokens: {loss:.3f}, "
        "band {low:.3f}–{high:.3f}. Look at: {hint}.",
        "band_below": "**Below** the band of {seeds} seeds at {tokens:.2f}M tokens: {loss:.3f}, "
        "band {low:.3f}–{high:.3f}. Look at: {hint}.",
        "band_nan": "The loss is **not a number** at {tokens:.2f}M tokens (band of {seeds} seeds: "
        "{low:.3f}–{high:.3f}). Look at: {hint}.",
        "band_text": "The band was made from runs of this model on these data with other seeds; a "
        "loss is the mean of {average} logged points. It reaches to {reach:.2f}M tokens.",
        "band_text_mean": "The band was made from runs of this model on these data with other "
        "seeds; a loss is the mean over the last {window:,} tokens. It reaches to {reach:.2f}M "
        "tokens.",
        "hint_setting": "`{name}` is {mine}, the band's {theirs}",
        "hint_norm": "the gradient norm is {mine:.2f}, the band's {theirs:.2f}",
        "hint_above": "settings are the band's, so the order of the data, labels and mask, and "
        "what changed in the code",
        "hint_below": "whether held-out text is trained on, labels and mask, the length of rows",
        "no_band": "{stage} is held against no loss band: {error}",
        "scores": "Scores, with intervals and chance lines",
        "scores_text": "The line is the 95 % interval, the dashed tick what guessing gives. Where "
        "the interval holds the tick, the score is not distinguishable from chance: grey.",
        "scores_title": "Scores",
        "scores_caption": "Scores with their 95 % intervals; the dashed tick is chance",
        "measure": "measure", "subject": "model", "value": "value", "chance": "chance",
        "apart": "tells from chance", "not_apart": "does not", "no_chance": "no chance line",
        "by_group": "By group", "group": "group", "notes": "How it was measured",
        "preference_accuracy": "prefers the verified answer", "solved_share": "problems solved",
        "preference_accuracy_raw": "verified answer likelier",
        "along": "Samples along training", "along_text": "The same prompts, while it learnt.",
        "cost": "Time and cost", "per_second": "tokens/s", "flops": "FLOPs",
        "cost_text": "FLOPs are 6 x parameters x tokens (attention not counted).",
        "cost_price": "At **{price:g} {currency} an hour** it cost **{cost} {currency}**.",
        "cost_no_price": "No price was given: `minimind report {directory} --price 2` says what an "
        "hour at 2 costs.",
        "energy_no": "Energy was not measured.",
        "settings": "Settings", "settings_of": "run.toml of {stage}",
        "settings_text": "All settings, also those that nobody set. `minimind train` takes such a "
        "file.",
        "what_settings": "the settings of {stage}",
        "files": "Data files of {stage}", "file": "file", "sha256": "sha256",
        "used": "It read {documents:,} documents, {tokens:,} tokens; {rejects:,} rows could not be "
        "used.",
        "again": "{stage} again, by its own settings", "resume_it": "continue it",
        "talk": "talk to it", "make_report": "this report", "hours": "{h} h {m} min",
        "compare_title": "{a} beside {b}",
        "compare_intro": "Run **A** is `{a}`, run **B** is `{b}`. Both were read from their files.",
        "compare_curves": "Curves", "compare_none": "They have no training run in common.",
        "compare_loss": "Loss at equal tokens", "compare_time": "Loss at equal time",
        "compare_held_out": "Held-out loss at equal tokens",
        "equal_tokens": "At {tokens:,.0f} tokens, the most that both reached: A {a:.3f}, B {b:.3f} "
        "(**{winner}** by {gap:.3f} nats; means of up to {points} logged points).",
        "equal_time": "At {time}: A {a:.3f}, B {b:.3f} (**{winner}** by {gap:.3f} nats).",
        "level": "level",
        "compare_caption": "{stage}: A and B over tokens and over time",
        "compare_settings": "What is set differently", "setting": "setting", "absent": "not set",
        "same_settings": "Every setting of {stage} is the same.",
        "compare_scores": "Scores side by side", "difference": "B - A", "paired": "paired test",
        "compare_scores_text": "Each with its 95 % interval. A paired test needs the answers item "
        "by item in both folders.",
        "no_scores": "No measure was taken of both.",
        "no_items": "no items on disk", "p_value": "p = {p:.3g} (n = {n:,}, {test})",
        "compare_facts": "The two runs", "fact": "", "run_a": "A", "run_b": "B",
    },
    "zh": {
        "run_title": "训练运行 {name}", "runs_title": "{name} 中的训练运行",
        "run_intro": "以下内容全部读自运行留在 `{directory}` 里的文件，没有重新测量。"
        "找不到的部分列在文末。",
        "card_parameters": "参数", "card_tokens": "训练词元", "card_time": "用时",
        "card_cost": "费用", "card_bpb": "留出集每字节比特数", "card_loss": "留出集损失",
        "card_price": "每小时 {price:g} {currency}", "card_bpb_note": "一无所知是 8",
        "card_presets": "预设 {preset}",
        "path": "从数据到聊天", "chat": "聊天", "path_documents": "{documents:,} 篇文档",
        "path_vocabulary": "{vocabulary:,} 个词元", "path_trained": "{tokens:,} 词元",
        "path_pairs": "{pairs:,} 对", "path_chat": "`minimind chat`",
        "path_files": "{files} 个数据文件", "path_start": "始于 {start}", "random": "随机权重",
        "passes_title": "文本读了几遍", "path_read": "文本", "tokens_read": "训练过的词元",
        "tokens_there": "文本共有的词元", "passes": "遍数", "passes_unknown": "未知",
        "counted": "实数", "estimated": "估计",
        "passes_many": "同样的文本：{list} 遍。超过约 {many:g} 遍之后，"
        "每多一遍学到的都比不上新的文本。加文本：`minimind speedrun --text`；或者减少时间。",
        "passes_text": "一遍是全部文本一次，不含留出的部分。词元按整行计，对话的行含填充。"
        "估计：按其中 2 MB 或按大小推算。约 4 遍几乎不亚于新文本，这是在数十亿词元上的结论"
        "（Muennighoff 等，2023）；在 nano 的短训练中代价已经更大（docs/recipe.md）。",
        "training": "训练曲线", "x_tokens": "词元", "x_step": "步数", "x_time": "时间",
        "loss_title": "损失", "loss_unit": "nats", "lr_title": "学习率",
        "loss_by_time": "损失与时间", "on_training": "训练",
        "norm_title": "梯度范数（裁剪前）", "rate_title": "每秒词元数",
        "bits_title": "留出集每字节比特数", "raw": "每次记录", "mean": "滑动平均",
        "held_out": "留出集", "no_preference": "ln 2：没有偏好", "band": "{seeds} 个种子的损失带",
        "training_text": "{steps:,} 步，{tokens:,} 词元，用时 {time}；最后记录的损失 {loss:.3f}。",
        "training_best": "留出集损失：最好 **{best:.3f}**（第 {step:,} 步），最后 {last:.3f}。",
        "training_skipped": "**跳过了 {skipped:,} 步**：损失或梯度不是有限数。",
        "training_caption": "{stage}：损失、学习率、梯度范数、每秒词元数",
        "metrics_caption": "{stage}的其他指标",
        "band_inside": "进展正常：{tokens:.2f}M 词元处损失 {loss:.3f}，在 {seeds} 个种子的损失带内"
        "（{low:.3f}–{high:.3f}）。",
        "band_above": "{tokens:.2f}M 词元处**高于** {seeds} 个种子的损失带：{loss:.3f}，"
        "带为 {low:.3f}–{high:.3f}。请检查：{hint}。",
        "band_below": "{tokens:.2f}M 词元处**低于** {seeds} 个种子的损失带：{loss:.3f}，"
        "带为 {low:.3f}–{high:.3f}。请检查：{hint}。",
        "band_nan": "{tokens:.2f}M 词元处损失**不是数**"
        "（{seeds} 个种子的带：{low:.3f}–{high:.3f}）。请检查：{hint}。",
        "band_text": "损失带来自同一模型、同一数据、不同种子的运行；"
        "损失取 {average} 个记录点的平均。带到 {reach:.2f}M 词元为止。",
        "band_text_mean": "损失带来自同一模型、同一数据、不同种子的运行；"
        "损失取最近 {window:,} 个词元的平均。带到 {reach:.2f}M 词元为止。",
        "hint_setting": "`{name}` 是 {mine}，带中是 {theirs}",
        "hint_norm": "梯度范数是 {mine:.2f}，带中是 {theirs:.2f}",
        "hint_above": "设置与带相同，因此是数据顺序、标签与掩码，以及代码的改动",
        "hint_below": "留出文本是否进入了训练、标签与掩码、行的长度",
        "no_band": "{stage}没有对照损失带：{error}",
        "scores": "得分、区间与随机水平",
        "scores_text": "横线是 95 % 区间，竖虚线是随机猜测的水平。区间包含竖虚线时，"
        "得分与随机猜测无法区分，用灰色表示。",
        "scores_title": "得分", "scores_caption": "得分及其 95 % 区间；竖虚线是随机水平",
        "measure": "指标", "subject": "模型", "value": "数值", "chance": "随机水平",
        "apart": "能与随机区分", "not_apart": "不能区分", "no_chance": "没有随机水平",
        "by_group": "分组结果", "group": "分组", "notes": "测量方法",
        "preference_accuracy": "偏好验证过的答案", "solved_share": "做对的题目",
        "preference_accuracy_raw": "验证过的答案概率更高",
        "along": "训练过程中的输出", "along_text": "同样的提示，在学习的各个时刻。",
        "cost": "时间与费用", "per_second": "词元/秒", "flops": "FLOPs",
        "cost_text": "FLOPs 按 6 × 参数 × 词元计算（不计注意力）。",
        "cost_price": "按**每小时 {price:g} {currency}** 计，花费 **{cost} {currency}**。",
        "cost_no_price": "没有给出价格：`minimind report {directory} --price 2` 按每小时 2 计算。",
        "energy_no": "没有测量能耗。",
        "settings": "设置", "settings_of": "{stage}的 run.toml",
        "settings_text": "全部设置，包括没有人改过的。`minimind train` 可以直接读这样的文件。",
        "what_settings": "{stage}的设置",
        "files": "{stage}的数据文件", "file": "文件", "sha256": "sha256",
        "used": "它读了 {documents:,} 篇文档、{tokens:,} 词元；{rejects:,} 行无法使用。",
        "again": "按原设置重做{stage}", "resume_it": "继续", "talk": "和它聊天",
        "make_report": "本报告", "hours": "{h} 小时 {m} 分",
        "compare_title": "{a} 与 {b} 对照",
        "compare_intro": "运行 **A** 是 `{a}`，运行 **B** 是 `{b}`。全部读自各自的文件。",
        "compare_curves": "曲线", "compare_none": "它们没有可以对照的训练运行。",
        "compare_loss": "同样词元数时的损失", "compare_time": "同样时间时的损失",
        "compare_held_out": "同样词元数时的留出集损失",
        "equal_tokens": "在 {tokens:,.0f} 词元处（两者都到达的最远处）：A {a:.3f}，B {b:.3f}"
        "（**{winner}** 领先 {gap:.3f} nats；至多 {points} 个记录点的平均）。",
        "equal_time": "在 {time} 时：A {a:.3f}，B {b:.3f}（**{winner}** 领先 {gap:.3f} nats）。",
        "level": "持平",
        "compare_caption": "{stage}：A 与 B，按词元和按时间",
        "compare_settings": "设置的差别", "setting": "设置", "absent": "未设置",
        "same_settings": "{stage}的设置完全相同。",
        "compare_scores": "得分对照", "difference": "B - A", "paired": "配对检验",
        "compare_scores_text": "各附 95 % 区间。配对检验需要两边都有逐题的回答。",
        "no_scores": "没有两边都测过的指标。", "no_items": "没有逐题记录",
        "p_value": "p = {p:.3g}（n = {n:,}，{test}）",
        "compare_facts": "两次运行", "fact": "", "run_a": "A", "run_b": "B",
    },
}  # fmt: skip
