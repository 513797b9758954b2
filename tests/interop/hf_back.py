#!/usr/bin/env python3
"""The files beside the weights, there and back (Hugging Face -> GGUF -> Hugging Face), read by other means than wtool's.

usage: hf_back.py WTOOL SOURCE_DIR     (Python's standard library only)

tokenizer.model is read by the description of its format (sentencepiece_model.proto), the other files as JSON, and held
against the folders of testdata/hf2gguf that everything began with.
"""
import json
import pathlib
import struct
import subprocess
import sys
import tempfile
import unittest

WTOOL = str(pathlib.Path(sys.argv[1]).resolve())
MODELS = pathlib.Path(sys.argv[2]).resolve() / "testdata" / "hf2gguf"
NORMAL, UNKNOWN, CONTROL = 1, 2, 3

# What GGUF does not keep, or keeps otherwise: of config.json, by model.
FORGOTTEN = {
    "llama3-tiny": {"eos_token_id"},  # one of a list
    "mistral-tiny": {"architectures", "model_type", "sliding_window"},  # in GGUF it is a Llama; null
    "mixtral-tiny": {"output_router_logits"},
    "qwen2-tiny": {"sliding_window", "max_window_layers"},  # which use_sliding_window says are not used
    "qwen3-tiny": set(),
    "gemma2-tiny": {"cache_implementation"},
    "gemma3-tiny": {"eos_token_id", "rope_scaling"},  # null
    "phi3-tiny": {"rope_scaling"},  # null
}


def fields(raw):
    """(number, value) of a protobuf message: integers, floats and bytes."""
    at = 0

    def varint():
        nonlocal at
        n = shift = 0
        while True:
            byte = raw[at]
            at += 1
            n |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return n

    while at < len(raw):
        tag = varint()
        if tag & 7 == 0:
            yield tag >> 3, varint()
        elif tag & 7 == 5:
            yield tag >> 3, struct.unpack_from("<f", raw, at)[0]
            at += 4
        else:
            assert tag & 7 == 2, f"wire type {tag & 7}"
            n = varint()
            assert at + n <= len(raw), "a field ends behind the message"
            yield tag >> 3, raw[at : at + n]
            at += n


def sentencepiece(path):
    pieces, trainer, normalizer = [], {}, {}
    for number, raw in fields(path.read_bytes()):
        message = dict(fields(raw))
        if number == 1:
            pieces.append((message[1].decode(), message.get(2, 0.0), message.get(3, NORMAL)))
        else:
            {2: trainer, 3: normalizer}[number].update(message)
    return pieces, trainer, normalizer


def tokens(document):
    every = dict(document["model"]["vocab"])
    every.update((t["content"], t["id"]) for t in document["added_tokens"])
    return every


def merges(document):
    return [m if isinstance(m, str) else " ".join(m) for m in document["model"]["merges"]]


class Back(unittest.TestCase):
    def folder(self, model):
        """The folder that came back, and the one it began with."""
        was = MODELS / model / "hf"
        here = tempfile.TemporaryDirectory()
        self.addCleanup(here.cleanup)
        file, back = pathlib.Path(here.name) / "x.gguf", pathlib.Path(here.name) / "back"
        subprocess.run([WTOOL, "convert", was, "-o", file], check=True, capture_output=True)
        subprocess.run([WTOOL, "convert", file, "--to", "hf", "-o", back], check=True, capture_output=True)
        return back, was

    def test_configurations(self):
        for model, forgotten in FORGOTTEN.items():
            with self.subTest(model):
                back, was = self.folder(model)
                new, old = (json.loads((f / "config.json").read_text()) for f in (back, was))
                self.assertEqual({k for k, v in old.items() if k not in new or new[k] != v}, forgotten)

    def test_byte_level_tokenizers(self):
        for model in ("llama3-tiny", "qwen2-tiny", "qwen3-tiny"):
            with self.subTest(model):
                back, was = self.folder(model)
                new, old = (json.loads((f / "tokenizer.json").read_text()) for f in (back, was))
                self.assertEqual(tokens(new), tokens(old))
                self.assertEqual(merges(new), merges(old))
                self.assertEqual(new["pre_tokenizer"], old["pre_tokenizer"])
                self.assertEqual({t["content"]: t["special"] for t in new["added_tokens"]},
                                 {t["content"]: t["special"] for t in old["added_tokens"]})
                # An added token that the vocabulary lacks gets the next id, whatever its own says.
                vocabulary = new["model"]["vocab"]
                self.assertEqual(sorted(vocabulary.values()), list(range(len(vocabulary))))
                lacking = [t["id"] for t in new["added_tokens"] if t["content"] not in vocabulary]
                self.assertEqual(lacking, list(range(len(vocabulary), len(vocabulary) + len(lacking))))

    def test_sentencepiece_models(self):
        for model in ("mistral-tiny", "mixtral-tiny", "gemma2-tiny", "gemma3-tiny", "phi3-tiny"):
            with self.subTest(model):
                back, was = self.folder(model)
                new, trainer, normalizer = sentencepiece(back / "tokenizer.model")
                old, _, old_normalizer = sentencepiece(was / "tokenizer.model")
                added = json.loads((was / "tokenizer_config.json").read_text())["added_tokens_decoder"]
                self.assertEqual([p[0] for p in new], [p[0] for p in old] +
                                 [added[str(i)]["content"] for i in range(len(old), len(new))])
                self.assertEqual([p for p in new if p[2] == NORMAL], [p for p in old if p[2] == NORMAL])
                self.assertEqual([p for p in new if p[2] == UNKNOWN], [p for p in old if p[2] == UNKNOWN])
                self.assertEqual(new[trainer[40]][2], UNKNOWN)
                self.assertEqual(new[trainer[41]][0].encode(), trainer[46])
                self.assertEqual(new[trainer[41]][2], CONTROL)
                self.assertEqual(new[trainer[42]][0].encode(), trainer[47])
                self.assertEqual(trainer[4], len(new))
                self.assertEqual({k: normalizer[k] for k in (3, 4, 5)}, {k: old_normalizer[k] for k in (3, 4, 5)})

    def test_chat_templates(self):
        for model in FORGOTTEN:
            with self.subTest(model):
                back, was = self.folder(model)
                new, old = (json.loads((f / "tokenizer_config.json").read_text()) for f in (back, was))
                jinja = was / "chat_template.jinja"
                self.assertEqual(new["chat_template"], jinja.read_text() if jinja.exists() else old["chat_template"])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
