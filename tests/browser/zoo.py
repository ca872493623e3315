"""A notebook with every widget that the slim page supports, and one that it does not."""

from __future__ import annotations

from pathlib import Path

import nbformat

NOTEBOOK = "zoo.ipynb"

TEXT = """\
# The zoo

An *introduction* that needs no kernel.
"""

MODEL = """\
import io, os, time
import anywidget, ipywidgets as widgets, traitlets
from IPython.display import HTML, Image, display
from PIL import Image as Picture

def png(colour):
    file = io.BytesIO()
    Picture.new("RGB", (40, 30), colour).save(file, "PNG")
    return file.getvalue()
"""

CORE = """\
upload = widgets.FileUpload(description="Upload")
button = widgets.Button(description="Answer", button_style="primary")
out = widgets.Output()
label = widgets.Label("Nothing yet")
pid = widgets.Label(f"pid {os.getpid()}")

def answer(_):
    label.value = f"{sum(file.size for file in upload.value)} bytes, " + str(
        sum(sum(file.content[:100]) for file in upload.value))

button.on_click(answer)
"""

OUTPUTS = """\
def action(name):
    def decorate(function):
        made = widgets.Button(description=name)
        made.on_click(lambda _: function())
        return made
    return decorate

@action("Print")
def printing():
    with out:
        print("first line")
        display(Image(png("red")), HTML("<b id='bold'>bold</b><script>window.hurt = 1</script>"))

@action("Nest")
def nesting():
    with out:
        display(widgets.Checkbox(description="Nested"))

@action("Replace")
def replacing():
    out.clear_output(wait=True)
    with out:
        print("replaced")

@action("Fail")
def failing():
    with out:
        raise ValueError("on purpose")

@action("Slow")
def slow():
    time.sleep(1.5)
    label.value = "slow is done"

@action("Hurt")
def hurting():
    unsafe.value += (
        "<img src='data:image/png;base64,x' onerror='window.hurt = 1'>"
        "<svg onload='window.hurt = 1'></svg><style>main { display: none }</style>"
        "<math><mtext><table><mglyph><style><img src=x onerror='window.hurt = 1'>")
    label.value = "tried"

@action("Add")
def adding():
    others.children = [*others.children, widgets.Label("a new label")]
"""

ANY = '''\
class Counter(anywidget.AnyWidget):
    _esm = """
    export default {
      initialize({ model }) { window.initialized = (window.initialized ?? 0) + 1; },
      render({ model, el }) {
        const button = document.createElement("button");
        button.className = "counter";
        const show = () => { button.textContent = `count is ${model.get("count")}`; };
        button.addEventListener("click", () => {
          model.set("count", model.get("count") + 1);
          model.save_changes();
          model.send({ kind: "sum" }, null, [new Uint8Array([1, 2, 39]).buffer]);
        });
        model.on("change:count", show);
        model.on("msg:custom", (message, buffers) => {
          el.dataset.answer = `${message.sum} ${buffers[0].getUint8(0)}`;
        });
        show();
        el.append(button);
        return () => { window.cleaned = true; };
      },
    };
    """
    _css = ".counter { color: rgb(1, 2, 3) }"
    count = traitlets.Int(3).tag(sync=True)

    def __init__(self):
        super().__init__()
        self.on_msg(self.respond)

    def respond(self, _, content, buffers):
        self.send({"sum": sum(buffers[0])}, [bytes([7])])

counter = Counter()
'''

OTHERS = """\
unsafe = widgets.HTML(
    "<div id='unsafe'><p id='styled' style='color: rgb(4, 5, 6)'>styled</p>"
    "<script>window.hurt = 1</script>"
    "<svg width='9' height='9'><circle r='4' name='body'/></svg>"
    "<form action='/elsewhere'><input value='typed'></form>"
    "<a href='https://example.org/' target='_blank'>out</a>"
    "<a href='javascript:window.hurt = 1'>link</a>"
    "<a download='a.csv' href='data:text/csv;base64,YQ=='>save</a>"
    "<iframe srcdoc='<p>frame</p>'></iframe></div>")
others = widgets.VBox([
    widgets.Image(value=png("blue"), format="png"),
    widgets.FloatProgress(value=0.25, max=1, description="Progress"),
    widgets.Checkbox(description="Check"),
    widgets.ToggleButton(description="Toggle"),
    widgets.ToggleButtons(options=["one", "two"]),
    widgets.Dropdown(options=["a", "b"], description="Choice"),
    widgets.RadioButtons(options=["x", "y"]),
    widgets.Text(description="Name"),
    widgets.Valid(value=True),
    widgets.Tab([widgets.Label("in a tab"), widgets.Label("in another")], titles=("T1", "T2")),
    widgets.Accordion([widgets.Label("folded")], titles=("More",)),
    widgets.GridBox([widgets.Label("cell")]),
])
"""

PAGE = """\
widgets.VBox([
    upload, widgets.HBox([button, printing, nesting, replacing, failing, slow, hurting, adding]),
    out, label, pid, counter, unsafe, others])
"""

UNKNOWN = "widgets.IntSlider()"
"""A widget that the slim page does not support."""


def write_zoo(folder: Path) -> None:
    """Write the notebook."""
    code = [MODEL, CORE, OUTPUTS, ANY, OTHERS, PAGE, UNKNOWN]
    cells = [nbformat.v4.new_markdown_cell(TEXT), *map(nbformat.v4.new_code_cell, code)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    nbformat.write(notebook, folder / NOTEBOOK)
