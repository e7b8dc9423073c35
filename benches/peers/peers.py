"""One peer in one process: loads it, then tunes it or times one pass, and writes JSON.

    python benches/peers/peers.py NAME MODEL_DIR WORKLOAD_DIR CONVERTED_DIR OUT.json --threads N (--tune | --setup JSON)

A setup is a batch size and a number of streams: one stream computes each batch with all threads,
N streams compute N batches at a time with one thread each. Timed are padding, encoders and head,
never loading, compiling or tokenizing. Called by `run.py`.
"""

import argparse
import contextlib
import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from card import load_model, load_settings, load_tokenizer, one_by_one
from convert import NAMES, place
from head import Head
from workload import SIDES, read

BATCHES = (8, 16, 32)
HEAD_BATCH = 256
TUNING_SEQUENCES = 64


class Peer:
    """Encoders in a runtime of their own. `hidden` is called by `streams` threads at a time."""

    def __init__(self, model, converted, threads, streams):
        self.streams = streams
        self.threads = threads // streams
        self.model = model
        self.head = Head(model)
        self.open(converted)

    def context(self):
        """Entered once around all batches of a thread."""
        return contextlib.nullcontext()

    def hidden(self, side, ids, mask):
        """[B, S] arrays to hidden states, a [B, S, H] tensor."""
        raise NotImplementedError

    def represent(self, side, hidden, mask):
        return self.head.represent(side, hidden, mask)

    def classify(self, drug, adr):
        return self.head.classify(drug, adr)


class Torch(Peer):
    """The model as it is, with PyTorch's fused attention; the head in the same precision."""

    dtype = torch.float32
    autocast = False

    def open(self, converted):
        self.model.to(self.dtype)

    def context(self):
        return torch.autocast("cpu", torch.bfloat16) if self.autocast else contextlib.nullcontext()

    def hidden(self, side, ids, mask):
        encoder = getattr(self.model, f"{side}_encoder")
        with torch.no_grad(), self.context():
            return encoder(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).last_hidden_state

    def represent(self, side, hidden, mask):
        with self.context():
            pooled = getattr(self.model, f"{side}_pooler")(hidden, mask)
            return getattr(self.model, f"{side}_projection")(pooled)

    def classify(self, drug, adr):
        with self.context():
            return self.model.classify(drug, adr)


class TorchBf16(Torch):
    dtype = torch.bfloat16


class TorchAutocast(Torch):
    """Fusion and classifier in f32: `nn.Bilinear` does not run under autocast."""

    autocast = True

    def classify(self, drug, adr):
        return self.model.classify(drug.float(), adr.float())


class OnnxRuntime(Peer):
    kind = "onnx"

    def open(self, converted):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        self.sessions = {
            side: onnxruntime.InferenceSession(
                place(converted, self.kind, side) / "model.onnx", options, providers=["CPUExecutionProvider"]
            )
            for side in SIDES
        }

    def hidden(self, side, ids, mask):
        return torch.from_numpy(self.sessions[side].run(None, dict(zip(NAMES, (ids, mask))))[0])


class OnnxRuntimeInt8(OnnxRuntime):
    kind = "onnx-int8"


class OpenVino(Peer):
    precision = "f32"

    def open(self, converted):
        import openvino

        core = openvino.Core()
        settings = {
            "INFERENCE_PRECISION_HINT": self.precision,
            "INFERENCE_NUM_THREADS": self.threads * self.streams,
            "NUM_STREAMS": self.streams,
        }
        self.compiled = {
            side: core.compile_model(place(converted, "openvino", side) / "model.xml", "CPU", settings)
            for side in SIDES
        }
        self.local = threading.local()

    def hidden(self, side, ids, mask):
        requests = self.local.__dict__
        if side not in requests:
            requests[side] = self.compiled[side].create_infer_request()
        # A copy: the request's own memory is overwritten by its next batch.
        return torch.from_numpy(requests[side].infer((ids, mask), share_inputs=True)[0].copy())


class OpenVinoBf16(OpenVino):
    precision = "bf16"


class CTranslate2(Peer):
    kind, compute_type = "ctranslate2-f32", "float32"

    def open(self, converted):
        import ctranslate2

        self.view = ctranslate2.StorageView.from_array
        self.encoders = {
            side: ctranslate2.Encoder(
                str(place(converted, self.kind, side) / "model"),
                device="cpu",
                compute_type=self.compute_type,
                inter_threads=self.streams,
                intra_threads=self.threads,
            )
            for side in SIDES
        }

    def hidden(self, side, ids, mask):
        ids, lengths = ids.astype(np.int32), mask.sum(1).astype(np.int32)
        found = self.encoders[side].forward_batch(self.view(ids), self.view(lengths)).last_hidden_state
        return torch.from_numpy(np.array(found))


class CTranslate2Int8(CTranslate2):
    kind, compute_type = "ctranslate2-int8", "int8"


PEERS = {
    "torch-f32": Torch,
    "torch-bf16": TorchBf16,
    "torch-bf16-autocast": TorchAutocast,
    "onnxruntime-f32": OnnxRuntime,
    "onnxruntime-int8": OnnxRuntimeInt8,
    "openvino-f32": OpenVino,
    "openvino-bf16": OpenVinoBf16,
    "ctranslate2-f32": CTranslate2,
    "ctranslate2-int8": CTranslate2Int8,
}


