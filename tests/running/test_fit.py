"""``tk.fit``: what is held out, what is printed, and that the model comes back as it was."""

import importlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import torchkoopman as tk
from tests.systems import normal, seeded
from torchkoopman.observe.trajectory import Trajectory

QUICK: dict[str, Any] = {"latent": 6, "hidden": (8,), "batch": 32}


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(3, 5),
            nn.BatchNorm1d(5),
            nn.Tanh(),
            nn.Dropout(0.5),
            nn.Linear(5, 5),
            nn.Tanh(),
            nn.Linear(5, 2),
        )


LAYERS = ["2", "5"]


def data(rows: int = 600) -> TensorDataset:
    x = normal(rows, 3)
    return TensorDataset(x, torch.arange(rows) % 2)


def loader(rows: int = 600, batch: int = 64) -> DataLoader[Any]:
    return DataLoader(data(rows), batch_size=batch)


class Spy:
    """A fitter that remembers what it was shown and fits DMD to it."""

    def __init__(self) -> None:
        self.seen: list[Trajectory] = []
        self.training: set[bool] = set()
        self.gradients: set[bool] = set()
        self._fitter = tk.DMDFitter()

    def update(self, trajectory: Trajectory) -> "Spy":
        self.seen.append(trajectory)
        self._fitter.update(trajectory)
        return self

    @property
    def surrogate(self) -> tk.Surrogate:
        return self._fitter.surrogate

    def rows(self, layer: str = "2") -> Tensor:
        return torch.cat([part.rows()[layer] for part in self.seen])


def quiet(*args: Any, **options: Any) -> tk.Surrogate:
    return tk.fit(*args, progress=False, **options)


def test_every_tenth_sample_is_held_out_and_never_streamed_to_the_fitter() -> None:
    model, spy = network().eval(), Spy()
    surrogate = quiet(model, loader(), LAYERS, method=spy)
    with torch.no_grad():
        states = model[:3](data().tensors[0])
    kept = torch.arange(600) % 10 != 9
    torch.testing.assert_close(spy.rows(), states[kept])
    assert surrogate.record.rows == 540
    labels = torch.cat([part.labels for part in spy.seen if part.labels is not None])
    torch.testing.assert_close(labels, data().tensors[1][kept])


def test_the_held_out_r2_is_that_of_the_tenth_samples() -> None:
    model = network().eval()
    surrogate = quiet(model, loader(), LAYERS, method="dmd")
    x = data().tensors[0][9::10]
    expected = tk.evaluate(surrogate, model, [x])
    assert expected.rows == 60
    assert surrogate.record.held_out == pytest.approx(expected.layers, rel=1e-6)


def test_at_most_two_thousand_samples_are_held_out() -> None:
    spy = Spy()
    quiet(network(), loader(25_000, 5000), LAYERS, method=spy)
    assert len(spy.rows()) == 25_000 - 2000


def test_batches_smaller_than_ten_are_split_by_their_place_in_the_stream() -> None:
    spy = Spy()
    quiet(network(), loader(60, 1), LAYERS, method=spy)
    assert len(spy.rows()) == 54


def test_with_held_out_data_the_fitter_sees_everything() -> None:
    spy = Spy()
    fresh = DataLoader(TensorDataset(normal(90, 3, seed=5)), batch_size=40)
    surrogate = quiet(network(), loader(), LAYERS, method=spy, held_out=fresh, epochs=2)
    assert len(spy.rows()) == 2 * 600
    expected = tk.evaluate(surrogate, network(), fresh)
    assert expected.rows == 90
    assert surrogate.record.held_out == pytest.approx(expected.layers, rel=1e-6)


def test_several_epochs_without_held_out_data_are_refused_before_anything_runs() -> None:
    spy = Spy()
    with pytest.raises(ValueError, match=r"epochs=3.*held_out"):
        quiet(network(), loader(), LAYERS, method=spy, epochs=3)
    assert not spy.seen


class Keyworded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 4)

    def forward(self, *, values: Tensor, scale: Tensor) -> Tensor:
        out: Tensor = self.second(torch.tanh(self.first(values) * scale[:, None]))
        return out


