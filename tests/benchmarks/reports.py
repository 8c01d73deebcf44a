# SPDX-License-Identifier: MIT
"""Reports of benchmarks that nobody ran."""

from hypothesis import strategies as st

from benchmarks.result import Chart, Figure, Report, Result, Series

positive = st.floats(1e-3, 1e9, allow_nan=False)
points = st.lists(st.tuples(positive, positive), min_size=1, max_size=60)
curves = st.dictionaries(st.text(max_size=6), points, min_size=1, max_size=3)
series = st.builds(
    Series, st.text(max_size=6), st.lists(positive, min_size=1, max_size=5).map(tuple)
)
figures = st.builds(
    Figure, st.text(max_size=6), st.text(max_size=6),
    st.lists(series, min_size=1, max_size=3).map(tuple),
    st.none() | positive, st.booleans(), st.booleans(),
)  # fmt: skip
charts = st.builds(
    Chart, st.text(max_size=6), st.text(max_size=6), curves,
    st.dictionaries(st.text(max_size=6), points, max_size=1),
    st.booleans(), st.booleans(),
)  # fmt: skip
settings = st.dictionaries(st.text(max_size=6), st.text(max_size=6), max_size=2)
results = st.builds(
    Result, st.text(max_size=6), st.text(max_size=6),
    st.lists(figures, max_size=3).map(tuple), st.lists(charts, max_size=2).map(tuple),
    settings, st.lists(st.text(max_size=6), max_size=2).map(tuple), positive,
    st.sampled_from(["", "it broke"]),
)  # fmt: skip
reports = st.builds(
    Report, st.text(max_size=6), settings, st.booleans(),
    st.lists(results, max_size=2).map(tuple),
)  # fmt: skip