class Clock:
    """Wall-clock and CPU seconds of this process, all its threads included."""

    def __init__(self):
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def read(self):
        return time.perf_counter() - self.wall, time.process_time() - self.cpu


def encode(peer, workload, batches):
    """Hidden states of each batch with its attention mask, in the order of `batches`."""

    def one(batch):
        side, positions = batch
        ids, mask = workload.padded(side, positions)
        return peer.hidden(side, ids, mask), torch.from_numpy(mask)

    if peer.streams == 1:
        torch.set_num_threads(peer.threads)
        with peer.context():
            return [one(batch) for batch in batches]
    with ThreadPoolExecutor(peer.streams, initializer=torch.set_num_threads, initargs=(peer.threads,)) as pool:
        return list(pool.map(one, batches))


@torch.no_grad()
def score(peer, workload, size, threads):
    """One pass over all pairs: logits, (wall, CPU) seconds of the encoders, and of everything."""
    batches = workload.batches(size)
    clock = Clock()
    hidden = encode(peer, workload, batches)
    encoders = clock.read()
    # The head comes after all encoders, so that the spinning threads of two runtimes never meet.
    torch.set_num_threads(threads)
    out = {}
    for (side, positions), (states, mask) in zip(batches, hidden):
        found = peer.represent(side, states, mask)
        if side not in out:
            out[side] = torch.empty(len(workload.pairs), found.shape[1], dtype=found.dtype)
        out[side][positions] = found
    logits = [
        peer.classify(out["drug"][n : n + HEAD_BATCH], out["adr"][n : n + HEAD_BATCH])
        for n in range(0, len(workload.pairs), HEAD_BATCH)
    ]
    logits = torch.cat(logits).float().tolist()
    return logits, encoders, clock.read()


def warm_up(peer, workload, batches):
    encode(peer, workload, [batches[0], batches[-1]] * peer.streams)


def sample(batches, sequences, size):
    """Batches at even distances through all lengths, `sequences` sequences in all."""
    wanted = min(len(batches), max(1, sequences // size))
    return [batches[(2 * n + 1) * len(batches) // (2 * wanted)] for n in range(wanted)]


def tune(build, workload, threads):
    """Tokens a second of the encoders over a sample for every setup, best of two for the faster ones."""
    found = []
    for streams in sorted({1, threads}):
        peer = build(streams)
        trials = []
        for size in BATCHES:
            batches = workload.batches(size)
            trials.append([size, sample(batches, max(TUNING_SEQUENCES, size * streams), size), 0.0])
        warm_up(peer, workload, trials[0][1])
        for repetition in range(2):
            for trial in sorted(trials, key=lambda trial: -trial[2])[:2] if repetition else trials:
                tokens = sum(len(workload.ids[side][n]) for side, positions in trial[1] for n in positions)
                clock = Clock()
                encode(peer, workload, trial[1])
                trial[2] = max(trial[2], tokens / clock.read()[0])
        found += [{"batch": size, "streams": streams, "tokens_per_second": rate} for size, _, rate in trials]
        del peer
    return {"setups": sorted(found, key=lambda setup: -setup["tokens_per_second"])}


def card(folder, pairs):
    """The card's script: one pair at a time, padded, tokenized within the time."""
    shape = load_settings(folder)
    model, tokenizer = load_model(folder, shape), load_tokenizer(folder, shape.markers)
    one_by_one(model, tokenizer, shape, pairs[:1])
    clock = Clock()
    probabilities = torch.tensor(one_by_one(model, tokenizer, shape, pairs), dtype=torch.float64)
    return probabilities.logit().tolist(), clock.read()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=["card", *PEERS])
    for name in ("model", "workload", "converted", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--card-pairs", type=int, default=32)
    parser.add_argument("--setup", type=json.loads)
    parser.add_argument("--tune", action="store_true")
    arguments = parser.parse_args()
    threads = arguments.threads
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    workload = read(arguments.workload)

    def build(streams):
        model = load_model(arguments.model, load_settings(arguments.model))
        return PEERS[arguments.name](model, arguments.converted, threads, streams)

    if arguments.name == "card":
        logits, (wall, cpu) = card(arguments.model, workload.pairs[: arguments.card_pairs])
        result = {"logits": logits, "seconds": wall, "cpu_seconds": cpu}
    elif arguments.tune:
        result = tune(build, workload, threads)
    else:
        peer = build(arguments.setup["streams"])
        # Also the head, once over few pairs: pages touched and threads started are not the peer's speed.
        warm_up(peer, workload, workload.batches(arguments.setup["batch"]))
        score(peer, workload.first(8), 4, threads)
        logits, (encoders, _), (wall, cpu) = score(peer, workload, arguments.setup["batch"], threads)
        result = {"logits": logits, "seconds": wall, "cpu_seconds": cpu, "encoder_seconds": encoders}
    arguments.out.write_text(json.dumps(result))
    # Runtimes differ in how well they shut down; nothing is left to do.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