def test_mappings_become_keyword_arguments_and_their_labels_classes() -> None:
    spy = Spy()
    batches = [
        {"values": normal(50, 3, seed=k), "scale": torch.ones(50), "labels": torch.arange(50) % 3}
        for k in range(4)
    ]
    surrogate = quiet(Keyworded(), batches, ["first", "second"], method=spy)
    assert surrogate.statistics is not None
    assert surrogate.statistics.classes == (0, 1, 2)
    assert all("labels" in batch for batch in batches), "the user's batches are left as they were"


def test_bare_tensors_are_inputs_without_labels() -> None:
    spy = Spy()
    quiet(network(), list(normal(400, 3).split(100)), LAYERS, method=spy)
    assert all(part.labels is None for part in spy.seen)
    assert len(spy.rows()) == 360


@pytest.mark.parametrize("target", [normal(600), normal(600, 2), torch.arange(1200).view(600, 2)])
def test_regression_targets_are_not_labels(target: Tensor) -> None:
    spy = Spy()
    batches = DataLoader(TensorDataset(normal(600, 3), target), batch_size=100)
    quiet(network(), batches, LAYERS, method=spy)
    assert all(part.labels is None for part in spy.seen)


class Endless(IterableDataset[Tensor]):
    def __iter__(self) -> Iterator[Tensor]:
        return iter(normal(500, 3))


@pytest.mark.parametrize("method", ["dmd", "autoencoder"])
def test_a_stream_without_a_length_is_fitted(method: Any) -> None:
    batches = DataLoader(Endless(), batch_size=100)
    options = {**QUICK, "calibration": 100, "steps": 5} if method == "autoencoder" else {}
    assert quiet(network(), batches, LAYERS, method=method, **options).record.rows == 450


def test_a_generator_of_batches_is_fitted() -> None:
    batches = (normal(100, 3, seed=k) for k in range(5))
    assert quiet(network(), batches, LAYERS, method="dmd").record.rows == 450


def modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


def hooks(model: nn.Module) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


def partly_frozen() -> nn.Sequential:
    model = network().train()
    model[1].eval()
    return model


@pytest.mark.parametrize("method", ["dmd", "edmd"])
def test_the_model_is_given_back_as_it_was(method: Any) -> None:
    model = partly_frozen()
    model(normal(9, 3)).sum().backward()
    before, state = modes(model), {k: v.clone() for k, v in model.state_dict().items()}
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    batches, rng = list(loader()), torch.get_rng_state()
    options = {"observables": tk.RandomFeatures(20)} if method == "edmd" else {}
    quiet(model, batches, LAYERS, method=method, **options)
    assert modes(model) == before
    assert hooks(model) == 0
    for found, expected in zip(model.parameters(), gradients, strict=True):
        assert found.requires_grad
        torch.testing.assert_close(found.grad, expected, rtol=0, atol=0)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0)
    assert torch.equal(rng, torch.get_rng_state())


def test_the_autoencoder_leaves_gradients_weights_and_global_seed_alone() -> None:
    model = partly_frozen()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    batches, rng = list(loader()), torch.get_rng_state()
    quiet(model, batches, LAYERS, steps=10, calibration=100, **QUICK)
    assert all(p.grad is None for p in model.parameters())
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0)
    assert torch.equal(rng, torch.get_rng_state())


def test_the_model_is_given_back_as_it_was_after_an_exception_too() -> None:
    model = partly_frozen()
    before = modes(model)

    def failing() -> Iterator[Tensor]:
        yield normal(50, 3)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        quiet(model, failing(), LAYERS, method="dmd")
    assert modes(model) == before
    assert hooks(model) == 0
    assert torch.is_grad_enabled()


def test_the_model_runs_in_eval_mode_without_gradients() -> None:
    seen = []

    def forward(model: nn.Module, batch: Any) -> object:
        seen.append((model.training, model[3].training, torch.is_grad_enabled()))  # type: ignore[index]
        return model(batch[0])

    quiet(network().train(), loader(), LAYERS, method="dmd", forward=forward)
    assert set(seen) == {(False, False, False)}


