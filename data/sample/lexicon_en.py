"""English words for the gaps of everyday sentences (see grammar.py)."""

LEXICON_EN = """
woman:
- Anna | Clara | Ruth | Nina | Ella | Greta | Vera | Lucy | Martha | Irene | Alice | Rosa | Edith
- Julia | Sophie | Hanna | Mira | Lena | Olga | Tess | Nora | Paula | Ida | Grace | Helen | Dora
man:
- Tom | Ben | Oscar | Paul | Simon | Hugo | Max | Felix | Leo | Jonas | Victor | Henry
- Sam | Arthur | Rudolf
- Walter | Robert | Edwin | George | Philip | Martin | Owen | Karl | Peter | Daniel | Ivan | Jack
name:
- {woman} | {man}
weekday:
- Monday | Tuesday | Wednesday | Thursday | Friday | Saturday | Sunday
relative:
- sister | brother | cousin | aunt | uncle | grandmother | grandfather | neighbour | niece | nephew
- old teacher | flatmate | godmother | colleague
fruits:
- pears | peaches | carrots | onions | lemons | oranges | apricots | radishes | figs | mangoes
- rolls | pancakes | sausages | dumplings | biscuits | buns | artichokes | peppers | melons
goods:
- rice | honey | coffee | butter | spinach | garlic | pepper | tea | parsley | celery
- ginger | salt | yoghurt | cinnamon | noodle soup | raspberry syrup | pumpkin seeds | olive oil
thing:
- suitcase | lamp | teapot | bookshelf | guitar case | tablecloth | bicycle bell | photo album
- radio | wallet | picture frame | chess board | garden chair | raincoat | backpack | notebook
- clock | carpet | sewing box | wooden spoon | drawer | camera | tent | telescope | lunch box
- scarf | flower pot
adj:
- old | heavy | small | broken | blue | second-hand | green | narrow | plain | shiny | dusty
- borrowed | striped | enormous | wooden | yellow | ordinary | expensive | cheap | elegant | odd
place:
- station | library | harbour | museum | post office | town hall | park | bridge | bus stop
- theatre | swimming pool | school | hospital | car park | playground | church square | cinema
- city gate | bakery | bookshop | riverside café | sports hall | botanical garden | corner shop
street:
- Mill Lane | Station Road | Orchard Street | Castle Hill | Bridge Street | Long Row | Chapel Lane
- Market Square | Elm Avenue | Harbour Road | School Lane | Weaver Street | Garden Walk | North Gate
weather:
- the sky was grey | a cold wind blew | the sun came out | it drizzled without end | fog hung low
- the air smelled of rain | thunder rolled far away | it was hot and still | fresh snow had fallen
- clouds raced across the roofs | the pavements were icy | a warm breeze stirred the curtains
- hail rattled on the windows | the light was golden | the morning was clear and frosty
feeling:
- tired but content | a little nervous | in high spirits | rather annoyed | surprised | relieved
- hungry | proud | homesick for a moment | curious | calm | out of breath | grateful | embarrassed
time:
- in the morning | before lunch | at noon | after work | in the late afternoon | towards evening
- after supper | shortly before {1-9} o'clock | at half past {1-9} | around midnight | at dawn
ago:
- yesterday | {2-9} days ago | last {weekday} | a week earlier | the year before | long ago
- last month
manner:
- slowly | without a word | with a smile | carefully | in a hurry | very quietly | with both hands
- at once | after some thought | almost by accident | with great care | as if nothing had happened
second_turn:
- first | second | third | fourth | fifth | last
month:
- January | February | March | April | May | June | July | August | September | October | November
- December
"""
