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

/** Add a line that is read out, and its button; return what shows a text and what can be done. */
function notice(box: Element, caption: string): (text: string, act?: () => void) => void {
  const line = make('p', { role: 'status' });
  const button = make('button', { type: 'button', className: 'ic-button', hidden: true });
  button.textContent = caption;
  box.append(line, button);
  const show = (text: string, act?: () => void) => {
    line.textContent = text;
    button.hidden = !act;
    button.onclick = () => {
      show('');
      act?.();
    };
  };
  return show;
}

export function statusLines(box: Element, retry: () => void) {
  // Its numbers are not read out: they change all the time.
  const loading = make('label', { hidden: true });
  const words = make('span');
  const bar = make('progress', { className: 'ic-bar' });
  loading.append(words, bar);
  box.append(loading);
  const failure = notice(box, texts.retry);
  const news = notice(box, texts.update_use);
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
      failure(texts[reason], reason === 'wasm' ? undefined : retry);
    },
    newVersion: (use: () => void) => news(texts.update, use),
  };
}