def test_forward_calls_the_model_in_the_users_way() -> None:
    spy = Spy()
    batches = [{"image": normal(100, 3, seed=k)} for k in range(4)]
    quiet(network(), batches, LAYERS, method=spy, forward=lambda m, b: m(b["image"]))
    assert len(spy.rows()) == 360


def test_the_report_is_printed_with_all_baselines(capsys: pytest.CaptureFixture[str]) -> None:
    surrogate = tk.fit(network(), loader(), LAYERS, steps=3, calibration=100, **QUICK)
    printed = capsys.readouterr()
    text = printed.out + printed.err
    for name in ("skip", "ridge map", "PCA + linear", "EDMD", "autoencoder", "60 held-out rows"):
        assert name in text, name
    assert set(surrogate.record.baselines) >= {"skip", "ridge map", "PCA + linear"}


def test_the_report_says_so_when_the_autoencoder_does_not_beat_the_closed_form(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Hardly a step and two latent coordinates against 500 random features."""
    options = {**QUICK, "latent": 2, "steps": 1, "calibration": 100}
    surrogate = tk.fit(network(), loader(2000, 200), LAYERS, **options)
    text = "".join(capsys.readouterr())
    assert surrogate.record.baselines["EDMD"] > surrogate.record.held_out["5"]
    assert "the autoencoder does not beat:" in text
    assert "EDMD" in text.split("does not beat:")[1]


def test_without_progress_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    quiet(network(), loader(), LAYERS, steps=3, calibration=100, **QUICK)
    printed = capsys.readouterr()
    assert printed.out == printed.err == ""


def test_an_unknown_method_is_refused_with_the_list() -> None:
    with pytest.raises(ValueError, match=r"'magic'.*autoencoder.*edmd.*dmd"):
        quiet(network(), loader(), LAYERS, method="magic")


def test_options_beside_a_fitter_of_ones_own_are_refused_by_name() -> None:
    with pytest.raises(TypeError, match="latent"):
        quiet(network(), loader(), LAYERS, method=tk.DMDFitter(), latent=3)


def test_a_loader_without_batches_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no data yet|no batches|no held-out"):
        quiet(network(), [], LAYERS, method="dmd")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tk.AutoencoderFitter]:
    """The autoencoder fitters that ``fit`` makes."""
    fitters: list[tk.AutoencoderFitter] = []

    class Kept(tk.AutoencoderFitter):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            fitters.append(self)

    module = importlib.import_module("torchkoopman.running.fit")
    monkeypatch.setattr(module, "AutoencoderFitter", Kept)
    return fitters


@pytest.mark.parametrize("calibration", [100, 100_000])
def test_the_autoencoder_takes_the_steps_asked_for_in_all(
    calibration: int, made: list[tk.AutoencoderFitter]
) -> None:
    quiet(network(), loader(), LAYERS, steps=20, calibration=calibration, **QUICK)
    assert [fitter.steps for fitter in made] == [20]


def test_a_stream_of_more_batches_than_steps_takes_no_more_steps_than_asked_for(
    made: list[tk.AutoencoderFitter],
) -> None:
    quiet(network(), loader(600, 20), LAYERS, steps=20, calibration=100, **QUICK)
    assert [fitter.steps for fitter in made] == [20]


def test_a_setting_of_ones_own_fitter_is_not_overwritten() -> None:
    fitter = tk.AutoencoderFitter(**QUICK, calibration=100, steps_per_update=2)
    quiet(network(), loader(), LAYERS, method=fitter, steps=20)
    assert fitter.steps_per_update == 2


def test_delays_can_be_fitted_and_evaluated_in_one_line() -> None:
    surrogate = quiet(network(), loader(), ["2", "4", "5"], method="dmd", delays=1)
    assert set(surrogate.record.held_out) == {"5"}


def test_a_layout_is_passed_on() -> None:
    model = nn.Sequential(nn.Conv1d(2, 3, 1), nn.Conv1d(3, 3, 1))
    batches = [normal(30, 2, 4, seed=k) for k in range(3)]
    spy = Spy()
    quiet(model, batches, "*", method=spy, layout="b c t -> b t c")
    assert spy.seen[0].states["0"].shape[1:] == (4, 3)


def test_evaluate_is_the_r2_layer_by_layer_on_data_of_its_own() -> None:
    model, fresh = network().eval(), normal(200, 3, seed=5)
    options = {"method": "dmd", "frames": "aligned", "dynamics": "step"}
    surrogate = quiet(model, loader(), ["2", "4", "5"], **options)
    result = tk.evaluate(surrogate, model, [fresh[:130], fresh[130:]])
    assert result.rows == 200
    assert result.baselines == {}
    with torch.no_grad():
        start = model[:3](fresh)
        for layer, count in (("4", 5), ("5", 6)):
            truth = model[:count](fresh)
            ahead = surrogate.predict(start[:, None], "2", layer)[:, 0]
            spread = (truth - truth.mean(0)).square().sum()
            left = ((ahead - truth).square().sum() / spread).item()
            assert 1 - result.layers[layer] == pytest.approx(left, rel=1e-3)


def test_evaluate_gives_the_model_back_as_it_was() -> None:
    model = partly_frozen()
    before = modes(model)
    surrogate = quiet(model, loader(), LAYERS, method="dmd")
    tk.evaluate(surrogate, model, loader())
    assert modes(model) == before
    assert hooks(model) == 0


def test_evaluate_without_batches_says_so() -> None:
    surrogate = quiet(network(), loader(), LAYERS, method="dmd")
    with pytest.raises(ValueError, match="no held-out rows"):
        tk.evaluate(surrogate, network(), [])


class Tokens(nn.Module):
    """Embeds tokens and mixes features; what padding holds is garbage."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix = nn.Embedding(20, 4), nn.Linear(4, 4)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.mix(self.embed(input_ids))


def token_batches() -> list[dict[str, Tensor]]:
    mask = torch.ones(12, 7, dtype=torch.long)
    mask[:, 5:] = 0
    return [
        {"input_ids": torch.randint(20, (12, 7), generator=seeded(k)), "attention_mask": mask}
        for k in range(10)
    ]


def test_an_attention_mask_keeps_padding_out_of_the_fit() -> None:
    spy = Spy()
    tk.fit(Tokens(), token_batches(), ["embed", "mix"], method=spy, progress=False)
    assert sum(len(part.rows()["mix"]) for part in spy.seen) == 108 * 5  # 12 of 120 held out


def test_positions_are_sampled_where_asked_for() -> None:
    spy = Spy()
    tk.fit(Tokens(), token_batches(), ["embed", "mix"], method=spy, positions=3, progress=False)
    assert {part.sampled().positions for part in spy.seen} == {3}
    assert sum(len(part.rows()["mix"]) for part in spy.seen) < 108 * 3 + 1


def test_the_closed_form_beside_the_autoencoder_sees_rows_enough_but_not_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = importlib.import_module("torchkoopman.running.fit")
    monkeypatch.setattr(module, "_RIVAL_ROWS", 100)
    spies: list[Spy] = []
    monkeypatch.setattr(module, "EDMDFitter", lambda **_: spies.append(Spy()) or spies[-1])
    surrogate = quiet(network(), loader(), LAYERS, steps=5, **QUICK)
    assert 100 <= len(spies[0].rows()) < 200
    assert surrogate.record.rows == 540


@pytest.mark.parametrize("method", ["dmd", "edmd", "autoencoder"])
def test_one_layer_is_no_span_and_is_refused_by_name(method: Any) -> None:
    with pytest.raises(ValueError, match=r"\['2'\]. Choose two layers or more"):
        quiet(network(), loader(), "2", method=method)


def test_the_report_says_why_there_is_no_closed_form_beside_the_autoencoder(
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = {**QUICK, "calibration": 50}
    tk.fit(network(), loader(100, 50), LAYERS, steps=5, **options)
    printed = capsys.readouterr().out
    assert "no EDMD beside it: 90 rows were streamed, but the fit has" in printed
