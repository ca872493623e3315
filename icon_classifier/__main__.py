"""``python -m icon_classifier`` is the command line."""

from icon_classifier.cli.main import main

main()
