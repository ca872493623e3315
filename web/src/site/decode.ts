// Files of strangers become pictures: upright, RGB, on white; within the limits of images.py.

import type { WorkerConfig } from './messages';
import { isMemory, Problem } from './problem';
import type { Box, Picture } from './resize';

const MAX_BYTES = 25 * 2 ** 20;
const MAX_PIXELS = 50_000_000;
const MIN_SIDE = 8;
const MAX_SIDE = 65_535;

// A canvas of the whole photo would be larger than phones allow.
const TILE = 1024;

/** Decode a photo with the browser's own decoder. */
export async function decode(source: Blob | ImageBitmap): Promise<ImageBitmap> {
  if (source instanceof ImageBitmap) return source;
  if (source.size === 0) throw new Problem('empty');
  if (source.size > MAX_BYTES) throw new Problem('too_many_bytes');
  let bitmap: ImageBitmap;
  try {
    bitmap = await createImageBitmap(source, {
      colorSpaceConversion: 'none',
      premultiplyAlpha: 'premultiply',
    });
  } catch (error) {
    throw new Problem(isMemory(error) ? 'memory' : 'damaged');
  }
  return bitmap;
}

export function check({ width, height }: ImageBitmap): void {
  if (width * height > MAX_PIXELS) throw new Problem('too_large');
  if (Math.max(width, height) > MAX_SIDE) throw new Problem('too_large');
  if (Math.min(width, height) < MIN_SIDE) throw new Problem('too_small');
}

/** The pixels of a bitmap, on white. */
export function pictureFrom(bitmap: ImageBitmap): Picture {
  const canvas = new OffscreenCanvas(TILE, TILE);
  const context = canvas.getContext('2d', { alpha: false, willReadFrequently: true });
  if (!context) throw new Problem('memory');
  const read = ([left, top, right, bottom]: Box): Uint8Array => {
    const values = new Uint8Array((right - left) * (bottom - top) * 3);
    for (let y = top; y < bottom; y += TILE) {
      const rows = Math.min(TILE, bottom - y);
      for (let x = left; x < right; x += TILE) {
        const columns = Math.min(TILE, right - x);
        context.fillStyle = 'white';
        context.fillRect(0, 0, columns, rows);
        context.drawImage(bitmap, x, y, columns, rows, 0, 0, columns, rows);
        const { data } = context.getImageData(0, 0, columns, rows);
        for (let row = 0, from = 0; row < rows; row++) {
          let to = ((y - top + row) * (right - left) + x - left) * 3;
          for (let column = 0; column < columns; column++, from += 4) {
            values[to++] = data[from]!;
            values[to++] = data[from + 1]!;
            values[to++] = data[from + 2]!;
          }
        }
      }
    }
    return values;
  };
  return { width: bitmap.width, height: bitmap.height, channels: 3, read };
}

/** A JPEG of a bitmap, its longer side at most `side`. */
export async function shrunk(bitmap: ImageBitmap, side: number): Promise<Uint8Array> {
  const scale = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
  const width = Math.max(1, Math.round(bitmap.width * scale));
  const height = Math.max(1, Math.round(bitmap.height * scale));
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext('2d', { alpha: false });
  if (!context) throw new Problem('memory');
  context.fillStyle = 'white';
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = 'high';
  context.drawImage(bitmap, 0, 0, width, height);
  const blob = await canvas.convertToBlob({ type: 'image/jpeg', quality: 0.88 });
  return new Uint8Array(await blob.arrayBuffer());
}
