"""Everyday facts of the real world, in both languages; the notation is that of facts_geo.py."""

FACTS_GENERAL = """
# places: country_capital country_currency
France=法国|Paris=巴黎|the euro=欧元
Japan=日本|Tokyo=东京|the yen=日元
Egypt=埃及|Cairo=开罗|the Egyptian pound=埃及镑
Brazil=巴西|Brasilia=巴西利亚|the real=雷亚尔
China=中国|Beijing=北京|the renminbi=人民币
India=印度|New Delhi=新德里|the Indian rupee=印度卢比
Canada=加拿大|Ottawa=渥太华|the Canadian dollar=加拿大元
Kenya=肯尼亚|Nairobi=内罗毕|the Kenyan shilling=肯尼亚先令
Thailand=泰国|Bangkok=曼谷|the baht=泰铢
Germany=德国|Berlin=柏林|the euro=欧元
Italy=意大利|Rome=罗马|the euro=欧元
Spain=西班牙|Madrid=马德里|the euro=欧元
Portugal=葡萄牙|Lisbon=里斯本|the euro=欧元
Greece=希腊|Athens=雅典|the euro=欧元
Austria=奥地利|Vienna=维也纳|the euro=欧元
Ireland=爱尔兰|Dublin=都柏林|the euro=欧元
Finland=芬兰|Helsinki=赫尔辛基|the euro=欧元
Poland=波兰|Warsaw=华沙|the zloty=兹罗提
Hungary=匈牙利|Budapest=布达佩斯|the forint=福林
the Czech Republic=捷克|Prague=布拉格|the Czech koruna=捷克克朗
Romania=罗马尼亚|Bucharest=布加勒斯特|the Romanian leu=罗马尼亚列伊
Sweden=瑞典|Stockholm=斯德哥尔摩|the Swedish krona=瑞典克朗
Norway=挪威|Oslo=奥斯陆|the Norwegian krone=挪威克朗
Denmark=丹麦|Copenhagen=哥本哈根|the Danish krone=丹麦克朗
Iceland=冰岛|Reykjavik=雷克雅未克|the Icelandic krona=冰岛克朗
Switzerland=瑞士|-|the Swiss franc=瑞士法郎
Russia=俄罗斯|Moscow=莫斯科|the rouble=卢布
Turkey=土耳其|Ankara=安卡拉|the Turkish lira=土耳其里拉
South Korea=韩国|Seoul=首尔|the won=韩元
Vietnam=越南|Hanoi=河内|the dong=越南盾
Mongolia=蒙古国|Ulaanbaatar=乌兰巴托|the tugrik=图格里克
Nepal=尼泊尔|Kathmandu=加德满都|the Nepalese rupee=尼泊尔卢比
Bangladesh=孟加拉国|Dhaka=达卡|the taka=塔卡
Saudi Arabia=沙特阿拉伯|Riyadh=利雅得|the Saudi riyal=沙特里亚尔
Morocco=摩洛哥|Rabat=拉巴特|the Moroccan dirham=摩洛哥迪拉姆
Ethiopia=埃塞俄比亚|Addis Ababa=亚的斯亚贝巴|the birr=比尔
Ghana=加纳|Accra=阿克拉|the cedi=塞地
Nigeria=尼日利亚|Abuja=阿布贾|the naira=奈拉
Zambia=赞比亚|Lusaka=卢萨卡|the kwacha=克瓦查
Mexico=墨西哥|Mexico City=墨西哥城|the Mexican peso=墨西哥比索
Cuba=古巴|Havana=哈瓦那|the Cuban peso=古巴比索
Peru=秘鲁|Lima=利马|the sol=索尔
Chile=智利|Santiago=圣地亚哥|the Chilean peso=智利比索
Argentina=阿根廷|Buenos Aires=布宜诺斯艾利斯|the Argentine peso=阿根廷比索
Colombia=哥伦比亚|Bogota=波哥大|the Colombian peso=哥伦比亚比索
Uruguay=乌拉圭|Montevideo=蒙得维的亚|the Uruguayan peso=乌拉圭比索
Paraguay=巴拉圭|Asuncion=亚松森|the guarani=瓜拉尼
Australia=澳大利亚|Canberra=堪培拉|the Australian dollar=澳大利亚元
New Zealand=新西兰|Wellington=惠灵顿|the New Zealand dollar=新西兰元
Cambodia=柬埔寨|Phnom Penh=金边|the riel=瑞尔
Laos=老挝|Vientiane=万象|the kip=基普
Georgia=格鲁吉亚|Tbilisi=第比利斯|the lari=拉里
Armenia=亚美尼亚|Yerevan=埃里温|the dram=德拉姆
Serbia=塞尔维亚|Belgrade=贝尔格莱德|the Serbian dinar=塞尔维亚第纳尔
Albania=阿尔巴尼亚|Tirana=地拉那|the lek=列克
the United Kingdom=英国|London=伦敦|the pound sterling=英镑

# nature: animal_home animal_food
giant panda=大熊猫|mountain forests of China=中国的山林|bamboo=竹子
koala=考拉|eucalyptus forests=桉树林|eucalyptus leaves=桉树叶
polar bear=北极熊|Arctic sea ice=北极海冰|seals=海豹
dromedary=单峰驼|hot deserts=炎热的沙漠|thorny desert plants=带刺的沙漠植物
giant anteater=大食蚁兽|South American grasslands=南美洲草原|ants and termites=蚂蚁和白蚁
beaver=河狸|streams and ponds=溪流和池塘|bark and twigs=树皮和嫩枝
honey bee=蜜蜂|hives=蜂巢|nectar and pollen=花蜜和花粉
giraffe=长颈鹿|African savannas=非洲稀树草原|acacia leaves=金合欢树叶
blue whale=蓝鲸|the open ocean=开阔的大洋|krill=磷虾
earthworm=蚯蚓|moist soil=潮湿的土壤|decaying plants=腐烂的植物
barn owl=仓鸮|open farmland=开阔的农田|mice and voles=家鼠和田鼠
osprey=鹗|lakes and coasts=湖泊和海岸|fish=鱼
snow leopard=雪豹|high Asian mountains=亚洲的高山|wild sheep and goats=野生的绵羊和山羊
red kangaroo=红袋鼠|Australian plains=澳大利亚平原|grass=草
sea otter=海獭|kelp forests=海藻林|sea urchins=海胆
dragonfly=蜻蜓|ponds and marshes=池塘和沼泽|mosquitoes and other small insects=蚊子等小昆虫
orangutan=红毛猩猩|rainforests of Southeast Asia=东南亚雨林|fruit=果实
walrus=海象|-|clams=蛤蜊
hippopotamus=河马|African rivers and lakes=非洲的河流和湖泊|-
moose=驼鹿|northern forests=北方森林|shrubs and water plants=灌木和水草
reindeer=驯鹿|the tundra=苔原|lichen=地衣
sperm whale=抹香鲸|-|squid=鱿鱼
silkworm=家蚕|silk farms=养蚕场|mulberry leaves=桑叶
red squirrel=红松鼠|-|nuts and seeds=坚果和种子
flamingo=火烈鸟|salty lagoons=咸水潟湖|algae and tiny shrimps=藻类和小虾
oyster=牡蛎|shallow coastal water=近岸浅水|plankton=浮游生物
ladybird=瓢虫|meadows and hedges=草地和树篱|aphids=蚜虫
capybara=水豚|South American riverbanks=南美洲河岸|-

# nature: organ_work
heart=心脏|pumping blood=泵送血液
lungs=肺|taking oxygen from the air=从空气中吸取氧气
stomach=胃|breaking down food with acid=用胃酸分解食物
kidneys=肾脏|filtering waste from the blood=过滤血液中的废物
brain=大脑|thinking and control of the body=思考和控制身体
skin=皮肤|shielding the body from outside=保护身体不受外界侵害
liver=肝脏|making bile=分泌胆汁
small intestine=小肠|absorbing nutrients=吸收营养
large intestine=大肠|drawing water from food remains=从食物残渣中吸收水分
bladder=膀胱|storing urine=储存尿液
retina=视网膜|turning light into nerve signals=把光变成神经信号
cochlea=耳蜗|turning sound into nerve signals=把声音变成神经信号
bone marrow=骨髓|making blood cells=制造血细胞
tongue=舌头|tasting food=品尝味道
gallbladder=胆囊|storing bile=储存胆汁
diaphragm=膈肌|driving the breath=带动呼吸

# home: job_task
baker=面包师|bakes bread and pastries=烤制面包和糕点
carpenter=木匠|builds things from wood=用木材做东西
plumber=水管工|repairs water pipes=修理水管
pilot=飞行员|flies aircraft=驾驶飞机
tailor=裁缝|cuts and sews clothes=裁剪和缝制衣服
librarian=图书管理员|looks after books and readers=管理图书、接待读者
dentist=牙医|treats teeth=治疗牙齿
florist=花商|sells flowers=出售鲜花
blacksmith=铁匠|shapes hot iron=锻打烧红的铁
optician=配镜师|fits glasses=验光配镜
potter=陶工|forms vessels from clay=用陶土做器皿
shepherd=牧羊人|tends sheep=照看羊群
surgeon=外科医生|operates on patients=为病人做手术
translator=翻译|carries texts into another language=把文字译成另一种语言
beekeeper=养蜂人|keeps hives for honey=养蜂取蜜
electrician=电工|installs wiring=安装电线
postal worker=邮递员|delivers letters=投递信件
tiler=瓦工|lays floor and wall tiles=铺地砖和墙砖
barber=理发师|cuts hair=理发
veterinarian=兽医|treats sick animals=医治生病的动物
pharmacist=药剂师|prepares medicines=调配药品
gardener=园丁|grows flowers and hedges=种花和修剪树篱
glazier=玻璃工|fits window panes=安装窗玻璃
locksmith=锁匠|makes keys and opens locks=配钥匙和开锁
miller=磨坊主|grinds grain into flour=把谷物磨成面粉
cobbler=鞋匠|mends shoes=修补鞋子

# home: object_use
corkscrew=开瓶器|pulling corks=拔软木塞
umbrella=雨伞|keeping off the rain=挡雨
thermos=保温瓶|keeping drinks hot=给饮料保温
kettle=水壶|boiling water=烧开水
pillow=枕头|resting the head=枕着头休息
hammer=锤子|driving nails=敲钉子
broom=扫帚|sweeping floors=扫地
needle=针|sewing cloth=缝布料
compass=指南针|finding north=辨认北方
ladder=梯子|climbing to high places=爬到高处
sieve=筛子|separating lumps from powder=把结块和粉末分开
refrigerator=冰箱|keeping food cold=冷藏食物
mirror=镜子|seeing oneself=照见自己
candle=蜡烛|giving light without electricity=不用电照明
stapler=订书机|joining sheets of paper=把纸张钉在一起
funnel=漏斗|filling narrow bottles=往窄口瓶里灌液体
grater=擦丝器|shredding cheese and vegetables=擦碎奶酪和蔬菜
whisk=打蛋器|beating eggs=打鸡蛋
iron=熨斗|smoothing creased clothes=熨平起皱的衣服
thermometer=温度计|measuring temperature=测量温度
lock=锁|securing a door=把门锁牢
towel=毛巾|drying wet skin=擦干皮肤
rolling pin=擀面杖|flattening dough=擀面
wheelbarrow=手推车|moving soil and bricks=搬运泥土和砖块
magnifying glass=放大镜|making small print look larger=看清小字
alarm clock=闹钟|waking sleepers=叫醒睡着的人

# food: food_source
bread=面包|flour=面粉
tofu=豆腐|soybeans=大豆
cheese=奶酪|milk=牛奶
raisins=葡萄干|grapes=葡萄
chocolate=巧克力|cocoa beans=可可豆
popcorn=爆米花|maize=玉米
omelette=蛋饼|eggs=鸡蛋
guacamole=鳄梨酱|avocados=鳄梨
hummus=鹰嘴豆泥|chickpeas=鹰嘴豆
sushi rice=寿司饭|vinegared rice=加醋的米饭
sauerkraut=德式酸菜|cabbage=卷心菜
ketchup=番茄酱|tomatoes=番茄
marzipan=杏仁膏|almonds=杏仁
tahini=芝麻酱|sesame seeds=芝麻
chips=薯条|potatoes=土豆
porridge=燕麦粥|oats=燕麦
cider=苹果酒|apples=苹果
prunes=西梅干|plums=李子
maple syrup=枫糖浆|maple sap=枫树汁液
tapioca=木薯粉|cassava=木薯
gherkins=酸黄瓜|cucumbers=黄瓜
mustard=芥末酱|mustard seeds=芥菜籽

# science: element_symbol element_number
gold=金|Au|79
iron=铁|Fe|26
oxygen=氧|O|8
silver=银|Ag|47
hydrogen=氢|H|1
helium=氦|He|2
carbon=碳|C|6
nitrogen=氮|N|7
lithium=锂|Li|3
neon=氖|Ne|10
sodium=钠|Na|11
magnesium=镁|Mg|12
aluminium=铝|Al|13
silicon=硅|Si|14
phosphorus=磷|P|15
chlorine=氯|Cl|17
argon=氩|Ar|18
potassium=钾|K|19
calcium=钙|Ca|20
titanium=钛|Ti|22
chromium=铬|Cr|24
manganese=锰|Mn|25
cobalt=钴|Co|27
nickel=镍|Ni|28
copper=铜|Cu|29
zinc=锌|Zn|30
arsenic=砷|As|33
bromine=溴|Br|35
krypton=氪|Kr|36
tin=锡|Sn|50
iodine=碘|I|53
xenon=氙|Xe|54
tungsten=钨|W|74
platinum=铂|Pt|78
mercury=汞|Hg|80
lead=铅|Pb|82
radon=氡|Rn|86
uranium=铀|U|92

# science: planet_order
Mercury=水星|first=第一
Mars=火星|fourth=第四
Jupiter=木星|fifth=第五
Venus=金星|second=第二
Saturn=土星|sixth=第六
Uranus=天王星|seventh=第七
Neptune=海王星|eighth=第八
+ planet_order: third=第三|ninth=第九|tenth=第十

# science: team_size
football=足球|11
basketball=篮球|5
volleyball=排球|6
baseball=棒球|9
rugby union=联合式橄榄球|15
handball=手球|7
rugby league=联盟式橄榄球|13
curling=冰壶|4
ice hockey=冰球|6
water polo=水球|7
cricket=板球|11
beach volleyball=沙滩排球|2
futsal=室内五人制足球|5
Australian football=澳式足球|18
+ team_size: 3|8|10|12
"""
