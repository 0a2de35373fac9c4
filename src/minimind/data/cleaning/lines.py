# ruff: noqa: E501 - ruff counts a hanzi as two columns
"""Lines that belong to a page, not to its text: copyright, navigation, sharing, reprints."""

from __future__ import annotations

import re
from dataclasses import dataclass

from minimind.data.cleaning.page import Change, Edited, Editor, Page

_LONGEST = 80
"""A longer line is prose that mentions such a thing."""

_WHOLE = (
    r"(?:返回|回到)(?:首页|顶部|目录|列表)|(?:上|下)一[页章篇](?:[ |>»/]+.{0,30})?|首页(?:[ |>»/]+.{1,50})?",
    r"(?:上|下)一(?:篇|章|页|条|节)[:：].{0,60}",
    r"(?:分享|转发)到[:：]?.{0,30}|(?:收藏|打印|关闭)(?:本页|窗口|此页|本站)|(?:分享|收藏|点赞)(?:[ |]+(?:分享|收藏|点赞|举报|评论))+",
    r"(?:阅读|点击|浏览|评论|访问|人气)(?:量|次数|数)?[:：]? ?\(?[0-9,.]+\)?(?:次|万|人)?(?: .{0,30})?",
    r"(?:点击|查看|阅读|展开)(?:查看|阅读)?(?:更多|全文|详情|原文)[^，。]{0,8}",
    r"(?:责任编辑|本文编辑|文章来源|稿源|稿件来源|发布时间|发布日期|更新时间|来源)[:：] ?[^。！？]{0,40}",
    r"(?:您|你)?(?:现在的|当前的?|所在的?)位置[:：].{0,60}",
    r"(?:打开|使用|用)?(?:微信|手机)?(?:扫一扫|扫码|扫描).{0,20}(?:二维码|关注|分享|下载).{0,20}|(?:请)?(?:长按|识别).{0,6}二维码.{0,20}",
    r"(?:欢迎)?关注(?:我们的?|本站|官方|微信)?(?:微信)?(?:公众号|公众平台|微博).{0,30}",
    r"(?:相关|热门|推荐|最新|猜你喜欢的?)(?:阅读|文章|推荐|新闻|资讯|标签|链接|搜索)[:：]?",
    r"(?:友情链接|网站地图|联系我们|关于我们|免责声明|隐私政策|用户协议|加入收藏|设为首页|收藏本站|广告服务|意见反馈)"
    r"(?:[ |·/-]+(?:友情链接|网站地图|联系我们|关于我们|免责声明|隐私政策|用户协议|加入收藏|设为首页|收藏本站|广告服务|意见反馈|版权声明|帮助中心))*",
    r"(?:本文|文章|图片|以上内容)(?:转载自?|转自|摘自|来源于?|来源[:：]).{0,40}",
    r"(?:转载|引用)(?:请|须|时请|必须|需)(?:注明|标明|保留|附上).{0,50}|(?:如需|如要|若要)转载.{0,50}",
    r"(?:登录|注册)(?:[ |/]+(?:登录|注册|忘记密码))+|(?:发表|我要|查看|全部|最新)评论.{0,20}",
    r"(?:请)?(?:登录|注册)后(?:发表|查看|参与)[^，。]{0,16}|记住本站(?:网址|域名).{0,50}",
    r"[Pp]owered [Bb]y.{0,40}|\[(?:广告|AD|推广)\]|广告|(?:天才一秒记住|一秒记住|请记住本书).{0,50}",
)  # fmt: skip
_BOILERPLATE = re.compile(rf"[ \t【\[（(*#>-]*(?:{'|'.join(_WHOLE)})[ \t】\]）)]*\Z")
_NOTICE = re.compile(r"ICP备|ICP证|公网安备|网安备|[Cc]opyright|COPYRIGHT|©|版权所有")
_OPENING = re.compile(
    r"[ \t【\[（(*#>-]*[返回上下首分转收打关阅点浏评访人查展责本文稿发更来您你现当所使用微手扫请长识欢相热推最猜友网联免隐加设广意图以引如若登我全记Pp天一]"
)
"""Every pattern of `_WHOLE` begins with one of these: most lines need no closer look."""


@dataclass(frozen=True, kw_only=True)
class Boilerplate(Editor):
    """Short lines that are wholly navigation, copyright, counters, sharing or calls to follow."""

    def edit(self, page: Page) -> Edited | None:
        """Return the text without such lines."""
        kept, changes = [], []
        for line in page.text.split("\n"):
            if 2 <= len(line) <= _LONGEST and _is_boilerplate(line):
                changes.append(Change("boilerplate", line, ""))
            else:
                kept.append(line)
        if not changes:
            return None
        text = re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip()
        return Edited(text, {"boilerplate": len(changes)}, changes)


def _is_boilerplate(line: str) -> bool:
    if _OPENING.match(line) and _BOILERPLATE.match(line):
        return True
    return _NOTICE.search(line) is not None and "。" not in line
