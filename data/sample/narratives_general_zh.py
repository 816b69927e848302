"""Chinese everyday documents; the notation of kinds is that of narratives_general_en.py."""

NARRATIVE_KINDS = {
    "diary": "",
    "letter": "",
    "news": "",
    "story": "",
    "talk": " // ",
    "notice": " / ",
    "advice": "",
    "essay": "",
}

NARRATIVES_GENERAL_ZH = """
scene:
- {market}。{market}。{market}。{market}。{market}。
- {garden}。{garden}。{garden}。{garden}。{garden}。
- {kitchen}。{kitchen}。{kitchen}。{kitchen}。{kitchen}。
- {travel}。{travel}。{travel}。{travel}。{travel}。
- {school}。{school}。{school}。{school}。{school}。
- {walk}。{walk}。{walk}。{walk}。{walk}。
- {library}。{library}。{library}。{library}。{library}。
- {repair}。{repair}。{repair}。{repair}。{repair}。
- {office}。{office}。{office}。{office}。{office}。
- {festival}。{festival}。{festival}。{festival}。{festival}。
- {pets}。{pets}。{pets}。{pets}。{pets}。
- {moving}。{moving}。{moving}。{moving}。{moving}。
more:
- 附记：{thought}{thought}{thought}{thought}
diary:
- {1-12}月{1-28}日，{weekday}，{weather}。 // {scene} // {facts} {scene} // {scene}{bedtime}。
- {1-12}月{1-28}日，{time}。{scene} // {facts} {scene} // {weather}。{scene}
- 日记第{2-300}页 // {facts}{scene} // {scene} // {scene}{bedtime}。
diary_fact:
- 在[晚报|旧年历|老百科]上读到：{fact}。
- {q}告诉我，{fact}。
- [广播里|候诊的时候]听人说，{fact}。
- 我要记住一点：{fact}。
- {fact}，这是[今天|吃午饭时|听{q}说]才知道的。
- {fact}。[以前竟不晓得。|真新鲜。|我把它写在了挂历上。]
bedtime:
- {9-11}点上床，睡得[不好|很沉] | 今天就写到这里 | 睡前写了{2-9}封信 | 明天要给{q}打电话
- 此刻{weather}，我搁下笔
letter:
- {q}： // {ago}收到你的[信|明信片|包裹]，很高兴。{scene} // {facts} // {scene} // {scene}
  //{farewell} / {name}
- {q}，你好！ // {scene} // {scene} // {facts} // {scene}[盼早日回信。|替我问你{relative}
  好。|{month}来我们这里玩吧。] // {farewell} / {name} / {1-12}月{1-28}日
letter_fact:
- 你知道吗？{fact}。
- 我{relative}[说|一口咬定|提醒我]，{fact}。
- 你上回问：{ask}？其实，{fact}。
- 顺便说一句，{fact}。
- 我在{place}听说，{fact}。
- {fact}，[孩子们|学生们|别人]要是问起，你就这么答。
farewell:
- 祝好 | 此致敬礼 | 顺祝安康 | 盼复 | 保重 | 你的老朋友
headline:
- {street}[发现|展出|丢失]{adj}{thing}
- {place}[重新开放|{month}粉刷|暂停使用]
- {street}的[街坊|学生|读者][赢得|捐出|找回]{thing}
news:
- {headline} // {report}{report}{report}{report} // {facts} {report} // {report}{report}{report}
  {report}{report} // {report}{report}
- [本地新闻|镇上消息]，{weekday} // {headline} // {report}{report}{report}{report}{report}
  //{report}{report}{facts} // {report}{report}{report}
news_fact:
- {place}的知识竞赛里，有一题难住了大家，答案是：{fact}。
- {ordinal}位发言人提到，{fact}。
- {street}的读者来问：{ask}？答案是：{fact}。
- [讲解员|校长|主持人]提醒来宾，{fact}。
- 上周谜题的谜底揭晓：{fact}。
- 背景资料：{fact}。
report:
- {street}的{place}{weekday}[停业检修|重新开门|因水管爆裂疏散了人群|摆出{produce}招待来客]。
- [大约|不止|不到]{30-900}名[游客|居民|学生][到场|签名|排队]。
- 住在{place}旁边的{name}[说这主意不错|表示反对|听了很吃惊]。
- 镇里{weekday}[表决|讨论][添置长椅|修自行车道|延长开放时间]的事。
- {time}，有人在{place}[捡到|丢失|拍卖]{a_thing}。
- “我们[预计|本来盼着|数到]{100-900}人。”[会计|组织者|志愿者]{name}说。
- 消防员{ago}在{street}的房顶上救下一只猫。
- [工程|维修|搜寻]花了{2000-90000}块，比计划[多|少]{3-40}%。
- {street}的车流[停了|绕行了]{20-95}分钟，当时{weather}。
- 最佳[南瓜灯|蛋糕|阳台|诗歌]奖归了{street}的{name}。
- {ago}，{place}附近[丢失|归还|捐出]{2-9}辆[自行车|童车|板车]。
- 下一次[集会|音乐会|集市]定在{weekday}{6-11}点。
- 年纪最大的[来宾|会员]{name}今年{80-101}岁，是坐电车来的。
- [博物馆|学校|合唱队]招募{2-20}名志愿者，管{produce}和午饭。
- 这样的事，今年已是第{2-9}次。
- [警察|老师|失主]请见过那{adj}{thing}的人到{street}{2-99}号来。
- 由于{weather}，[游行|野餐|赛跑]改到{place}举行。
- {name}的[铺子|厂子|社团]{month}[卖出|修好|送掉]{40-900}件东西，{thing}最多。
- 对{100-900}户人家的调查显示，{11-89}%的人[想要|担心|不关心]新的{place}。
- {1-12}月{1-28}日起，[{2-60}路公交|末班电车|渡船]在{place}停靠。
story:
- {adj}{thing}的故事 // {p}离开{street}的家时，{weather}。{scene} // {facts}{scene} // {scene}
- {p}和{q} // {scene} // {scene}{facts} // {scene}[后来谁也没有再提。|事情就这样过去了。|{q}
  只是笑。]
- {ago}，{p}独自住在{street}，身边只有{a_thing}。{scene} // {scene}{facts} // {scene}
story_fact:
- “{fact}。”{q}说。
- {q}给{him}讲，{fact}。
- {he}想起课本上写过，{fact}。
- 墙上的牌子写道：{fact}。
- {q}问：“{ask}？”{p}知道答案：{fact}。
- 为了解闷，{they}背起书来：{fact}。
talk:
- {p}在{place}遇见{q}。{weather}。 // {exchange} // {exchange} // {exchange} // {exchange}
  //{facts} // {exchange} // {exchange} // {exchange} // {exchange} // {exchange} // {exchange}
- [电车上|排队的时候|长椅上]，{weekday} // {exchange} // {exchange} // {exchange} // {exchange}//
  {facts} // {exchange} // {exchange} // {exchange} // {exchange} // {exchange}
talk_fact:
- {p}：{ask}？ / {q}：{fact}。
- {q}：你知道吗，{fact}。 / {p}：{reply}。
- {p}：我{relative}说，{fact}。 / {q}：{reply}。
- {q}：我敢说，{fact}。 / {p}：{reply}。
reply:
- 你说得对 | 我也在书上见过 | 上学时老师讲过 | 这个容易 | 这谁不知道 | 我得记下来 | 真没想到
- 这下想起来了 | 对，我当年还背过
exchange:
- {p}：那{adj}{thing}呢？ / {q}：在[柜子|床|沙发][里|后面|底下]。
- {q}：去{place}吗？ / {p}：[{5-9}点以后|{weekday}再说|这天气就算了]吧。
- {p}：{produce}多少钱？ / {q}：{3-12}斤{13-40}块，{goods}另算。
- {p}：我{ago}把{thing}[丢|卖|找]了。 / {q}：[真可惜|真怪|又来了]！是{adj}那个吗？
- {q}：谁[打来的电话|来过|写的信]？ / {p}：{name}，为{place}的事。我听了[很吃惊|有点紧张|挺高兴]。
- {p}：到{place}往[左|右]拐，再沿{street}走。 / {q}：那{thing}呢？ / {p}：[放这儿|交给{name}]就行。
- {q}：你怎么[气喘吁吁|无精打采|满头大汗]？ / {p}：{weather}，我等了{20-90}分钟。
- {q}：我{relative}{weekday}要来。 / {p}：那得买点{produce}和{goods}。
- {p}：请再[念|说|写]一遍。 / {q}：{street}{2-99}号，{2-9}楼。
- {q}：车是{6-11}点{10-59}分的吗？ / {p}：晚{5-50}分钟，改在{2-12}号站台。
- {p}：{thing}怎么是{adj}？ / {q}：那是我{relative}[留下的|给的]。
- {q}：你要{goods}还是{f=produce}？ / {p}：{f}吧，只要[新鲜|便宜|熟透]。
- {p}：还剩{12-99}页没看。 / {q}：{time}再看，记得带上{thing}。
- {q}：{place}[关门了|人满了|太远]。 / {p}：去{street}碰碰运气。
notice:
- {place}公告栏 // {ad} / {ad} / {ad} / {ad} / {ad} / {ad} / {facts} / {ad} / {ad} / {ad}
- {month}要办的事 // {weather}。{tip}{tip} // {task} / {task} / {task} / {task} / {facts} /{task}
  / {task} / {task} // {tip}{tip}{tip}
- [失物招领|以物易物|小广告]，{weekday} // {ad} / {ad} / {ad} / {ad} / {facts} / {ad} / {ad}
  /{ad} / {ad}
notice_fact:
- 【每[日|周]一问】{ask}？答案：{fact}。
- 【竞赛队备忘】{fact}。
- 【你知道吗】{fact}。
- 【给同学们】{fact}。
ad:
- 【[出售|求购|赠送|换{produce}]】{a_thing}，[成色好|成色一般|有些旧]，请到{street}找{name}。
- 【[遗失|拾到]】{ago}在{place}附近，{a_thing}，上面写着{name}的名字。
- 【教学】{name}{weekday}教[象棋|画画|游泳|编织]，每小时{5-30}块。
- 【活动】{weekday}{5-9}点在{place}[排练合唱|学急救|打牌]，请自带{goods}。
- 【出租】{street}有房，{8-30}平方米，[不养宠物|带阳台|安静]，{1-12}月{1-28}日起。
- 【寻物】{ago}从{place}拿走{thing}的人，请还给{name}。
- 【送人】家里多出{2-40}斤{produce}，{time}来{street}{2-99}号取。
- 【求助】谁会[修|搬|漆]{adj}{thing}？谢礼是{goods}。
task:
- ·替{name}[买|订|取]{3-40}斤{produce}和{goods}。 | ·为那{adj}{thing}[打电话|写信]给{name}。
- ·[打扫|粉刷|丈量][地窖|楼梯|棚子]，再锁好{thing}。 | ·{weekday}前把{2-9}本书还给{place}。
- ·{1-12}月{1-28}日前付清{thing}的{11-240}块钱。 | ·{weekday}{6-11}点{10-59}分在{place}见{name}。
- ·去{street}之前[收好|晒晒|补好]{adj}{thing}。 | ·给{relative}送{goods}，顺路看看{place}。
advice:
- 怎样保养{adj}{thing} // {tip}{tip}{tip}{tip} // {facts} {tip}{tip}{tip}{tip} // {tip}{tip}{tip}
- {month}小窍门 // {tip}{tip}{tip}{tip} // {tip}{tip}{tip}{facts} // {tip}{tip}{tip}
advice_fact:
- 爱动脑筋的读者不妨记住：{fact}。
- 等油漆干的工夫，可以想想：{fact}。
- 读者{name}来问：{ask}？{fact}。
- 作者补充说，{fact}。
tip:
- {thing}[每周|每{2-9}天|用之前]要[擦|刷|冲]一遍，晾{10-90}分钟。
- 千万别把{adj}{thing}和{goods}[放|堆]在一起。
- [盖子|把手|拉链][卡住|吱吱响|松了]，抹点[花生油|肥皂|蜡]，等到晚上就好。
- 取{2-9}勺{goods}，加{100-900}毫升水，{manner}搅匀。
- {produce}切成{2-9}厘米的小块，[放阴凉处|盖好|晾干]，可存{2-9}天。
- 请[邻居|家人|{relative}]扶住一头，自己[拉|量|拧]另一头。
- [整齐|干燥|暖和]的[抽屉|地窖|角落]，胜过{place}卖的贵箱子。
- 日期写在[瓶子|标签|盖子]上，到了{month}谁还记得？
- 新手先拿{adj}{thing}练手，再碰贵重的。
- 学会要{2-9}个星期，做完只要{5-40}分钟，别着急。
- 零件要{manner}[数清|分好|对好]，一共{4-30}个。
- {name}{ago}的教训是：{goods}放多了，光线又不够。
- [雨天|大风天|霜冻天]要[关窗|待在屋里|收起{thing}]。
- [旧袜子|旧报纸|鸡蛋盒]跟{street}卖的{thing}一样好使。
- {weekday}以前什么都别扔，{place}也许[收|用得上|能修]。
- {produce}和{goods}要[趁新鲜买|一起买|少量买]，最多提前{2-6}天。
essay:
- 谈{adj}东西 // {thought}{thought}{thought}{thought} // {facts}{thought}{thought}{thought}
  //{thought}{thought}{thought}
- {place}随想 // {thought}{thought}{thought}{thought} // {thought}{thought}{thought}{facts}
  //{thought}{thought}{thought}
essay_fact:
- {fact}，这一点好记，也好忘。
- 人们都说{fact}，亲自查证过的却不多。
- 就算知道{fact}，照样会弄丢{adj}{thing}。
- 想到{fact}，我心里便踏实些。
thought:
- [多数人|有些人|年轻人]总[觉得|忘了]，{adj}{thing}比{adj}{thing}更值得珍惜。
- 谁在{place}等过人，而那时{weather}，谁就懂得{10-90}分钟有多[长|短]。
- {thing}不[问|答|抱怨]，所以我们[留着|喜欢|心疼]它。
- 我{relative}常说，{produce}要[分着吃|凉着吃|抢着吃]才香。
- 进{place}的路有{2-9}条，出来时{feeling}的只有一条。
- 我不[羡慕|相信|责怪]那些[从不迷路|有{3-9}只表|数着{produce}过日子]的人。
- {ago}被嫌弃的{thing}，今天成了[时髦|宝贝|展品]，反过来也一样。
- {weekday}的世界好像比{weekday}[小|慢|年轻]一点，其实什么都没变。
- [高兴|平静|得意]是不花钱的，装出来才费力气。
- 我们没有[打开的那扇门|寄出的那封信|走过的那条路]，偏偏最[难忘|常梦见|爱提起]。
- {street}也许和别的街一样：{12-90}扇门，{2-9}个秘密。
- 没有人为{goods}写歌，可是谁也[离不开|忘不了]它。
- 常言道，[耐心|运气|勇气][来得晚|穿旧鞋|不用钥匙]。
- 我们{manner}[修补|洗刷|搬运]旧东西，仿佛它们会[疼|听|原谅]。
- 要不是{n=name}忘了拿{thing}，{n}就不会见到{place}。
"""
