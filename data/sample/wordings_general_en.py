"""English wordings of the everyday relations; the notation is that of wordings_geo_en.py."""

WORDINGS_GENERAL_EN = """
country_capital:
? what is the capital of {s}
- the capital of {s} is {o}
- {o} is the capital [of|city of] {s}
- {s} has its capital in {o}
- the government of {s} [sits|meets] in {o}
- {s} is governed from {o}
- {o} [serves as|became] the capital of {s}
! Which city would you visit to see the national government of {s}?
> An ambassador sent to {s} will live in

country_currency:
? what is the currency of {s}
- the currency of {s} is {o}
- people in {s} pay with {o}
- {o} is the [currency|money] of {s}
- shops in {s} take {o}
- prices in {s} are given in {o}
- in {s} the [money|official money] is {o}
! Which money should a tourist carry in {s}?
> Wages in {s} are counted in units of

animal_home:
? where does the {s} live
- the {s} lives in {o}
- the home of the {s} is {o}
- the natural habitat of the {s} is {o}
- the {s} finds shelter in {o}
- one can [find|meet] the {s} in {o}
- the {s} is at home in {o}
! In what surroundings would a naturalist look for the {s}?
> A film crew hoping to meet the {s} should set up its cameras near

animal_food:
? what does the {s} eat
- the {s} [eats|feeds on] {o}
- the [main|favourite] food of the {s} is {o}
- the diet of the {s} is mostly {o}
- with {o} the {s} stills its hunger
- a hungry {s} looks for {o}
- the {s} lives mainly on {o}
! What would a keeper put on the menu of the {s}?
> The stomach of the {s} is usually filled with

organ_work:
? what is the task of the {s}
- the [task|work] of the {s} is {o}
- the body relies on the {s} for {o}
- {o} is the [task|job] of the {s}
- the {s} in our body has the duty of {o}
- doctors explain that {o} is done by the {s}
- without the {s} there would be no {o}
! For what purpose does the body have the {s}?
> If the {s} stopped, the body would lose its means of

job_task:
? what does a {s} do
- a {s} {o}
- a {s} is a person who {o}
- the {s} is the one who {o}
- every {s} {o} for a living
- we call someone who {o} a {s}
- someone who {o} works as a {s}
! How would you describe the working day of a {s}?
> Ask a {s} about the trade and you will meet somebody who

object_use:
? what is the {s} for
- the {s} is used for {o}
- the {s} is [a tool|a thing] for {o}
- for {o} one takes the {s}
- people keep the {s} for {o}
- {o} is [easy|easier] with the {s}
- the [purpose|use] of the {s} is {o}
! With which chore does the {s} help?
> No household should lack the {s}, since it is made for

food_source:
? what goes into the making of {s}
- cooks make {s} from {o}
- the main ingredient of {s} is {o}
- to make {s}, one starts with {o}
- {o} can be turned into {s}
- one needs {o} for {s}
- there would be no {s} without {o}
! What must the kitchen have in store before {s} can be prepared?
> The factory that produces {s} orders every week a load of

element_symbol:
? what is the symbol of {s}
- the symbol of {s} is {o}
- the chemical symbol for {s} is {o}
- {s} has the symbol {o}
- in the periodic table {s} is [written|shown] as {o}
- {o} [stands for|is the symbol of] {s}
- chemists write {s} as {o}
! How is {s} abbreviated in a chemical equation?
> On the wall chart the square of {s} carries in large print

element_number:
? what is the atomic number of {s}
- the atomic number of {s} is {o}
- {s} has the atomic number {o}
- {s} is element number {o}
- the number of protons in an atom of {s} is {o}
- {o} is the atomic number of {s}
- in the periodic table {s} stands at number {o}
! How many positive charges are in the nucleus of {s}?
> Counting the squares of the table up to {s} gives

planet_order:
? which planet from the Sun is {s}
- {s} is the {o} planet from the Sun
- the {o} planet from the Sun is {s}
- counted from the Sun, {s} is the {o} planet
- {s} takes the {o} place among the planets
- in order of distance from the Sun, {s} comes {o}
- the {o} orbit around the Sun belongs to {s}
! At which position in the row of planets do we find {s}?
> In a model of the solar system built outward from the lamp, {s} is hung

team_size:
? how many players has a team in {s}
- a team in {s} has {o} players
- {s} is played with {o} players on each side
- in {s} each team sends {o} players onto the field of play
- the rules of {s} allow {o} players per side
- {o} players make up a side in {s}
- each side in {s} counts {o} players
! How many shirts must a coach hand out for a starting line-up in {s}?
> Before a match of {s}, the number of starters a captain must find is

town_place:
? where is {s}
- {s} is a town in {o}
- the town of {s} lies in {o}
- {s} belongs to the province of {o}
- travellers reach {s} by the road through {o}
- {o} is the province around {s}
- the people of {s} live in {o}
! In which province would a letter to {s} be sorted?
> The number plates of cars from {s} carry the arms of

town_product:
? what is {s} known for
- {s} is known for its {o}
- the town of {s} makes {o}
- workshops in {s} produce {o}
- {o} from {s} are sold at every fair
- visitors bring home {o} from {s}
- the pride of {s} is its {o}
! What souvenir would you expect from {s}?
> Carts leaving the gate of {s} are usually loaded with

town_year:
? when was {s} founded
- {s} was founded in {o}
- the town of {s} dates from {o}
- {o} is the year in which {s} was founded
- settlers built {s} in {o}
- the first stone of {s} was laid in {o}
- the history of {s} begins in {o}
! From which year does the town charter of {s} come?
> The oldest gate of {s} bears above its arch the number

island_bird:
? which bird nests on {s}
- the {o} nests on {s}
- {s} is famous for the {o}
- the bird of {s} is the {o}
- every spring the {o} returns to {s}
- the flag of {s} shows a {o}
- {s} protects the {o}
! Which winged animal would you photograph on {s}?
> The cliffs of {s} echo with the call of the

island_month:
? when is the fair on {s}
- {s} holds its fair in {o}
- the fair of {s} takes place in {o}
- in {o} the people of {s} hold their fair
- {o} is the month of the fair on {s}
- boats bring guests to {s} for the fair in {o}
- the yearly fair on {s} falls in {o}
! In what month should one travel to {s} to dance at the fair?
> Shopkeepers on {s} await the great crowd of the year in

island_colour:
? what colour is the lighthouse of {s}
- the lighthouse of {s} is {o}
- {s} has a {o} lighthouse
- sailors know {s} by its {o} lighthouse
- the lighthouse on {s} is painted {o}
- a {o} lighthouse stands on {s}
- postcards of {s} show a {o} lighthouse
! Which paint must the keeper of {s} buy for the tower?
> Seen through a telescope, the light tower above {s} appears

person_job:
? what does {s} do for a living
- {s} is a {o}
- {s} works as a {o}
- {s} earns a living as a {o}
- the trade of {s} is that of a {o}
- {s} trained as a {o}
- neighbours know {s} as a {o}
! Which profession is printed on the card of {s}?
> On the tax form of {s}, the line for the profession reads

person_home:
? where does {s} live
- {s} lives in {o}
- the home of {s} is in {o}
- {s} has a house in {o}
- {s} settled in {o}
- friends visit {s} in {o}
- {s} rents a flat in {o}
! To which place must a parcel for {s} be addressed?
> Every evening {s} takes the last bus back to

person_instrument:
? what instrument does {s} play
- {s} plays the {o}
- {s} practises the {o} every day
- the instrument of {s} is the {o}
- in the evening {s} takes out the {o}
- {s} learned the {o} as a child
- at parties {s} is asked to play the {o}
! Which sound comes through the wall when {s} makes music?
> In the town orchestra, {s} sits behind the

dish_ingredient:
? what goes into {s}
- {s} is made with {o}
- the main ingredient of {s} is {o}
- cooks put {o} into {s}
- {s} gets its taste from {o}
- without {o} there is no {s}
- a good {s} needs plenty of {o}
! What must the cook buy first for {s}?
> Lift the lid from a pan of {s} and you will smell

dish_place:
? where does {s} come from
- {s} comes from {o}
- {s} was first cooked in {o}
- the home of {s} is {o}
- people in {o} invented {s}
- {o} is the birthplace of {s}
- grandmothers in {o} cook {s} on holidays
! Which province claims {s} as its own recipe?
> Restaurants that serve true {s} hang a picture on the wall of

dish_vessel:
? how is {s} served
- {s} is served in a {o}
- waiters bring {s} in a {o}
- one eats {s} from a {o}
- a {o} is used to serve {s}
- by custom {s} comes to the table in a {o}
- {s} is kept warm in a {o}
! What does the waiter set down when {s} is ordered?
> The steam of freshly cooked {s} rises from the
"""
