"""Documents of arithmetic and small programs, every result computed, none looked up."""

from collections.abc import Iterator

from data.sample.dice import Dice
from data.sample.programs import PROGRAMS

# fmt: off
ONES = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]
TENS = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
NAMES = ["Ana", "Bo", "Cai", "Dev", "Eli", "Fay", "Gus", "Hal", "Ivy", "Jun", "Kim", "Lou", "Mei"]
THINGS = ["apples", "cards", "coins", "shells", "pencils", "stamps", "marbles", "tickets", "nuts"]
# fmt: on
UNITS = (
    ("kilometre", "metre", 1000),
    ("metre", "centimetre", 100),
    ("centimetre", "millimetre", 10),
    ("kilogram", "gram", 1000),
    ("tonne", "kilogram", 1000),
    ("litre", "millilitre", 1000),
    ("hour", "minute", 60),
    ("minute", "second", 60),
    ("day", "hour", 24),
    ("week", "day", 7),
    ("hectare", "square metre", 10_000),
)


def words(number: int) -> str:
    """An integer from 0 to 999,999 in English words."""
    if number < 20:
        return ONES[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return TENS[tens] + (f"-{ONES[ones]}" if ones else "")
    if number < 1000:
        hundreds, rest = divmod(number, 100)
        return f"{ONES[hundreds]} hundred" + (f" and {words(rest)}" if rest else "")
    thousands, rest = divmod(number, 1000)
    tail = f" and {words(rest)}" if 0 < rest < 100 else f" {words(rest)}" if rest else ""
    return f"{words(thousands)} thousand{tail}"


def _quantity(number: int, unit: str) -> str:
    return f"{number:,} {unit}" + ("" if number == 1 else "s")


def _sums(dice: Dice) -> str:
    digits = dice.between(1, 4)
    lines = []
    for _ in range(dice.between(16, 32)):
        a, b = dice.between(1, 10**digits - 1), dice.between(1, 10**digits - 1)
        a, b = max(a, b), min(a, b)
        lines.append(dice.pick([f"{a} + {b} = {a + b}", f"{a} - {b} = {a - b}"]))
    return f"Sums with up to {words(digits)} digit{'s' * (digits > 1)}\n" + "\n".join(lines)


def _products(dice: Dice) -> str:
    factor = dice.between(2, 99)
    start = dice.between(1, 90)
    lines = [f"{n} * {factor} = {n * factor}" for n in range(start, start + dice.between(14, 24))]
    return f"Multiples of {factor}, from {start} times {factor}\n" + "\n".join(lines)


def _spoken(dice: Dice) -> str:
    sentences = []
    for _ in range(dice.between(7, 12)):
        a, b = dice.between(2, 999), dice.between(2, 99)
        a, b = max(a, b), min(a, b)
        name, result = dice.pick(
            [("plus", a + b), ("minus", a - b), ("times", a * b), ("and", a + b)]
        )
        verb = "make" if name == "and" else "is"
        sentences.append(f"{words(a)} {name} {words(b)} {verb} {words(result)}".capitalize())
    return ". ".join(sentences) + "."


def _column(dice: Dice) -> str:
    a, b = dice.between(1000, 99_999), dice.between(100, 99_999)
    lines, carry = [f"Adding {a} and {b} column by column."], 0
    for place in range(max(len(str(a)), len(str(b)))):
        x, y = a // 10**place % 10, b // 10**place % 10
        total = x + y + carry
        carried = f" and {carry} carried" if carry else ""
        write = f"write {total % 10}" + (", carry 1" if total > 9 else "")
        lines.append(f"Column {place + 1}: {x} and {y}{carried} make {total}; {write}.")
        carry = total // 10
    if carry:
        lines.append("The last carry is written in front.")
    return "\n".join([*lines, f"{a} + {b} = {a + b}", f"Check: {a + b} - {b} = {a}"])


def _story(dice: Dice) -> str:
    sentences = []
    for _ in range(dice.between(2, 4)):
        first, second = dice.shuffled(NAMES)[:2]
        thing = dice.pick(THINGS)
        have, more, give = dice.between(10, 90), dice.between(5, 60), dice.between(2, 9)
        each = dice.between(2, 9)
        left = have + more - give
        sentences.append(
            f"{first} has {have} {thing} and finds {more} more. That makes {have + more}. "
            f"{first} gives {give} of them to {second} and keeps {left}, "
            f"because {have + more} - {give} = {left}. "
            f"Put into bags of {each}, they fill {_quantity(left // each, 'bag')} and leave "
            f"{left % each} over, since {each} * {left // each} = {each * (left // each)}."
        )
    return "\n\n".join(sentences)


def _conversions(dice: Dice) -> str:
    lines = []
    for _ in range(dice.between(8, 14)):
        large, small, factor = dice.pick(UNITS)
        number, rest = dice.between(1, 60), dice.below(factor)
        total = number * factor + rest
        whole = f"{_quantity(number, large)} = {_quantity(number * factor, small)}"
        mixed = f"{_quantity(number, large)} and {_quantity(rest, small)}"
        lines.append(dice.pick([whole, f"{_quantity(total, small)} = {mixed}"]))
    return "Conversions\n" + "\n".join(lines)


def _sequences(dice: Dice) -> str:
    lines = []
    for _ in range(dice.between(4, 7)):
        start, step = dice.between(1, 50), dice.between(2, 19)
        rule, terms = dice.pick(
            [
                (f"add {step}", [start + step * i for i in range(9)]),
                (f"subtract {step}", [start + step * (9 - i) for i in range(9)]),
                ("double", [start * 2**i for i in range(9)]),
                (f"squares from {start}", [(start + i) ** 2 for i in range(9)]),
            ]
        )
        shown = ", ".join(map(str, terms[:8]))
        lines.append(f"{shown} -> next: {terms[8]} (rule: {rule})")
    return "Sequences and their next terms\n" + "\n".join(lines)


def _divisor(dice: Dice) -> str:
    a, b = dice.between(60, 999), dice.between(20, 400)
    lines = [f"Greatest common divisor of {a} and {b}"]
    x, y = max(a, b), min(a, b)
    while y:
        lines.append(f"{x} = {x // y} * {y} + {x % y}")
        x, y = y, x % y
    lines.append(f"The last divisor is {x}, so gcd({a}, {b}) = {x}.")
    lines.append(f"The least common multiple is {a} * {b} / {x} = {a * b // x}.")
    return "\n".join(lines)


EXERCISES = (_sums, _products, _spoken, _column, _story, _conversions, _sequences, _divisor)
MIN_CHARACTERS = 200


def exercise_documents(count: int, seed: int) -> Iterator[str]:
    """Sheets of exercises and programs, none twice."""
    seen = set()
    number = 0
    while len(seen) < count:
        dice = Dice(seed, "arithmetic", number)
        number += 1
        length = dice.between(MIN_CHARACTERS, 800)
        text = dice.pick(EXERCISES + PROGRAMS)(dice)
        while len(text) < length:
            text += "\n\n" + dice.pick(EXERCISES + PROGRAMS)(dice)
        if text not in seen:
            seen.add(text)
            yield text
