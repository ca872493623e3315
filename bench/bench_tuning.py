"""Gentle fine-tuning of the last stage, measured: ``python -m bench.bench_tuning FOLDER``.

Compares it with the probe that it starts from, on splits of the photos of a folder. Takes minutes.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from bench import report
from bench.bench_train import clean_set
from icon_classifier.dataset.splits import split
from icon_classifier.training.features import first_maps, pooled_features, prior_of
from icon_classifier.training.learners import linear_learner
from icon_classifier.training.pretrained import load_pretrained
from icon_classifier.training.probe import Strength, fit_head
from icon_classifier.training.tuning import last_stage, tune

STRENGTH = Strength(True, 1.0)


def main(options: argparse.Namespace) -> list[list[str]]:
    """Return a line for each split."""
    with tempfile.TemporaryDirectory() as work:
        own = clean_set(options.folder, Path(work))
        photos, training = own.photos, replace(own.training, image_size=options.size)
        network = load_pretrained(training.architecture)
        body = linear_learner(photos, training, network).model[0].cpu().eval()
        prior, stages = prior_of(network, body), last_stage(body)
        if stages is None:
            raise SystemExit("this network has no last stage that can be tuned alone")
        maps = first_maps(photos.paths, stages.first, network, size=options.size, method="crop")
        features = pooled_features(photos.paths, body, network, size=options.size, method="crop")
        targets, classes = photos.targets, len(photos.vocab)
        lines = []
        for seed in range(options.splits):
            sides = split(photos.labels, photos.groups, training.valid_share, seed)
            train, valid = np.array(sides.train), np.array(sides.valid)
            probe = fit_head(features[None, train], targets[train], classes, STRENGTH, prior)
            stage, head = tune(stages.last, probe, maps[train], targets[train], seed=seed)
            with torch.inference_mode():
                some = torch.from_numpy(maps[valid]).split(32)
                parts = [stage(each).mean((2, 3)) for each in some]
            answers = probe(features[valid]), head(torch.cat(parts).numpy())
            wrong = [int((each.argmax(1) != targets[valid]).sum()) for each in answers]
            lines.append([str(each) for each in (seed, *wrong, len(valid))])
    return lines


if __name__ == "__main__":
    parser = report.parser(__doc__)
    parser.add_argument("folder", type=Path, help="a folder of photos for each class")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--size", type=int, default=224, help="of photos (pixels)")
    options = parser.parse_args()
    heads = ("split", "wrong: probe", "wrong: tuned", "photos")
    report.publish(options, report.markdown(heads, main(options)))
