// Draw what code printed or displayed: text, errors, pictures, HTML and widgets.

import { MessageLoop } from '@lumino/messaging';
import { Widget } from '@lumino/widgets';
import type { WidgetManager } from './manager';
import { sanitize } from './sanitize';

/** An output of a notebook's cell or of an Output widget. */
export interface Output {
  output_type: 'stream' | 'display_data' | 'execute_result' | 'error';
  name?: string;
  text?: string | string[];
  data?: Record<string, any>;
  traceback?: string[];
}

/** An output that is drawn but not in the page yet. */
export interface Drawn {
  node: HTMLElement;
  /** To be called when the node is in the page. */
  attached?(): void;
  /** To be called before it leaves the page. */
  removed?(): void;
}

const WIDGET = 'application/vnd.jupyter.widget-view+json';
const PICTURES = ['image/png', 'image/jpeg', 'image/webp', 'image/gif'];
const FAILED =
  'Something went wrong on this page. Please reload it; if that does not help, tell whoever runs it.';

const joined = (text: string | string[] | undefined): string =>
  Array.isArray(text) ? text.join('') : (text ?? '');

// Colours and movements of a terminal.
// biome-ignore lint/suspicious/noControlCharactersInRegex: that is what they start with
const plain = (text: string): string => text.replace(/\x1b\[[0-9;]*[A-Za-z]/g, '');

function element<Name extends keyof HTMLElementTagNameMap>(
  name: Name,
  className: string,
  text = '',
): HTMLElementTagNameMap[Name] {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

function picture(source: string, data: Record<string, any>): HTMLElement {
  const image = element('img', 'output-image');
  image.src = source;
  const words = joined(data['text/plain']);
  // A description, unless it is only the name of an object.
  image.alt = words && !words.startsWith('<') ? words : 'Picture';
  return image;
}

function failure(traceback: string): HTMLElement {
  const box = element('div', 'page-note page-error');
  box.setAttribute('role', 'alert');
  const details = element('details', '');
  details.append(element('summary', '', 'Details'), element('pre', '', plain(traceback)));
  box.append(element('p', '', FAILED), details);
  return box;
}

function content(data: Record<string, any>): HTMLElement {
  if ('text/html' in data) {
    const box = element('div', 'output-box');
    box.innerHTML = sanitize(joined(data['text/html']));
    return box;
  }
  if ('image/svg+xml' in data) {
    // As a picture, so that nothing in it can act.
    const source = encodeURIComponent(joined(data['image/svg+xml']));
    return picture(`data:image/svg+xml,${source}`, data);
  }
  const kind = PICTURES.find((mime) => mime in data);
  if (kind) return picture(`data:${kind};base64,${joined(data[kind]).trim()}`, data);
  const words = data['text/plain'] ?? data['text/markdown'] ?? data['text/latex'];
  return element('pre', 'output-text', joined(words));
}

/** Draw an output. */
export async function draw(output: Output, manager: WidgetManager): Promise<Drawn> {
  if (output.output_type === 'stream') {
    const text = plain(joined(output.text));
    return { node: element('pre', `output-text output-${output.name}`, text) };
  }
  if (output.output_type === 'error') {
    return { node: failure(joined(output.traceback?.join('\n'))) };
  }
  const data = output.data ?? {};
  if (!(WIDGET in data)) return { node: content(data) };
  const { luminoWidget: widget } = await manager.view(data[WIDGET].model_id);
  const node = element('div', 'output-box');
  node.append(widget.node);
  return {
    node,
    attached: () => MessageLoop.sendMessage(widget, Widget.Msg.AfterAttach),
    removed: () => widget.dispose(),
  };
}
