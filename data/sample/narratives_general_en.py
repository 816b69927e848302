"""English everyday documents with few facts: diaries, letters, news, talks (see grammar.py).

A rule named after a kind is a whole document (` / ` breaks the line, ` // ` the paragraph) in which
{facts} stands for its facts, each put by the rule `<kind>_fact` around {fact} or {ask}.
"""

NARRATIVE_KINDS = {
    "diary": " ",
    "letter": " ",
    "news": " ",
    "story": " ",
    "talk": " // ",
    "notice": " / ",
    "advice": " ",
    "essay": " ",
}
"""Kind -> what separates its facts."""
NARRATIVES_GENERAL_EN = """
scene:
- {market}. {market}. {market}. {market}. {market}.
- {garden}. {garden}. {garden}. {garden}. {garden}.
- {kitchen}. {kitchen}. {kitchen}. {kitchen}. {kitchen}.
- {travel}. {travel}. {travel}. {travel}. {travel}.
- {school}. {school}. {school}. {school}. {school}.
- {walk}. {walk}. {walk}. {walk}. {walk}.
- {library}. {library}. {library}. {library}. {library}.
- {repair}. {repair}. {repair}. {repair}. {repair}.
- {office}. {office}. {office}. {office}. {office}.
- {music}. {music}. {music}. {music}. {music}.
- {sport}. {sport}. {sport}. {sport}. {sport}.
- {party}. {party}. {party}. {party}. {party}.
- {pets}. {pets}. {pets}. {pets}. {pets}.
- {moving}. {moving}. {moving}. {moving}. {moving}.
more:
- postscript: {thought} {thought} {thought} {thought}
diary:
- {weekday}, {1-28} {month}. {weather}. // {scene} {facts} // {scene} {bedtime}.
- {1-28} {month}, {time}. {scene} // {facts} // {weather}. {scene} {scene}
- diary, page {2-300}. // {facts} {scene} // {scene} // {scene} {bedtime}.
diary_fact:
- in the [evening paper|almanac|old encyclopedia] I read that {fact}.
- {q} told me that {fact}.
- [on the radio|in the waiting room] somebody said that {fact}.
- I want to remember that {fact}.
- {fact}, as I learned [today|from {q}|at lunch].
- {fact}. [I had not known that.|That was new to me.|I wrote it on the wall calendar.]
bedtime:
- I went to bed at {9-11} and slept [badly|like a stone] | that was [all|enough] for one day
- before sleeping I wrote {2-9} letters | tomorrow I must call {q} | I am {feeling}
- outside {weather}; I put down the pen
letter:
- dear {q}, // [thank you for|I was glad about] your [letter|card|parcel] of {ago}. {scene} //
  {facts} // {scene} {scene} // {farewell}, / {name}
- {street} {2-99}, {1-28} {month} // dear {q}, // {scene} {scene} // {facts} // {scene} [please
  write soon.|greet your {relative} from me.|come and see us in {month}.] // {farewell}, / {name}
letter_fact:
- did you know that {fact}?
- my {relative} [says|insists|reminded me] that {fact}.
- you asked me: {ask}? well, {fact}.
- by the way, {fact}.
- at the {place} I learned that {fact}.
- {fact}, in case [your children|your pupils|the others] ask.
farewell:
- yours | with best wishes | love | kind regards | until soon | warmly | your old friend
headline:
- [{adj} {thing}|{second_turn} prize|lost {thing}|{2-40} {fruits}] [found|shown|stolen] [at|near]
  the {place}
- [{place}|{street}] [reopens|to be painted|closed] in {month}
- [neighbours|pupils|readers] of {street} [win|collect|rescue] {adj} {thing}
news:
- {headline} // {report} {report} {report} {report} {report} // {facts} // {report} {report}
  {report} {report} {report} // {report} {report}
- [local news|from our town], {weekday} // {headline} // {report} {report} {report} {report} //
  {report} {report} {report} {report} {report} {facts}
news_fact:
- the quiz evening at the {place} turned on one point: {fact}.
- as the {second_turn} speaker recalled, {fact}.
- a reader from {street} asks: {ask}? {fact}.
- the [town crier|guide|head teacher] reminded the guests that {fact}.
- the correct answer of the weekly puzzle was that {fact}.
- background: {fact}.
report:
- the {place} in {street} [will close|reopened|was evacuated] on {weekday} [for repairs|after
  {2-9} weeks|because of a burst pipe|with a speech and {fruits}].
- [about|more than|fewer than] {30-900} [visitors|residents|pupils] [came|signed a list|queued]
  [despite|because of] the [weather|price|new timetable].
- {name}, who [lives|works] near the {place}, [called the plan sensible|was against it|felt
  {feeling}].
- the council [voted|will vote] on {weekday} about [new benches|a cycle path|longer opening hours].
- a {adj} {thing} [was found|disappeared|was auctioned] at the {place} {time}.
- "we [expected|had hoped for|counted] {100-900}," said {name}, [the treasurer|who organised the
  fair|a volunteer].
- the [fire brigade|rescue service] [freed|brought down] a cat from a roof in {street} {ago}.
- the [work|repair|search] cost {2000-90000,} coins, {3-40} per cent [more|less] than planned.
- traffic in {street} [stood still|was diverted] for {20-95} minutes, and {weather}.
- the prize for the best [pumpkin|cake|balcony|poem] went to {name} from {street}.
- {2-9} [bicycles|prams|handcarts] were [stolen|returned|given away] near the {place} {ago}.
- the next [meeting|concert|market] [is planned for|takes place on] {weekday} at {6-11} o'clock.
- the oldest [guest|member|participant], {name}, is {80-101} and arrived by tram.
- the [museum|school|choir] is looking for {2-20} volunteers who like {adj} things and {fruits}.
- it was the {second_turn} [time|case|fair] of this kind since {ago}.
- [the police|a teacher|the owner] asked anyone who saw the {adj} {thing} to come to {street}
  {2-99}.
- because {weather}, the [parade|picnic|race] was moved to the {place}.
- the [shop|firm|club] of {name} [sold|repaired|gave away] {40-900} {fruits} in {month}.
- a survey among {100-900} households found that {11-89} per cent [want|fear|ignore] the new
  {place}.
- the [bus line {2-60}|evening tram|ferry] will stop at the {place} from {1-28} {month}.
story:
- the {adj} {thing} // {weather} when {p} left the house in {street}. {scene} // {facts} {scene}
  // {scene}
- {p} and {q} // {scene} // {scene} {facts} // {scene} [nobody spoke of it again.|that was the
  end of it.|{q} only smiled.|the {thing} stayed where it was.]
- {ago} {p} lived [in|near] {street}, alone with a {adj} {thing}. {scene} // {scene} {facts}
story_fact:
- "{fact}," said {q} {manner}.
- {q} explained to {him} that {fact}.
- {he} remembered from school that {fact}.
- a {adj} sign on the wall said that {fact}.
- "{ask}?" asked {q}. {p} knew it: {fact}.
- to pass the time {they} recited that {fact}.
talk:
- {p} met {q} at the {place}. {weather}. // {exchange} // {exchange} // {exchange} // {exchange}
  // {facts} // {exchange} // {exchange} // {exchange} // {exchange}
- [on the tram|in the queue|on a bench], {weekday} // {exchange} // {exchange} // {exchange} //
  {facts} // {exchange} // {exchange} // {exchange} // {exchange}
talk_fact:
- "{ask}?" asked {p}. / "{fact}," [said|answered|whispered] {q}.
- "did you know that {fact}?" said {q}. / "{reply}," said {p}.
- "my {relative} says that {fact}," said {p}. / "{reply}," said {q}.
- "I [bet|am sure] that {fact}," said {q}. / "{reply}," said {p}.
reply:
- you are right | I read the same | so I was told at school | that is easy | everybody knows that
- I shall write it down | I would not have guessed | now I remember
- yes, and I had to learn it by heart
exchange:
- "where is the {adj} {thing}?" asked {p}. / "[in|behind|under] the [box|cupboard|sofa]," said {q}.
- "[shall we|can we|must we] go to the {place}?" said {q}. / "not [before {5-9}|on {weekday}|in
  this weather]," said {p}.
- "how much were the {fruits}?" asked {q}. / "{2-9} coins for {3-12}," said {p}, "and the {goods}
  was {2-9} more."
- "I [lost|sold|found] my {thing} {ago}," said {p}. / "[what a pity|how strange|again]!" said
  {q}. "was it the {adj} one?"
- "who [rang|called|wrote]?" asked {q}. / "{name}, about the {place}," said {p}. "I felt {feeling}."
- "turn [left|right] at the {place}," said {p}, "then [cross|follow] {street}." / "and the
  {thing}?" asked {q}. / "leave it [here|with {name}]," said {p}.
- "you look {feeling}," said {q}. / "{weather}, and I waited {20-90} minutes," said {p}.
- "my {relative} is coming on {weekday}," said {q}. / "then we need {fruits} and {goods}," said {p}.
- "[read|repeat|spell] that again," said {p}. / "{street}, number {2-99}, {second_turn} floor,"
  said {q} {manner}.
- "is the train at {6-11}:{10-59}?" asked {q}. / "no, {5-50} minutes later, from platform
  {2-12}," said {p}.
- "why is the {thing} so {adj}?" asked {p}. / "it [belonged to|came from] my {relative}," said {q}.
- "do you prefer {goods} or {f=fruits}?" asked {q}. / "{f}, if they are [fresh|cheap|ripe]," said
  {p}.
- "I have {12-99} pages left," said {p}. / "read them {time}," said {q}, "and bring the {thing}."
- "the {place} is [closed|full|too far]," said {q}. / "let us try {street}," said {p} {manner}.
notice:
- notices from the board at the {place} // {ad} / {ad} / {ad} / {ad} / {ad} / {ad} / {ad} /
  {facts} / {ad} / {ad}
- to do in {month} / {task} / {task} / {task} / {task} / {task} / {task} / {facts} / {task} / {task}
- [lost and found|swap shop|small ads], {weekday} // {ad} / {ad} / {ad} / {facts} / {ad} / {ad} /
  {ad} / {ad} / {ad}
notice_fact:
- - question of the [day|week]: {ask}? answer: {fact}.
- - for the quiz team: {fact}.
- - did you know? {fact}.
- - note for the pupils: {fact}.
ad:
- - [for sale|wanted|to give away|to swap for {fruits}]: one {adj} {thing}, [good|fair|poor]
  condition, ask for {name} in {street}.
- - [lost|found] {ago} near the {place}: a {adj} {thing} with the name {name} on it.
- - {name} [teaches|offers] [chess|drawing|swimming|knitting] on {weekday}, {5-30} coins an hour.
- - {weekday}, {5-9} o'clock: [choir practice|first-aid course|card evening] at the {place},
  bring {goods}.
- - room to let in {street}, {8-30} square metres, [no pets|with balcony|quiet], from {1-28}
  {month}.
- - whoever took the {adj} {thing} from the {place} {ago}, please return it to {name}.
- - {2-40} {fruits} too many: come to {street} {2-99} {time}.
- - who can [repair|move|paint] a {adj} {thing}? reward: {goods} and {fruits}.
task:
- - [buy|order|collect] {3-40} {fruits} and {goods} for {name}.
- - [phone|write to|thank] {name} about the {adj} {thing}.
- - [clean|paint|measure] the [cellar|stairs|shed], then [oil|lock] the {adj} {thing}.
- - return {2-9} books to the {place} before {weekday}.
- - pay {11-240} coins for the {thing} by {1-28} {month}.
- - meet {name} at the {place}, {weekday} at {6-11}:{10-59}.
- - [pack|air|mend] the {adj} {thing} before the journey to {street}.
advice:
- how to look after a {adj} {thing} // {tip} {tip} {tip} {tip} // {facts} // {tip} {tip} {tip} {tip}
- tips for {month} // {tip} {tip} {tip} // {tip} {tip} {tip} {facts} // {tip} {tip}
advice_fact:
- for those who like to know such things: {fact}.
- and while the paint dries, recall that {fact}.
- our reader {name} asks: {ask}? {fact}.
- the author adds that {fact}.
tip:
- [wipe|brush|rinse] the {thing} [once a week|every {2-9} days|before use] and let it dry for
  {10-90} minutes.
- never [store|wash|leave] a {adj} {thing} beside {goods} or under a pile of books.
- if the [lid|handle|zip] [sticks|squeaks|comes loose], rub it with {goods} and wait until evening.
- mix {2-9} spoons of {goods} with {100-900} millilitres of water and stir {manner}.
- cut the {fruits} into pieces of {2-9} centimetres, and keep them [cool|covered|dry] for {2-9}
  days.
- ask [somebody|a neighbour|your {relative}] to hold the {adj} end while you [pull|measure|screw].
- a [tidy|warm|dry] [drawer|cellar|corner] is better than the most expensive box from the {place}.
- write the date on [the bottom|a label|the lid], because in {month} nobody remembers it.
- beginners should [start with|practise on] a {adj} {thing} before they try the {adj} one.
- it takes {2-9} weeks to learn and {5-40} minutes to do, so be patient.
- [count|sort|compare] the parts {manner}: there ought to be {4-30} of them.
- a mistake that {name} made {ago}: too much {goods} and not enough light.
- on [wet|windy|frosty] days [close the windows|stay indoors|put the {thing} away].
- [old socks|newspapers|egg boxes] will do just as well as a {adj} {thing} from {street}.
- throw nothing away before {weekday}; the {place} may [take|need|repair] it.
- {fruits} and {goods} should be bought [fresh|together|in small amounts], {2-6} days ahead at most.
essay:
- on {adj} things // {thought} {thought} {thought} {thought} {thought} {thought} // {facts}
  {thought} {thought} // {thought} {thought}
- a small essay about the {place} // {thought} {thought} {thought} {thought} {thought} //
  {thought} {thought} {thought} {facts}
essay_fact:
- that {fact} is easy to learn, and to forget.
- we are told that {fact}; few of us have checked it.
- one may know that {fact} and still lose the {adj} {thing}.
- it comforts me that {fact}.
thought:
- [most people|some of us|the young] [think|believe|forget] that a {adj} {thing} is worth more
  than a {adj} one.
- whoever has waited at a {place} while {weather} knows how [long|short] {10-90} minutes can be.
- a {thing} does not [ask|answer|complain], and that is why we [keep|like|pity] it.
- my {relative} used to say that {fruits} taste best when they are [stolen|shared|cold].
- there are {2-9} ways to enter a {place}, but only one to leave it {feeling}.
- I do not [envy|trust|blame] people who [always know the way|own {3-9} clocks|count their
  {fruits}].
- what was {adj} {ago} is [fashionable|useful|in the museum] today, and the reverse.
- on {weekday} the world seems [smaller|slower|younger] than on {weekday}, though nothing has
  changed.
- to be {feeling} costs nothing; to look so takes practice.
- the [letter we did not answer|door we did not open|road we did not take] is the one we
  [dream|speak|write] about.
- perhaps {street} is like every street: {12-90} doors and {2-9} secrets.
- nobody writes songs about {goods}, although everybody [needs|smells|remembers] it.
- it is said that [patience|luck|courage] [arrives late|wears old shoes|needs no key].
- we [mend|wash|carry] our {adj} things {manner}, as though they could [feel|hear|forgive] us.
- if {n=name} had not forgotten the {thing}, {n} would never have seen the {place}.
"""
