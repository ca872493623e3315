// The lines below the drop zone: how far the model is, what went wrong, and a new version.

import { config, fill } from './config';
import type { FailureReason } from './messages';

const MEGABYTE = 1e6;
const TICK = 250; // milliseconds
const SETTLED = 500; // milliseconds after which the rate says something

const { texts } = config;

function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  properties: Partial<HTMLElementTagNameMap[K]> = {},
): HTMLElementTagNameMap[K] {
  return Object.assign(document.createElement(tag), properties);
}

/** A line that is read out, and its button. */
function offer(box: Element, caption: string, act: () => void) {
  const line = make('p', { role: 'status' });
  const button = make('button', { type: 'button', className: 'ic-button', hidden: true });
  button.textContent = caption;
  button.addEventListener('click', () => {
    show('');
    act();
  });
  box.append(line, button);
  function show(text: string, hasButton = text !== ''): void {
    line.textContent = text;
    button.hidden = !hasButton;
  }
  return show;
}

export function statusLines(box: Element, retry: () => void, update: () => void) {
  // Its numbers are not read out: they change all the time.
  const loading = make('label', { hidden: true });
  const words = make('span');
  const bar = make('progress', { className: 'ic-bar' });
  loading.append(words, bar);
  box.append(loading);
  const failure = offer(box, texts.retry, retry);
  const news = offer(box, texts.update_use, update);
  let now = { loaded: 0, total: 0 };
  let first: { loaded: number; at: number } | undefined;
  let timer: number | undefined;

  function draw(): void {
    const { loaded, total } = now;
    // What is there from the last visit is not loaded again.
    if (!first || (loaded === total && loading.hidden)) return;
    const passed = performance.now() - first.at;
    const rate = (loaded - first.loaded) / passed;
    const isKnown = passed > SETTLED && rate > 0 && loaded < total;
    const megabytes = (bytes: number) => (bytes / MEGABYTE).toFixed(1);
    const seconds = Math.ceil((total - loaded) / rate / 1000);
    const values = { loaded: megabytes(loaded), total: megabytes(total), seconds };
    words.textContent = isKnown ? fill(texts.progress, values) : texts.loading;
    Object.assign(bar, { max: total, value: loaded });
    loading.hidden = false;
  }

  function stop(): void {
    clearInterval(timer);
    timer = first = undefined;
    loading.hidden = true;
  }

  return {
    progress(loaded: number, total: number): void {
      now = { loaded, total };
      first ??= { loaded, at: performance.now() };
      timer ??= setInterval(draw, TICK);
    },
    ready: stop,
    failed(reason: FailureReason): void {
      stop();
      // Another try does not bring a browser what it lacks.
      failure(texts[reason], reason !== 'wasm');
    },
    newVersion: () => news(texts.update),
  };
}
