// HEIC photos, decoded by libheif, which is loaded with the first that the browser cannot decode.

import type { Limits, WorkerConfig } from '../site/messages';
import { checkSize } from './decode';
import { load, openCache, unpacked } from './files';
import { Problem } from './problem';

// What of libheif is used; see the README of libheif-js.

/** It keeps the last file's memory until it is given another one. */
interface HeifDecoder {
  decode(data: Uint8Array): HeifImage[];
}

interface HeifImage {
  get_width(): number;
  get_height(): number;
  is_primary(): boolean;
  display(target: ImageData, callback: (result: ImageData | null) => void): void;
  free(): void;
}

type Files = WorkerConfig['files']['heif'];

export class Heif {
  private decoder?: Promise<HeifDecoder>;

  constructor(
    private readonly files: Files,
    private readonly base: string,
    private readonly limits: Limits,
  ) {}

  /** Decode a photo, upright. */
  async decode(file: Blob): Promise<ImageData> {
    const decoder = await this.open();
    const images = decoder.decode(new Uint8Array(await file.arrayBuffer()));
    const image = images.find((each) => each.is_primary());
    if (!image) throw new Problem('damaged');
    try {
      const size = { width: image.get_width(), height: image.get_height() };
      checkSize(size, this.limits);
      const target = new ImageData(size.width, size.height);
      const result = await new Promise<ImageData | null>((resolve) =>
        image.display(target, resolve),
      );
      if (!result) throw new Problem('damaged');
      return result;
    } finally {
      images.forEach((each) => each.free());
    }
  }

  private async open(): Promise<HeifDecoder> {
    this.decoder ??= this.load();
    try {
      return await this.decoder;
    } catch {
      // Without a connection, say; the next photo tries again.
      this.decoder = undefined;
      throw new Problem('heif');
    }
  }

  private async load(): Promise<HeifDecoder> {
    const script = new URL(this.files.script, this.base).href;
    const [module, data] = await Promise.all([import(script), load(this.files, this.base)]);
    // For visits without a connection: the service worker answers with what is in the cache.
    const cache = await openCache(this.base);
    if (cache && !(await cache.match(script))) await cache.add(script).catch(() => {});
    const { HeifDecoder } = module.default({ wasmBinary: await unpacked(data) });
    return new HeifDecoder();
  }
}
