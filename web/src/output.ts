// The Output widget: it captures what the kernel prints and displays for the request `msg_id`.

import { DOMWidgetView } from '@jupyter-widgets/base';
import { OutputModel as BaseModel } from '@jupyter-widgets/output';
import type { WidgetManager } from './manager';
import { draw, type Drawn, type Output } from './mime';
import type { Message } from './protocol';

export class OutputModel extends BaseModel {
  // Whether the next output replaces everything that is shown.
  private clearing = false;
  // The kernel's own outputs, as last received: it does not know what was captured here.
  // Without a value here, which would be set after `initialize`.
  declare private known: string;

  defaults(): Backbone.ObjectHash {
    return { ...super.defaults(), msg_id: '', outputs: [] };
  }

  initialize(attributes: any, options: any): void {
    super.initialize(attributes, options);
    this.known = JSON.stringify(this.get('outputs'));
    this.listenTo(this, 'change:msg_id', this.captureOutputs);
    this.captureOutputs();
  }

  /** Set what the kernel sends; outputs that it sends again, after a reconnection, replace none. */
  set_state({ outputs, ...state }: Record<string, unknown>): void {
    const received = JSON.stringify(outputs) ?? this.known;
    super.set_state(received === this.known ? state : { ...state, outputs });
    this.known = received;
  }

  private captureOutputs(): void {
    const { hooks } = this.widget_manager as unknown as WidgetManager;
    const before = this.previous('msg_id');
    if (before) hooks.delete(before);
    const now = this.get('msg_id');
    if (now) hooks.set(now, (message) => this.take(message));
  }

  private take({ header: { msg_type: type }, content }: Message): void {
    switch (type) {
      case 'clear_output':
        this.clearing = content.wait;
        if (!content.wait) this.set('outputs', []);
        break;
      case 'stream':
      case 'display_data':
      case 'execute_result':
      case 'error':
        this.add({ ...content, output_type: type });
        break;
    }
  }

  private add(output: Output): void {
    const outputs: Output[] = this.clearing ? [] : [...this.get('outputs')];
    this.clearing = false;
    const last = outputs.at(-1);
    if (output.output_type === 'stream' && last?.output_type === 'stream' && last.name === output.name) {
      outputs[outputs.length - 1] = { ...last, text: `${last.text}${output.text}` };
    } else outputs.push(output);
    this.set('outputs', outputs);
  }
}

export class OutputView extends DOMWidgetView {
  private shown: (Drawn & { output: Output })[] = [];
  private drawing: Promise<void> = Promise.resolve();

  render(): void {
    super.render();
    this.el.classList.add('jupyter-widgets', 'widget-output', 'jupyter-widget-output');
    this.listenTo(this.model, 'change:outputs', this.redraw);
    this.redraw();
  }

  private redraw(): void {
    this.drawing = this.drawing.then(() => this.drawAll()).catch((error) => console.error(error));
  }

  private async drawAll(): Promise<void> {
    const manager = this.model.widget_manager as unknown as WidgetManager;
    const outputs: Output[] = this.model.get('outputs');
    const kept = outputs.findIndex((output, index) => this.shown[index]?.output !== output);
    const start = kept < 0 ? outputs.length : kept;
    // New outputs are drawn before old ones are removed, so that nothing flickers.
    const fresh = await Promise.all(
      outputs.slice(start).map(async (output) => ({ output, ...(await draw(output, manager)) })),
    );
    for (const { node, removed } of this.shown.splice(start)) {
      removed?.();
      node.remove();
    }
    this.shown.push(...fresh);
    this.el.append(...fresh.map(({ node }) => node));
    for (const { attached } of fresh) attached?.();
  }
}
