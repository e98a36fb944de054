"""`benchmark`: zero-shot scores, fidelity to the teacher, cost and speed of one model.

Inputs: `model`, a folder of stage `teacher` or `distill`; optionally `reference`, the teacher's own benchmark folder,
whose embeddings are compared with (the teacher never runs again). Tasks come from `params.benchmark.tasks`.

Output folder (everything but `volatile/` is the same bytes for the same inputs):

`scores.json`, for `dvc metrics show`: `{task: {protocol: {metric: value}, "fidelity": {metric: value}}}`; `fidelity`
only with a reference, and only values that are defined. Metrics of classification: `acc1 acc5 mean_per_class_recall`
(no `acc5` below five classes); of retrieval: `text_to_image_r1 …_r5 …_r10 image_to_text_r1 …_r5 …_r10`; of fidelity:
`image_cosine text_cosine image_rank text_rank cross_rank image_cka text_cka image_cka_debiased text_cka_debiased`.
All are shares or correlations (0.42, not 42).

`results.json`:

    {"schema": 1,
     "model": {"id", "weights_sha256", "stage": "teacher"|"distill", "dim", "logit_scale", "tokenizer",
               "image": ImageSpec, "method": str|null, "seed": int|null},     # method, seed: of a distilled student
     "reference": null | {"id", "weights_sha256", "fingerprint"},
     "precision": "fp32",
     "bootstrap": {"resamples", "confidence", "seed"},
     "cost": {"parameters", "image_parameters", "text_parameters", "image_macs", "text_macs"},     # per image, per text
     "tasks": {NAME: {
        "kind": "classification"|"retrieval", "fingerprint": sha256, "images": n,
        "classnames": [...] | null, "captions": m | null,
        "protocols": {"standard"|"paper": {
            "templates": [...] | null,            # classification: with "{c}" for the class name
            "template_source": "task"|"imagenet" | null,
            "captions": "all"|"first" | null,     # retrieval
            "scores": {METRIC: {"value", "low", "high", "n", "confidence", "protocol", "precision"}}}},
        "fidelity": null | {"samples": n, "texts": m,
            "scores": {METRIC: {"value", "low", "high", "n", "confidence", "precision"}},
            "undefined": {METRIC: reason}}}}}

`outcomes/<task>.safetensors`, one row per example, for paired comparisons. For every score there is a tensor
`<protocol>.<metric>` `[images]` float32 whose mean is the score, weighted by `weights.<protocol>.<metric>` `[images]`
float64 where that tensor exists (mean per class: one over the size of the class; text to image: the image's number of
captions, a row being the share of its captions that hit). For every fidelity score `fidelity.<metric>` float32, whose
mean is the score (per-example influence values). So `intervals.paired_bootstrap(a, b, weights=...)` of two models'
tensors, resp. of `[seeds, n]` stacks of them, is their difference. Further: classification `labels` `[images]` int32
and `<protocol>.predicted` `[images, up to 5]` int32 (best first: column 0 against `labels` is the confusion matrix);
retrieval `caption_image` `[captions]` int32 (the caption's image), `<protocol>.text_to_image_rank` `[captions of the
protocol]` and `<protocol>.image_to_text_rank` `[images]` int32 (0 = first); with a reference `fidelity.images` int32,
the images compared, and `fidelity.texts` int32, the classes or captions compared.

`examples/<task>.json`, up to 24 deterministic examples (the same for every model):

    {"kind": ..., "pictures": {"<image index>": "examples/<task>/<image index>.webp"},          # at most 128 px a side
     "protocols": {PROTOCOL:
        classification: {"images": [{"image": i, "key", "label": name, "correct": bool,
                                     "predicted": [{"label": name, "score": cosine, "correct": bool} × up to 5]}]}
        retrieval: {"text_to_image": [{"caption": text, "image": i, "rank": r,
                                       "retrieved": [{"image": j, "score", "correct": bool} × up to 5]}],
                    "image_to_text": [{"image": i, "rank": r, "captions": [own captions],
                                       "retrieved": [{"caption": text, "image": j, "score", "correct": bool}
                                                     × up to 5]}]}}}

`embeddings/<task>.safetensors`, float32 L2-normalised: `image` `[images, dim]`; `class.<protocol>` `[classes, dim]` or
`text` `[captions, dim]` (all captions, in order). float32, because float16 swaps neighbours that are nearly equal.

`volatile/speed.json` (not in the manifest; absent with `benchmark.speed: false`):

    {"device": str, "threads": int, "precision": "fp32",
     "image"|"text": {"latency_ms": {"median", "p95", "runs"}, "per_second", "batch_size"}}      # latency at batch 1
"""
