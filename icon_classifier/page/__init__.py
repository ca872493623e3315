"""The widgets of the page, and all its texts."""
