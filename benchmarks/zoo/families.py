"""The families of the zoo: each an architecture, a span of its layers, and what must come of it."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, nn

from benchmarks.zoo import networks
from benchmarks.zoo.networks import Blocks, Dense, ImageNet, PreActivation, repeated

if TYPE_CHECKING:
    from collections.abc import Callable

WAYS = ("fx", "export", "eager")
"""The backends of ``tk.swap``, in the order in which ``how="auto"`` tries them."""

Inputs = tuple[Any, ...] | dict[str, Any]
"""Arguments of a model, by position or by name."""


@dataclass(frozen=True)
class Family:
    """One row of the zoo."""

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[Generator, int], Inputs]
    """Generator and batch size → arguments."""
    start: str
    end: str
    refuses: str | None = None
    """Pattern of the reason for which the span cannot be replaced; None if it must be."""
    exports: bool | str = True
    """Whether the edited model becomes a ``.pt2`` program, or the pattern of why it does not."""
    ways: tuple[str, ...] = WAYS
    """The backends that can do it; ``how="auto"`` takes the first."""
    needs: str | None = None
    """The package that the family comes from."""

    @property
    def missing(self) -> bool:
        """Whether the package is not installed."""
        return self.needs is not None and importlib.util.find_spec(self.needs) is None

    def model(self) -> nn.Module:
        """Always the same weights, in eval mode; the global random state stays as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.build().eval()

    def sample(self, seed: int, batch: int = 2) -> Inputs:
        """Always the same arguments for one seed."""
        return self.inputs(Generator().manual_seed(seed), batch)

    def replaced(self) -> list[str]:
        """Layers whose parameters must be gone: items of one container after start, up to end."""
        (head, _, first), (tail, _, last) = self.start.rpartition("."), self.end.rpartition(".")
        if head == tail and first.isdigit() and last.isdigit():
            return [f"{head}.{item}".lstrip(".") for item in range(int(first) + 1, int(last) + 1)]
        return [] if "#" in self.end else [self.end]


def normal(
    *shapes: tuple[int, ...], **named: tuple[int, ...]
) -> Callable[[Generator, int], Inputs]:
    """Arguments of these shapes behind the batch; by name if there are names."""

    def inputs(generator: Generator, batch: int) -> Inputs:
        made = [
            torch.randn(batch, *shape, generator=generator) for shape in (*shapes, *named.values())
        ]
        return dict(zip(named, made, strict=True)) if named else tuple(made)

    return inputs


