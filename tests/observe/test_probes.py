"""Probes: what is streamed is what the layers gave, paired, and the model stays as it was."""

import copy
import gc
import io
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from torchkoopman.observe.probes import attach
from torchkoopman.observe.trajectory import Trajectory


class Blocks(nn.Module):
    """Registered in another order than run; each part can fail, be skipped, or run twice."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.last = nn.Linear(width, width)
        self.first = nn.Linear(width, width)
        self.act = nn.ReLU(inplace=True)
        self.error: BaseException | None = None
        self.skip_last = False
        self.repeat = 1

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.first(x))
        if self.error is not None:
            raise self.error
        for _ in range(0 if self.skip_last else self.repeat):
            x = self.last(x)
        return x


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = Blocks()
        self.head = nn.Linear(4, 2)
        self.forgiving = False

    def forward(self, x: Tensor) -> Tensor:
        try:
            x = self.body(x)
        except ArithmeticError:
            if not self.forgiving:
                raise
        return self.head(x)


LAYERS = ["first", "last"]
X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


def hooks_on(model: nn.Module) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_always_called")
    kinds += ("_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs", "_backward_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


def test_states_are_the_outputs_in_order_of_execution() -> None:
    model, got = Blocks(), list[Trajectory]()
    with attach(model, LAYERS) as probe:
        assert probe.stream_to(got.append) is probe
        output = model(X)
    first = model.first(X)
    assert got[0].layers == ("first", "last")
    assert torch.equal(got[0].states["first"], first[:, None])
    assert torch.equal(got[0].states["last"], output[:, None])
    assert got[0].mask is None
    assert got[0].labels is None
    assert not got[0].states["last"].requires_grad


def test_a_later_in_place_operation_does_not_reach_the_state() -> None:
    model, got = Blocks(), list[Trajectory]()
    with attach(model, ["first", "act"]) as probe:
        probe.stream_to(got.append)
        model(X)
    assert got[0].states["first"].min() < 0
    assert got[0].states["act"].min() == 0


def test_a_forward_pass_is_unchanged_to_the_bit_and_so_are_gradients_mode_and_random_state() -> (
    None
):
    plain, probed = Blocks(), Blocks()
    probed.load_state_dict(plain.state_dict())
    plain.first.eval(), probed.first.eval()
    random_state = torch.get_rng_state()
    with attach(probed, "**", positions=1) as probe:
        probe.stream_to(lambda trajectory: None)
        output = probed(X)
        output.sum().backward()
    assert torch.equal(torch.get_rng_state(), random_state)
    expected = plain(X)
    expected.sum().backward()
    assert torch.equal(output, expected)
    for ours, theirs in zip(probed.parameters(), plain.parameters(), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        assert torch.equal(ours.grad, theirs.grad)
    assert [m.training for m in probed.modules()] == [m.training for m in plain.modules()]


def test_a_model_that_never_ran_backward_has_no_gradients() -> None:
    model = Blocks()
    with attach(model, LAYERS) as probe:
        probe.stream_to(lambda trajectory: trajectory.states["first"].sum())
        model(X)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_no_hook_is_left_after_the_with_an_exception_detach_or_garbage_collection() -> None:
    model = Outer()
    mine = model.head.register_forward_hook(lambda *_: None)
    before = hooks_on(model)
    with attach(model, "body.*"):
        assert hooks_on(model) > before
    assert hooks_on(model) == before
    with pytest.raises(ZeroDivisionError), attach(model, "body.*"):
        raise ZeroDivisionError
    assert hooks_on(model) == before
    probe = attach(model, "body.*")
    probe.detach()
    probe.detach()
    assert hooks_on(model) == before
    probe = attach(model, "body.*")
    del probe
    gc.collect()
    assert hooks_on(model) == before
    assert mine.id in model.head._forward_hooks


def test_a_detached_probe_is_told_nothing_and_keeps_its_report() -> None:
    model, got = Blocks(), list[Trajectory]()
    probe = attach(model, LAYERS).stream_to(got.append)
    model(X)
    probe.detach()
    model(X)
    assert len(got) == 1
    assert probe.report().forwards == 1
    assert probe.report().lost_hooks == ()


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "save"])
def test_copies_of_a_probed_model_run_and_do_not_stream(how: str) -> None:
    model, got = Blocks(), list[Trajectory]()
    with attach(model, LAYERS) as probe:
        # A function is shared by deep copies and cannot be pickled: a copied probe would show.
        probe.stream_to(lambda trajectory: got.append(trajectory))
        if how == "deepcopy":
            twin = copy.deepcopy(model)
        elif how == "pickle":
            twin = pickle.loads(pickle.dumps(model))
        else:
            file = io.BytesIO()
            torch.save(model, file)
            file.seek(0)
            twin = torch.load(file, weights_only=False)
        assert torch.equal(twin(X), model(X))
        assert len(got) == 1
        assert probe.report().forwards == 1


def test_a_detached_probe_is_not_entered_again() -> None:
    model = Blocks()
    with attach(model, LAYERS) as probe:
        model(X)
    with pytest.raises(RuntimeError, match=r"the probe is detached.*attach"), probe:
        pass


def test_every_listener_gets_every_trajectory_by_update_or_by_call() -> None:
    class Fitter:
        def __init__(self) -> None:
            self.got: list[Trajectory] = []

        def update(self, trajectory: Trajectory, labels: Tensor | None = None) -> "Fitter":
            self.got.append(trajectory)
            return self

    model, fitter, got = Blocks(), Fitter(), list[Trajectory]()
    with attach(model, LAYERS) as probe:
        probe.stream_to(fitter, got.append)
        model(X), model(X)
    assert len(got) == 2
    assert all(ours is theirs for ours, theirs in zip(fitter.got, got, strict=True))
    with pytest.raises(TypeError, match="got a int; a listener"):
        attach(model, LAYERS).stream_to(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"got the class Fitter itself.*Fitter\(\.\.\.\)"):
        attach(model, LAYERS).stream_to(Fitter)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", "gpt2"),
        ("layout", 3),
        ("layout", {"0": 3}),
        ("output", 3),
        ("output", {"0": None}),
        ("positions", 1.5),
        ("positions", True),
        ("generator", 3),
        ("attention_mask", 1),
        ("gather", "yes"),
    ],
)
def test_arguments_of_another_kind_are_refused_by_name(name: str, value: object) -> None:
    given: Any = {"model": Blocks(), "layers": LAYERS, name: value}
    with pytest.raises(TypeError, match=rf"attach\(\) got .*{name}.*; give"):
        attach(**given)


def test_labels_and_masks_accompany_the_passes_inside_only() -> None:
    model, got = nn.Sequential(nn.Linear(4, 4), nn.ReLU()), list[Trajectory]()
    labels, mask = torch.tensor([0, 1]), torch.tensor([[1, 1, 0], [1, 0, 0]])
    tokens = torch.randn(2, 3, 4)
    with attach(model, "*") as probe:
        probe.stream_to(got.append)
        with probe.labels(labels), probe.mask(mask):
            model(tokens)
            with probe.labels(labels.flip(0)):
                model(tokens)
            model(tokens)
        model(tokens)
    seen = [None if each.labels is None else each.labels.tolist() for each in got]
    assert seen == [[0, 1], [1, 0], [0, 1], None]
    assert got[0].mask is not None
    assert torch.equal(got[0].mask, mask.bool())
    assert got[3].mask is None
    assert probe.report().streams[0].rows == 3 * 3 + 6


def test_labels_and_masks_of_a_wrong_kind_or_length_are_refused() -> None:
    model = Blocks()
    with attach(model, LAYERS) as probe:
        with pytest.raises(TypeError, match=r"probe\.labels\(\) got torch\.float32"):
            probe.labels(torch.zeros(3)).__enter__()
        with pytest.raises(TypeError, match=r"probe\.mask\(\) got list"):
            probe.mask([1, 0]).__enter__()  # type: ignore[arg-type]
        for wrong in (torch.ones(3, 1).bool().to_sparse(), torch.ones(3, 1).bool().to("meta")):
            with pytest.raises(TypeError, match=r"probe\.mask\(\) got a tensor (of|on)"):
                probe.mask(wrong)
        with (
            probe.labels(torch.zeros(5, dtype=torch.long)),
            pytest.raises(ValueError, match=r"labels have shape \(5,\).*batch of 3"),
        ):
            model(X)
        with (
            probe.mask(torch.ones(3, 2, dtype=torch.bool)),
            pytest.raises(ValueError, match=r"mask has shape \(3, 2\)"),
        ):
            model(X)
        model(X)
    assert probe.report().trajectories == 1


def test_a_part_around_all_layers_pairs_when_called_alone() -> None:
    model, got = Outer(), list[Trajectory]()
    with attach(model, ["body.first", "body.last"]) as probe:
        probe.stream_to(got.append)
        model(X)
        model.body(X)
    assert len(got) == 2
    assert torch.equal(got[0].states["body.last"], got[1].states["body.last"])
    assert got[0].inputs == (((3, 4), "float32"),)
    assert got[1].inputs == ()


def test_layers_called_outside_any_common_part_are_counted_and_not_streamed() -> None:
    model, got = Outer(), list[Trajectory]()
    with attach(model, ["body.first", "head"]) as probe:
        probe.stream_to(got.append)
        model.head(model.body(X))
    assert got == []
    assert probe.report().skipped == {"outside": 2}
    assert probe.report().forwards == 0


def test_the_model_itself_may_be_a_layer() -> None:
    model, got = Outer(), list[Trajectory]()
    with attach(model, ["", "body.first"]) as probe:
        probe.stream_to(got.append)
        output = model(X)
    assert got[0].layers == ("body.first", "")
    assert torch.equal(got[0].states[""], output[:, None])


def test_a_layer_inside_a_layer_comes_before_it() -> None:
    model, got = Outer(), list[Trajectory]()
    with attach(model, ["body", "body.last"]) as probe:
        probe.stream_to(got.append)
        model(X)
    assert got[0].layers == ("body.last", "body")
    assert torch.equal(got[0].states["body.last"], got[0].states["body"])


def test_later_passes_keep_the_order_of_the_first() -> None:
    class Either(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.swapped = nn.Linear(4, 4), nn.Linear(4, 4), False

        def forward(self, x: Tensor) -> Tensor:
            first, second = (self.b, self.a) if self.swapped else (self.a, self.b)
            return second(first(x))  # type: ignore[no-any-return]

    model, got = Either(), list[Trajectory]()
    with attach(model, "*") as probe:
        probe.stream_to(got.append)
        model(X)
        model.swapped = True
        model(X)
    assert [each.layers for each in got] == [("a", "b"), ("a", "b")]
    assert torch.equal(got[1].states["b"], model.b(X)[:, None])


def test_an_exception_between_layers_leaves_no_wrong_pair() -> None:
    model, got = Outer(), list[Trajectory]()
    with attach(model, ["body.first", "body.last"]) as probe:
        probe.stream_to(got.append)
        model.body.error = ZeroDivisionError()
        with pytest.raises(ZeroDivisionError):
            model(X)
        model.body.error = None
        output = model.body(2 * X)
    assert len(got) == 1
    assert torch.equal(got[0].states["body.first"], model.body.first(2 * X)[:, None])
    assert torch.equal(got[0].states["body.last"], output[:, None])
    assert probe.report().interrupted == 1


def test_an_interrupt_that_no_hook_is_told_of_leaves_no_wrong_pair() -> None:
    model, got = Outer(), list[Trajectory]()
    with attach(model, ["body.first", "body.last"]) as probe:
        probe.stream_to(got.append)
        model.body.error = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            model(X)
        model.body.error = None
        model(2 * X)
    assert len(got) == 1
    assert torch.equal(got[0].states["body.first"], model.body.first(2 * X)[:, None])
    assert probe.report().interrupted == 1


def test_an_exception_that_the_model_catches_itself_is_an_unpaired_pass() -> None:
    model, got = Outer(), list[Trajectory]()
    model.forgiving, model.body.error = True, ZeroDivisionError()
    with attach(model, ["body.first", "body.last"]) as probe:
        probe.stream_to(got.append)
        model(X)
        model.body.error = None
        model(X)
    assert len(got) == 1
    assert probe.report().unpaired == 1


def test_an_exception_in_a_listener_reaches_the_caller_and_the_next_pass_is_whole() -> None:
    model, got = Blocks(), list[Trajectory]()

    def fail_once(trajectory: Trajectory) -> None:
        got.append(trajectory)
        if len(got) == 1:
            raise ZeroDivisionError

    with attach(model, LAYERS) as probe:
        probe.stream_to(fail_once)
        with pytest.raises(ZeroDivisionError):
            model(X)
        model(X)
    assert len(got) == 2


def test_a_layer_that_never_runs_is_an_error_that_names_it() -> None:
    model = Blocks()
    model.skip_last = True
    with (
        pytest.raises(RuntimeError, match=r"'last' did not run.*Choose layers that run"),
        attach(model, LAYERS),
    ):
        model(X)
    assert hooks_on(model) == 0


def test_a_layer_that_ran_before_and_not_now_makes_an_unpaired_pass() -> None:
    model, got = Blocks(), list[Trajectory]()
    with attach(model, LAYERS) as probe:
        probe.stream_to(got.append)
        model(X)
        model.skip_last = True
        model(X)
    assert len(got) == 1
    assert probe.report().unpaired == 1


def test_a_module_called_twice_gives_a_stream_for_each_call() -> None:
    model, got = Blocks(), list[Trajectory]()
    model.repeat = 2
    with attach(model, LAYERS) as probe:
        probe.stream_to(got.append)
        output = model(X)
        model.repeat = 1
        model(X)
    assert [each.layers for each in got] == [("first", "last#0", "last#1")]
    assert torch.equal(got[0].states["last#1"], output[:, None])
    assert torch.equal(got[0].states["last#1"], model.last(got[0].states["last#0"]))
    assert probe.report().unpaired == 1


def test_a_call_may_be_chosen_by_number() -> None:
    model, got = Blocks(), list[Trajectory]()
    model.repeat = 3
    with attach(model, ["first", "last#1"]) as probe:
        probe.stream_to(got.append)
        model(X)
    assert got[0].layers == ("first", "last#1")
    expected = model.last(model.last(model.act(model.first(X))))
    assert torch.equal(got[0].states["last#1"], expected[:, None])
    with pytest.raises(RuntimeError, match="'last#3' did not run"), attach(model, "last#3"):
        model(X)


def test_one_layout_for_all_layers_flattens_images_and_vectors_alike() -> None:
    model = nn.Sequential(nn.Conv2d(3, 5, 1), nn.Tanh(), nn.Flatten())
    got, image = list[Trajectory](), torch.randn(2, 3, 4, 4)
    with attach(model, "*", layout="b ... -> b 1 (...)") as probe:
        probe.stream_to(got.append)
        output = model(image)
    assert [tuple(state.shape) for state in got[0].states.values()] == [(2, 1, 80)] * 3
    convolved = got[0].views["0"].layout.to_output(got[0].states["0"])
    assert torch.equal(convolved, model[0](image))
    assert torch.equal(got[0].states["2"][:, 0], output)


def test_layouts_by_name_reach_their_layer_and_a_wrong_one_names_it() -> None:
    model, got = nn.Sequential(nn.Identity(), nn.Flatten(2)), list[Trajectory]()
    image = torch.randn(2, 3, 4, 4)
    with attach(model, "*", layout={"0": "b c h w -> b (h w) c", "1": "b c p -> b p c"}) as probe:
        probe.stream_to(got.append)
        model(image)
    assert torch.equal(got[0].states["0"], got[0].states["1"])
    with (
        attach(model, "*", layout={"1": "b c h w -> b c (h w)"}),
        pytest.raises(ValueError, match=r"layer '1': layout .* does not fit"),
    ):
        model(image)


def test_layers_of_different_resolution_are_refused() -> None:
    model = nn.Sequential(nn.Identity(), nn.MaxPool2d(2))
    with attach(model, "*"), pytest.raises(ValueError, match="layers disagree on"):
        model(torch.randn(2, 3, 4, 4))


def test_positions_are_the_same_in_all_layers_and_in_the_mask() -> None:
    model, got = nn.Sequential(nn.Identity(), nn.Identity()), list[Trajectory]()
    tokens = torch.arange(2 * 50.0).reshape(2, 50, 1)
    mask = torch.arange(50)[None].expand(2, -1) < 25
    with attach(model, "*", positions=8) as probe, probe.mask(mask):
        probe.stream_to(got.append)
        model(tokens), model(tokens)
    taken = [each.sampled().states["0"][0, :, 0] for each in got]
    assert [len(each.unique()) for each in taken] == [8, 8]
    assert not torch.equal(*taken)
    assert torch.equal(taken[0], taken[0].sort().values)
    assert torch.equal(got[0].states["0"], got[0].states["1"])
    assert torch.equal(got[0].sampled().full_mask()[0], taken[0] < 25)
    assert torch.equal(got[0].rows()["0"].reshape(2, -1)[0], taken[0][taken[0] < 25])
    with attach(model, "*", positions=8) as probe:
        probe.stream_to(got.append)
        model(tokens)
    assert torch.equal(got[-1].sampled().states["0"][0, :, 0], taken[0])


def test_the_generator_decides_which_positions() -> None:
    model, tokens = nn.Sequential(nn.Identity()), torch.arange(50.0).reshape(1, 50, 1)
    taken = []
    for seed in (1, 1, 2):
        generator, got = torch.Generator().manual_seed(seed), list[Trajectory]()
        with attach(model, "*", positions=8, generator=generator) as probe:
            probe.stream_to(got.append)
            model(tokens)
        taken.append(got[0].rows()["0"])
    assert torch.equal(taken[0], taken[1])
    assert not torch.equal(taken[0], taken[2])


def test_fewer_positions_than_asked_for_are_all_taken_in_order() -> None:
    model, got, tokens = nn.Sequential(nn.Identity()), list[Trajectory](), torch.randn(2, 5, 3)
    with attach(model, "*", positions=8) as probe:
        probe.stream_to(got.append)
        model(tokens)
    assert torch.equal(got[0].states["0"], tokens)


def test_positions_of_layers_of_another_resolution_are_refused() -> None:
    model = nn.Sequential(nn.Identity(), nn.MaxPool2d(2))
    image = torch.randn(2, 3, 8, 8)
    with (
        attach(model, "*", positions=16),
        pytest.raises(ValueError, match=r"layer '1' has shape \(2, 16, 3\).*64 positions"),
    ):
        model(image)
    with attach(model, "0", positions=16) as probe:
        short = torch.ones(2, 16, dtype=torch.bool)
        with probe.mask(short), pytest.raises(ValueError, match=r"the mask has shape \(2, 16\)"):
            model(image)


def test_inputs_are_recorded_only_if_all_tensors_are_positional() -> None:
    class Adds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Identity()

        def forward(self, x: Tensor, y: object = 0) -> Tensor:
            return self.inner(x) + y  # type: ignore[no-any-return]

    model, got = Adds(), list[Trajectory]()
    with attach(model, "inner") as probe:
        probe.stream_to(got.append)
        model(X, X.double())
        model(X, y=X)
        model(X, 1)
        model(X, y=1)
    pair = (((3, 4), "float32"), ((3, 4), "float64"))
    assert [each.inputs for each in got] == [pair, (), (), pair[:1]]


@pytest.mark.parametrize(("argument", "value"), [("when", "sometimes"), ("positions", 0)])
def test_arguments_out_of_range_are_refused(argument: str, value: object) -> None:
    model = Blocks()
    with pytest.raises(ValueError, match=f"{argument}={value!r}"):
        attach(model, LAYERS, **{argument: value})  # type: ignore[arg-type]
    assert hooks_on(model) == 0


def test_a_paused_probe_has_no_hooks_hears_nothing_and_goes_on_counting_afterwards() -> None:
    model, seen = Outer(), []
    probe = attach(model, ["body.first", "body.last"]).stream_to(seen.append)
    model(X)
    on = hooks_on(model)
    probe.pause()
    probe.pause()
    assert hooks_on(model) == 0
    model(X)
    probe.resume()
    probe.resume()
    assert hooks_on(model) == on
    model(X)
    report = probe.report()
    assert (report.forwards, report.trajectories, len(seen)) == (2, 2, 2)
    assert report.interrupted == 0
    assert report.lost_hooks == ()
    probe.pause()
    probe.detach()
    probe.resume()
    assert hooks_on(model) == 0, "a detached probe stays detached"


def test_a_probe_paused_within_a_pass_counts_it_as_broken_off() -> None:
    model, seen = Outer(), []
    with attach(model, ["body.first", "body.last"]).stream_to(seen.append) as probe:
        handle = model.head.register_forward_hook(lambda *given: probe.pause())
        model(X)
        handle.remove()
        assert seen == []
        probe.resume()
        model(X)
        assert len(seen) == 1
        assert probe.report().interrupted == 1
