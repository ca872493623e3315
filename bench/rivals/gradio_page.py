"""A page like ours by Gradio; :mod:`bench.rivals.pages` runs it: port, export.pkl."""

import sys

import gradio

from icon_classifier.system.torch_setup import import_fastai


def main(port: int, export: str) -> None:
    """Serve the page until the process is ended."""
    import_fastai()
    from fastai.vision.all import PILImage, load_learner

    learner = load_learner(export, cpu=True)

    def classify(photo):
        """Label an RGB array of shape (H, W, 3)."""
        with learner.no_bar(), learner.no_logging():
            _, _, probabilities = learner.predict(PILImage.create(photo))
        return dict(zip(learner.dls.vocab, map(float, probabilities), strict=True))

    gradio.Interface(
        classify,
        gradio.Image(),
        gradio.Label(),
        title="Icon Classifier",
        submit_btn="Classify Icon",
        flagging_mode="never",
    ).launch(server_port=port, quiet=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
