"""Show the page in Jupyter's own server too, at the addresses of Voilà's extension.

The package installs icon_classifier.json, which makes Jupyter's server load this. It does nothing
unless the server runs in a folder whose voila.json asks for the slim template, as on Binder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, Template
from jupyter_server.base.handlers import path_regex
from jupyter_server.serverapp import ServerApp
from jupyter_server.utils import url_path_join
from traitlets.config import Config
from voila.configuration import VoilaConfiguration
from voila.server_extension import load_config_file
from voila.static_file_handler import MultiStaticFileHandler
from voila.tornado.treehandler import TornadoVoilaTreeHandler

from icon_classifier.server.static_files import (
    MAX_MESSAGE,
    NOTEBOOK,
    SLIM,
    NotebookHandler,
    PageConfig,
    slim_paths,
    with_delivery,
)


class JupyterNotebookHandler(NotebookHandler):
    """The page of a notebook, which ends its kernel when it is left."""

    async def get(self, path: str | None = None) -> None:
        """Serve the page with the cookie that Voilà forgets.

        Jupyter's server refuses to shut a kernel down for a page that does not send it back.
        """
        self.xsrf_token  # noqa: B018 - reading it sets the cookie
        await super().get(path)


class JupyterListHandler(TornadoVoilaTreeHandler):  # type: ignore[misc]
    """The list of the notebooks in a folder."""

    def initialize(self, templates: Environment, **kwargs: Any) -> None:
        """Set the templates; Voilà's extension has others for the whole server."""
        super().initialize(**kwargs)
        self.templates = templates

    def get_template(self, name: str) -> Template:
        """Return a template."""
        return self.templates.get_template(name)


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": __name__}]


def _load_jupyter_server_extension(server: ServerApp) -> None:
    """Add handlers; called before Voilà's extension, since Jupyter's server goes by the alphabet.

    The first handler of an address answers.
    """
    config = load_config_file() or Config()
    if config.PageKernelManager.get("template") != SLIM:
        return
    configuration = VoilaConfiguration(parent=server)
    configuration.update_config(config)
    configuration.template = SLIM
    settings = server.web_app.settings
    settings.setdefault(
        "websocket_max_message_size",
        config.Voila.get("tornado_settings", {}).get("websocket_max_message_size", MAX_MESSAGE),
    )
    configuration.page_config_hook = PageConfig(
        Path(server.root_dir),
        NOTEBOOK,
        settings["websocket_max_message_size"],
        configuration.page_config_hook,
    )
    templates, files = slim_paths()
    page = {
        "config": server.config,
        "template_paths": templates,
        "voila_configuration": configuration,
    }
    listing = {
        "templates": Environment(loader=FileSystemLoader(templates), autoescape=True),
        "voila_configuration": configuration,
    }
    handlers = [
        (r"/voila/render/(.*)", JupyterNotebookHandler, page),
        (r"/voila", JupyterListHandler, listing),
        (rf"/voila/tree{path_regex}", JupyterListHandler, listing),
        (
            r"/voila/static/((?:page|style)-\w{8}\.\w+)",
            MultiStaticFileHandler,
            {"paths": files[:1]},
        ),
    ]
    base_url = settings["base_url"]
    rules = [(url_path_join(base_url, pattern), *rest) for pattern, *rest in handlers]
    delivered = with_delivery(rules, base_url)
    server.web_app.add_handlers(".*$", delivered)  # type: ignore[no-untyped-call]
