"""The scripts that ship with a model: each needs onnxruntime and what makes its input, and nothing of this package."""

RUN_IMAGES = '''"""Classify pictures: python run.py PICTURE ...   (needs: pip install onnxruntime pillow)"""
import json, pathlib, sys, numpy as np, onnxruntime, PIL.Image
here = pathlib.Path(__file__).parent
p, labels = json.loads((here / "preprocessing.json").read_text()), (here / "labels.txt").read_text().splitlines()
session = onnxruntime.InferenceSession(here / "model.onnx", providers=["CPUExecutionProvider"])
for name in sys.argv[1:]:
    picture = PIL.Image.open(name).convert(p["mode"]).resize((p["width"], p["height"]), PIL.Image.Resampling.BILINEAR)
    x = np.asarray(picture, np.float32).reshape(p["height"], p["width"], -1) / np.float32(255) - np.float32(p["mean"])
    logits = session.run(None, {"input": (x / np.float32(p["std"])).transpose(2, 0, 1)[None]})[0][0]
    print(name, labels[logits.argmax()], f"{1 / np.exp(logits - logits.max()).sum():.3f}")
'''

RUN_TEXT = '''"""Classify texts: python run.py "SOME TEXT" ...   (needs: pip install onnxruntime tokenizers)"""
import json, pathlib, sys, numpy as np, onnxruntime, tokenizers
here = pathlib.Path(__file__).parent
p, labels = json.loads((here / "preprocessing.json").read_text()), (here / "labels.txt").read_text().splitlines()
tokenizer = tokenizers.Tokenizer.from_file(str(here / "tokenizer.json"))
session = onnxruntime.InferenceSession(here / "model.onnx", providers=["CPUExecutionProvider"])
for text in sys.argv[1:]:
    ids = np.full((1, p["length"]), p["pad"], np.int64)
    read = tokenizer.encode(text).ids[: p["length"]]
    ids[0, : len(read)] = read
    logits = session.run(None, {"input": ids})[0][0]
    print(repr(text), labels[logits.argmax()], f"{1 / np.exp(logits - logits.max()).sum():.3f}")
'''
