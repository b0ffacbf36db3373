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

RUN_LANGUAGE = '''"""Continue a text: python run.py TEXT [TOKENS [HEAT]]  (needs: pip install onnxruntime tokenizers)"""
import json, pathlib, sys, time, numpy as np, onnxruntime, tokenizers
here = pathlib.Path(__file__).parent
context = json.loads((here / "preprocessing.json").read_text())["context"]
tokenizer = tokenizers.Tokenizer.from_file(str(here / "tokenizer.json"))
session = onnxruntime.InferenceSession(here / "model.onnx", providers=["CPUExecutionProvider"])
text, wanted, heat = sys.argv[1], int((sys.argv[2:] or [100])[0]), float((sys.argv[3:] or [0.8])[0])
caches = session.get_inputs()[1:]
empty = {i.name: np.zeros([n if isinstance(n, int) else 0 for n in i.shape], np.float32) for i in caches}
tokens, rng, cache, fresh, began = tokenizer.encode(text).ids or [0], np.random.default_rng(0), empty, None, time.time()
for _ in range(wanted):
    if fresh is None or next(iter(cache.values())).shape[2] == context:
        # The prompt; or a full cache: its second half is read again.
        fresh, cache = tokens[-(context if fresh is None else context // 2) :], empty
    logits, *cached = session.run(None, {"input": np.array([fresh], np.int64), **cache})
    cache = dict(zip(empty, cached))
    chances = np.exp((logits[0, -1] - logits[0, -1].max()) / max(heat, 1e-6)).astype(np.float64)
    fresh = [int(rng.choice(len(chances), p=chances / chances.sum()))]
    tokens = [*tokens, *fresh]
print(tokenizer.decode(tokens))
print(f"{1000 * (time.time() - began) / max(wanted, 1):.2f} ms per token, the prompt included", file=sys.stderr)
'''
