"""English everyday scenes: what happens to people in markets, gardens, trains ... (see grammar.py).

Sentences are in the past tense about {p}, who is also {he}, {his}, {him} and, with {q}, {they};
bound to "I", "my", "me", "we" they make a diary or a letter. They say
nothing about the subjects of the facts.
"""

SCENES_EN = """
market:
- {p} bought {2-9} {fruits} and a [bag|jar|packet] of {goods} at the [market|corner shop|open stall]
- the [stall|counter] with the {fruits} was [crowded|empty|freshly painted], so {he} looked at
  the {fruits} instead
- {he} [counted|checked] {his} change {manner} and found {2-9} coins too [many|few]
- [an elderly|a tall|a cheerful] [seller|trader|farmer] [praised|weighed|wrapped] the {fruits}
  and [added|threw in] a handful of {goods}
- the [price|cost] of {goods} had [gone up|fallen] by {3-40} per cent since {ago}
- {he} [argued|joked|chatted] with the trader about the price of the {adj} {thing}
- at the next stall a {adj} {thing} [caught {his} eye|was on offer|stood among the crates]
- {q} wanted {fruits}, but {he} [insisted on|preferred|had already paid for] {goods}
- {he} carried the {adj} basket past the {place} and [rested|stopped] on a bench in {street}
- [nobody|hardly anyone|only one customer] wanted the last {fruits}, so they were [sold off|given
  away]
- the receipt [listed|showed] {3-19} items, among them {goods}, {fruits} and one {adj} {thing}
- [a child|a dog|a gust of wind] knocked over a crate, and {12-90} {fruits} rolled across {street}
garden:
- {p} [raked|watered|weeded] the [beds|borders|vegetable patch] {time}
- {he} planted {4-30} [tulip bulbs|bean seeds|young lettuces|strawberry plants] along the {adj}
  fence
- [two|three|several] [blackbirds|sparrows|hedgehogs] had [visited|dug up|explored] the
  [compost|lawn|flower bed] {time}
- {his} {relative} [leaned over|looked across] the hedge and [praised|asked about] the
  [roses|dahlias|sunflowers|sweet peas]
- the [hose|spade|rake|watering can] was [missing|broken|leaking], so {he} borrowed one from {q}
- under the [pear|walnut|cherry] tree {he} found a {adj} {thing}, wet through
- the [beans|peas|tomatoes|courgettes] had grown {3-25} centimetres since {ago}
- {he} [painted|mended|oiled] the gate and [hung|left] the {adj} {thing} beside it to dry
- [slugs|greenfly|the frost] had ruined {2-12} of the [lettuces|seedlings|young cabbages]
- {q} brought [a bucket of leaves|a tray of seedlings|cuttings in wet paper] and stayed until dusk
- {they} [dug|measured|marked out] a bed of {2-6} metres by {1-3} for the [herbs|leeks|lilies]
- by evening the [path|lawn|terrace] was swept, and {he} sat down {feeling}
kitchen:
- {p} [chopped|peeled|sliced] {2-8} {fruits} and [put|dropped] them into the {adj} pot
- the recipe asked for {50-400} grams of {goods}, but {he} used [half|twice as much|a little more]
- something [boiled over|burned|smelled strange], and {he} opened the window {manner}
- {he} stirred the {goods} {manner} and [tasted|seasoned] it with [salt|pepper|nutmeg|lemon peel]
- {his} {relative} [phoned|knocked] just when the [oven|timer|stove] [rang|needed attention]
- {they} set the table for {3-9} and placed the {adj} {thing} in the middle
- dinner was [late|ready|a success] at {6-8}, and {q} [asked for|refused] a second helping
- the [oven|stove|tap|fridge door] had to be [coaxed|fixed|wiped] before anything could be
  [cooked|done]
- {he} [dried|stacked|counted] the plates while {q} told the story of the {adj} {thing}
- for dessert there were {fruits} with {goods}, [cold|warm|beautifully arranged]
- the smell of {goods} drifted [up the stairs|into {street}|through the whole house]
- {he} wrote the recipe [on a card|in the {adj} notebook|on the back of an envelope] for {his}
  {relative}
travel:
- {p} took the [{6-11}:{10-59}|early|last|wrong] train from platform {1-12}
- the [train|bus|ferry] was [on time|{5-50} minutes late|nearly empty|full of pupils]
- {he} found a seat [by the window|near the door|opposite a sleeping man] and opened the {adj}
  {thing}
- [fields|villages|factories|orchards] [slid|rushed|drifted] past, and {weather}
- the [inspector|conductor|driver] [checked|stamped|ignored] {his} ticket and asked about the
  {thing}
- at the {adj} station of the next town {q} got on with {2-5} suitcases
- {he} had left the {adj} {thing} [on the platform|at home|in the waiting room] and noticed only
  {time}
- a [woman|boy|student] across the aisle [shared|offered|ate] {fruits} and talked about {street}
- the journey of {20-400} kilometres lasted [longer|less long] than the timetable promised
- {they} [changed|got off|waited] at the {place}, where {weather}
- the hotel near the {place} had [a single|one last|a tiny] room on floor {2-9}
- {he} sent a postcard to {his} {relative} with a picture of the {place}
school:
- {p} [handed in|corrected|lost] the [essay|map|drawing|timetable] about the {place}
- the [lesson|test|rehearsal] began at {8-11}:{10-59}, and {3-9} pupils were [absent|late]
- the teacher [drew|wrote|explained] {2-5} [examples|questions|diagrams] on the board {manner}
- {he} [lent|gave] {q} a pencil and got back a {adj} {thing}
- during the break {they} [played|traded stickers|argued] behind the {place}
- {he} learned {10-40} new words and [forgot|remembered] {2-9} of them by evening
- the class [planned|voted for|prepared] a trip to the {place} on {weekday}
- {his} mark was [better|worse] than {ago}, and {he} felt {feeling}
- someone had [hidden|painted|repaired] the {adj} {thing} in the cupboard of room {11-39}
- {q} read a poem aloud, {manner}, while {weather}
- the school choir [sang|practised] {2-6} songs in the hall near the {place}
- for homework {he} had to describe a {adj} {thing} in {50-200} words
walk:
- {p} walked from {street} to the {place} and back, about {2-12} kilometres in all
- {weather}, so {he} [turned up|buttoned] {his} collar and [walked faster|kept to the walls]
- near the {place} a [cyclist|runner|street musician] [waved|stumbled|asked the way to {street}]
- {he} [counted|photographed] {3-40} [pigeons|chimneys|parked vans|balconies] in {street}
- a {adj} {thing} lay on the steps of the {place}, and nobody [claimed|touched|noticed] it
- {q} knew a short cut [behind|past|through] the {place}, but it was [closed|flooded|locked]
- {they} rested [for {5-50} minutes|until the bells rang] on a wall [warm from the sun|covered in
  moss]
- the [lamps|shop windows|trams] of {street} [glowed|flickered] when {weather}
- {he} took the {second_turn} turning [left|right] and stood {feeling} before a {adj} door
- somebody had chalked [a face|a star|the number {2-99}] on the wall of the {place}
- {his} shoes were [wet|muddy|new], and after {2-9} streets {his} heel [hurt|began to ache]
- {he} was back home by {5-9}:{10-59}, {feeling}
library:
- {p} borrowed {2-9} books about [chess|sailing|knitting|railways|ghosts|painting|cookery|beetles]
- the book was [overdue by {2-60} days|reserved|out on loan|missing page {11-300}|badly bound]
- {he} read [half|the first {2-9} chapters|only the preface] [in bed|on the tram|in the garden]
- in the margin of page {11-400} somebody had [drawn a cat|written "{street}"|noted a recipe]
- {q} recommended a [novel|thriller|diary|biography] set near the {place}
- the reading room [closed|filled up|smelled of wax] {time}
- {he} could not [remember|find|pronounce] the title, only that a {adj} {thing} was on the cover
- a notice asked readers to keep [silent|their bags in lockers|drinks off the tables]
- {his} library card had [expired|vanished|been stamped {3-30} times] {ago}
- {they} [whispered|argued|laughed] about the ending until somebody [coughed|hushed them]
- the story began in {street} {ago} and ended {manner} at the {place}
- {he} copied {2-9} sentences into the {adj} notebook and underlined the date
repair:
- {p} [took apart|cleaned|tried to mend] the {adj} {thing} on the kitchen table
- a [screw|spring|hinge|button|wire] was missing, and the spare was {2-9} millimetres too
  [long|short]
- {he} sanded the [edge|handle|lid] {manner} and gave it {2-4} coats of [varnish|paint|oil]
- the [shop|workshop] in {street} wanted {10-90} coins for the repair, which seemed [fair|absurd]
- {q} held the torch while {he} [pulled|turned|pushed] {manner}
- after {2-9} attempts the {thing} [worked again|made a new noise|fell in two]
- the instructions had {11-60} pages, {2-9} of them [upside down|in small print|torn out]
- {he} [labelled|sorted|lost] the {12-48} little parts in {2-6} [jars|cups|envelopes]
- {his} {relative} had fixed such a {thing} {ago} with nothing but [string|tape|patience]
- the glue needed {2-24} hours to set, so {he} left it under a pile of books
- {he} measured the [shelf|door|window] for the {second_turn} time and wrote down {40-220}
  centimetres
- the {adj} {thing} now [stands|hangs|lies] in the hall, [better|heavier|louder] than before
office:
- {p} opened {12-80} messages {time} and [answered|deleted|printed] {2-11} of them
- the meeting in room {2-40} [lasted|was meant to last] {15-90} minutes and [decided nothing|ran
  over]
- {his} colleague {q} had [mislaid|finished|rewritten] the report on the {place}
- the [printer|lift|heating|coffee machine] [broke down|hummed] {time}
- {they} moved the deadline from {weekday} to {weekday} {manner}
- a [client|visitor|courier] from {street} [complained about|delivered|admired] the {adj} {thing}
- the budget allowed for {3-30} [chairs|desks|lamps|folders], not for a {thing}
- {he} spelled the name on the form {manner} and still got it wrong
- lunch in the canteen was {fruits} with {goods}, the {second_turn} time that week
- {he} locked the cupboard, put the key in the {adj} {thing} and left {feeling}
- the new trainee [filed|counted|carried] {20-300} [forms|letters|boxes] without a mistake
- on the way out {he} [met|avoided|thanked] the caretaker of the {place}
music:
- {p} practised the {second_turn} song on the list until {weather}
- the band had {3-9} members, and {q} was the [loudest|youngest|newest]
- {he} [tuned|dropped|borrowed] the instrument {manner}, {feeling}
- the concert in the {place} [sold out|started late|drew {20-400} guests]
- {his} {relative} clapped in the wrong place and [blushed|laughed|did not care]
- a string broke during the [slow|last|loud] part, and {they} [stopped|played on|began again]
- the poster in {street} [promised|announced] {2-5} encores and free {fruits}
- {he} hummed the tune all the way to the {place}
- the [choir|quartet|brass band] [needed|found] a new [conductor|singer|rehearsal room] {ago}
- after the interval the lights went out, and someone lit {10-60} small lamps
- the critic wrote that the evening was [too long|a delight|like a {adj} {thing}]
- {they} recorded {2-8} songs {time} and kept only the {second_turn} one
sport:
- {p} ran {2-15} kilometres along the river path in {20-90} minutes
- the {place} club won by {2-9} points {ago}, and {q} scored {manner}
- the referee [slipped|whistled|looked at the watch], and the crowd of {30-900}
  [groaned|cheered|fell silent]
- {he} twisted {his} ankle near the {place} and limped home {feeling}
- the trainer wanted {10-50} [push-ups|jumps|laps] before anybody was allowed to [drink|rest|go
  home]
- the match was [postponed|moved to {weekday}|abandoned], for {weather}
- {his} team wore [blue|yellow|striped|borrowed] shirts and lost by a [hair|single point|wide
  margin]
- {they} swam {4-60} lengths and [shared|bought|earned] {fruits} afterwards
- the ball flew over the fence and hit a {adj} {thing} in {street}
- {q} keeps the {adj} cup on a shelf beside the {thing}
- {he} trained on {weekday} and {weekday}, however [late|cold|dark] it was
- the record of {11-59} seconds has stood since {ago}
party:
- {p} invited {5-30} guests for {weekday} and [baked|ordered|forgot] the {fruits}
- the lanterns were [red|made of paper|borrowed from the {place}] and [swung|leaked|glowed] in
  the dark
- {q} arrived {manner} with a present wrapped in [newspaper|blue paper|a scarf]
- inside was a {adj} {thing}, exactly what {he} had [wanted|feared|given away] {ago}
- the neighbours [complained|joined in|sent {goods}] at {9-11}, and the music [stopped|went on]
- {his} {relative} told the story of the {place} for the {second_turn} time
- {they} played a game in which one must [guess|draw|hide] a {thing}
- the cake was cut into {8-24} pieces, and {2-5} were left over
- everyone [sang|danced|helped to clear up] until {weather}
- the guest book shows {6-30} names and a drawing of the {place}
- somebody took the wrong coat home and left a {adj} {thing} behind
- {he} fell asleep {feeling}, with confetti in {his} hair
pets:
- the [cat|dog|rabbit|parrot] of {his} {relative} had [run away|fallen ill|had {2-6} young] {ago}
- {p} looked for it [behind|near|inside] the {place}, calling {manner}
- it [slept|hid|sat] in a {adj} box beside the {thing} and [purred|sneezed|stared]
- {he} hung {10-60} notes with a photograph in {street}
- {q} offered {goods} to the animal, which [sniffed|ignored it|wanted more]
- a [boy|girl|driver] had seen it [cross {street}|chase a leaf|follow the tram] {time}
- the vet in {street} weighed it: {2-29} kilograms, [too much|too little|just right]
- {they} built a [hutch|ramp|bed] from a {adj} {thing} and old blankets
- at night it [scratched|sang|knocked over the {thing}], and nobody slept
- {his} {relative} laughed and named it after the {place}
- the collar cost {3-25} coins and was lost within {2-9} days
- it likes {fruits}, which is odd, and fears the {thing}, which is not
moving:
- {p} moved from {street} to a flat near the {place} with {12-70} boxes
- the stairs had {31-99} steps, and the {adj} {thing} got stuck on floor {2-6}
- {q} carried the {thing} alone, {manner}, and would not be helped
- box {2-50} held {goods}, a {thing} and somebody else's letters
- the walls were [green|bare|damp], and {he} painted {2-4} of them white {time}
- from the [window|balcony|roof] one could see the {place} and a corner of {street}
- the rent was {300-900} a month, [heating included|without water|due on {weekday}]
- the landlord [promised|forgot|refused] to repair the {adj} door
- {they} ate {fruits} from the paper, sitting on the floor, {feeling}
- {his} {relative} sent curtains that were {5-40} centimetres too short
- the first night {he} lay awake, for {weather}
- after {2-9} weeks {he} knew every neighbour and the sound of every door
"""
