"""English everyday documents full of facts: encyclopedias, quizzes, lessons (see grammar.py).

The notation of kinds is that of narratives_general_en.py, whose rules are used too.
"""

REFERENCE_KINDS = {
    "entry": " ",
    "quiz": " // ",
    "cards": " / ",
    "lesson": " ",
    "column": " // ",
    "visit": " ",
}
"""Kind -> what separates its facts."""

REFERENCES_GENERAL_EN = """
entry:
- [pocket|school|family|children's] encyclopedia, page {11-900} // {facts} // {bookish} {bookish}
  {bookish}
- from the {adj} reference book // {bookish} {facts} // {bookish} {bookish} {bookish}
- worth knowing // {bookish} {bookish} // {facts} // {bookish} {bookish}
entry_fact:
- {fact}. | {fact}. | {fact}. | according to the same page, {fact}. | moreover, {fact}.
- it is well established that {fact}. | the entry adds that {fact}. | furthermore, {fact}.
quiz:
- quiz at the {place} // {weekday}, {second_turn} round, {3-9} teams. {bookish} // {facts} //
  {score} {score}
- practice questions for {weekday} // {facts} // {bookish} {score} {bookish}
quiz_fact:
- Question {2-40}: {ask}? / answer: {fact}.
- {ask}? / {fact}.
- "{ask}?" read {name}. / "{fact}," came the answer from the [back|front|{adj} table].
- for {2-10} points: {ask}? / it [is|was] agreed that {fact}.
score:
- the team from {street} [won|lost] by {2-19} points and [got|shared] a {adj} {thing}.
- {name} knew {3-19} answers, {name} only {2-9}.
- the [quizmaster|judge] read {manner} and spilled tea on the {thing}.
- nobody [remembered|asked for] the {second_turn} answer.
- second prize was {2-12} {fruits}, third prize a {adj} {thing}.
cards:
- learning cards, box {2-30} // {facts} // {bookish} {bookish}
- list for the pocket, copied by {name} // {bookish} / {facts} / {bookish} {bookish}
cards_fact:
- - {fact} | - {fact}. | - {ask}? {fact}. | - remember: {fact}. | - Card {2-90}: {fact}.
lesson:
- the class of {name}, {weekday} // {school}. {school}. {bookish} // {facts} // {bookish}
  {school}. {school}.
- a lesson in room {2-40} // {bookish} {bookish} // {facts} // {school}. {school}. {school}.
lesson_fact:
- the teacher [explained|dictated|repeated] that {fact}.
- "{ask}?" asked {name}; the book says that {fact}.
- {name} [recited|wrote on the board] that {fact}.
- {fact}, and this was [underlined|marked in red|asked in the test].
- the class noted: {fact}.
column:
- readers ask, we answer // {bookish} // {facts} // {bookish} {bookish}
- the letter box of the {place} // {facts} // {bookish} {bookish} {bookish}
column_fact:
- {name} from {street} writes: {ask}? / our answer: {fact}.
- [a pupil|a reader|a visitor] wants to know: {ask}? / the answer is simple: {fact}.
- {name}, aged {7-80}, claims that {fact}. / this is correct.
visit:
- with {p} in the museum // {p} and {q} [bought|showed] their tickets at the {place}. {bookish}
  // {facts} // {walk}. {walk}. {walk}. {bookish}
- an exhibition at the {place} // {report} {bookish} // {facts} // {report} {bookish}
visit_fact:
- a [panel|label|screen] by the [door|stairs|window] said that {fact}.
- the guide [explained|mentioned] that {fact}.
- "{ask}?" asked {q}. on the wall it said that {fact}.
- room {2-30} was about the fact that {fact}.
- in a glass case a [note|card] told visitors that {fact}.
bookish:
- the [page|book|list] was [revised|checked|copied] {ago} by {name}, who lives in {street}.
- [it helps|some find it easier] to [read it aloud|write it down|draw it] {2-9} times.
- the [drawing|photograph|map] beside the text shows a {adj} {thing} for comparison.
- [readers|pupils|visitors] who want to know more should ask at the {place} {time}.
- {name} found {2-9} [misprints|gaps|coffee stains] and corrected them {manner}.
- the {second_turn} edition cost {5-90} coins and had {120-900} pages.
- [simple|short|honest] [sentences|answers|notes] are best, says {name}, who
  [teaches|reads|collects] them.
- test yourself {time}: cover the page and [say|write|whisper] what you remember.
- whoever [forgets|mixes up] {2-6} of them may [look again|keep the book until {weekday}].
- the [source|original] is kept [at the {place}|in a {adj} drawer|under glass].
- {name} learned all this in {2-9} days, between the {thing} and the {goods}.
- not [everything|every answer] is here; {11-90} further pages are [planned|in print|missing].
"""
