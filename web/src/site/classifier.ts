// The worker that classifies photos, as the page sees it.

import { config } from './config';
import type { Answer, FailureReason, FromWorker, ToWorker } from './messages';

/** The answer for a photo, or the sentence that says why there is none. */
export type Reply = Answer | string;

type Request = Extract<ToWorker, { kind: 'predict' }>;

export class Classifier {
  isReady = false;
  private worker?: Worker;
  private failure?: FailureReason;
  private count = 0;
  /** What has no answer yet, by its id; photos wait here until the model is loaded. */
  private readonly waiting = new Map<number, { request: Request; resolve(reply: Reply): void }>();

  constructor(
    private readonly on: {
      /** Bytes of the model and of what runs it. */
      progress(loaded: number, total: number): void;
      ready(): void;
      failed(reason: FailureReason): void;
    },
  ) {}

  /** Load the model, also after a failure. */
  start(): void {
    this.failure = undefined;
    this.worker = new Worker(new URL(config.worker, document.baseURI), { type: 'module' });
    this.worker.onmessage = ({ data }) => this.receive(data);
    // Without a message the script did not arrive; with one it did not run, as in a browser that
    // has no modules in workers, or ended later for lack of memory.
    this.worker.onerror = ({ message }) =>
      this.fail(message ? (this.isReady ? 'memory' : 'wasm') : 'missing');
    const { model, limits, files } = config;
    const base = new URL('.', document.baseURI).href;
    this.post({ kind: 'open', config: { model, limits, files }, base });
    for (const { request } of this.waiting.values()) this.post(request);
  }

  /** Classify a photo, or a frame of a camera, which is given away. */
  predict(source: Blob | ImageBitmap, wants: { explain: boolean; preview: boolean }): Promise<Reply> {
    if (this.failure === 'wasm') return Promise.resolve(config.texts.wasm);
    const request: Request = { kind: 'predict', id: (this.count += 1), source, ...wants };
    return new Promise((resolve) => {
      this.waiting.set(request.id, { request, resolve });
      this.post(request);
    });
  }

  private post(message: ToWorker): void {
    const isFrame = message.kind === 'predict' && message.source instanceof ImageBitmap;
    this.worker?.postMessage(message, isFrame ? [message.source as ImageBitmap] : []);
  }

  private receive(message: FromWorker): void {
    switch (message.kind) {
      case 'progress':
        return this.on.progress(message.loaded, message.total);
      case 'ready':
        this.isReady = true;
        return this.on.ready();
      case 'failed':
        return this.fail(message.reason);
      case 'answer':
        return this.resolve(message.id, message);
      case 'problem':
        return this.resolve(message.id, config.words[message.reason] ?? config.words.unexpected);
    }
  }

  private resolve(id: number, reply: Reply): void {
    this.waiting.get(id)?.resolve(reply);
    this.waiting.delete(id);
  }

  private fail(reason: FailureReason): void {
    this.worker?.terminate(); // and its memory is free again
    this.worker = undefined;
    this.failure = reason;
    // A photo may have ended the worker: only what waited for the model is worth another try.
    if (this.isReady || reason === 'wasm') {
      for (const id of [...this.waiting.keys()]) this.resolve(id, config.texts[reason]);
    }
    this.isReady = false;
    this.on.failed(reason);
  }
}
