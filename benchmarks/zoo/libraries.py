"""Families of the zoo from the transformers library, made small from their configs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, nn

if TYPE_CHECKING:
    from collections.abc import Callable
from benchmarks.zoo.family import EAGER, NO_FX, WAYS, Family, Inputs


def named(**shapes: tuple[int, ...]) -> Callable[[Generator, int], dict[str, Any]]:
    """Arguments by name, of these shapes behind the batch."""
    return lambda generator, batch: {
        name: torch.randn(batch, *shape, generator=generator) for name, shape in shapes.items()
    }


def text(generator: Generator, batch: int) -> dict[str, Any]:
    """Eight tokens; the last sample ends after six."""
    ids = torch.randint(3, 99, (batch, 8), generator=generator)
    mask = torch.ones_like(ids)
    mask[-1, 6:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def unmasked(generator: Generator, batch: int) -> dict[str, Any]:
    """Four tokens: a state-space model is exported step by step."""
    return {"input_ids": text(generator, batch)["input_ids"][:, :4]}


def to_text(
    given: Callable[[Generator, int], dict[str, Any]],
) -> Callable[[Generator, int], Inputs]:
    """These arguments by name, and five tokens for a decoder."""
    return lambda generator, batch: {
        **given(generator, batch),
        "decoder_input_ids": torch.randint(3, 99, (batch, 5), generator=generator),
    }


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
        model: nn.Module = made(made.config_class(**{**base, **more}))
        return model

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


PIXELS = named(pixel_values=(3, 32, 32))


WAVE = named(input_values=(320,))


SPECTRUM = to_text(named(input_features=(8, 32)))


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
