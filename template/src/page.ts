// The page: connect to the kernel at once, draw the notebook's outputs when the HTML is complete,
// then say how the line is.

import { Kernel, type Line } from './kernel';
import { WidgetManager } from './manager';
import { draw, type Output } from './mime';

const part = (id: string): HTMLElement => document.getElementById(id) as HTMLElement;
const json = (node: Element | null) => (node ? JSON.parse(node.textContent ?? 'null') : null);

const WORDS: Partial<Record<Line, string>> = {
  lost: 'The connection is lost; trying again…',
  ended: 'This page has ended. Please reload it to go on.',
};

/** Say how the line is, and keep hands off controls that nobody answers any more. */
function tell(line: Line): void {
  document.documentElement.dataset.line = line;
  part('notice').hidden = !WORDS[line];
  part('notice-words').textContent = WORDS[line] ?? '';
  part('page').inert = line === 'ended';
}

/** Resolves when the HTML, which the server sends while the notebook runs, is complete. */
const complete = (): Promise<void> =>
  new Promise((resolve) => {
    if (document.readyState === 'loading') {
      document.addEventListener('DOMContentLoaded', () => resolve(), { once: true });
    } else resolve();
  });

/** Draw each cell's outputs in the place of their JSON, and all at once in that of the placeholder. */
async function drawOutputs(manager: WidgetManager): Promise<void> {
  const places = Array.from(document.querySelectorAll('script.outputs'));
  const drawn = await Promise.all(
    places.map((place) =>
      Promise.all(json(place).map((output: Output) => draw(output, manager))),
    ),
  );
  part('placeholder').remove();
  places.forEach((place, index) => {
    place.replaceWith(...drawn[index].map(({ node }) => node));
    for (const { attached } of drawn[index]) attached?.();
  });
}

async function start(): Promise<void> {
  const { baseUrl, kernelId } = json(part('page-config'));
  const kernel = new Kernel(baseUrl, kernelId);
  const manager = new WidgetManager(kernel);

  const restored = complete().then(async () => {
    const state = json(document.getElementById('widget-state'));
    if (state) await manager.restore(state);
    else await manager.refresh();
  });
  const drawn = restored.then(() => drawOutputs(manager));

  kernel.onMessage = async (message) => {
    // Without the state that comes with the HTML the first messages make no sense. If it did not
    // come, the kernel's own messages bring it.
    if (document.getElementById('widget-state')) await restored;
    await manager.handle(message);
  };
  kernel.onLine = (line) => {
    tell(line);
    if (line === 'live') void drawn.then(() => manager.refresh());
  };
  kernel.onSending = (sending) => {
    part('sending').hidden = !sending;
  };
  kernel.connect();

  addEventListener('pagehide', (event) => {
    if (!event.persisted) kernel.leave();
  });
  addEventListener('pageshow', (event) => {
    if (event.persisted) kernel.probe();
  });
  addEventListener('online', () => kernel.probe());
  document.addEventListener('visibilitychange', () => {
    if (document.visibilityState === 'visible') kernel.probe();
  });

  await drawn;
  document.documentElement.dataset.drawn = '';
}

part('reload').addEventListener('click', () => location.reload());
void start();
