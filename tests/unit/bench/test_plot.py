"""A plot of both logarithms has a point for each measurement, at its place."""

import re
from xml.etree import ElementTree as ET

from tests.bench.scale import plot


def test_a_tenth_is_as_far_everywhere() -> None:
    text = plot.log_log({"a": [(1, 0.1), (10, 0.1), (100, 1.0)]}, x="size", y="ms")
    root = ET.fromstring(text)  # noqa: S314  # our own text
    [line] = [one for one in root if one.tag.endswith("polyline")]
    numbers = [float(one) for one in re.findall(r"[\d.]+", line.attrib["points"])]
    first, second, third = zip(numbers[::2], numbers[1::2], strict=True)
    assert abs((second[0] - first[0]) - (third[0] - second[0])) < 0.2
    assert first[1] == second[1] > third[1]
