"""Find photos on the web, and download them."""
