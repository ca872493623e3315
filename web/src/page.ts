// The page: connect to the kernel immediately, draw the notebook's outputs when the HTML is
// complete, and show when the connection is lost.

import { baseUrl, kernelId, maxMessage, texts } from './config';
import { Kernel, type State } from './kernel';
import { WidgetManager } from './manager';
import { draw, type Output } from './mime';

const part = (id: string): HTMLElement => document.getElementById(id) as HTMLElement;
const json = (node: Element | null) => (node ? JSON.parse(node.textContent ?? 'null') : null);

/**
 * Show the state of the connection, or else that the last file was too large to be sent; without a
 * kernel, disable the controls and say why.
 */
function showState(state: State, reason: string, tooLarge: boolean): void {
  const states: Record<string, string> = {
    lost: texts.lost,
    ended: texts[`ended_${reason}`] ?? texts.ended,
  };
  const notice = states[state] ?? (tooLarge ? texts.too_large : undefined);
  document.documentElement.dataset.connection = state;
  part('notice').hidden = !notice;
  part('notice-text').textContent = notice ?? '';
  part('page').inert = state === 'ended';
}

/** Resolves when the HTML, which the server sends while the notebook runs, is complete. */
const complete = (): Promise<void> =>
  new Promise((resolve) => {
    if (document.readyState === 'loading') {
      document.addEventListener('DOMContentLoaded', () => resolve(), { once: true });
    } else resolve();
  });

/** Replace the JSON of each cell's outputs, all in one step, and remove the placeholder. */
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
  const kernel = new Kernel(baseUrl, kernelId, maxMessage);
  const manager = new WidgetManager(kernel);

  const loaded = complete();
  const restored = loaded.then(async () => {
    const state = json(document.getElementById('widget-state'));
    if (state) await manager.restore(state);
    else await manager.refresh();
  });
  const drawn = restored.then(() => drawOutputs(manager));

  kernel.onMessage = async (message) => {
    // The first messages need the state in the HTML: a widget that is opened after the page has
    // connected may have parts that were opened before. If the HTML has none, the kernel's own
    // messages bring it.
    await loaded;
    if (document.getElementById('widget-state')) await restored;
    await manager.handle(message);
  };
  let tooLarge = false;
  kernel.onFile = (isTooLarge) => {
    tooLarge = isTooLarge;
    showState(kernel.state, kernel.reason, tooLarge);
    // The file chooser shows it as chosen; the kernel knows that it is not.
    if (tooLarge && kernel.state === 'live') void manager.refresh();
  };
  kernel.onState = (state) => {
    showState(state, kernel.reason, tooLarge);
    if (state === 'live') void drawn.then(() => manager.refresh());
  };
  kernel.onSending = (sending) => {
    part('sending').hidden = !sending;
  };
  kernel.connect();

  addEventListener('pagehide', (event) => {
    if (!event.persisted) kernel.shutDown();
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
