"""Each encoder in each peer's own format, written once per model and kept.

    python benches/peers/convert.py MODEL_DIR WORK_DIR

For the drug and the reaction encoder alike: ONNX (opset 17) and its dynamically quantized copy,
OpenVINO's format straight from PyTorch (faster than by way of ONNX), CTranslate2 in float32 and
int8. Only the encoders are converted; the head stays PyTorch in f32 (`head.py`). About 3 GB.
"""

import gc
import json
import shutil
import sys
import time
import warnings
from pathlib import Path

import torch
from card import load
from workload import SIDES

NAMES = ("input_ids", "attention_mask")


class HiddenStates(torch.nn.Module):
    """The encoder as a function of two arrays, as exporters want it."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids, attention_mask):
        return self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


def example(vocabulary):
    ids = torch.randint(5, vocabulary, (3, 17))
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0
    return ids, mask


def onnx(encoder, vocabulary, tokenizer, out):
    # Attention written out: the exporter's form of the fused operator is slower in ONNX Runtime.
    kept = encoder.config._attn_implementation
    encoder.set_attn_implementation("eager")
    torch.onnx.export(
        HiddenStates(encoder).eval(),
        example(vocabulary),
        str(out / "model.onnx"),
        input_names=list(NAMES),
        output_names=["hidden_states"],
        dynamic_axes={name: {0: "batch", 1: "tokens"} for name in (*NAMES, "hidden_states")},
        opset_version=17,
        dynamo=False,
    )
    encoder.set_attn_implementation(kept)


def onnx_int8(encoder, vocabulary, tokenizer, out):
    from onnxruntime.quantization import QuantType, quantize_dynamic

    side = out.stem.rsplit("-", 1)[1]
    quantize_dynamic(place(out.parent, "onnx", side) / "model.onnx", out / "model.onnx", weight_type=QuantType.QInt8)


def openvino(encoder, vocabulary, tokenizer, out):
    import openvino

    model = openvino.convert_model(HiddenStates(encoder).eval(), example_input=example(vocabulary))
    openvino.save_model(model, out / "model.xml", compress_to_fp16=False)


def ctranslate2(quantization):
    def convert(encoder, vocabulary, tokenizer, out):
        from ctranslate2.converters import TransformersConverter

        source = out / "source"
        encoder.save_pretrained(source)
        tokenizer.save_pretrained(source)
        # The converter asks for a field that transformers 5 no longer writes.
        config = json.loads((source / "config.json").read_text())
        (source / "config.json").write_text(json.dumps(config | {"position_embedding_type": "absolute"}))
        TransformersConverter(str(source)).convert(str(out / "model"), quantization=quantization)
        shutil.rmtree(source)

    return convert


FORMATS = {
    "onnx": onnx,
    "onnx-int8": onnx_int8,
    "openvino": openvino,
    "ctranslate2-f32": ctranslate2(None),
    "ctranslate2-int8": ctranslate2("int8"),
}


def place(work, kind, side):
    return work / f"{kind}-{side}"


def missing(work):
    return [(kind, side) for kind in FORMATS for side in SIDES if not place(work, kind, side).exists()]


def main():
    model_folder, work = map(Path, sys.argv[1:])
    warnings.filterwarnings("ignore")
    torch.set_num_threads(2)
    model, tokenizer, shape = load(model_folder)
    failed = False
    for kind, side in missing(work):
        out = place(work, kind, side)
        partial = out.with_name(out.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        started = time.perf_counter()
        try:
            with torch.no_grad():
                FORMATS[kind](getattr(model, f"{side}_encoder"), shape.vocab_size, tokenizer, partial)
            partial.rename(out)
            print(f"{out.name}: {time.perf_counter() - started:.1f} s", file=sys.stderr, flush=True)
        except Exception as error:
            failed = True
            print(f"{out.name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        gc.collect()
    sys.exit(failed)


if __name__ == "__main__":
    main()
