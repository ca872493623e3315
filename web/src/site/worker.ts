// The worker of the static site: it loads the model and answers photos.

import { check, decode, pictureFrom, shrunk } from './decode';
import { load, unpacked } from './files';
import type { Answer, FromWorker, ModelInfo, ToWorker, WorkerConfig } from './messages';
import { Network, type Pixels } from './network';
import { seen, transformed } from './pipeline';
import { Failure, isMemory, Problem } from './problem';

export { pictureOf, resize } from './resize';

const PREVIEW_SIDE = 640;
const THUMBNAIL_SIDE = 72;

interface Prepared extends Pixels {
  box: [number, number, number, number];
  preview: Uint8Array | null;
  thumbnail: Uint8Array | null;
}

async function prepare(
  source: Blob | ImageBitmap,
  info: ModelInfo,
  preview: boolean,
): Promise<Prepared> {
  const bitmap = await decode(source);
  try {
    check(bitmap);
    return {
      ...transformed(pictureFrom(bitmap), info),
      box: seen(bitmap.width, bitmap.height, info.transforms),
      preview: preview ? await shrunk(bitmap, PREVIEW_SIDE) : null,
      thumbnail: preview ? await shrunk(bitmap, THUMBNAIL_SIDE) : null,
    };
  } finally {
    bitmap.close();
  }
}

/** Bring a photo to the pixels that a model takes, for tests and the benchmark. */
export async function transform(source: Blob | ImageBitmap, info: ModelInfo): Promise<Pixels> {
  const { pixels, width, height } = await prepare(source, info, false);
  return { pixels, width, height };
}

const send = (message: FromWorker): void => globalThis.postMessage(message);

let config: WorkerConfig;
let opened: (network: Network) => void;
const network = new Promise<Network>((resolve) => (opened = resolve));
let queue = Promise.resolve();

async function open(base: string): Promise<void> {
  const start = performance.now();
  const { runtime, model } = config.files;
  const total = runtime.bytes + model.bytes;
  const loaded = new Map<string, number>();
  const progress = (name: string) => (bytes: number) => {
    loaded.set(name, bytes);
    send({ kind: 'progress', loaded: [...loaded.values()].reduce((a, b) => a + b), total });
  };
  try {
    const [wasm, onnx] = await Promise.all(
      [runtime, model].map((file) => load(file, base, progress(file.name))),
    );
    opened(await Network.open(await unpacked(wasm!), onnx!, config.model));
    send({ kind: 'ready', milliseconds: performance.now() - start });
  } catch (error) {
    console.warn(error);
    const reason = isMemory(error) ? 'memory' : 'wasm';
    send({ kind: 'failed', reason: error instanceof Failure ? error.reason : reason });
  }
}

async function answer(request: ToWorker & { kind: 'predict' }): Promise<void> {
  const { id, source, explain, preview } = request;
  try {
    const photo = await prepare(source, config.model, preview);
    const { cells, ...rest } = await (await network).predict(photo, explain);
    const heat = cells && { ...cells, box: photo.box };
    const { preview: shown, thumbnail } = photo;
    send({ kind: 'answer', id, ...rest, heat, preview: shown, thumbnail } satisfies Answer);
  } catch (error) {
    const reason = isMemory(error) ? 'memory' : 'unexpected';
    send({ kind: 'problem', id, reason: error instanceof Problem ? error.reason : reason });
  }
}

function receive({ data }: MessageEvent<ToWorker>): void {
  if (data.kind === 'open') {
    config = data.config;
    void open(data.base);
  } else {
    queue = queue.then(() => answer(data));
  }
}

// Tests and the benchmark import this module into a page.
if (!('document' in globalThis)) globalThis.addEventListener('message', receive);
