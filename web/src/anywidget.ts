// Runs the front-end modules of anywidget: the model carries a module (`_esm`) that exports
// `initialize` and `render`, and a style sheet (`_css`). See https://anywidget.dev/en/afm/

import { DOMWidgetModel, DOMWidgetView } from '@jupyter-widgets/base';
import { texts } from './config';

type Cleanup = (() => unknown) | undefined;

interface Module {
  initialize?(props: { model: unknown; signal: AbortSignal }): unknown;
  render?(props: { model: unknown; el: HTMLElement; signal: AbortSignal }): unknown;
}

const sheets = new Map<string, CSSStyleSheet>();

/** Add or replace a style sheet; the Content-Security-Policy allows constructed ones. */
function adopt(name: string, css: string): void {
  let sheet = sheets.get(name);
  if (!sheet) {
    sheet = new CSSStyleSheet();
    sheets.set(name, sheet);
    document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
  }
  sheet.replaceSync(css);
}

async function load(source: string): Promise<Module> {
  // A module may begin with a comment: // and /* do not start a URL.
  const isUrl = /^(?:https?:\/\/|\/(?![/*]))\S*$/.test(source);
  const url = isUrl
    ? source
    : URL.createObjectURL(new Blob([source], { type: 'text/javascript' }));
  try {
    const module = await import(url);
    const widget = module.default ?? module;
    return typeof widget === 'function' ? await widget() : widget;
  } finally {
    if (!isUrl) URL.revokeObjectURL(url);
  }
}

/** What a module sees of its model; its listeners are removed by their `context`. */
function proxy(model: AnyModel, context: object) {
  return {
    get: model.get.bind(model),
    set: model.set.bind(model),
    save_changes: model.save_changes.bind(model),
    send: model.send.bind(model),
    on: (name: string, callback: Backbone.EventHandler) => void model.on(name, callback, context),
    off: (name?: string | null, callback?: Backbone.EventHandler | null) =>
      void model.off(name ?? undefined, callback ?? undefined, context),
    widget_manager: model.widget_manager,
  };
}

const asCleanup = (cleanup: unknown): Cleanup =>
  typeof cleanup === 'function' ? (cleanup as () => unknown) : undefined;

export class AnyModel extends DOMWidgetModel {
  /** The module, loaded and initialized. */
  declare loaded: Promise<Module>;
  // `declare`: an initial value would be set after the constructor has called `initialize`.
  declare private stop: (() => void) | undefined;

  initialize(attributes: any, options: any): void {
    super.initialize(attributes, options);
    const style = () => adopt(this.get('_anywidget_id') ?? this.model_id, this.get('_css') ?? '');
    this.listenTo(this, 'change:_css', style);
    this.listenTo(this, 'change:_esm', () => this.start());
    this.once('destroy', () => this.stop?.());
    style();
    this.start();
  }

  private start(): void {
    this.stop?.();
    const controller = new AbortController();
    const context = {};
    let cleanup: Cleanup;
    this.stop = () => {
      controller.abort();
      this.off(null as any, null as any, context);
      cleanup?.();
    };
    this.loaded = load(this.get('_esm')).then(async (module) => {
      const model = proxy(this, context);
      cleanup = asCleanup(await module.initialize?.({ model, signal: controller.signal }));
      return module;
    });
    // The views report it.
    this.loaded.catch(() => {});
    this.trigger('module');
  }
}

export class AnyView extends DOMWidgetView {
  private stop: () => void = () => {};

  async render(): Promise<void> {
    super.render();
    this.el.classList.add('jupyter-widgets');
    this.listenTo(this.model, 'module', () => void this.draw());
    await this.draw();
  }

  remove(): any {
    this.stop();
    return super.remove();
  }

  private async draw(): Promise<void> {
    this.stop();
    this.el.replaceChildren();
    const model = this.model as unknown as AnyModel;
    const controller = new AbortController();
    let cleanup: Cleanup;
    this.stop = () => {
      controller.abort();
      model.off(null as any, null as any, this.el);
      cleanup?.();
    };
    try {
      const module = await model.loaded;
      const props = { model: proxy(model, this.el), el: this.el, signal: controller.signal };
      cleanup = asCleanup(await module.render?.(props));
    } catch (error) {
      console.error(error);
      const note = document.createElement('p');
      note.className = 'page-note';
      note.textContent = texts.widget_failed;
      this.el.replaceChildren(note);
    }
  }
}
