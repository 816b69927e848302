"""Chinese geoscience documents; see narratives_geo_en.py."""

NARRATIVE_KINDS = {
    "field": "",
    "lab": "",
    "log": " / ",
    "memo": "",
    "chapter": "",
    "debate": " // ",
    "bulletin": "",
}
"""Kind -> what separates its facts."""
REFERENCE_KINDS = {
    "handbook": "",
    "exam": " // ",
    "tables": " / ",
    "lecture": "",
    "review": "",
    "answers": " // ",
}
"""The same for kinds with many facts."""

NARRATIVES_GEO_ZH = """
letter:
- 甲 | 乙 | 丙 | 丁 | 戊 | 己 | 庚 | 辛
site:
- {place_name} | {place_name} | {side}的{landform} | {2-90}号露头
- {place_name}[上方|下方]的{landform} | {letter}{10-99}点 | {2-30}号停留点 | 路线{2-90}公里处
- {landform}附近
side:
- 北侧 | 南侧 | 东侧 | 西侧 | 上部 | 下部 | 左岸 | 右岸 | 向阳面 | 背阴面
landform:
- 采石场 | 山脊 | 冲沟 | 阶地 | 路堑 | 陡崖 | 斜坡 | 垭口 | 台地 | 海湾 | 洼地 | 谷底 | 岬角 | 山坡
- 峡谷 | 平原 | 坑口 | 河滩
place_name:
- 乌鸦岩 | 长坡 | 石门坎 | 蕨草沟 | 老人崖 | 牧羊垭 | 铜水溪 | 风口梁 | 壶穴滩 | 冷泉湾 | 石琴山
- 獾子岭 | 盐水沟 | 三棵松 | 鹰嘴台 | 磨坊峡 | 白鹭嘴 | 天梯石 | 灯笼岩 | 半边山
more:
- 附记：{explain}{explain}{observe}{explain}
field:
- {name}的野外记录，{1-12}月{1-28}日 // {observe}{observe}{observe} // {facts} // {explain}
  {observe}{observe}{duty}
- {weekday}，{site} // {duty}{observe}{observe}{observe} // {explain}{facts} // {observe}{observe}
field_fact:
- [备注|提示]：{fact}。
- 在帐篷里大家一致认为，{fact}。
- {name}[提起|又说了一遍]，{fact}。
- {fact}，[手册|旧图|老报告]上是这么写的。
- 这与已知的情况相符，也就是{fact}。
duty:
- {name}背着[锤子|标杆|样品|电池]，{name}负责记录。
- [装箱|编号|拍照]的样品共{4-60}件，{time}回到营地。
- 一场雨让大家[停工|躲在岩檐下]{2-6}个小时。
- [电池|绳子|皮尺|样品袋]在{site}出了问题，{remedy}。
- 从{site}走过来用了{2-7}个小时。
remedy:
- 剩下的要等{weekday}再做 | {name}{month}还得重来一遍 | 一半读数没有了 | 只好用步子量
lab:
- {name}实验室[报告|记录|结果单]第{100-999}号 // {title} // {method}{observe}{observe} // {facts}
  // {observe}{explain}{verdict}
- {1-12}月{1-28}日的[分析|测量] // {method}{method}{observe} // {observe}{explain}{facts}
  //{verdict}{verdict}
lab_fact:
- 作为对照，{fact}。
- 已知{fact}。
- 参考文件写明，{fact}。
- {fact}，可用来检验。
- {ask}？文献说，{fact}。
method:
- 样品先[在{40-105}度烘干|过{63-500}微米的筛|分成{2-8}份]。
- 每个读数重复{3-12}次，{name}{manner}又复核了一遍。
- [前后各标定一次|每测{2-9}次标定一回]，漂移不到{2-9}%。
- {41-90}个结果里，经{name}同意[舍去|保留]了{3-40}个。
- [天平|烘箱|电炉|光源]先开{2-48}小时再读数。
- 空白样和重复样占整批的{5-20}%。
verdict:
- 结果与{month}那次[一致|不一致]，相差{2-30}%。
- 应当请另一[家实验室|位操作员]在{month}以前[确认|重做]。
- {2-19}%的误差来自[称量|样品太少|旧标样]。
- 没有理由[改图|丢掉样品|追加经费]。
log:
- {site}小队日志 / {entry} / {entry} / {entry} / {entry} / {facts} / {entry} / {entry} / {entry}
- {title} / {entry} / {entry} / {entry} / {facts} / {entry} / {entry} / {entry} / {entry}
entry:
- {5-9}时{10-59}分，{observe} | {10-18}时{10-59}分，{observe} | {weekday}，{observe}
- 第{2-60}天，{observe} | {name}记：{observe} | {weekday}，{duty}
log_fact:
- 附记：{fact}。
- 手册摘录：{fact}。
- {name}问：{ask}？{fact}。
- 今日所学：{fact}。
memo:
- {name}： // {observe}{observe}{observe} // {facts}{explain} // {observe}{observe}{verdict}
  //[此致|祝好|一路平安|营地问候] / {name}
- 致测量局，{1-12}月{1-28}日 // {observe}{observe}{duty} // {facts} // {explain}{explain}{verdict}
memo_fact:
- 请记住，{fact}。
- 我们都学过，{fact}。
- 新来的学生还不知道{fact}。
- 可以告诉参观的人，{fact}。
- {ask}？我查过了，{fact}。
chapter:
- {title} // {explain}{explain}{explain}{explain} // {facts} // {explain}{explain}{observe}
- 第{2-30}章：{title} // {explain}{explain}{explain} // {observe}{explain}{facts} // {explain}
  {explain}{explain}
chapter_fact:
- {fact}。 | 例如，{fact}。 | 作为练习，请回想：{fact}。 | 同样，{fact}。 | 读者应当记住，{fact}。
- 具体说来，{fact}。
debate:
- {p}和{q}对着图讨论 // {p}：{claim}。 / {q}：{doubt}？ // {facts} // {observe}{observe}
  //{explain}{observe}
- {site}的一场讨论 // {observe}{explain} // {facts} // {p}：{doubt}？ / {q}：{claim}。 //{explain}
  {observe}{observe}
debate_fact:
- {p}：{ask}？ / {q}：{fact}。
- {q}：我读到过，{fact}。 / {p}：正是这样。
- {p}：别忘了，{fact}。 / {q}：我本子上记着呢。
claim:
- 先看整面山坡，再看颗粒 | 最简单的答案未必是错的 | 三个读数里有两个对得上
- 我会把界线再往[北|西]挪{20-300}米 | 这里没有什么比看上去更老 | 还得采{2-9}块样品
doubt:
- 你怎么证明 | 这是谁测的 | 会不会正好相反 | 这块样品真是{site}的吗，谁来作证
- 要是这片{landform}从前在水下呢
bulletin:
- {month}测量简报 // {observe}{observe}{verdict} // {facts} // {explain}{observe}{observe}
- {place_name}消息 // 据{name}报告：{observe}{observe}{observe} // {explain}{explain}{facts}
bulletin_fact:
- 供媒体参考：{fact}。
- 发言人提到，{fact}。
- 常有学校来问：{ask}？{fact}。
- 对来访者的说明是，{fact}。
handbook:
- {title} // {facts} // {explain}{explain}{explain}
- 手册第{2-90}节 // {explain}{facts} // {explain}{explain}
- {title}，{ordinal}版 // {explain}{explain} // {facts} // {observe}
handbook_fact:
- {fact}。 | {fact}。 | {fact}。 | 此外，{fact}。 | 还要补充一点，{fact}。 | 另外，{fact}。
- 注意，{fact}。 | 各家资料都说，{fact}。
exam:
- [试卷|测验|练习]{2-90}：{title} // {explain} // {facts} // {explain}{observe}
- {ordinal}周的问题 // {facts} // {explain}{explain}
exam_fact:
- 第{2-40}题：{ask}？ / {fact}。
- {ask}？ / 答：{fact}。
- 题目：{ask}？ / 解答：{fact}。
- 判断：{fact}。 / 正确。
tables:
- {title} / {facts} / {explain}{observe}
- {month}考察用表之{2-90} // {facts} // {explain}{explain}
tables_fact:
- ·{fact} | ·{fact}。 | ·{ask}？{fact}。 | ·第{2-400}页：{fact} | ·{fact}，见图版{2-60}。
lecture:
- {weekday}的讲座 // {explain}{explain} // {facts} // {explain}{observe}
- {name}讲{title} // {facts} // {explain}{explain}{explain}
lecture_fact:
- 主讲人指出，{fact}。
- {fact}，没有人反对。
- 幻灯片上写着：{fact}。
- 后排的{name}问：“{ask}？”回答是：{fact}。
- 黑板上记着：{fact}。
review:
- {name}：{title} // 这本小册子有{40-400}页，写得清楚。{explain}{facts} // {explain}{explain}
  [值得一读。|可惜没有索引。|图版有些暗。]
- {place_name}考察指南 // {observe}{facts} // {explain}{explain}
review_fact:
- 作者提醒我们，{fact}。
- 第{2-400}页说，{fact}。
- 读者可以学到，{fact}。
- 有张表显示，{fact}。
- {fact}，这是书里的原话。
answers:
- 博物馆来信 // {facts} // {explain}{explain}{explain}
- 致简报编辑部 // {explain} // {facts} // {explain}{explain}
answers_fact:
- {name}问：{ask}？ / 答复：{fact}。
- 有个班级想知道：{ask}？ / {fact}。
- {name}认为{fact}。 / 没错。
"""
