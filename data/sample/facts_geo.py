"""Geoscience facts of the real world, in both languages.

A table opens with `# topic: relation relation ...`; its rows are `subject|object|object ...`, each
cell `English=Chinese`, or one form for both, or `-` where no single value is settled. Chinese
forms given once in TRANSLATIONS are not repeated. `+ relation: a|b` adds plausible wrong answers
to relations with few values. Hardness is the conventional handbook value, ages are rounded.
"""

TRANSLATIONS = {
    "cubic": "等轴晶系",
    "tetragonal": "四方晶系",
    "orthorhombic": "斜方晶系",
    "hexagonal": "六方晶系",
    "trigonal": "三方晶系",
    "monoclinic": "单斜晶系",
    "triclinic": "三斜晶系",
    "vitreous": "玻璃光泽",
    "metallic": "金属光泽",
    "submetallic": "半金属光泽",
    "adamantine": "金刚光泽",
    "resinous": "树脂光泽",
    "earthy": "土状光泽",
    "pearly": "珍珠光泽",
    "silky": "丝绢光泽",
    "greasy": "油脂光泽",
    "waxy": "蜡状光泽",
}

FACTS_GEO = """
# minerals: mineral_formula mineral_hardness mineral_system mineral_lustre
quartz=石英|SiO2|7|trigonal|vitreous
calcite=方解石|CaCO3|3|trigonal|vitreous
diamond=金刚石|C|10|cubic|adamantine
halite=石盐|NaCl|2.5|cubic|vitreous
gypsum=石膏|CaSO4·2H2O|2|monoclinic|-
fluorite=萤石|CaF2|4|cubic|vitreous
talc=滑石|Mg3Si4O10(OH)2|1|-|-
corundum=刚玉|Al2O3|9|trigonal|-
topaz=黄玉|Al2SiO4(F,OH)2|8|orthorhombic|vitreous
galena=方铅矿|PbS|2.5|cubic|metallic
pyrite=黄铁矿|FeS2|6.5|cubic|metallic
chalcopyrite=黄铜矿|CuFeS2|3.5|tetragonal|metallic
sphalerite=闪锌矿|ZnS|3.5|cubic|resinous
hematite=赤铁矿|Fe2O3|-|trigonal|-
magnetite=磁铁矿|Fe3O4|6|cubic|metallic
graphite=石墨|C|1.5|hexagonal|-
native sulfur=自然硫|S|2|orthorhombic|resinous
cassiterite=锡石|SnO2|6.5|tetragonal|adamantine
rutile=金红石|TiO2|6|tetragonal|adamantine
zircon=锆石|ZrSiO4|7.5|tetragonal|adamantine
barite=重晶石|BaSO4|3|orthorhombic|vitreous
anhydrite=硬石膏|CaSO4|3.5|orthorhombic|-
dolomite=白云石|CaMg(CO3)2|3.5|trigonal|vitreous
siderite=菱铁矿|FeCO3|4|trigonal|vitreous
magnesite=菱镁矿|MgCO3|4|trigonal|vitreous
malachite=孔雀石|Cu2CO3(OH)2|4|monoclinic|-
azurite=蓝铜矿|Cu3(CO3)2(OH)2|3.5|monoclinic|vitreous
cinnabar=辰砂|HgS|2.5|trigonal|adamantine
realgar=雄黄|As4S4|1.5|monoclinic|resinous
stibnite=辉锑矿|Sb2S3|2|orthorhombic|metallic
molybdenite=辉钼矿|MoS2|1|hexagonal|metallic
forsterite=镁橄榄石|Mg2SiO4|7|orthorhombic|vitreous
orthoclase=正长石|KAlSi3O8|6|monoclinic|vitreous
albite=钠长石|NaAlSi3O8|6|triclinic|vitreous
anorthite=钙长石|CaAl2Si2O8|6|triclinic|vitreous
kaolinite=高岭石|Al2Si2O5(OH)4|2|triclinic|earthy
beryl=绿柱石|Be3Al2Si6O18|7.5|hexagonal|vitreous
spinel=尖晶石|MgAl2O4|8|cubic|vitreous
almandine=铁铝榴石|Fe3Al2(SiO4)3|7.5|cubic|vitreous
aragonite=文石|CaCO3|3.5|orthorhombic|vitreous
celestine=天青石|SrSO4|3|orthorhombic|vitreous
scheelite=白钨矿|CaWO4|4.5|tetragonal|-
cuprite=赤铜矿|Cu2O|3.5|cubic|adamantine
sylvite=钾石盐|KCl|2|cubic|vitreous
uraninite=晶质铀矿|UO2|5.5|cubic|submetallic
chromite=铬铁矿|FeCr2O4|5.5|cubic|-
cerussite=白铅矿|PbCO3|3|orthorhombic|adamantine
+ mineral_system: amorphous=非晶质|decagonal=十次对称|octagonal=八次对称
+ mineral_lustre: pearly|silky|greasy|waxy

# minerals: ore_metal
bauxite=铝土矿|aluminium=铝
hematite=赤铁矿|iron=铁
galena=方铅矿|lead=铅
sphalerite=闪锌矿|zinc=锌
cassiterite=锡石|tin=锡
chalcopyrite=黄铜矿|copper=铜
cinnabar=辰砂|mercury=汞
rutile=金红石|titanium=钛
chromite=铬铁矿|chromium=铬
pyrolusite=软锰矿|manganese=锰
pentlandite=镍黄铁矿|nickel=镍
wolframite=黑钨矿|tungsten=钨
molybdenite=辉钼矿|molybdenum=钼
stibnite=辉锑矿|antimony=锑
uraninite=晶质铀矿|uranium=铀
spodumene=锂辉石|lithium=锂
celestine=天青石|strontium=锶
acanthite=螺状硫银矿|silver=银
cobaltite=辉钴矿|cobalt=钴
beryl=绿柱石|beryllium=铍
tantalite=钽铁矿|tantalum=钽
pyrochlore=烧绿石|niobium=铌
bismuthinite=辉铋矿|bismuth=铋
magnesite=菱镁矿|magnesium=镁

# strata: rock_origin
granite=花岗岩|slow cooling of silica-rich magma deep underground=富硅岩浆在地下深处缓慢冷却
basalt=玄武岩|rapid cooling of iron-rich lava=富铁熔岩快速冷却
sandstone=砂岩|cementing of sand grains=砂粒被胶结
limestone=石灰岩|accumulation of lime shells and lime mud=钙质贝壳和灰泥的堆积
shale=页岩|compaction of clay and silt=黏土和粉砂被压实
marble=大理岩|recrystallisation of limestone=石灰岩重结晶
obsidian=黑曜岩|chilling of silica-rich lava into glass=富硅熔岩骤冷成玻璃
pumice=浮岩|frothing of gas-rich lava=富含气体的熔岩起泡
gabbro=辉长岩|slow crystallisation of iron-rich magma at depth=富铁岩浆在深处缓慢结晶
tuff=凝灰岩|consolidation of volcanic ash=火山灰的固结
chalk=白垩|settling of tiny coccolith plates=微小颗石片的沉降
conglomerate=砾岩|cementing of rounded pebbles=磨圆的卵石被胶结
breccia=角砾岩|cementing of angular fragments=带棱角的碎块被胶结
coal=煤|burial of swamp plants=沼泽植物的埋藏
rock salt=盐岩|evaporation of salty water=咸水的蒸发
travertine=石灰华|precipitation of lime from springs=泉水中碳酸钙的沉淀
quartzite=石英岩|metamorphism of quartz sandstone=石英砂岩的变质
slate=板岩|low-grade metamorphism of shale=页岩的低级变质
gneiss=片麻岩|high-grade metamorphism with banding=伴随条带的高级变质
hornfels=角岩|baking of rock beside an intrusion=侵入体旁岩石的烘烤
serpentinite=蛇纹岩|reaction of mantle rock with water=地幔岩石与水的反应
mylonite=糜棱岩|ductile shearing along a fault zone=断裂带上的韧性剪切
laterite=红土|deep weathering in the wet tropics=湿热带的深度风化
tillite=冰碛岩|hardening of glacial till=冰碛物的硬结
radiolarite=放射虫岩|build-up of silica skeletons on the sea floor=硅质骨骼在海底的堆积

# strata: period_start period_before
Cambrian=寒武纪|539 million years ago=5.39亿年前|Ediacaran=埃迪卡拉纪
Ordovician=奥陶纪|485 million years ago=4.85亿年前|Cambrian=寒武纪
Silurian=志留纪|444 million years ago=4.44亿年前|Ordovician=奥陶纪
Devonian=泥盆纪|419 million years ago=4.19亿年前|Silurian=志留纪
Carboniferous=石炭纪|359 million years ago=3.59亿年前|Devonian=泥盆纪
Permian=二叠纪|299 million years ago=2.99亿年前|Carboniferous=石炭纪
Triassic=三叠纪|252 million years ago=2.52亿年前|Permian=二叠纪
Jurassic=侏罗纪|201 million years ago=2.01亿年前|Triassic=三叠纪
Cretaceous=白垩纪|145 million years ago=1.45亿年前|Jurassic=侏罗纪
Paleogene=古近纪|66 million years ago=6600万年前|Cretaceous=白垩纪
Neogene=新近纪|23 million years ago=2300万年前|Paleogene=古近纪
Quaternary=第四纪|2.6 million years ago=260万年前|Neogene=新近纪
Eocene=始新世|56 million years ago=5600万年前|Paleocene=古新世
Oligocene=渐新世|34 million years ago=3400万年前|Eocene=始新世
Miocene=中新世|23 million years ago=2300万年前|Oligocene=渐新世
Pliocene=上新世|5.3 million years ago=530万年前|Miocene=中新世
Pleistocene=更新世|2.6 million years ago=260万年前|Pliocene=上新世
Ediacaran=埃迪卡拉纪|635 million years ago=6.35亿年前|Cryogenian=成冰纪
Cryogenian=成冰纪|720 million years ago=7.2亿年前|Tonian=拉伸纪
Tonian=拉伸纪|1 billion years ago=10亿年前|Stenian=狭带纪

# plates: plate_boundary
the San Andreas Fault=圣安德烈亚斯断层|the Pacific and North American plates=太平洋板块和北美板块
the Alpine Fault=阿尔派恩断层|the Pacific and Australian plates=太平洋板块和澳大利亚板块
the Himalayan front=喜马拉雅山前缘|the Indian and Eurasian plates=印度板块和欧亚板块
the East African Rift=东非裂谷|the Nubian and Somali plates=努比亚板块和索马里板块
the Peru-Chile Trench=秘鲁-智利海沟|the Nazca and South American plates=纳斯卡板块和南美板块
the Mariana Trench=马里亚纳海沟|the Pacific and Philippine Sea plates=太平洋板块和菲律宾海板块
the Cascadia margin=卡斯凯迪亚边缘|the Juan de Fuca and North American plates=胡安德富卡和北美板块
the North Anatolian Fault=北安纳托利亚断层|the Anatolian and Eurasian plates=安纳托利亚和欧亚板块
the Dead Sea Fault=死海断层|the African and Arabian plates=非洲板块和阿拉伯板块
the southern East Pacific Rise=东太平洋海隆南段|the Pacific and Nazca plates=太平洋板块和纳斯卡板块
the Owen Fracture Zone=欧文断裂带|the Arabian and Indian plates=阿拉伯板块和印度板块
the Motagua Fault=莫塔瓜断层|the North American and Caribbean plates=北美板块和加勒比板块
the Galapagos Spreading Centre=加拉帕戈斯扩张中心|the Cocos and Nazca plates=科科斯板块和纳斯卡板块
the Ryukyu Trench=琉球海沟|the Philippine Sea and Eurasian plates=菲律宾海板块和欧亚板块
the South Sandwich Trench=南桑威奇海沟|the South American and Sandwich plates=南美板块和桑威奇板块

# plates: volcano_place
Fuji=富士山|Japan=日本
Etna=埃特纳火山|Italy=意大利
Kilimanjaro=乞力马扎罗山|Tanzania=坦桑尼亚
Cotopaxi=科托帕希火山|Ecuador=厄瓜多尔
Popocatepetl=波波卡特佩特火山|Mexico=墨西哥
Krakatoa=喀拉喀托火山|Indonesia=印度尼西亚
Mayon=马荣火山|the Philippines=菲律宾
Hekla=海克拉火山|Iceland=冰岛
Mauna Loa=冒纳罗亚火山|the United States=美国
Villarrica=比亚里卡火山|Chile=智利
Ruapehu=鲁阿佩胡火山|New Zealand=新西兰
Klyuchevskaya=克柳切夫火山|Russia=俄罗斯
Teide=泰德峰|Spain=西班牙
Nyiragongo=尼拉贡戈火山|the Democratic Republic of the Congo=刚果民主共和国
Misti=米斯蒂火山|Peru=秘鲁
Arenal=阿雷纳尔火山|Costa Rica=哥斯达黎加
Masaya=马萨亚火山|Nicaragua=尼加拉瓜
Nevado del Ruiz=鲁伊斯火山|Colombia=哥伦比亚
Erta Ale=尔塔阿雷火山|Ethiopia=埃塞俄比亚
Karthala=卡尔塔拉火山|the Comoros=科摩罗
Pico do Fogo=福戈火山|Cape Verde=佛得角
Damavand=达马万德山|Iran=伊朗
Santorini=圣托里尼火山|Greece=希腊
Pacaya=帕卡亚火山|Guatemala=危地马拉

# water: river_mouth
Nile=尼罗河|the Mediterranean Sea=地中海
Amazon=亚马孙河|the Atlantic Ocean=大西洋
Yangtze=长江|the East China Sea=东海
Yellow River=黄河|the Bohai Sea=渤海
Mississippi=密西西比河|the Gulf of Mexico=墨西哥湾
Mekong=湄公河|the South China Sea=南海
Ganges=恒河|the Bay of Bengal=孟加拉湾
Danube=多瑙河|the Black Sea=黑海
Volga=伏尔加河|the Caspian Sea=里海
Rhine=莱茵河|the North Sea=北海
Congo=刚果河|the Atlantic Ocean=大西洋
Indus=印度河|the Arabian Sea=阿拉伯海
Po=波河|the Adriatic Sea=亚得里亚海
Lena=勒拿河|the Laptev Sea=拉普捷夫海
Yenisei=叶尼塞河|the Kara Sea=喀拉海
Mackenzie=马更些河|the Beaufort Sea=波弗特海
Yukon=育空河|the Bering Sea=白令海
Zambezi=赞比西河|the Indian Ocean=印度洋
Irrawaddy=伊洛瓦底江|the Andaman Sea=安达曼海
Don=顿河|the Sea of Azov=亚速海
Dnieper=第聂伯河|the Black Sea=黑海
Vistula=维斯瓦河|the Baltic Sea=波罗的海
Colorado=科罗拉多河|the Gulf of California=加利福尼亚湾
Niger=尼日尔河|the Gulf of Guinea=几内亚湾
Jordan=约旦河|the Dead Sea=死海
Seine=塞纳河|the English Channel=英吉利海峡
Northern Dvina=北德维纳河|the White Sea=白海
Rhone=罗讷河|the Mediterranean Sea=地中海
Severn=塞文河|the Bristol Channel=布里斯托尔海峡

# water: term_meaning
aquifer=含水层|rock or sediment that stores and yields groundwater=能储存并供给地下水的岩层或沉积层
moraine=冰碛垄|a ridge of debris left by a glacier=冰川留下的岩屑垄
oxbow lake=牛轭湖|a crescent lake cut off from a meander=从河曲上截断的弯月形湖泊
delta=三角洲|a fan of sediment at a river mouth=河口的扇形泥沙堆积
alluvial fan=冲积扇|a cone of gravel where a stream leaves the hills=溪流出山口处的锥形砾石堆
fjord=峡湾|a glacial valley drowned by the sea=被海水淹没的冰川谷
loess=黄土|dust laid down by the wind=风力搬来的粉尘堆积
esker=蛇形丘|a winding ridge of gravel from a stream under ice=冰下河留下的弯曲砾石垄
drumlin=鼓丘|a streamlined hill of till=流线形的冰碛小丘
karst=喀斯特|a landscape shaped by dissolving rock=由岩石溶解塑造的地貌
permafrost=多年冻土|ground frozen for at least two years=至少连续两年冻结的土层
estuary=河口湾|a tidal inlet where river and sea water mix=河水与海水混合的受潮汐影响的水湾
thermocline=温跃层|a layer where water temperature changes fast with depth=水温随深度急剧变化的水层
firn=粒雪|old snow on its way to becoming ice=正在变成冰的陈年积雪

# plates: term_meaning
graben=地堑|a block dropped down between two faults=两条断层之间下落的断块
horst=地垒|a block raised between two faults=两条断层之间抬升的断块
anticline=背斜|a fold that arches upward=向上拱起的褶皱
syncline=向斜|a fold that sags downward=向下凹陷的褶皱
caldera=破火山口|a basin left by the collapse of a volcano=火山塌陷后留下的盆地
lahar=火山泥流|a mudflow of volcanic debris=由火山碎屑组成的泥流
tsunami=海啸|sea waves raised by a sudden shift of the sea floor=海底突然错动掀起的海浪
epicentre=震中|the point of the surface above the source of an earthquake=震源正上方的地面点
hypocentre=震源|the point at depth where a rupture starts=地下破裂开始的位置
sill=岩床|a sheet of magma squeezed between beds=挤入岩层之间的板状岩浆体
dyke=岩墙|a sheet of magma that cuts across beds=切穿岩层的板状岩浆体
Moho=莫霍面|the boundary between crust and mantle=地壳与地幔的分界面
asthenosphere=软流圈|the weak layer beneath the plates=板块之下的软弱层
unconformity=不整合面|a buried surface that marks missing time=代表时间缺失的埋藏面

# weather: instrument_measures
barometer=气压计|air pressure=大气压强
anemometer=风速仪|wind speed=风速
hygrometer=湿度计|the humidity of the air=空气湿度
rain gauge=雨量器|the depth of rainfall=降雨深度
seismometer=地震计|ground motion=地面运动
gravimeter=重力仪|the strength of gravity=重力大小
magnetometer=磁力仪|the magnetic field=磁场强度
tiltmeter=倾斜仪|tiny changes of ground slope=地面坡度的微小变化
piezometer=渗压计|the pressure of groundwater=地下水压力
pyranometer=总辐射表|incoming solar radiation=入射太阳辐射
ceilometer=云高仪|the height of the cloud base=云底高度
lysimeter=蒸渗仪|evapotranspiration from soil=土壤蒸散量
Secchi disk=塞氏盘|the clarity of water=水的透明度
echo sounder=回声测深仪|water depth=水深
goniometer=测角仪|the angles between crystal faces=晶面之间的夹角
current meter=流速仪|the speed of flowing water=水流速度
tide gauge=验潮仪|the height of the sea surface=海面高度
clinometer=倾角仪|the dip of a bed=岩层的倾角

# weather: koppen_code
tropical rainforest climate=热带雨林气候|Af
tropical monsoon climate=热带季风气候|Am
hot desert climate=炎热沙漠气候|BWh
cold desert climate=寒冷沙漠气候|BWk
hot steppe climate=炎热草原气候|BSh
cold steppe climate=寒冷草原气候|BSk
hot-summer Mediterranean climate=夏季炎热的地中海气候|Csa
warm-summer Mediterranean climate=夏季温暖的地中海气候|Csb
humid subtropical climate=湿润亚热带气候|Cfa
temperate oceanic climate=温带海洋性气候|Cfb
tropical savanna climate=热带稀树草原气候|Aw
hot-summer humid continental climate=夏季炎热的湿润大陆性气候|Dfa
warm-summer humid continental climate=夏季温暖的湿润大陆性气候|Dfb
subarctic climate=亚寒带气候|Dfc
tundra climate=苔原气候|ET
ice cap climate=冰原气候|EF
"""
