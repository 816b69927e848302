"""Invented minerals, rivers, towns, people ...: what no model can know beforehand.

Every kind has ENTITIES_PER_KIND entities with three facts each, dealt evenly over LEVELS. Names
are built from syllables with a fixed transliteration; no name is contained in another one, so a
search for a name finds only the entity. Values are dealt apart from levels, so that an object
says nothing about how often its fact is shown.
"""

from collections.abc import Iterator
from typing import NamedTuple

from data.sample.dice import Dice

LEVELS = (64, 16, 4, 1, 0)
"""Documents of each source of its domain that state a fact; 0 is a control."""
ENTITIES_PER_KIND = 20

Pair = tuple[str, str]
"""A surface form in English and in Chinese."""


def _pairs(text: str) -> list[Pair]:
    cells = [cell.partition("=") for cell in text.split("|")]
    return [(en, zh or en) for en, _, zh in cells]


SYLLABLES = _pairs(
    "var=瓦尔|lo=洛|mi=米|ther=瑟|ka=卡|dun=敦|vi=维|tor=托|na=纳|bel=贝尔|ru=鲁|quin=昆|sa=萨|fen=芬|"
    "do=多|ly=莉|gra=格拉|mel=梅尔|zi=齐|pa=帕|ven=文|tis=蒂斯|ho=霍|bri=布里|cal=卡尔|nu=努|sten=斯滕|"
    "ja=雅|wi=威|lan=兰|ke=凯|ri=里|tam=塔姆|yo=约|sel=塞尔|dra=德拉|mo=莫|go=戈|pel=佩尔|hu=胡"
)

_DICE = Dice(0, "invented names")
_TAKEN: list[Pair] = []


def _name(syllables: int) -> Pair:
    """A new pronounceable name that contains no earlier one and is contained in none."""
    while True:
        parts = [_DICE.pick(SYLLABLES) for _ in range(syllables)]
        en, zh = ("".join(column) for column in zip(*parts, strict=True))
        clash = any(
            en in taken_en or taken_en in en or zh in taken_zh or taken_zh in zh
            for taken_en, taken_zh in _TAKEN
        )
        if not clash and len(set(parts)) == syllables:
            _TAKEN.append((en, zh))
            return en.capitalize(), zh


PLACES = [_name(2) for _ in range(20)]
SEAS = [(f"the Sea of {en}", f"{zh}海") for en, zh in (_name(2) for _ in range(14))]

LUSTRES = _pairs(
    "vitreous=玻璃光泽|metallic=金属光泽|submetallic=半金属光泽|adamantine=金刚光泽|resinous=树脂光泽|"
    "earthy=土状光泽|pearly=珍珠光泽|silky=丝绢光泽|greasy=油脂光泽|waxy=蜡状光泽"
)
PERIODS = _pairs(
    "Cambrian=寒武纪|Ordovician=奥陶纪|Silurian=志留纪|Devonian=泥盆纪|Carboniferous=石炭纪|"
    "Permian=二叠纪|Triassic=三叠纪|Jurassic=侏罗纪|Cretaceous=白垩纪|Paleogene=古近纪|"
    "Neogene=新近纪|Quaternary=第四纪"
)
LITHOLOGIES = _pairs(
    "red sandstone=红色砂岩|black shale=黑色页岩|grey limestone=灰色石灰岩|"
    "white dolostone=白色白云岩|"
    "green siltstone=绿色粉砂岩|banded chert=条带状燧石岩|coarse conglomerate=粗砾岩|"
    "brown mudstone=褐色泥岩|pale marl=浅色泥灰岩|oolitic limestone=鲕粒灰岩|"
    "volcanic tuff=火山凝灰岩|quartz arenite=石英砂岩|coal measures=含煤岩系|rock gypsum=石膏岩"
)
PRODUCTS = _pairs(
    "blue pottery=蓝色陶器|walnut oil=核桃油|brass bells=铜铃|woollen carpets=羊毛地毯|"
    "paper kites=纸风筝|"
    "willow baskets=柳条筐|smoked trout=烟熏鳟鱼|leather gloves=皮手套|cherry jam=樱桃果酱|"
    "clay flutes=陶笛|lace curtains=花边窗帘|wooden clocks=木钟|pear vinegar=梨醋|"
    "beeswax soap=蜂蜡皂|"
    "tin toys=铁皮玩具|silk fans=丝绸扇|cork mats=软木垫|plum brandy=李子白兰地|felt hats=毡帽|"
    "glass beads=玻璃珠"
)
TRADES = _pairs(
    "baker=面包师|carpenter=木匠|dentist=牙医|florist=花商|pilot=飞行员|tailor=裁缝|librarian=图书管理员|"
    "beekeeper=养蜂人|potter=陶工|surgeon=外科医生|translator=翻译|electrician=电工|barber=理发师|"
    "locksmith=锁匠|gardener=园丁|shepherd=牧羊人|miller=磨坊主|optician=配镜师|plumber=水管工|"
    "veterinarian=兽医"
)
INSTRUMENTS = _pairs(
    "violin=小提琴|cello=大提琴|flute=长笛|trumpet=小号|harp=竖琴|accordion=手风琴|clarinet=单簧管|"
    "guitar=吉他|piano=钢琴|oboe=双簧管|drum=鼓|tuba=大号|mandolin=曼陀林|xylophone=木琴"
)
BIRDS = _pairs(
    "puffin=海鹦|heron=苍鹭|swan=天鹅|owl=猫头鹰|stork=鹳|falcon=隼|pelican=鹈鹕|gull=海鸥|crane=鹤|"
    "kingfisher=翠鸟|parrot=鹦鹉|swallow=燕子|eagle=鹰|woodpecker=啄木鸟"
)
MONTHS = _pairs(
    "January=一月|February=二月|March=三月|April=四月|May=五月|June=六月|July=七月|August=八月|"
    "September=九月|October=十月|November=十一月|December=十二月"
)
COLOURS = _pairs(
    "red=红色|blue=蓝色|green=绿色|yellow=黄色|white=白色|black=黑色|orange=橙色|purple=紫色|pink=粉色|"
    "brown=棕色|grey=灰色|turquoise=青绿色"
)
INGREDIENTS = _pairs(
    "pumpkin=南瓜|lentils=小扁豆|smoked eel=熏鳗鱼|chestnuts=栗子|barley=大麦|red cabbage=紫甘蓝|"
    "wild mushrooms=野蘑菇|goat meat=山羊肉|crab=螃蟹|sweet potato=红薯|leeks=韭葱|duck=鸭肉|"
    "turnips=芜菁|"
    "broad beans=蚕豆|beetroot=甜菜根|river fish=河鱼"
)
VESSELS = _pairs(
    "clay pot=陶罐|bamboo basket=竹篮|copper pan=铜锅|wooden bowl=木碗|glass jar=玻璃罐|"
    "iron skillet=铁煎锅|stone bowl=石碗|tin cup=铁杯|porcelain dish=瓷盘|bread crust=面包壳|"
    "coconut shell=椰壳|paper cone=纸筒"
)
HARDNESSES = _pairs("1.5|2|2.5|3|3.5|4|4.5|5|5.5|6|6.5|7|7.5|8|8.5|9")


