// The large files of the site: fetched with progress, checked, and kept by the browser.

import type { SiteFile } from '../site/messages';
import { sha256 } from '../site/sha256';
import { Failure } from './problem';

/** There is none where the page did not come by HTTPS, nor in some private windows. */
export const openCache = async (base: string): Promise<Cache | undefined> =>
  globalThis.caches?.open(`icon-classifier ${base}`).catch(() => undefined);

/** Fetch a file or take it from the cache; `progress` gets the bytes that have come so far. */
export async function load(
  file: SiteFile,
  base: string,
  progress: (loaded: number) => void = () => {},
): Promise<Uint8Array<ArrayBuffer>> {
  const url = new URL(file.name, base).href;
  const cache = await openCache(base);
  const kept = await cache?.match(url);
  if (kept) {
    const data = new Uint8Array(await kept.arrayBuffer());
    if (await isWhole(data, file)) {
      progress(file.bytes);
      return data;
    }
    // Or the service worker would answer with it again.
    await cache!.delete(url);
  }
  const data = await fetched(url, cache ? 'no-store' : 'default', progress);
  if (!(await isWhole(data, file))) throw new Failure('damaged');
  // The storage may be full: then the file is fetched again the next time.
  await cache?.put(url, new Response(data)).catch(() => {});
  return data;
}

async function fetched(
  url: string,
  cache: RequestCache,
  progress: (loaded: number) => void,
): Promise<Uint8Array<ArrayBuffer>> {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let loaded = 0;
  try {
    const response = await fetch(url, { cache });
    if (!response.ok || !response.body) throw new Error(`got ${response.status} for ${url}`);
    const reader = response.body.getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      parts.push(part.value);
      progress((loaded += part.value.length));
    }
  } catch (error) {
    throw new Failure('missing', { cause: error });
  }
  return joined(parts, loaded);
}

function joined(parts: Uint8Array[], length: number): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** Unpack a gzip file. */
export async function unpacked(data: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  const stream = new Blob([data]).stream().pipeThrough(new DecompressionStream('gzip'));
  try {
    return new Uint8Array(await new Response(stream).arrayBuffer());
  } catch (error) {
    throw new Failure('damaged', { cause: error });
  }
}

/** Whether a file is as it was written; without HTTPS, browsers compute no hash. */
async function isWhole(data: Uint8Array<ArrayBuffer>, file: SiteFile): Promise<boolean> {
  if (data.length !== file.bytes) return false;
  return !isSecureContext || (await sha256(data)) === file.sha256;
}
