"""What a visitor beyond the capacity sees, and that the others notice nothing."""

from pathlib import Path

from playwright.sync_api import Browser, expect

from tests.support.servers import PAGE, voila, write_page

CELL = """
import ipywidgets as widgets
button, label = widgets.Button(description="Answer"), widgets.Label()
button.on_click(lambda _: setattr(label, "value", "Answered"))
widgets.VBox([button, label])
"""
READY = 120_000


def test_refused_page_loads_by_itself_when_there_is_capacity(
    browser: Browser, tmp_path: Path
) -> None:
    write_page(tmp_path, CELL, max_visitors=1, leave_timeout=2)
    with voila(tmp_path, notebook=PAGE) as server:
        inside, outside = browser.new_context(), browser.new_context()
        first, second = inside.new_page(), outside.new_page()
        first.goto(server.url)
        expect(first.get_by_role("button", name="Answer")).to_be_visible(timeout=READY)
        answer = second.goto(server.url)
        assert answer is not None
        assert answer.status == 503
        expect(second.get_by_role("heading")).to_have_text("Just a moment")
        expect(second.get_by_text("tries again every 10 seconds")).to_be_visible()
        expect(second.get_by_role("link")).to_have_text(["Try again now"])
        first.get_by_role("button", name="Answer").click()
        expect(first.get_by_text("Answered")).to_be_visible()
        inside.close()
        expect(second.get_by_role("button", name="Answer")).to_be_visible(timeout=READY)
        outside.close()
