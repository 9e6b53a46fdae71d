"""Heat maps say what was measured, leave a hole where nothing was, and are not ruled by one value."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from paper_tables.drawing.heat_map import color_bar, heat_map, shared_norm
from paper_tables.drawing.style import drawing, panels

NAN = float("nan")


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_every_cell_holds_its_number_and_a_hole_a_dash() -> None:
    with drawing("test"):
        figure, (panel,) = panels(1, labels=1.0)
        image = heat_map(panel, [[1.0, 2.5], [NAN, 4.0]], rows=["a", "b"], columns=["x", "y"])
        color_bar(figure, [panel], image, "perplexity")
    assert texts(figure) == ["1", "2.5", "\N{EN DASH}", "4"]
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ["x", "y"]
    assert [tick.get_text() for tick in panel.get_yticklabels()] == ["a", "b"]
    assert panel.yaxis_inverted()  # the first row stands above
    assert figure.axes[1].get_ylabel() == "perplexity"


def test_numbers_can_be_read_on_their_shade() -> None:
    values = np.linspace(0, 1, 12).reshape(3, 4)
    for centre in (None, 0.5):
        with drawing("test"):
            _, (panel,) = panels(1, labels=1.0)
            image = heat_map(panel, values, ["a", "b", "c"], list("wxyz"), shared_norm([values], centre))
        for text, value in zip(panel.texts, values.ravel(), strict=True):
            assert contrast(to_rgb(text.get_color()), image.to_rgba(value)[:3]) >= 4.0


def contrast(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    """Contrast ratio as the Web Content Accessibility Guidelines define it."""

    def luminance(shade: tuple[float, ...]) -> float:
        parts = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in shade]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_panels_share_one_scale_that_no_single_value_rules() -> None:
    norm = shared_norm([[1.0, 2.0, 3.0], [4.0, 5.0, NAN, 4000.0]])
    assert (norm.vmin, norm.vmax) == (1.0, 5.0)
    assert (shared_norm([[7.0, 7.0]]).vmin, shared_norm([[7.0, 7.0]]).vmax) == (6.5, 7.5)
    assert (shared_norm([]).vmin, shared_norm([[NAN]]).vmax) == (0.0, 1.0)


def test_a_centre_is_the_middle_of_the_shades() -> None:
    norm = shared_norm([[0.9, 1.4]], centre=1.0)
    assert norm(1.0) == pytest.approx(0.5)
    assert (norm.vmin, norm.vmax) == (pytest.approx(0.6), pytest.approx(1.4))


def test_logarithmic_shades() -> None:
    assert shared_norm([[1.0, 100.0]], logarithmic=True)(10.0) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="the smallest value is -1"):
        shared_norm([[-1.0, 2.0]], logarithmic=True)
    with pytest.raises(ValueError, match="centre is 1"):
        shared_norm([[1.0]], centre=1.0, logarithmic=True)


def test_names_must_fit() -> None:
    _, (panel,) = panels(1)
    with pytest.raises(ValueError, match=r"shape \(1, 2\); the names ask for \(1, 1\)"):
        heat_map(panel, [[1.0, 2.0]], ["a"], ["x"])
