// Draw what code printed or displayed: text, errors, images, HTML and widgets.

import { MessageLoop } from '@lumino/messaging';
import { Widget } from '@lumino/widgets';
import { texts } from './config';
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

/** An output that is drawn but not yet in the document. */
export interface Drawn {
  node: HTMLElement;
  /** To be called when the node is in the document. */
  attached?(): void;
  /** To be called before the node is removed. */
  removed?(): void;
}

const WIDGET = 'application/vnd.jupyter.widget-view+json';
const PICTURES = ['image/png', 'image/jpeg', 'image/webp', 'image/gif'];

const joined = (text: string | string[] | undefined): string =>
  Array.isArray(text) ? text.join('') : (text ?? '');

// Remove a terminal's escape sequences, which start with a control character.
// biome-ignore lint/suspicious/noControlCharactersInRegex: intended
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
  const description = joined(data['text/plain']);
  // Not the repr of an object, such as <PIL.Image.Image …>.
  image.alt = description && !description.startsWith('<') ? description : texts.picture;
  return image;
}

function failure(traceback: string): HTMLElement {
  const box = element('div', 'page-note page-error');
  box.setAttribute('role', 'alert');
  const details = element('details', '');
  details.append(element('summary', '', texts.details), element('pre', '', plain(traceback)));
  box.append(element('p', '', texts.output_failed), details);
  return box;
}

function content(data: Record<string, any>): HTMLElement {
  if ('text/html' in data) {
    const box = element('div', 'output-box');
    box.innerHTML = sanitize(joined(data['text/html']));
    return box;
  }
  if ('image/svg+xml' in data) {
    // As an image, so that no script in it runs.
    const source = encodeURIComponent(joined(data['image/svg+xml']));
    return picture(`data:image/svg+xml,${source}`, data);
  }
  const kind = PICTURES.find((mime) => mime in data);
  if (kind) return picture(`data:${kind};base64,${joined(data[kind]).trim()}`, data);
  const text = data['text/plain'] ?? data['text/markdown'] ?? data['text/latex'];
  return element('pre', 'output-text', joined(text));
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
