"""Passages: stand-ins follow each call, and another path than the proven one is an error."""

import copy
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.systems import rows
from torchkoopman.surgery.sealed import OffThePath, sealed, unsealed
from torchkoopman.surgery.swap import swap, swap_history
from torchkoopman.undo import undo


class Six(nn.Module):
    """Six layers; how they are called is up to the subclass."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.b = nn.ModuleList(nn.Linear(4, 4) for _ in range(6))

    def forward(self, x: Tensor, path: str = "") -> Any:
        h = self.b[1](self.b[0](x))
        if path == "start again":
            self.b[1](x)
        if path == "skip the first":
            h = self.b[4](h)
        else:
            inner = self.b[2](h)
            if path == "leave":
                return self.b[5](h)
            if path == "return the inner":
                return inner
            if path == "keep the inner":
                return {"kept": [inner]}
            if path == "read the inner":
                return inner.sum()
            if path == "the first again":
                self.b[2](h)
            if path == "write":
                h.add_(1)
            h = h * 2 if path == "another state" else inner
        if path == "before":
            return self.b[5](x)
        return self.b[5](self.b[4](self.b[3](h)))


NEW = nn.Linear(4, 4)


def edited() -> Any:
    model = swap(Six(), NEW, "b.1", "b.3", "eager", rows())
    assert swap_history(model)[-1].layers == ("b.2", "b.3")
    return model


def by_hand(model: Six, x: Tensor) -> Tensor:
    out: Tensor = model.b[5](model.b[4](NEW(model.b[1](model.b[0](x)))))
    return out


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("start again", "'b.1', at which a replaced span begins, was called twice"),
        ("skip the first", "'b.3' was called when it was the turn of 'b.2'"),
        ("leave", "the call ended after 'b.2', and 'b.3' was not called"),
        ("return the inner", "the model returns the output of layer 'b.2'"),
        ("keep the inner", "the model returns the output of layer 'b.2'"),
        ("read the inner", "the output of layer 'b.2' is read by sum"),
        ("the first again", "'b.2' was called when it was the turn of 'b.3'"),
        ("another state", "'b.3' was given another state than 'b.2' returned"),
    ],
)
def test_another_path_than_the_proven_one_is_an_error_that_says_what_to_do(
    path: str, message: str
) -> None:
    model = edited()
    with pytest.raises(OffThePath, match=message) as refusal:
        model(rows(1), path)
    assert "keep_escapes=True" in str(refusal.value)
    torch.testing.assert_close(model(rows(1)), by_hand(Six(), rows(1)))  # the next call is fine


def test_a_write_into_the_start_state_behind_the_span_is_no_other_path() -> None:
    torch.testing.assert_close(edited()(rows(1), "write"), by_hand(Six(), rows(1)))


class LeavesEarly(Six):
    def forward(self, x: Tensor) -> Any:
        h = self.b[1](self.b[0](x))
        return self.b[5](h) if bool(x[0, 0] > 5) else self.b[5](self.b[3](self.b[2](h)))


def test_a_call_that_leaves_before_the_span_is_what_it_was() -> None:
    model = swap(LeavesEarly(), NEW, "b.1", "b.3", "eager", rows())
    x = rows(1)
    x[0, 0] = 6
    assert torch.equal(model(x), LeavesEarly()(x))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_follow_calls_of_their_own(copied: Callable[[Any], Any]) -> None:
    first = edited()
    second = copied(first)
    for model in (first, second):
        with pytest.raises(OffThePath):
            model(rows(1), "leave")
        torch.testing.assert_close(model(rows(1)), by_hand(Six(), rows(1)))


def test_an_error_or_an_interruption_on_the_way_leaves_nothing_behind() -> None:
    model = edited()
    for error in (ValueError, KeyboardInterrupt):
        handle = model.b[4].register_forward_pre_hook(lambda *given, error=error: raised(error))
        with pytest.raises(error):
            model(rows(1))
        handle.remove()
        torch.testing.assert_close(model(rows(1)), by_hand(Six(), rows(1)))


def raised(error: type[BaseException]) -> None:
    raise error


def test_parts_called_alone_are_not_checked() -> None:
    model = edited()
    assert torch.equal(model.b[2](rows(1)), NEW(rows(1)))
    assert torch.equal(model.b[3](rows(1)), rows(1))


def test_threads_do_not_disturb_one_another() -> None:
    model, errors = edited(), list[BaseException]()

    def work(first: int) -> None:
        try:
            for seed in range(first, first + 40):
                with torch.no_grad():
                    torch.testing.assert_close(model(rows(seed)), by_hand(model_, rows(seed)))
        except BaseException as error:
            errors.append(error)

    model_ = Six()
    threads = [threading.Thread(target=work, args=(100 * index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


class Checkpointed(Six):
    def forward(self, x: Tensor) -> Tensor:
        for layer in self.b:
            x = checkpoint(layer, x, use_reentrant=False)
        return x


class Whole(Six):
    def run(self, x: Tensor) -> Tensor:
        for layer in self.b:
            x = layer(x)
        return x

    def forward(self, x: Tensor) -> Any:
        return checkpoint(self.run, x, use_reentrant=False)


@pytest.mark.parametrize("kind", [Checkpointed, Whole])
def test_checkpointing_is_no_second_call(kind: type[Six]) -> None:
    model, x = swap(kind(), NEW, "b.1", "b.3", "eager", rows()), rows(1).requires_grad_()
    y = rows(1).requires_grad_()
    out, expected = model(x), by_hand(Six(), y)
    torch.testing.assert_close(out, expected)
    out.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(x.grad, y.grad)


@torch.no_grad()
def test_modes_transforms_and_tracers_see_an_ordinary_model() -> None:
    model, x = edited(), rows(1)
    expected = by_hand(Six(), x)
    with torch.inference_mode():
        torch.testing.assert_close(model(x), expected)
    torch.testing.assert_close(torch.func.vmap(lambda row: model(row[None])[0])(x), expected)
    called = torch.func.functional_call(model, dict(model.named_parameters()), (x,))
    torch.testing.assert_close(called, expected)
    torch.testing.assert_close(torch.export.export(model, (x,)).module()(x), expected)


class Routed(Six):
    def forward(self, x: Tensor) -> Tensor:
        h = self.b[1](self.b[0](x))
        h = self.b[2](h) if float(x[0, 0]) > -5 else self.b[4](h)
        out: Tensor = self.b[5](self.b[3](h))
        return out


@pytest.mark.filterwarnings("ignore")
@torch.no_grad()
def test_compiled_code_is_checked_too() -> None:
    torch._dynamo.reset()
    whole: Any = torch.compile(edited(), fullgraph=True, backend="eager")
    torch.testing.assert_close(whole(rows(1)), by_hand(Six(), rows(1)))
    model = swap(Routed(), NEW, "b.1", "b.3", "eager", rows())
    compiled: Any = torch.compile(model, backend="eager")
    plain = Six()
    expected = plain.b[5](NEW(plain.b[1](plain.b[0](rows(1)))))
    torch.testing.assert_close(compiled(rows(1)), expected)
    other = rows(1)
    other[0, 0] = -6
    with pytest.raises(OffThePath, match="out of turn"):
        compiled(other)
    torch.testing.assert_close(compiled(rows(1)), expected)


def test_a_sealed_state_tells_its_form_and_nothing_else() -> None:
    state = rows().requires_grad_()
    closed = sealed(state, "layer")
    assert (closed.shape, closed.dtype, closed.device) == (state.shape, state.dtype, state.device)
    assert closed.size(0) == len(closed) == 3
    assert closed.requires_grad
    assert torch.equal(unsealed(closed), state)
    for read in (torch.relu, Tensor.sum, lambda x: x + 1, lambda x: x[0], float, Tensor.tolist):
        with pytest.raises(OffThePath, match="output of layer 'layer' is read by"):
            read(closed)
    assert type(unsealed(closed)) is Tensor


@torch.no_grad()
def test_a_graph_of_a_model_with_stand_ins_is_made_and_undone() -> None:
    first = edited()
    second = swap(first, nn.Identity(), "b.3", "b.5", "export", rows())
    third = swap(first, nn.Identity(), "b.3", "b.5", "eager", rows())
    for model in (second, third):
        start = Six()
        torch.testing.assert_close(model(rows(1)), NEW(start.b[1](start.b[0](rows(1)))))
        assert torch.equal(undo(model)(rows(1)), first(rows(1)))


@torch.no_grad()
def test_tracing_takes_the_hooks_of_a_passage_for_what_they_are() -> None:
    model = swap(nn.Sequential(*Six().b), NEW, "0", "2", "eager", rows())
    graph = swap(model, nn.Identity(), "3", "5", "fx", rows())
    plain = Six()
    torch.testing.assert_close(graph(rows(1)), plain.b[3](NEW(plain.b[0](rows(1)))))
