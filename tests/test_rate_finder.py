"""The range test of learning rates, on curves whose steepest place is known."""

import contextlib

import numpy as np
import pytest

from tl_hub import picture, rate_finder


@pytest.mark.parametrize("best", [1e-4, 1e-3, 1e-2])
def test_the_steepest_place_of_a_noisy_curve_is_found(best):
    """A loss that falls around `best`, fastest there, and rises from ten times it: found within a factor of 2."""
    rates = np.geomspace(1e-6, 1.0, 100)
    place = np.log10(rates / best)
    curve = 4 - 2 / (1 + np.exp(-6 * place)) + 5 * np.clip(place - 1, 0, None)
    found = [
        rate_finder.suggested(rates, curve + 0.1 * np.random.default_rng(seed).standard_normal(100))
        for seed in range(50)
    ]
    assert np.mean([rate is not None and best / 2 <= rate <= 2 * best for rate in found]) >= 0.9


def test_where_nothing_is_learned_nothing_is_suggested():
    rates = np.geomspace(1e-6, 1.0, 100)
    curves = [0.7 + 0.05 * np.random.default_rng(seed).standard_normal(100) for seed in range(100)]
    assert np.mean([rate_finder.suggested(rates, curve) is None for curve in curves]) >= 0.9


def test_the_picture_has_the_losses_over_the_rates_and_the_one_suggested(monkeypatch, tmp_path):
    figures, drawn = [], picture.drawn

    @contextlib.contextmanager
    def kept(*arguments):
        with drawn(*arguments) as figure:
            figures.append(figure)
            yield figure

    monkeypatch.setattr(picture, "drawn", kept)
    rates, losses = np.geomspace(1e-6, 1.0, 20), np.linspace(4.0, 2.0, 20)
    rate_finder._draw(tmp_path / "rates.png", rates, losses + 1, losses, 1e-3)
    (axes,) = figures[0].axes
    assert (axes.get_xlabel(), axes.get_xscale(), axes.get_ylabel()) == ("learning rate", "log", "training loss")
    each, smooth, suggested = axes.lines
    assert (each.get_xdata() == rates).all() and (each.get_ydata() == losses + 1).all()
    assert (smooth.get_xdata() == rates).all() and (smooth.get_ydata() == losses).all()
    assert list(suggested.get_xdata()) == [1e-3, 1e-3]


@pytest.mark.slow
def test_a_rate_is_suggested_and_nothing_else_left(recipe_here, checkpoint_folders, tmp_path):
    flags = (
        "--find_lr", "--model", str(checkpoint_folders("bert")), "--train_rows", "64", "--output_dir",
        str(tmp_path / "run"),
    )  # fmt: skip
    ended = recipe_here("qa_finetune", *flags)
    assert ended.returncode == 0, ended.stderr
    assert "--learning_rate" in ended.stdout or "no suggestion" in ended.stdout
    assert (tmp_path / "run.rates.png").read_bytes().startswith(b"\x89PNG") and not (tmp_path / "run").exists()


def test_a_fitted_head_has_no_rate_to_find(recipe_here, tmp_path):
    ended = recipe_here("sentiment_features", "--find_lr", "--output_dir", str(tmp_path / "run"))
    assert ended.returncode == 2
    assert "--find_lr has no effect with feature extraction, which trains no layer" in ended.stderr
