"""What a stranger can make the page keep, without its script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from icon_classifier.server.visitor import Visit
from tests.support.models import write_model
from tests.support.pictures import encode
from tests.support.servers import project_copy, voila


async def say(visit: Visit, **content: Any) -> None:
    data = {"method": "custom", "content": content}
    widget = next(key for key, state in visit.widgets.items() if "heat" in state)
    await visit.send("comm_msg", {"comm_id": widget, "data": data})


async def shown(visit: Visit) -> str:
    """Return the name of the photo that is shown."""
    await visit.load_widgets()
    states = [state for state in visit.widgets.values() if "heat" in state]
    return str(states[0]["feedback"].get("photo"))


def photos(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.jpg"))


async def test_forged_answers_keep_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    write_model(project_copy(folder))
    feedback = tmp_path / "feedback"
    limit = "--PageKernelManager.feedback_max_bytes=1500"
    with voila(folder, f"--VisitorKernelManager.feedback_folder={feedback}", limit) as server:
        async with await Visit.open(server.url) as visit:
            await visit.classify(encode(Image.new("RGB", (64, 64), "red")))
            name = await shown(visit)
            for forged in (
                {"photo": "../../x", "index": 0},
                {"photo": name, "index": 4},
                {"photo": name, "index": -1},
                {"photo": name, "index": "../../red"},
                {"photo": name},
            ):
                await say(visit, kind="keep", **forged)
            assert await shown(visit) == name
            assert not feedback.exists()
            await say(visit, kind="keep", photo=name, index=0)
            assert await shown(visit) == name
            assert photos(tmp_path) == [f"feedback/red/{name}.jpg"]
            await visit.classify(encode(Image.effect_noise((640, 640), 90).convert("RGB")))
            await say(visit, kind="keep", photo=name, index=1)
            other = await shown(visit)
            await say(visit, kind="keep", photo=other, index=1)
            assert await shown(visit) == other
            assert photos(tmp_path) == [f"feedback/red/{name}.jpg"], "the other one is too large"
            await visit.leave()
    assert not [path for path in feedback.rglob("*") if path.suffix == ".tmp"]
    assert [path.name for path in feedback.iterdir()] == ["red"]
