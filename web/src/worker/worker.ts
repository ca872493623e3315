// The worker of the static site: it loads the model and answers photos.

import { decode, type DecodeHeif } from './decode';
import { load, unpacked } from './files';
import { Heif } from './heif';
import type { FromWorker, ToWorker, WorkerConfig } from '../site/messages';
import { Network, type Pixels } from './network';
import { seen, transformed } from './pipeline';
import { pixelsOf, readsPixels, shrunk } from './pixels';
import { Failure, isMemory, Problem } from './problem';
import { pictureOf, resize } from './resize';

// For tests.
export { pictureOf, readsPixels, resize };

const PREVIEW_SIDE = 640;
const THUMBNAIL_SIDE = 72;

type Request = Extract<ToWorker, { kind: 'predict' }>;

interface Prepared extends Pixels {
  box: [number, number, number, number];
  preview: Uint8Array | null;
  thumbnail: Uint8Array | null;
}

type Settings = Pick<WorkerConfig, 'model' | 'limits'>;

async function prepare(
  source: Blob | ImageBitmap,
  { model, limits }: Settings,
  preview: boolean,
  decodeHeif?: DecodeHeif,
): Promise<Prepared> {
  const bitmap = await decode(source, limits, decodeHeif);
  try {
    return {
      ...transformed(pixelsOf(bitmap, limits.max_whole_pixels), model, limits),
      box: seen(bitmap.width, bitmap.height, model.transforms),
      preview: preview ? await shrunk(bitmap, PREVIEW_SIDE) : null,
      thumbnail: preview ? await shrunk(bitmap, THUMBNAIL_SIDE) : null,
    };
  } finally {
    bitmap.close();
  }
}

/** Bring a photo to the pixels that a model takes, for tests and the benchmark. */
export async function transform(source: Blob | ImageBitmap, settings: Settings): Promise<Pixels> {
  const { pixels, width, height } = await prepare(source, settings, false);
  return { pixels, width, height };
}

const send = (message: FromWorker): void => globalThis.postMessage(message);

/** Loads the model, and answers photos one after another; the first waits for the model. */
class Session {
  private readonly heif: Heif;
  private readonly network: Promise<Network>;
  private queue: Promise<void> = Promise.resolve();
  private waiting = 0;

  constructor(
    private readonly config: WorkerConfig,
    private readonly base: string,
  ) {
    this.heif = new Heif(config.files.heif, base, config.limits);
    this.network = this.open();
    this.network.catch((error) => {
      console.warn(error, error.cause);
      const other = isMemory(error) ? 'memory' : 'wasm';
      send({ kind: 'failed', reason: error instanceof Failure ? error.reason : other });
    });
  }

  predict(request: Request): void {
    this.waiting++;
    this.queue = this.queue.then(() => this.answer(request)).finally(() => this.waiting--);
  }

  private async open(): Promise<Network> {
    if (!(await readsPixels())) throw new Failure('wasm');
    const { model: info, files } = this.config;
    const loaded = { runtime: 0, model: 0 };
    const total = files.runtime.bytes + files.model.bytes;
    const get = (name: 'runtime' | 'model') =>
      load(files[name], this.base, (bytes) => {
        loaded[name] = bytes;
        send({ kind: 'progress', loaded: loaded.runtime + loaded.model, total });
      });
    const [runtime, model] = await Promise.all([get('runtime'), get('model')]);
    const network = await Network.open(await unpacked(runtime), model, info);
    // The first pass takes longer: now, unless a photo waits.
    if (!this.waiting) await network.warmUp();
    send({ kind: 'ready' });
    return network;
  }

  private async answer({ id, source, explain, preview }: Request): Promise<void> {
    try {
      const photo = await prepare(source, this.config, preview, (file) => this.heif.decode(file));
      const { cells, ...prediction } = await (await this.network).predict(photo, explain);
      const heat = cells && { ...cells, box: photo.box };
      const { preview: shown, thumbnail } = photo;
      send({ kind: 'answer', id, ...prediction, heat, preview: shown, thumbnail });
    } catch (error) {
      if (error instanceof Failure) return; // it is said once, for all photos
      const other = isMemory(error) ? 'memory' : 'unexpected';
      send({ kind: 'problem', id, reason: error instanceof Problem ? error.reason : other });
      if (!(error instanceof Problem)) console.warn(error);
    }
  }
}

let session: Session;

// Tests and the benchmark import this module into a page.
if (!('document' in globalThis)) {
  globalThis.addEventListener('message', ({ data }: MessageEvent<ToWorker>) => {
    if (data.kind === 'open') session = new Session(data.config, data.base);
    else session.predict(data);
  });
}
