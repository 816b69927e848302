"""English geoscience documents: field notes, lab reports, lectures (see grammar.py).

The notation of kinds is that of narratives_general_en.py; `explain`, `observe` and `title` come
from the topic the document is about (topics_geo_en.py).
"""

NARRATIVE_KINDS = {
    "field": " ",
    "lab": " ",
    "log": " / ",
    "memo": " ",
    "chapter": " ",
    "debate": " // ",
    "bulletin": " ",
}
"""Kind -> what separates its facts."""
REFERENCE_KINDS = {
    "handbook": " ",
    "exam": " // ",
    "tables": " / ",
    "lecture": " ",
    "review": " ",
    "answers": " // ",
}
"""The same for kinds with many facts."""

NARRATIVES_GEO_EN = """
letter:
- A | B | C | D | E | F | G | H | K | L | M | N | P | R | S | T | W
site:
- the {side} {landform} | {landform_name} | outcrop {2-90}
- the {landform} [above|below] {landform_name}
- the {side} bank | the edge of the {landform} | point {letter}{10-99} | stop {2-30}
- kilometre {2-90} of the traverse | the {side} end of the {landform}
side:
- northern | southern | eastern | western | upper | lower | left | right | sunny | shaded
landform:
- quarry | ridge | gully | terrace | spur | road cutting | bluff | slope | pass | plateau | cliff
- bay
- hollow | valley floor | headland | saddle | hillside | canyon | plain | basin | pit | shore
landform_name:
- Raven Crag | Long Scar | Hollow Tor | the Devil's Stair | Fern Gully | Old Man Bluff
- Shepherd's Gap
- Copper Beck | Windy Saddle | Kettle Moor | Cold Spring | the Organ Pipes | Badger Hill
- Salt Creek
- Three Larches | Crow Ledge | Mill Gorge | Heron Point | the Staircase | Lantern Rock
more:
- postscript: {explain} {explain} {observe} {explain}
field:
- field book of {name}, {1-28} {month} // {observe} {observe} {observe} // {facts} // {explain}
  {observe} {observe} {duty}
- {weekday}, {site} // {duty} {observe} {observe} {observe} // {explain} {facts} // {observe}
  {observe}
field_fact:
- [note|reminder|to be recalled]: {fact}.
- in the tent we agreed that {fact}.
- {name} [remarked|repeated] that {fact}.
- {fact}, as the [handbook|old map|survey memoir] says.
- it fits what is known, namely that {fact}.
duty:
- {name} carried the [hammer|poles|samples|batteries], {name} kept the notes.
- we [packed|labelled|photographed] {4-60} samples and reached camp {time}.
- rain [stopped work|forced us under a ledge] for {2-6} hours.
- the [battery|rope|tape|sample bag] failed at {site}, so {remedy}.
- the walk from {site} took {2-7} hours.
remedy:
- the rest must wait until {weekday} | {name} will repeat the work in {month}
- half of the readings are missing | we paced the distance instead
lab:
- [report|protocol|result sheet] {100-999}, laboratory of {name} // {title} // {method} {observe}
  {observe} // {facts} // {observe} {explain} {verdict}
- [analysis|measurement] of {1-28} {month} // {method} {method} {observe} // {observe} {explain}
  {facts} // {verdict} {verdict}
lab_fact:
- for comparison, {fact}.
- it is known that {fact}.
- the reference file states that {fact}.
- {fact}, which served as a check.
- {ask}? according to the literature, {fact}.
method:
- the samples were [dried at {40-105} degrees|sieved to {63-500} micrometres|split into {2-8}
  parts].
- each reading was repeated {3-12} times, and {name} checked them {manner}.
- calibration [before and after|every {2-9} runs] kept the drift below {2-9} per cent.
- {3-40} of {41-90} results were [rejected|kept], as agreed with {name}.
- the [balance|oven|furnace|lamp] ran for {2-48} hours before the first reading.
- blanks and duplicates made up {5-20} per cent of the series.
verdict:
- the result [agrees|disagrees] with that of {month} by {2-30} per cent.
- a second [laboratory|operator] should [confirm|repeat] this before {month}.
- the uncertainty of {2-19} per cent stems from [the weighing|the small sample|the old standard].
- we see no reason to [change the map|drop the sample|ask for more money].
log:
- log of the party at {site} / {entry} / {entry} / {entry} / {entry} / {facts} / {entry} /
  {entry} / {entry}
- {title} / {entry} / {entry} / {facts} / {entry} / {entry} / {entry} / {entry}
entry:
- {5-9}:{10-59} - {observe} | {10-18}:{10-59} - {observe} | {weekday} - {observe}
- day {2-60} - {observe}
- {name} - {observe} | {weekday} - {duty}
log_fact:
- remark - {fact}.
- from the manual - {fact}.
- question of {name} - {ask}? {fact}.
- learned today - {fact}.
memo:
- dear {name}, // {observe} {observe} {observe} // {facts} {explain} // {observe} {observe}
  {verdict} // [regards|yours|good luck with the ice|greetings from camp], / {name}
- to the survey office, {1-28} {month} // {observe} {observe} {duty} // {facts} // {explain}
  {explain} {verdict}
memo_fact:
- please keep in mind that {fact}.
- as we all learned, {fact}.
- the new students do not know that {fact}.
- you may tell the visitors that {fact}.
- {ask}? I looked it up: {fact}.
chapter:
- {title} // {explain} {explain} {explain} {explain} // {facts} // {explain} {explain} {observe}
- chapter {2-30}: {title} // {explain} {explain} {explain} // {observe} {explain} {facts} //
  {explain} {explain} {explain}
chapter_fact:
- {fact}. | for example, {fact}. | as an exercise, recall that {fact}. | likewise, {fact}.
- the reader should remember that {fact}. | in particular, {fact}.
debate:
- {p} and {q} over the map // "{claim}," said {p}. / "{doubt}?" said {q}. // {facts} // {observe}
  {observe} // {explain} {observe}
- a discussion at {site} // {observe} {explain} // {facts} // "{doubt}?" asked {p}. // {explain}
  {observe} {observe}
debate_fact:
- "{ask}?" asked {p}. / "{fact}," [said|replied] {q}.
- "I read that {fact}," said {q}. / "so it is," said {p}.
- "do not forget that {fact}," said {p}. / "I have it in my notes," said {q}.
claim:
- first look at the whole slope, then at the grain | the easiest answer is not always wrong
- two of the three readings agree | I would draw the line {20-300} metres further [north|west]
- nothing here is older than it looks | we need {2-9} more samples
doubt:
- and how would you prove it | who measured that | could it not be the other way round
- is the sample from {site} at all | what if the {landform} was once under water
bulletin:
- bulletin of the survey, {month} // {observe} {observe} {verdict} // {facts} // {explain}
  {observe} {observe}
- news from {landform_name} // {name} reports: {observe} {observe} {observe} // {explain}
  {explain} {facts}
bulletin_fact:
- background for the press: {fact}.
- the spokeswoman recalled that {fact}.
- schools often ask: {ask}? {fact}.
- visitors are told that {fact}.
handbook:
- {title} // {facts} // {explain} {explain} {explain}
- handbook, section {2-90} // {explain} {facts} // {explain} {explain}
- {title}, {second_turn} edition // {explain} {explain} // {facts} // {observe}
handbook_fact:
- {fact}. | {fact}. | {fact}. | moreover, {fact}. | it should be added that {fact}.
- further, {fact}.
- note that {fact}. | besides, {fact}. | all sources agree that {fact}.
exam:
- [examination|test|exercise sheet] {2-90}: {title} // {explain} // {facts} // {explain} {observe}
- questions of the {second_turn} week // {facts} // {explain} {explain}
exam_fact:
- Question {2-40}: {ask}? / {fact}.
- {ask}? / Answer: {fact}.
- Task: {ask}? / Solution: {fact}.
- true or false? {fact}. / True.
tables:
- {title} / {facts} / {explain} {observe}
- list {2-90} for the excursion of {month} // {facts} // {explain} {explain}
tables_fact:
- - {fact} | - {fact}. | - {ask}? {fact}. | - page {2-400}: {fact} | - {fact}, see plate {2-60}.
lecture:
- lecture of {weekday} // {explain} {explain} // {facts} // {explain} {observe}
- {name} lectures: {title} // {facts} // {explain} {explain} {explain}
lecture_fact:
- the lecturer stated that {fact}.
- {fact}, and nobody objected.
- on the slide we read that {fact}.
- "{ask}?" asked {name} from the back; the answer was that {fact}.
- written on the board: {fact}.
review:
- {name}: {title} // the booklet of {40-400} pages is clearly written. {explain} {facts} //
  {explain} {explain} [recommended.|the index is missing.|the plates are dull.]
- a guide for the excursion to {landform_name} // {observe} {facts} // {explain} {explain}
review_fact:
- the author reminds us that {fact}.
- on page {2-400} it says that {fact}.
- readers learn that {fact}.
- a table shows that {fact}.
- {fact}, to quote the text.
answers:
- questions to the museum // {facts} // {explain} {explain} {explain}
- letters to the editor of the bulletin // {explain} // {facts} // {explain} {explain}
answers_fact:
- {name} asks: {ask}? / we reply: {fact}.
- a school class wants to know: {ask}? / {fact}.
- {name} believes that {fact}. / that is right.
"""
