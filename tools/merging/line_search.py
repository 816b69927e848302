"""Where on a line to measure next, to find how far one can go at a loss within a limit."""

import math

_NARROW = 0.01  # of the whole line: nearer than this is not worth a measurement
_MARGIN = 0.05  # of a bracket: how near to its ends is still worth one


def largest_within(measured: dict[float, float], limit: float) -> float | None:
    """The largest measured place whose loss is within the limit; None if there is none."""
    return max((place for place, loss in measured.items() if loss <= limit), default=None)


def next_place(measured: dict[float, float], limit: float) -> float | None:
    """Where to measure next; None if there is nothing more to gain.

    While nothing is within the limit, near the least loss; then between the largest place within it
    and the next one beyond it. A parabola through three places is followed, and kept off the ends.
    The loss need not be monotone: nothing is said about places between those measured.

    Args:
        measured: place -> loss, of both ends at least.
        limit: the largest loss that is asked for.
    """
    places = sorted(measured)
    within = largest_within(measured, limit)
    if within == places[-1]:
        return None
    if within is not None:
        low, high = within, places[places.index(within) + 1]
        guess = _crossing(measured, low, high, limit)
    else:
        best = min(places, key=measured.__getitem__)
        n = places.index(best)
        low, high = places[max(n - 1, 0)], places[min(n + 1, len(places) - 1)]
        guess = _lowest(measured, low, best, high)
    if high - low < _NARROW:
        return None
    margin = _MARGIN * (high - low)
    return min(max(guess, low + margin), high - margin)


def _crossing(measured: dict[float, float], low: float, high: float, limit: float) -> float:
    """Where the parabola through the ends of a bracket and the nearest third place is at the limit.

    With two places only, the one that is level at the lower end: near a base that was trained on
    such text its loss is about least.
    """
    width = high - low
    slope = (measured[high] - measured[low]) / width
    others = [place for place in measured if place not in (low, high)]
    curvature = slope / width
    if others:
        third = min(others, key=lambda place: min(abs(place - low), abs(place - high)))
        beyond = (measured[third] - measured[low]) / (third - low)
        curvature = (beyond - slope) / (third - high)
    # a x^2 + b x + c at x = place - low; c <= 0, and the value at `width` is positive.
    a, b, c = curvature, slope - curvature * width, measured[low] - limit
    root = math.sqrt(max(b * b - 4 * a * c, 0.0))
    if b < 0:
        return low + (root - b) / (2 * a)
    return low - 2 * c / (b + root) if b + root else low


def _lowest(measured: dict[float, float], low: float, best: float, high: float) -> float:
    """Where the parabola through three places is least, but not again where one was measured."""
    if best in (low, high):
        return (low + high) / 2
    left, right = best - low, high - best
    fall, rise = measured[low] - measured[best], measured[high] - measured[best]
    curvature = fall * right + rise * left  # both at least 0
    guess = best + (fall * right**2 - rise * left**2) / (2 * curvature) if curvature else best
    if abs(guess - best) < _MARGIN * (high - low):
        return best + right / 2 if right > left else best - left / 2
    return guess