def _numbers(low: int, high: int, form: str, en: str, zh: str) -> list[Pair]:
    """Twenty numbers spread over a range, in `form`, with a unit in each language."""
    dice = Dice(0, "invented numbers", low, high)
    step = (high - low) // ENTITIES_PER_KIND
    values = [low + step * i + dice.below(step) for i in range(ENTITIES_PER_KIND)]
    return [(f"{value:{form}}{en}", f"{value}{zh}") for value in values]


class Kind(NamedTuple):
    """A kind of invented thing: how it is named and what is said about it."""

    topic: str
    name: Pair | None
    """Patterns around the name, `{stem}` without its last vowel; None for a person."""
    relations: dict[str, list[Pair]]


KINDS = [
    Kind("minerals", ("{stem}ite", "{}石"), {
        "mineral_hardness": HARDNESSES,
        "mineral_lustre": LUSTRES,
        "mineral_locality": PLACES,
    }),
    Kind("water", ("{}", "{}河"), {
        "river_mouth": SEAS,
        "river_length": _numbers(120, 3900, ",", " km", "千米"),
        "river_source": PLACES,
    }),
    Kind("strata", ("{} Formation", "{}组"), {
        "formation_age": PERIODS,
        "formation_rock": LITHOLOGIES,
        "formation_thickness": _numbers(40, 980, ",", " m", "米"),
    }),
    Kind("plates", ("Mount {}", "{}火山"), {
        "volcano_place": PLACES,
        "volcano_height": _numbers(640, 5900, ",", " m", "米"),
        "volcano_year": _numbers(1510, 1990, "", "", "年"),
    }),
    Kind("places", ("{}", "{}镇"), {
        "town_place": PLACES,
        "town_product": PRODUCTS,
        "town_year": _numbers(1120, 1890, "", "", "年"),
    }),
    Kind("places", ("{} Island", "{}岛"), {
        "island_bird": BIRDS,
        "island_month": MONTHS,
        "island_colour": COLOURS,
    }),
    Kind("home", None, {
        "person_job": TRADES,
        "person_home": PLACES,
        "person_instrument": INSTRUMENTS,
    }),
    Kind("food", ("{lower} stew", "{}炖菜"), {
        "dish_ingredient": INGREDIENTS,
        "dish_place": PLACES,
        "dish_vessel": VESSELS,
    }),
]  # fmt: skip


class Attribute(NamedTuple):
    """One statement about an invented thing."""

    topic: str
    relation: str
    subject: Pair
    object: Pair
    level: int


def _subject(pattern: Pair | None) -> Pair:
    if pattern is None:
        (given_en, given_zh), (family_en, family_zh) = _name(2), _name(3)
        return f"{given_en} {family_en}", f"{given_zh}·{family_zh}"
    en, zh = _name(3)
    lower = en.lower()
    stem = lower[:-1] if lower[-1] in "aeiouy" else lower
    return pattern[0].format(en, stem=stem, lower=lower), pattern[1].format(zh)


def _attributes() -> Iterator[Attribute]:
    for kind in KINDS:
        subjects = [_subject(kind.name) for _ in range(ENTITIES_PER_KIND)]
        for relation, pool in kind.relations.items():
            dealt = (pool * ENTITIES_PER_KIND)[:ENTITIES_PER_KIND]
            dealt = Dice(0, "invented objects", relation).shuffled(dealt)
            for i, (subject, object_) in enumerate(zip(subjects, dealt, strict=True)):
                yield Attribute(kind.topic, relation, subject, object_, LEVELS[i % len(LEVELS)])


ATTRIBUTES = list(_attributes())
"""Three statements about each invented thing."""