def text(generator: Generator, batch: int) -> dict[str, Any]:
    """Eight tokens; the last sample ends after six."""
    ids = torch.randint(3, 99, (batch, 8), generator=generator)
    mask = torch.ones_like(ids)
    mask[-1, 6:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def unmasked(generator: Generator, batch: int) -> dict[str, Any]:
    """Four tokens: a state-space model is exported step by step."""
    return {"input_ids": text(generator, batch)["input_ids"][:, :4]}


def to_text(given: Callable[[Generator, int], Inputs]) -> Callable[[Generator, int], Inputs]:
    """These arguments by name, and five tokens for a decoder."""
    return lambda generator, batch: {
        **given(generator, batch),
        "decoder_input_ids": torch.randint(3, 99, (batch, 5), generator=generator),
    }


def blocks(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """A network of four such blocks."""
    return lambda: Blocks(repeated(make))


def perceptron() -> nn.Module:
    hidden = [layer for _ in range(4) for layer in (nn.ReLU(inplace=True), nn.Linear(16, 16))]
    return nn.Sequential(nn.Linear(8, 16), *hidden)


def autoencoder() -> nn.Module:
    return nn.Sequential(Dense(8, 16), Dense(16, 4), Dense(4, 16), nn.Linear(16, 8))


def tied() -> nn.Module:
    model = Blocks()
    model.blocks[3][0].weight = model.blocks[1][0].weight
    return model


def normed() -> nn.Module:
    model = Blocks(repeated(lambda: nn.Sequential(Dense(), nn.BatchNorm1d(16))))
    for _ in range(3):  # the norms see data
        model(2 * torch.randn(32, 8) + 1)
    return model


ROWS, TWO, SEQUENCE, IMAGE = normal((8,)), normal((8,), (8,)), normal((6, 8)), normal((3, 16, 16))
SPAN = "blocks.0", "blocks.2"
CALLS = "blocks.0#0", "blocks.0#2"
GRAPHS, NO_FX, EAGER = WAYS[:2], WAYS[1:], WAYS[2:]

HANDWRITTEN = [
    Family("ResNet, downsampling", networks.resnet, IMAGE, *SPAN),
    Family("ResNet, pre-activation", lambda: ImageNet(repeated(PreActivation), 8), IMAGE, *SPAN),
    Family("U-Net, below the skip", networks.UNet, IMAGE, "deep.0", "deep.3", ways=GRAPHS),
    Family("U-Net, across the skip", networks.UNet, IMAGE, "deep.0", "up", "relu.*enters"),
    Family("DenseNet", networks.DenseNet, IMAGE, "layers.0", "layers.3", "enters(.|\n)*escapes"),
    Family("MLP, ReLU in place", perceptron, ROWS, "0", "5"),
    Family("autoencoder", autoencoder, ROWS, "0", "2"),
    Family("two inputs", networks.TwoInputs, TWO, *SPAN),
    Family("conditioned on time", networks.Conditioned, TWO, *SPAN, "sigmoid.*enters"),
    Family("many outputs", networks.ManyOutputs, ROWS, *SPAN),
    Family("dataclasses", networks.Structured, ROWS, *SPAN, ways=EAGER),
    Family("tied weights", tied, ROWS, *SPAN),
    Family("one module, four calls", lambda: Blocks([Dense()] * 4), ROWS, *CALLS, ways=GRAPHS),
    Family("sizes read from input", networks.Shapes, SEQUENCE, *SPAN),
    Family("branching on data", networks.Branching, ROWS, *SPAN, None, "data-dependent", EAGER),
    Family("hidden channel", networks.passing, ROWS, *SPAN, "escapes|something crosses"),
    Family("LSTM", lambda: networks.Recurrent(nn.LSTM), SEQUENCE, *SPAN),
    Family("GRU", lambda: networks.Recurrent(nn.GRU), SEQUENCE, *SPAN),
    Family(
        "nn.TransformerEncoder", networks.encoder, SEQUENCE, "1.layers.0", "1.layers.2", ways=NO_FX
    ),
    Family("MLP-Mixer", blocks(networks.Mixer), SEQUENCE, *SPAN),
    Family("mixture of experts", blocks(networks.Experts), ROWS, *SPAN),
    Family("gated convolutions", blocks(networks.Gated), SEQUENCE, *SPAN),
    Family("batch norm", normed, ROWS, *SPAN),
    Family("dropout", blocks(lambda: nn.Sequential(nn.Dropout(), Dense())), ROWS, *SPAN),
]
"""Networks written by hand, most of them in ``zoo/networks.py``."""


def hugging(
    name: str,
    architecture: str,
    inputs: Callable[[Generator, int], Inputs],
    layers: str,
    base: dict[str, Any],
    span: tuple[str, str] = ("0", "2"),
    refuses: str | None = None,
    **more: Any,
) -> Family:
    """A family of the transformers library, made from its config; ``span`` within ``layers``."""

    def build() -> nn.Module:
        import transformers

        made: Any = getattr(transformers, architecture)
        return made(made.config_class(**{**base, **more}))

    start, end = (f"{layers}.{item}".replace(".#", "#") for item in span)
    ways = WAYS[1:2] if "#" in start else NO_FX  # eager replaces modules, not single calls
    return Family(name, build, inputs, start, end, refuses, ways=ways, needs="transformers")


SIZES = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
TOKENS = {"vocab_size": 100, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
ENCODER = {**SIZES, **TOKENS, "intermediate_size": 48, "max_position_embeddings": 64}
DISTIL = {**TOKENS, "dim": 32, "n_layers": 4, "n_heads": 2, "hidden_dim": 48}
DEBERTA = {**ENCODER, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]}
DECODER = {**ENCODER, "num_key_value_heads": 2, "use_cache": False}
GPT = {**TOKENS, "n_embd": 32, "hidden_size": 32, "n_layer": 4, "n_head": 2, "use_cache": False}
OPT = {**DECODER, "word_embed_proj_dim": 32, "ffn_dim": 48}
T5 = {**TOKENS, "d_model": 32, "num_layers": 4, "num_heads": 2, "d_ff": 48, "use_cache": False}
HALF = {"attention_heads": 2, "ffn_dim": 48}
HALVES = {f"{half}_{key}": HALF[key] for half in ("encoder", "decoder") for key in HALF}
TWIN = {**TOKENS, **HALVES, "d_model": 32, "decoder_start_token_id": 1, "use_cache": False}
BART = {**TWIN, "encoder_layers": 4, "decoder_layers": 1}
BART_DECODER = {**TWIN, "encoder_layers": 1, "decoder_layers": 4}
WHISPER = {**BART, "num_mel_bins": 8, "max_source_positions": 16}
CONV = {"conv_dim": [16, 16], "conv_stride": [4, 4], "conv_kernel": [8, 8]}
WAV2VEC2 = {**ENCODER, **CONV, "num_feat_extract_layers": 2}
VISION = {**SIZES, "intermediate_size": 48, "image_size": 32, "patch_size": 8}
SWIN = {"image_size": 32, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 2], "window_size": 4}
STAGES = {"hidden_sizes": [8, 16, 24], "depths": [2, 2, 2], "num_stages": 3, "embedding_size": 8}
PATCHES = {"patch_sizes": [7, 3], "strides": [4, 2], "sr_ratios": [2, 1], "mlp_ratios": [2, 2]}
SEGFORMER = {**PATCHES, "hidden_sizes": [16, 32], "depths": [3, 2], "num_attention_heads": [1, 2]}

PIXELS, WAVE = normal(pixel_values=(3, 32, 32)), normal(input_values=(320,))
SPECTRUM = to_text(normal(input_features=(8, 32)))
ALBERT_LAYER = "albert.encoder.albert_layer_groups.0"

# fmt: off
TRANSFORMERS = [
    hugging("BERT", "BertForSequenceClassification", text, "bert.encoder.layer", ENCODER),
    hugging("RoBERTa", "RobertaForTokenClassification", text, "roberta.encoder.layer", ENCODER),
    hugging("DistilBERT", "DistilBertForMaskedLM", text, "distilbert.transformer.layer", DISTIL),
    hugging("ALBERT", "AlbertForMaskedLM", text, ALBERT_LAYER, ENCODER, ("#0", "#2")),
    hugging("ELECTRA", "ElectraForPreTraining", text, "electra.encoder.layer", ENCODER),
    hugging("DeBERTa-v2", "DebertaV2ForMaskedLM", text, "deberta.encoder.layer", DEBERTA),
    hugging("GPT-2", "GPT2LMHeadModel", text, "transformer.h", GPT),
    hugging("GPT-NeoX", "GPTNeoXForCausalLM", text, "gpt_neox.layers", DECODER),
    hugging("OPT", "OPTForCausalLM", text, "model.decoder.layers", OPT),
    hugging("BLOOM", "BloomForCausalLM", text, "transformer.h", GPT),
    hugging("Llama", "LlamaForCausalLM", text, "model.layers", DECODER),
    replace(hugging("Llama, with its cache", "LlamaForCausalLM", text, "model.layers", DECODER,
                    use_cache=True), ways=EAGER, exports="Cache"),
    hugging("Llama, inside a block", "LlamaForCausalLM", text, "model.layers.1", DECODER,
            ("self_attn", "mlp"), refuses="enters"),
    hugging("Mistral", "MistralForCausalLM", text, "model.layers", DECODER, sliding_window=4),
    hugging("Mixtral", "MixtralForCausalLM", text, "model.layers", DECODER, num_local_experts=4),
    hugging("Qwen3", "Qwen3ForCausalLM", text, "model.layers", DECODER, head_dim=16),
    hugging("Gemma 3", "Gemma3ForCausalLM", text, "model.layers", DECODER, head_dim=16),
    hugging("Mamba", "MambaForCausalLM", unmasked, "backbone.layers", DECODER, state_size=8),
    hugging("T5, encoder", "T5ForConditionalGeneration", to_text(text), "encoder.block", T5,
            num_decoder_layers=1),
    hugging("BART, encoder", "BartModel", to_text(text), "encoder.layers", BART),
    hugging("BART, decoder", "BartModel", to_text(text), "decoder.layers", BART_DECODER,
            refuses="enters"),
    hugging("ViT", "ViTForImageClassification", PIXELS, "vit.layers", VISION),
    hugging("Swin, across stages", "SwinForImageClassification", PIXELS, "swin.encoder.layers",
            SWIN, ("0.blocks.0", "1.blocks.0")),
    hugging("CLIP, vision tower", "CLIPVisionModel", PIXELS, "encoder.layers", VISION),
    hugging("Whisper, encoder", "WhisperModel", SPECTRUM, "encoder.layers", WHISPER),
    hugging("Wav2Vec2", "Wav2Vec2ForCTC", WAVE, "wav2vec2.encoder.layers", WAV2VEC2),
    hugging("ResNet of transformers", "ResNetForImageClassification", PIXELS,
            "resnet.encoder.stages", STAGES, ("0", "1"), layer_type="basic"),
    hugging("ConvNeXt", "ConvNextForImageClassification", PIXELS, "convnext.encoder.stages", STAGES,
            ("0", "1")),
    hugging("SegFormer", "SegformerForSemanticSegmentation", PIXELS, "segformer.stages.0.blocks",
            SEGFORMER, num_encoder_blocks=2, decoder_hidden_size=16),
]
# fmt: on
"""Networks of the transformers library, small and with random weights."""

FAMILIES = [*HANDWRITTEN, *TRANSFORMERS]
