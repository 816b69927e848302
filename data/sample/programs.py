"""Small programs with a trace of every step and what they print.

Programs are Python, and the text after `Output:` is exactly their output.
"""

from collections.abc import Callable

from data.sample.dice import Dice


def insertion_sort(dice: Dice) -> str:
    """The numbers after each step of an insertion sort."""
    numbers = [dice.between(1, 99) for _ in range(dice.between(6, 9))]
    lines = [f"Insertion sort of {numbers}"]
    for i in range(1, len(numbers)):
        value, j = numbers[i], i
        while j and numbers[j - 1] > value:
            numbers[j] = numbers[j - 1]
            j -= 1
        numbers[j] = value
        lines.append(f"step {i}: put {value} at place {j + 1} -> {numbers}")
    lines.append(f"smallest {numbers[0]}, largest {numbers[-1]}, sum {sum(numbers)}")
    return "\n".join(lines)


def counted_loop(dice: Dice) -> str:
    """A sum over a range."""
    start, stop, step = dice.between(0, 20), dice.between(24, 60), dice.between(2, 9)
    total, trace = 0, []
    for i in range(start, stop, step):
        total += i
        trace.append(f"i = {i}, total = {total}")
    name = dice.pick(("total", "sum_of_steps", "result", "acc"))
    return (
        f"Program:\n{name} = 0\nfor i in range({start}, {stop}, {step}):\n    {name} = {name} + i\n"
        f"print({name})\nTrace:\n" + "\n".join(trace).replace("total", name) + f"\nOutput:\n{total}"
    )


def while_loop(dice: Dice) -> str:
    """A number multiplied until it passes a limit."""
    first, factor, limit = dice.between(1, 9), dice.between(2, 5), dice.between(200, 9000)
    x, count, trace = first, 0, []
    while x < limit:
        x, count = x * factor, count + 1
        trace.append(f"after round {count}: x = {x}")
    return (
        f"Program:\nx = {first}\ncount = 0\nwhile x < {limit}:\n    x = x * {factor}\n"
        "    count = count + 1\nprint(x, count)\nTrace:\n"
        + "\n".join(trace)
        + f"\nOutput:\n{x} {count}"
    )


def kept_numbers(dice: Dice) -> str:
    """A list filtered by a remainder."""
    numbers = [dice.between(1, 60) for _ in range(dice.between(8, 12))]
    by = dice.between(2, 5)
    rest = dice.below(by)
    kept = [n for n in numbers if n % by == rest]
    trace = [f"{n} % {by} = {n % by}, {'kept' if n % by == rest else 'dropped'}" for n in numbers]
    return (
        f"Program:\nnumbers = {numbers}\nkept = []\nfor n in numbers:\n    if n % {by} == {rest}:\n"
        "        kept.append(n)\nprint(kept)\nprint(len(kept))\nTrace:\n"
        + "\n".join(trace)
        + f"\nOutput:\n{kept}\n{len(kept)}"
    )


def function_calls(dice: Dice) -> str:
    """A function with a branch, called with several arguments."""
    a, b, c = dice.between(2, 9), dice.between(1, 30), dice.between(2, 6)
    inputs = dice.shuffled(range(1, 13))[: dice.between(3, 6)]
    calls = "".join(f"print(f({x}))\n" for x in inputs)
    trace = "\n".join(f"f({x}): {a} * {x} + {b} = {a * x + b}" for x in inputs)
    output = "\n".join(str((a * x + b) % c if x > 6 else a * x + b) for x in inputs)
    return (
        f"Program:\ndef f(x):\n    y = {a} * x + {b}\n    if x > 6:\n        y = y % {c}\n"
        f"    return y\n{calls}"
        f"Trace, before any remainder by {c} is taken:\n{trace}\nOutput:\n{output}"
    )


def stack_operations(dice: Dice) -> str:
    """Numbers pushed onto a stack and popped from it."""
    stack: list[int] = []
    program, trace, printed = ["stack = []"], [], []
    for _ in range(dice.between(9, 14)):
        if stack and not dice.below(3):
            program.append("print(stack.pop())")
            printed.append(str(stack.pop()))
            trace.append(f"pop gives {printed[-1]}, left {stack}")
        else:
            stack.append(dice.between(1, 99))
            program.append(f"stack.append({stack[-1]})")
            trace.append(f"push {stack[-1]}, now {stack}")
    program.append("print(len(stack))")
    printed.append(str(len(stack)))
    parts = ["Program:", *program, "Trace:", *trace, "Output:", *printed]
    return "\n".join(parts)


PROGRAMS: tuple[Callable[[Dice], str], ...] = (
    insertion_sort,
    counted_loop,
    while_loop,
    kept_numbers,
    function_calls,
    stack_operations,
)
