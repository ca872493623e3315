// Files of strangers become upright pictures, within limits.

import type { Limits } from '../site/messages';
import { isMemory, Problem } from './problem';
import { orientationOf, upright } from './webp';

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
  limits: Limits,
  decodeHeif?: DecodeHeif,
): Promise<ImageBitmap> {
  const isFrame = source instanceof ImageBitmap;
  const bitmap = isFrame ? source : await decodeFile(source, limits, decodeHeif);
  try {
    checkSize(bitmap, limits);
  } catch (error) {
    bitmap.close();
    throw error;
  }
  return bitmap;
}

export function checkSize(size: { width: number; height: number }, limits: Limits): void {
  const { width, height } = size;
  if (width * height > limits.max_pixels || Math.max(width, height) > limits.max_side) {
    throw new Problem('too_large');
  }
  if (Math.min(width, height) < limits.min_side) throw new Problem('too_small');
}

async function decodeFile(
  file: Blob,
  limits: Limits,
  decodeHeif?: DecodeHeif,
): Promise<ImageBitmap> {
  if (file.size === 0) throw new Problem('empty');
  if (file.size > limits.max_bytes) throw new Problem('too_many_bytes');
  // What cannot be read, such as a folder, is no picture.
  const head = await file.slice(0, 16).arrayBuffer().catch(() => new ArrayBuffer(0));
  const start = String.fromCharCode(...new Uint8Array(head));
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
