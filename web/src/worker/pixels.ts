// What is read from the browser's pictures: pixels, and small copies.

import { Problem } from './problem';
import type { Box, Picture } from './resize';

// A canvas of the whole photo would be larger than phones allow.
const TILE = 1024;
const JPEG = { type: 'image/jpeg', quality: 0.88 };

/** Draw on white, as images.py does with transparent pictures. */
function drawing(width: number, height: number) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext('2d', { alpha: false, willReadFrequently: true });
  if (!context) throw new Problem('memory');
  context.fillStyle = 'white';
  context.imageSmoothingQuality = 'high';
  return { canvas, context };
}

/** The pixels of a bitmap, RGB; width and height are halved where there are more than `most`. */
export function pixelsOf(bitmap: ImageBitmap, most = Infinity): Picture {
  const { width, height } = bitmap;
  const { context } = drawing(TILE, TILE);

  function readTile(x: number, y: number, columns: number, rows: number): Uint8ClampedArray {
    context.fillRect(0, 0, columns, rows);
    context.drawImage(bitmap, x, y, columns, rows, 0, 0, columns, rows);
    return context.getImageData(0, 0, columns, rows).data;
  }

  function read([left, top, right, bottom]: Box): Uint8Array {
    const values = new Uint8Array((right - left) * (bottom - top) * 3);
    for (let y = top; y < bottom; y += TILE) {
      for (let x = left; x < right; x += TILE) {
        const columns = Math.min(TILE, right - x);
        const rows = Math.min(TILE, bottom - y);
        const tile = readTile(x, y, columns, rows);
        for (let row = 0, from = 0; row < rows; row++) {
          let to = ((y + row - top) * (right - left) + x - left) * 3;
          // RGBA -> RGB
          for (const end = to + columns * 3; to < end; to += 3, from += 4) {
            values[to] = tile[from]!;
            values[to + 1] = tile[from + 1]!;
            values[to + 2] = tile[from + 2]!;
          }
        }
      }
    }
    return values;
  }

  const picture = { width, height, channels: 3, read };
  return width * height > most ? halved(picture) : picture;
}

/** Whether pixels are read as they are: some browsers return noise, to hide which device it is. */
export async function readsPixels(): Promise<boolean> {
  const side = 16;
  const values = Uint8ClampedArray.from({ length: side * side * 4 }, (_, i) =>
    i % 4 === 3 ? 255 : (i * 37) % 256,
  );
  const bitmap = await createImageBitmap(new ImageData(values, side, side));
  const read = pixelsOf(bitmap).read([0, 0, side, side]);
  bitmap.close();
  // A few changed bits would not change an answer.
  const differences = read.map((value, i) => Math.abs(value - values[i + Math.floor(i / 3)]!));
  return differences.reduce((sum, each) => sum + each, 0) <= read.length;
}

/** Pillow's `reduce(2)`: the rounded mean of each two by two pixels. */
function halved(picture: Picture): Picture {
  const { channels } = picture;
  const width = Math.ceil(picture.width / 2);
  const height = Math.ceil(picture.height / 2);

  function read([left, top, right, bottom]: Box): Uint8Array {
    const end = { x: Math.min(right * 2, picture.width), y: Math.min(bottom * 2, picture.height) };
    const source = picture.read([left * 2, top * 2, end.x, end.y]);
    const columns = end.x - left * 2;
    const rows = end.y - top * 2;
    const values = new Uint8Array((right - left) * (bottom - top) * channels);
    for (let y = 0, to = 0; y < rows; y += 2) {
      // The last of an odd number counts twice, which leaves the mean as it is.
      const below = y + 1 < rows ? columns * channels : 0;
      for (let x = 0; x < columns; x += 2) {
        const beside = x + 1 < columns ? channels : 0;
        for (let at = (y * columns + x) * channels, i = 0; i < channels; i++, at++) {
          const across = source[at]! + source[at + beside]!;
          values[to++] =
            (across + source[at + below]! + source[at + below + beside]! + 2) >> 2;
        }
      }
    }
    return values;
  }

  return { width, height, channels, read };
}

/** A JPEG of a bitmap, its longer side at most `side`. */
export async function shrunk(bitmap: ImageBitmap, side: number): Promise<Uint8Array> {
  const scale = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
  const width = Math.max(1, Math.round(bitmap.width * scale));
  const height = Math.max(1, Math.round(bitmap.height * scale));
  const { canvas, context } = drawing(width, height);
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  const file = await canvas.convertToBlob(JPEG);
  return new Uint8Array(await file.arrayBuffer());
}
