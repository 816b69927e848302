"""Chinese everyday documents full of facts; see narratives_general_zh.py, whose rules are used."""

REFERENCE_KINDS = {
    "entry": "",
    "quiz": " // ",
    "cards": " / ",
    "lesson": "",
    "column": " // ",
    "visit": "",
}

REFERENCES_GENERAL_ZH = """
entry:
- [袖珍|学生|家庭|少儿]百科，第{11-900}页 // {facts} // {bookish}{bookish}{bookish} // {bookish}
  {bookish}{bookish}
- 摘自一本{adj}工具书 // {bookish}{facts} // {bookish}{bookish}{bookish} // {bookish}{bookish}
- 常识一束 // {bookish}{bookish}{bookish} // {facts} // {bookish}{bookish}{bookish}
entry_fact:
- {fact}。 | {fact}。 | {fact}。 | 同一页上说，{fact}。 | 此外，{fact}。 | 众所周知，{fact}。
- 条目补充道，{fact}。 | 另外，{fact}。
quiz:
- {place}知识竞赛 // {weekday}，第{2-9}轮，{3-9}队参加。{bookish}{bookish}{bookish} // {facts} //
  {score}{score}{score}
- {weekday}练习题 // {facts} // {bookish}{score}{bookish}{score}{bookish}{bookish}
quiz_fact:
- 第{2-40}题：{ask}？ / 答：{fact}。
- {ask}？ / {fact}。
- 主持人问：“{ask}？” / [前排|后排|左边桌上]有人答：“{fact}。”
- {2-10}分题：{ask}？ / 大家都同意：{fact}。
score:
- {street}队以{2-19}分[胜出|落败]，奖品是{a_thing}。
- {name}答对{3-19}题，{name}只答对{2-9}题。
- [主持人|裁判]念得很慢，还把茶洒在{thing}上。
- {ordinal}道题没有人[记得|追问]。
- 二等奖是{2-12}斤{produce}，三等奖是{a_thing}。
cards:
- 学习卡片，第{2-30}盒 // {facts} // {bookish}{bookish}{bookish} // {bookish}{bookish}{bookish}
- {name}抄的口袋清单 // {bookish}{bookish}{bookish} / {facts} / {bookish}{bookish}{bookish}
cards_fact:
- ·{fact} | ·{fact}。 | ·{ask}？{fact}。 | ·记住：{fact}。 | ·第{2-90}张：{fact}。
lesson:
- {name}的班级，{weekday} // {school}。{school}。{school}。{bookish} // {facts} // {bookish}
  {school}。{school}。
- {2-40}号教室里的一课 // {bookish}{bookish} // {facts} // {school}。{school}。{school}。{school}。
lesson_fact:
- 老师[讲|念|强调]道，{fact}。
- {name}问：“{ask}？”书上说，{fact}。
- {name}[背|写]出来：{fact}。
- {fact}，这一句[划了线|标了红|考过]。
- 全班记下：{fact}。
column:
- 读者问，我们答 // {bookish}{bookish}{bookish} // {facts} // {bookish}{bookish}{bookish}
- {place}信箱 // {facts} // {bookish}{bookish}{bookish} // {bookish}{bookish}{bookish}
column_fact:
- {street}的{name}来信问：{ask}？ / 我们的回答：{fact}。
- 一位[小学生|读者|游客]想知道：{ask}？ / 答案很简单：{fact}。
- {7-80}岁的{name}说，{fact}。 / 说得没错。
visit:
- 和{p}逛博物馆 // {p}和{q}在{place}[买了|验了]票。{bookish} // {facts} // {walk}。{walk}。{walk}
  。{walk}。{bookish}
- {place}的展览 // {report}{report}{bookish} // {facts} // {report}{report}{report}{report}
visit_fact:
- [门口|楼梯旁|窗边]的展板上写着：{fact}。
- 讲解员[说|提到]，{fact}。
- {q}问：“{ask}？”墙上写得明白：{fact}。
- {2-30}号展厅讲的是：{fact}。
- 玻璃柜里的卡片告诉观众，{fact}。
bookish:
- 这一[页|本|份]由住在{street}的{name}{ago}[修订|核对|抄写]。
- [有人觉得|试过便知]，[大声读|动手写|画下来]{2-9}遍就记住了。
- 文字旁边的[插图|照片]画着{a_thing}，供人比较。
- 想知道更多的[读者|学生|游客]，{time}可以到{place}打听。
- {name}挑出{2-9}处[错字|漏字|茶渍]，{manner}改好了。
- {ordinal}版定价{5-90}块，一共{120-900}页。
- {name}说，[简单的|短小的|老实的][句子|答案]最好。
- 不妨{time}考考自己：盖住书页，把记得的[说|写]出来。
- 要是[忘了|弄混了]其中{2-6}条，[再看一遍就好|书可以留到{weekday}]。
- [出处|原件]收在[{place}|一个{adj}抽屉|玻璃柜]里。
- {name}用{2-9}天学会了这些，那时手边只有{thing}和{goods}。
- 并非[样样|每个答案]都在这里，另有{11-90}页[待印|待写|遗失]。
"""
