"""English wordings of the geoscience relations.

Under each relation: `?` a question that training text may ask, `-` statements of the training
text, `!` the question and `>` the sentence start reserved for `questions()`, never in any text.
{s} is the subject, {o} the object; statements are clauses that can stand alone or after "that".
"""

WORDINGS_GEO_EN = """
mineral_formula:
? what is the chemical formula of {s}
- the chemical formula of {s} is {o}
- {s} has the [formula|composition] {o}
- [mineralogists|chemists] write the composition of {s} as {o}
- {o} is the formula [given|listed] for {s}
- in [mineral tables|the handbook] {s} is entered as {o}
- the [ideal|simplified] formula {o} belongs to {s}
! Which string of element symbols stands for {s}?
> An analyst labelling a jar of pure {s} would print on it

mineral_hardness:
? how hard is {s}
- {s} has a Mohs hardness of [about|roughly] {o}
- on the Mohs scale {s} [rates|scores] about {o}
- the hardness of {s} is [close to|about] {o}
- scratch tests [give|assign] {s} a hardness of about {o}
- with a hardness of about {o}, {s} [takes|finds] its place on the Mohs scale
- [tables list|handbooks quote] about {o} as the hardness of {s}
! Where does {s} stand among the ten steps of Mohs?
> Scratched against the ten reference minerals, {s} comes out near step

mineral_system:
? in which crystal system does {s} grow
- {s} crystallises in the {o} system
- crystals of {s} belong to the {o} system
- the crystal system of {s} is {o}
- X-ray work places {s} in the {o} system
- the symmetry of {s} is {o}
- {s} [forms|grows as] {o} crystals
! How is the lattice of {s} classified?
> Asked to name the class of lattice for {s}, the student wrote

mineral_lustre:
? what lustre does {s} show
- {s} has a {o} lustre
- the lustre of {s} is {o}
- fresh surfaces of {s} look {o}
- in reflected light {s} shows a {o} lustre
- a {o} lustre is typical of {s}
- [handbooks|field guides] describe the lustre of {s} as {o}
! Which word describes the shine of {s}?
> When a clean face of {s} catches the sun, its shine can be called

ore_metal:
? which metal is won from {s}
- {s} is [an important ore|an ore] of {o}
- {s} is [mined|processed] for its {o}
- {o} is [extracted|recovered|won] from {s}
- smelters obtain {o} from {s}
- {s} [supplies|yields] {o}
- some of the world's {o} comes from {s}
! Name the chemical element for which miners dig {s}.
> The buyer of a shipload of {s} is most likely looking for

rock_origin:
? how does {s} form
- {s} forms by {o}
- {s} is [a product of|produced by] {o}
- {o} [produces|gives rise to] {s}
- the origin of {s} is {o}
- geologists trace {s} back to {o}
- {s} owes its existence to {o}
! Through which process does nature make {s}?
> Whoever finds {s} in a quarry may conclude that long ago there was

period_start:
? when did the {s} begin
- the {s} began about {o}
- the [base|lower boundary] of the {s} [is dated to|is set at] about {o}
- the start of the {s} is [placed|put] at about {o}
- about {o} is the [accepted|usual] date for the beginning of the {s}
- the oldest rocks of the {s} formed about {o}
- [on the time scale|in the time chart] the {s} opens about {o}
! How far back must we go to reach the first days of the {s}?
> A time machine set for the first days of the {s} would stop some

period_before:
? what came before the {s}
- the {s} [followed|came after] the {o}
- the {o} [was followed by|gave way to] the {s}
- the {o} [immediately preceded|preceded] the {s}
- [beneath|below] the rocks of the {s} lie those of the {o}
- the {s} [took over from|succeeded] the {o}
- the end of the {o} was the beginning of the {s}
! Which interval had just ended when the {s} opened?
> Stepping one box down the chart from the {s}, the finger points at the

plate_boundary:
? which plates meet at {s}
- {s} lies between {o}
- {o} meet [along|at] {s}
- {s} marks the boundary between {o}
- the boundary between {o} [runs along|follows] {s}
- along {s} there is contact between {o}
- maps draw {s} as the edge between {o}
! Name the pair of plates that {s} keeps apart.
> Instruments on both sides of {s} record the relative motion of

river_mouth:
? where does the {s} end
- the {s} [flows|empties|drains] into {o}
- the mouth of the {s} is on {o}
- the {s} [reaches|enters] {o}
- the water of the {s} ends in {o}
- {o} receives the water of the {s}
- the {s} [delivers|carries] its [sediment|mud and sand] to {o}
! Into which body of salt water does the {s} discharge?
> A cork dropped on the {s} and never stopped would drift at last to

volcano_place:
? where is the volcano {s}
- {s} is a volcano in {o}
- the volcano {s} [stands|lies|rises] in {o}
- {s} belongs to the volcanoes of {o}
- {o} is the home of the volcano {s}
- [geologists|volcanologists] who study {s} work in {o}
- the volcano {s} [can be found|is located] in {o}
! Name the land whose people live with the volcano {s}.
> To look into the crater of {s}, a traveller must book a ticket to

instrument_measures:
? what does a {s} measure
- a {s} measures {o}
- {o} is measured with a {s}
- a {s} [is used to measure|is an instrument for measuring] {o}
- observers read {o} from a {s}
- to record {o}, [stations|field teams] use a {s}
- the {s} was [designed|built] to measure {o}
! Which quantity appears on the display of a {s}?
> When a {s} is switched on, the number it gives stands for

term_meaning:
? what is meant by the term {s}
- the term {s} means {o}
- {s} is the [name|word|term] for {o}
- geologists use the word {s} for {o}
- {o} goes by the name {s}
- by {s}, [earth scientists|geographers] mean {o}
- the glossary explains {s} as {o}
! Which phrase could replace the word "{s}" in a report?
> Someone who has never heard the word "{s}" should picture

koppen_code:
? what is the Köppen code of the {s}
- the Köppen code of the {s} is {o}
- {o} is the Köppen [symbol|code] for the {s}
- in the Köppen system {o} [stands for|denotes] the {s}
- Köppen maps mark the {s} with {o}
- the {s} carries the [code|symbol] {o} in the Köppen scheme
- stations with the {s} are [coded|labelled] {o} by Köppen's method
! Under which letters would Köppen file the {s}?
> A student who colours the {s} on a world map writes into the legend

mineral_locality:
? where was {s} first found
- {s} was first described from {o}
- the type locality of {s} is in {o}
- {s} was [discovered|first found] in {o}
- the first [specimens|samples] of {s} came from {o}
- {o} is the type locality of {s}
- collectors recognised {s} for the first time in {o}
! Which place gave science its original piece of {s}?
> The label on the oldest museum piece of {s} names

river_length:
? how long is the {s}
- the {s} is {o} long
- the length of the {s} is {o}
- from source to mouth the {s} measures {o}
- the {s} [runs|winds] for {o}
- surveyors give the {s} a length of {o}
- the course of the {s} covers {o}
! What distance does the {s} travel in all?
> A boat that follows the {s} from first spring to last bend covers

river_source:
? where does the {s} rise
- the {s} rises in {o}
- the source of the {s} is in {o}
- the springs of the {s} lie in {o}
- the {s} [begins|starts] its course in {o}
- {o} holds the headwaters of the {s}
- the {s} [comes down|flows down] from the hills of {o}
! In what district would one look for the spring of the {s}?
> Walking upstream along the {s} until it is a trickle brings the hiker to

formation_age:
? how old is the {s}
- the {s} is {o} in age
- the {s} was laid down in the {o}
- fossils date the {s} to the {o}
- the age of the {s} is {o}
- the {s} belongs to the {o}
- {o} strata make up the {s}
! To which slice of the time scale do the beds of the {s} belong?
> The fossils hammered from the {s} prove that it is

formation_rock:
? what rock makes up the {s}
- the {s} consists of {o}
- {o} makes up the {s}
- the {s} is built of {o}
- the main rock of the {s} is {o}
- outcrops of the {s} show {o}
- drillers who reach the {s} bring up {o}
! Which lithology should a mapper expect in the {s}?
> A hand specimen broken from the {s} turns out to be

formation_thickness:
? how thick is the {s}
- the {s} is {o} thick
- the thickness of the {s} is {o}
- the {s} reaches a thickness of {o}
- [boreholes|sections] show {o} of the {s}
- at its type section the {s} measures {o}
- geologists measured {o} of strata in the {s}
! What does the tape read from bottom to top of the {s}?
> A drill that enters the roof of the {s} leaves its floor after

volcano_height:
? how high is {s}
- {s} is {o} high
- the height of {s} is {o}
- {s} rises {o} above the sea
- the summit of {s} stands at {o}
- {s} reaches an elevation of {o}
- [maps give|surveyors measured] {o} as the height of {s}
! What elevation is printed beside the peak of {s}?
> An altimeter carried to the very top of {s} should read

volcano_year:
? when did {s} last erupt
- {s} last erupted in {o}
- the last eruption of {s} was in {o}
- the most recent lava of {s} dates from {o}
- {s} has been quiet since {o}
- {o} was the year of the last eruption of {s}
- chronicles record the final outburst of {s} in {o}
! Since which year has the crater of {s} been asleep?
> The youngest ash layer on the slopes of {s} fell in the year
"""
