// Files of strangers become upright pictures, within the limits of icon_classifier/images.py.

import { isMemory, Problem } from './problem';
import { orientationOf, upright } from './webp';

const MAX_BYTES = 25 * 2 ** 20;
const MAX_PIXELS = 50_000_000;
const MIN_SIDE = 8;
const MAX_SIDE = 65_535;

// What the formats that are read begin with.
const PICTURE = /^(\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8|BM|RIFF.{4}WEBP|.{4}ftypavi)/s;
const WEBP = /^RIFF.{4}WEBP/s;
const HEIF = /^.{4}ftyp(hei|hev|mif1|msf1)/s;
// Most browsers cannot decode it.
const TIFF = /^(II\*\0|MM\0\*)/;

/** Decodes a HEIC that the browser cannot. */
export type DecodeHeif = (file: Blob) => Promise<ImageData>;

/** Decode a photo; a frame of a camera is one already. */
export async function decode(
  source: Blob | ImageBitmap,
  decodeHeif?: DecodeHeif,
): Promise<ImageBitmap> {
  const bitmap = source instanceof ImageBitmap ? source : await decodeFile(source, decodeHeif);
  try {
    checkSize(bitmap);
  } catch (error) {
    bitmap.close();
    throw error;
  }
  return bitmap;
}

export function checkSize({ width, height }: { width: number; height: number }): void {
  if (width * height > MAX_PIXELS || Math.max(width, height) > MAX_SIDE) {
    throw new Problem('too_large');
  }
  if (Math.min(width, height) < MIN_SIDE) throw new Problem('too_small');
}

async function decodeFile(file: Blob, decodeHeif?: DecodeHeif): Promise<ImageBitmap> {
  if (file.size === 0) throw new Problem('empty');
  if (file.size > MAX_BYTES) throw new Problem('too_many_bytes');
  const start = String.fromCharCode(...new Uint8Array(await file.slice(0, 16).arrayBuffer()));
  const isHeif = HEIF.test(start);
  if (!isHeif && !PICTURE.test(start) && !TIFF.test(start)) throw new Problem('unsupported');
  try {
    if (!WEBP.test(start)) return await bitmapOf(file);
    const bitmap = await bitmapOf(file, { imageOrientation: 'none' });
    return upright(bitmap, orientationOf(await file.arrayBuffer()));
  } catch (error) {
    if (isMemory(error)) throw new Problem('memory');
    if (isHeif && decodeHeif) return bitmapOf(await decodeHeif(file));
    throw new Problem(PICTURE.test(start) ? 'damaged' : 'unsupported');
  }
}

/** Decode without a conversion of colours, as Pillow does; browsers turn a file upright. */
const bitmapOf = (source: Blob | ImageData, more?: ImageBitmapOptions): Promise<ImageBitmap> =>
  createImageBitmap(source, {
    colorSpaceConversion: 'none',
    premultiplyAlpha: 'premultiply',
    ...more,
  });
