"""English geoscience prose by topic: how the Earth works, and what was seen at some place.

`explain` sentences are true of the Earth in general; `observe` sentences report made-up outcrops,
samples and readings. Neither states a fact of the tables (see grammar.py for the notation).
"""

TOPICS_GEO_EN = {
    "minerals": """
title:
- notes on cleavage | colour and streak | crystals in veins | from the mineral cabinet
- under the microscope | a tray of specimens | growth of crystals | density by weighing
explain:
- cleavage follows planes along which the bonds of a crystal are weakest, so a blow
  [splits|opens] it there first.
- colour is a [poor|treacherous] guide, since a trace of [iron|chromium|manganese] may tint an
  otherwise clear crystal.
- the streak on unglazed porcelain [varies less|is more constant] than the colour of the lump.
- when one mineral is drawn across another, the softer of the two keeps the [mark|groove].
- a crystal that grows into an open cavity develops [flat|good] faces, whereas one hemmed in by
  its neighbours takes [the shape they leave|no shape of its own].
- silicates are built from tetrahedra in which four oxygen atoms surround one of silicon.
- by sharing corners, the silicate tetrahedra link into [chains and sheets|rings and frameworks].
- density is found by weighing a sample in air and then in water, and [comparing|dividing] the
  results.
- between crossed polars the colours depend on the thickness of the slice and the
  [orientation|birefringence] of the grain.
- [iron and magnesium|sodium and calcium] can replace each other in a lattice without changing
  its plan.
- of two structures with the same composition, high pressure favours the denser one.
- dilute acid makes carbonates effervesce, [some at once|others only as a powder].
- clay minerals hold water between their sheets, which is why they swell when wet and shrink when
  dry.
- hot fluids rising along fractures deposit minerals as they [cool|boil|mix with other water].
- zoned crystals record, from core to rim, how the melt around them changed.
- a fracture that is curved like a shell shows that no direction in the crystal is especially weak.
- weathering attacks minerals formed at great heat sooner than those formed near the surface.
- small crystals with many neighbours point to fast growth from many nuclei.
observe:
- sample {letter}-{100-999} weighs {12-980} grams and has a density of {2-6}.{1-9} grams per
  cubic centimetre.
- the grains from {site} measure {2-9} to {10-40} millimetres and are
  [rounded|angular|zoned|cracked].
- thin section {100-999} contains {5-60} per cent [dark|pale|opaque] grains.
- a drop of acid on specimen {letter}-{100-999} [fizzed briefly|did nothing|left a pit].
- the streak of specimen {letter}-{100-999} is [brown|white|grey-green|brick red|black].
- two cleavages in the specimen meet at {56-124} degrees.
- {name} scratched it with a [copper coin|steel pin|glass plate] and saw [a groove|only metal dust].
- the vein at {site} is {2-95} centimetres wide and strikes {10-350} degrees.
- tray {2-60} holds {4-40} pieces collected by {name} in {month}.
- the crystal has {4-12} faces, {2-3} of them [dull|striated|chipped].
- on the hot plate the powder lost {1-19}.{1-9} per cent of its mass at {105-950} degrees Celsius.
- [a magnet|ultraviolet light|the blowpipe] had [no|a faint|a clear] effect on it.
- the colour ranges from [honey yellow|smoky grey|apple green] to [almost black|nearly white].
- the cavity at {site} was lined with spikes {3-60} millimetres long.
- concentrate {letter}{10-99} yielded {3-400} grains after panning {2-40} kilograms of gravel.
- the diffraction pattern shows {3-14} sharp peaks above {11-70} degrees.
""",
    "strata": """
title:
- reading a cliff | a section in the quarry | beds and boundaries | sand, mud and time | marker beds
- the order of layers | notes on bedding | fossils as clocks | stones of the valley
explain:
- in an undisturbed pile of beds the [lowest|bottom] layer is the oldest.
- a body of rock that cuts through others is younger than [everything it cuts|all of them].
- pebbles of one rock inside another prove that the first is the older.
- coarse grains settle where the current [slackens|loses strength], and fine mud only in quiet
  water.
- ripples with a steep and a gentle side tell which way the current flowed.
- mud cracks mean that the surface [dried out|lay open to the air] before it was buried.
- a fossil useful for dating lived [briefly|for a short time], spread widely and is easy to
  recognise.
- radioactive decay runs at a fixed rate, so the ratio of parent to daughter gives an age.
- half of the parent atoms remain after one half-life, a quarter after two and an eighth after
  three.
- burial [squeezes out water|presses grains together], and minerals from the pore water bind them.
- large crystals in a cooled melt mean slow cooling, a glassy groundmass fast cooling.
- heat and pressure turn one rock into another without melting it; new minerals grow in the solid
  state.
- foliation forms at right angles to the greatest squeezing.
- where the sea advances over the land, [finer|deeper-water] beds come to lie above coarser ones.
- frost, roots and salt pry rock apart, while water and air change its minerals.
- soil thickens where weathering outpaces erosion.
- an eroded surface between two groups of beds stands for a time that left no rock.
- graded beds, coarse below and fine above, settle from currents loaded with sediment.
observe:
- bed {2-90} at {site} is {4-380} centimetres thick and [pinches out|thickens] towards the
  [north|east|west].
- the beds at {site} dip {3-85} degrees to the [north|south|east|west].
- {name} logged {12-240} metres of section between {site} and {site}.
- the base of bed {2-90} is [sharp|gradual|burrowed|stained by iron].
- grain size falls from {2-9} millimetres to less than half of that over {3-30} metres.
- {3-60} shells were counted on a surface of {2-9} square metres, [most|few] of them unbroken.
- ripple crests at {site} run {10-170} degrees and are {3-40} centimetres apart.
- the core from {40-900} metres is [grey|red|mottled|laminated] and smells of [earth|oil|nothing].
- a burrow {2-9} centimetres wide crosses {2-12} laminae.
- the sample from {site} lost {2-60} per cent of its weight in acid.
- pebbles of {2-8} kinds lie at {site}, the largest {11-70} centimetres across.
- the contact was traced for {200-4800,} metres through [scrub|fields|scree].
- a pale band of {2-30} centimetres, visible at {site} and at {site}, serves as a marker.
- sheet {2-60} of the map shows the boundary {30-700} metres too far to the [north|south].
- porosity in plug {letter}{10-99} is {2-31} per cent.
- cross-bedding at {site} is {2-18} decimetres high and inclined at {12-33} degrees.
""",
    "plates": """
title:
- plates in motion | the night of the tremor | ash on the roofs | notes on faults
- waves through rock
- a look at the crater | slow slip and sudden slip | the sea floor | heat from below
explain:
- the outer shell of the Earth is broken into plates that move by a few centimetres a year.
- where plates part, hot mantle rises, melts in part and adds new sea floor.
- old sea floor is cold and dense, and sinks back into the mantle beneath another plate.
- the ocean floor is younger near a spreading ridge and older away from it.
- stripes of normal and reversed magnetism lie in mirror image on both sides of a ridge.
- strain builds up for [decades|centuries] and is released within seconds.
- compressional waves arrive first, shear waves later, and surface waves last.
- shear waves cannot pass through the liquid outer core.
- the delay between the first two arrivals grows with distance, and three stations fix the place.
- one step of magnitude means about thirty-two times as much energy.
- [soft|wet] ground shakes longer and harder than solid rock.
- water driven out of a sinking slab lowers the melting point of the mantle above it.
- sticky magma traps its gas and tends to explode; runny magma lets the gas go.
- swarms of small shocks, swelling ground and more gas may warn of an eruption.
- two continents that collide are both too light to sink, so the crust thickens and mountains rise.
- temperature rises downward, in continental crust by some twenty-five degrees per kilometre.
- aftershocks become rarer with time, roughly in proportion to the time elapsed.
- flows of hot ash and gas race down valleys and outrun any car.
observe:
- station {letter}{10-99} recorded {2-140} shocks between {month} and {month}, the largest of
  magnitude {2-5}.{1-9}.
- the two waves arrived {3-58} seconds apart at {site}.
- the scarp at {site} is {2-19} metres high and [fresh|degraded|grown over].
- a trench across the fault showed {2-6} ruptures within {3-12} metres of sediment.
- the point at {site} moved {3-70} millimetres to the [north|south|west] in {2-9} years.
- ash at {site} is {2-90} centimetres thick, {40-900} metres from the vent.
- the lava front advanced {2-80} metres in {3-30} hours and then [stalled|split|cooled].
- the gas at vent {2-30} had a temperature of {96-840} degrees Celsius.
- {name} felt the floor [roll|tremble|jolt] for {3-40} seconds at {site}.
- {12-700} houses in the district have cracks wider than {2-9} millimetres.
- the focus was located {2-70} kilometres deep, with an error of {2-9}.
- heat flow in borehole {letter}{10-99} is {35-120} milliwatts per square metre.
- blocks of up to {20-300} centimetres were thrown {60-900} metres to the [east|south].
- the fault plane at {site} dips {20-89} degrees and bears grooves.
- a profile of {4-90} kilometres was shot with {12-96} receivers.
- the slope above {site} bulged by {2-40} centimetres within {2-9} weeks.
""",
    "water": """
title:
- the river after the rain | wells and springs | notes on the shore | salt, heat and density
- ice and its meltwater | a gauge in the flood | how valleys grow
explain:
- a river cuts its outer bank, where the current is fast, and builds up the inner one.
- doubling the speed of a stream lets it carry far larger stones.
- groundwater moves from high to low hydraulic head, [slowly through clay|quickly through gravel].
- a well lowers the water table around it into the shape of a cone.
- salt makes water denser, and so does cooling, until it nears the freezing point.
- dense water sinks near the polar ice and creeps along the bottom of the oceans.
- wind sets the surface of the sea in motion, and the turning of the Earth deflects the current.
- where wind drives surface water away from a coast, cold and fertile water wells up.
- waves begin to feel the bottom where the depth is less than half their length.
- tides are highest when Sun and Moon pull along one line.
- a glacier moves by sliding over its bed and by creeping within.
- ice grinds rock to a fine flour that turns meltwater milky.
- fresh water floats on salt water, also below an island.
- paved ground sheds rain at once, so floods [rise sooner|peak higher].
- a catchment loses water to evaporation, to plants and to its river.
- lakes stratify in summer: warm water floats on cold.
- sand wanders along a beach whenever waves arrive at an angle.
- limestone country swallows its streams and gives them back at large springs.
observe:
- the gauge at {site} stood at {11-790} centimetres on {1-28} {month}.
- discharge at {site} was {2-900} cubic metres per second, {3-60} per cent [above|below] the mean.
- well {letter}{10-99} is {12-180} metres deep, and its level fell by {2-90} centimetres since
  {month}.
- the tracer took {4-72} hours to reach the spring at {site}.
- the water at {2-900} metres had {2-18}.{1-9} degrees Celsius and a salinity of {31-38}.
- {name} counted {12-90} pebbles of [flint|granite|slate] among one hundred at {site}.
- the bank at {site} retreated by {2-15} metres during [one flood|the winter|{2-9} years].
- the glacier front lies {20-900} metres behind the cairn of {name}.
- at low tide {60-900} metres of [mud|sand|rock platform] lay dry near {site}.
- the shoreline advanced {2-40} metres a year according to {2-9} charts.
- a sample from {site} carries {3-900} milligrams of silt per litre.
- the pump ran {3-72} hours at {2-60} litres per second.
- snow at {site} was {30-400} centimetres deep with a density of {120-480} kilograms per cubic
  metre.
- the spring at {site} yields {2-80} litres per second and [never dries up|is cloudy after storms].
- wave heights near {site} reached {2-11} metres on {weekday}.
- cores from the lake show {40-900} annual layers above a [black|sandy] band.
""",
    "weather": """
title:
- a year of readings | wind over the pass | clouds and showers | the weather hut | climate in layers
- frost in the hollow | notes on monsoons | heat, cold and height
explain:
- air that rises expands and cools, and its vapour condenses into cloud.
- dry air cools by about ten degrees for every kilometre it climbs.
- the lee of a range is [dry|warm], because the air has left its rain on the windward side.
- winds blow from high towards low pressure but are turned aside by the rotation of the Earth.
- land warms and cools faster than the sea, so the breeze reverses between day and night.
- the tilt of the axis, not the distance from the Sun, makes the seasons.
- low latitudes gain more heat than they lose, and air and sea carry the surplus poleward.
- a cold front wedges under warm air and brings short, heavy showers.
- warm air sliding over cold air brings long and gentle rain.
- carbon dioxide and water vapour let sunlight in and hold back heat.
- fresh snow reflects most of the light that falls on it, a dark sea very little.
- on clear nights cold air drains into hollows, and frost strikes there first.
- tropical storms live on the heat of warm water and weaken over land.
- bubbles of old air in polar ice tell what the atmosphere was like.
- narrow tree rings [point to|are a sign of] dry or cold years.
- temperature rises with height where ozone absorbs sunlight.
- continents have hot summers and cold winters, coasts are spared the extremes.
- climate is the average of many years, weather the state of one day.
observe:
- the mean for {month} at {site} was {2-24}.{1-9} degrees Celsius, {2-9} tenths [above|below]
  normal.
- {weekday} brought {2-90} millimetres of rain within {2-20} hours at {site}.
- the wind at {site} turned from [north|west] to [south|east] and gusted to {12-38} metres per
  second.
- on {1-28} {month} pressure fell by {3-25} hectopascals in {4-24} hours.
- the frost at {site} lasted {2-60} days and reached {3-40} centimetres into the ground.
- {name} read the instruments at {5-9}:{10-59} and noted [haze|high cloud|a halo|thin fog].
- a hut stands at {site}, {120-3900,} metres above the sea.
- relative moisture was {21-99} per cent at [dawn|noon|dusk].
- the record since {1890-1990} has {2-40} gaps, most of them in {month}.
- hailstones of {5-45} millimetres damaged {3-90} fields near {site}.
- {12-80} rings in the trunk from {site} are narrower than one millimetre.
- the balloon rose {8-32} kilometres before it burst above {site}.
- snow lay on {20-190} days, {3-30} days [more|fewer] than the average.
- sunshine amounted to {20-310} hours in {month}.
- dust from the [south|east] coloured the sky on {1-28} {month}.
- between {site} and {site} the temperature dropped {2-9} degrees.
""",
}
