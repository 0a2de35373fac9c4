"""Every word of the page, in Chinese and in English. `{name}` is filled in by the page."""

from __future__ import annotations

WORDS: dict[str, tuple[str, str]] = {
    "inside": ("看看 {name} 的内部", "Inside {name}"),
    "inside_two": ("{one} 与 {two} 对照", "{one} beside {two}"),
    "facts": (
        "{parameters} 个参数 · {layers} 层 × {heads} 个头 · 词表 {vocabulary} · 上下文 {context}",
        "{parameters} parameters · {layers} layers × {heads} heads · "
        "vocabulary {vocabulary} · context {context}",
    ),
    "read": (
        "读了 {tokens} 个 token，{characters} 个字符",
        "read {tokens} tokens, {characters} characters",
    ),
    "wrote": ("其中最后 {n} 个是模型自己写的", "the last {n} of them it wrote itself"),
    "language": ("English", "中文"),
    "theme": ("深色 / 浅色", "Dark / light"),
    "look": ("看什么", "What to look for"),
    "reading": ("下面各图显示", "The pictures below show"),
    "none": ("这个模型没有这一项。", "This model has nothing of this."),
    "point": (
        "指向或点击一个 token，这里就显示模型当时的候选。← → 逐个移动。",
        "Point at a token, or tap it, to see what else the model considered. ← → step through.",
    ),
    "token": ("第 {n} 个 token", "token {n}"),
    "first": (
        "开头的标记：前面没有内容，所以没有预测。",
        "The opening mark: nothing precedes it, so it was not predicted.",
    ),
    "chosen": ("实际出现", "came"),
    "rank_is": ("实际出现，排第 {n}", "came, rank {n}"),
    "others": ("其余全部", "all others"),
    "bits": ("{n} 比特", "{n} bits"),
    "generated": ("以下由模型生成", "the model writes from here"),
    # What each token's odds were.
    "tokens_title": ("逐个 token：模型有多意外", "Token by token: how surprised was it?"),
    "tokens_look": (
        "颜色越深，模型越没料到这个 token。"
        "看看它在哪里犹豫，把鼠标移上去，看当时别的哪些字同样可能。",
        "The stronger the colour, the less the model expected the token. Look where it hesitates, "
        "and point there to see what else was about as likely.",
    ),
    "tokens_surprise": ("意外程度", "surprise"),
    "tokens_entropy": ("犹豫程度（熵）", "indecision (entropy)"),
    "tokens_rank": ("排名", "rank"),
    "tokens_legend_surprise": ("概率", "probability"),
    "tokens_legend_entropy": ("熵，比特", "entropy, bits"),
    "tokens_legend_rank": ("排名", "rank"),
    "tokens_mean": (
        "平均每个 token {bits} 比特：好比在 {choices} 个同样可能的 token 里选一个；"
        "{best} % 正是最可能的那个。",
        "On average {bits} bits a token: like choosing among {choices} equally likely ones; "
        "{best} % were the likeliest one.",
    ),
    "tokens_entropy_is": ("熵 {n} 比特", "entropy {n} bits"),
    # Attention.
    "attention_title": ("注意力：每个头在看哪里", "Attention: where does each head look?"),
    "attention_look": (
        "每个小图是一个头：一行是一个 token，有颜色的列是它回看的位置。"
        "找一找竖线（总看开头）、对角线（看前一个）和平行于对角线的短线（看重复之处），点开细看。",
        "Each small map is a head: a row is a token, the marked columns are what it looks back at. "
        "Find vertical lines (resting on the start), the diagonal (the token before) and stripes "
        "beside it (what was said before), then open one.",
    ),
    "attention_layer": ("第 {n} 层", "layer {n}"),
    "attention_head": ("第 {n} 头", "head {n}"),
    "attention_window": ("窗口 {n}", "window {n}"),
    "attention_at": (
        "“{query}”（第 {t} 个）把 {share} 的注意力给“{key}”（第 {s} 个）",
        "“{query}” (token {t}) gives “{key}” (token {s}) {share} of its attention",
    ),
    "attention_row": (
        "“{query}”（第 {t} 个）的注意力落在哪里：点文字里的 token 或图里的一行来换。",
        "Where “{query}” (token {t}) looks: choose another in the text, or a row of the map.",
    ),
    "attention_scale": (
        "深浅是权重的立方根，弱的也看得见；每行合计 100 %。",
        "The shade is the cube root of the weight, so faint ones show; a row sums to 100 %.",
    ),
    "attention_old": (
        "这个浏览器不能解压数据（没有 DecompressionStream）：请用较新的浏览器打开。",
        "This browser can't unpack the maps (no DecompressionStream): open it in a newer one.",
    ),
    # Logit lens.
    "lens_title": (
        "逐层透视：从哪一层起就知道答案",
        "Logit lens: at which layer does it know?",
    ),
    "lens_look": (
        "每一行读作：读完左边的 token，如果在某一层就停下，模型会说什么；"
        "颜色越深，越相信真正的下一个 token。看看颜色从哪一列起变深，"
        "左边几列的猜测又怎样一步步变过来。",
        "Each row reads: after the token on the left, what would the model say if it stopped at "
        "this layer; the stronger the colour, the surer of the token that really came. Look in "
        "which column the colour sets in, and how the guesses to the left of it change.",
    ),
    "lens_embedding": ("词嵌入", "embedding"),
    "lens_after": ("{n} 层后", "after {n}"),
    "lens_input": ("读到", "read"),
    "lens_next": ("实际下一个", "came next"),
    "lens_mean": ("平均意外，比特", "mean surprise, bits"),
    "lens_legend": ("真正下一个 token 的概率", "probability of the token that came"),
    "lens_hit": ("框：猜对了", "outlined: guessed right"),
    "lens_at": (
        "{stage}，读完“{query}”：最可能是“{top}”（{share}）；实际的“{next}”得 {own}，排第 {rank}。",
        "{stage}, having read “{query}”: “{top}” is likeliest ({share}); “{next}”, which came, "
        "has {own}, rank {rank}.",
    ),
    "lens_end": (
        "{stage}，读完“{query}”：最可能是“{top}”（{share}）；文本到此为止。",
        "{stage}, having read “{query}”: “{top}” is likeliest ({share}); the text ends here.",
    ),
    "lens_point": ("指向一格，这里用文字说明。", "Point at a cell to read it in words."),
    # Repetition.
    "loops_title": ("重复：从哪里起、靠哪些头", "Repetition: where it starts, which heads copy"),
    "loops_look": (
        "柱子是每个 token 的意外程度：一旦开始原地打转，柱子就降下来不再升高，因为抄写比续写容易。"
        "表里颜色深的头在回看“同一个 token 上次出现之后跟着什么”，抄写就靠它们。",
        "The bars are each token's surprise: once the text goes round in circles they fall and "
        "stay low, for copying is easy. The dark heads in the table look at what followed the same "
        "token last time: it is they that copy.",
    ),
    "loops_found": (
        "第一处：从第 {start} 个 token 起，同样的一段（长 {period}）一再重复，直到第 {end} 个：",
        "The first loop: from token {start} to {end} the same stretch comes again, {period} long:",
    ),
    "loops_free": ("没有原地打转。", "No loop."),
    "loops_rule": (
        "规则：同样的 1 到 64 个 token 连续出现至少 3 次、总共至少 8 个；从第二遍算起。",
        "The rule: the same 1 to 64 tokens at least 3 times in a row, 8 tokens or more in all; "
        "the mark is where the second copy begins.",
    ),
    "loops_again": (
        "{n} 个位置上的 token 之前出现过。",
        "At {n} positions stands a token that came up before.",
    ),
    "loops_copiers": ("抄写最多的头", "Heads that copy most"),
    "loops_nobody": (
        "没有哪个头的抄写超过平均分配的两倍。",
        "No head copies more than twice what evenly spread attention would.",
    ),
    "loops_copying": ("抄写", "copying"),
    "loops_inside": ("循环内的抄写", "copying in the loop"),
    "loops_previous": ("看前一个", "token before"),
    "loops_first": ("看开头", "first token"),
    "loops_table": (
        "每个头的注意力平均有多少（%）落在那里；平均分配的话抄写是 {chance}。"
        "点一格，打开那个头的注意力图。",
        "The mean share (%) of each head's attention there; even attention gives {chance}. "
        "Choose a cell to open that head's map.",
    ),
    "loops_table_plain": (
        "每个头的注意力平均有多少（%）落在那里。点一格，打开那个头的注意力图。",
        "The mean share (%) of each head's attention there. Choose a cell to open that head's map.",
    ),
    "loops_chart": (
        "每个 token 的意外程度；最高 {most} 比特",
        "surprise of each token; the highest is {most} bits",
    ),
    "loops_bar": ("第 {n} 个“{text}”：{bits} 比特", "token {n} “{text}”: {bits} bits"),
    # A mixture of experts.
    "experts_title": ("专家：谁处理哪些 token", "Experts: which take which tokens?"),
    "experts_look": (
        "每个 token 的颜色是它的首选专家。看看专家分的是词义、标点还是位置；换一层再看。",
        "A token has the colour of its first expert. Look whether experts share the text out by "
        "meaning, by punctuation or by nothing you can see, and change the layer.",
    ),
    "experts_loads": (
        "各层（行）各专家（列）处理了本文百分之几的 token；平均分配时为 {even}。",
        "Percent of this text's tokens that each expert (column) of each layer (row) took; "
        "{even} would be even.",
    ),
    "experts_layer": ("层", "layer"),
    "experts_point": (
        "指向一个 token，看它的专家和权重。",
        "Point at a token to see its experts and their weights.",
    ),
    "experts_token": ("第 {n} 个“{text}”：{experts}", "token {n} “{text}”: {experts}"),
    "experts_whose": (
        "这一层每个专家的份额和它最常处理的 token：",
        "Each expert of this layer, its share, and the tokens it took most often:",
    ),
    # Two models.
    "beside_title": ("并排：同一段文字，两个模型", "Side by side: one text, two models"),
    "beside_look": (
        "蓝色处第一个模型更有把握，橙色处第二个更有把握，颜色越深差得越多。"
        "比较整体时看每字符比特数：它不受分词方式影响，越低越好；但一段文字只是一个例子。",
        "Where it is blue the first model was surer, where orange the second; the stronger, the "
        "more. To compare them as a whole take the bits per character, which don't depend on the "
        "tokenizer (lower is better); but one text is one example.",
    ),
    "beside_model": ("模型", "model"),
    "beside_tokens": ("token 数", "tokens"),
    "beside_per_token": ("字符 / token", "characters / token"),
    "beside_bits": ("总比特", "bits in all"),
    "beside_bpc": ("比特 / 字符", "bits / character"),
    "beside_surer": ("{name} 更有把握", "{name} surer"),
    "beside_equal": ("差不多", "about equal"),
    "beside_point": (
        "指向一段文字，看两个模型各自怎么切分、各有多意外。",
        "Point at a stretch to see how either model cuts it, and how surprised it was.",
    ),
    "foot": (
        "由 minimind inspect 生成；不联网，所有数据都在这个文件里。编号从 0 开始的是层和头，"
        "token 从 1 数起。",
        "Made by minimind inspect. The page asks the network for nothing; all data is in this "
        "file. Layers and heads are numbered from 0, tokens from 1.",
    ),
}
